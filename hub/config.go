package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
)

// Registry is where sessions are written down. The hub calls it from several goroutines, with many sessions a call. After
// an error the hub calls again with the same content; a call may therefore find its work already done.
type Registry interface {
	// ConnectClients gives each session an epoch that rises with every session of its client. A client that does not exist
	// is absent from the answer. A call never holds one client twice.
	ConnectClients(ctx context.Context, sessions []release.ClientSession) (map[string]int64, error)
	// DisconnectClients ends sessions. An end whose epoch is not the client's latest changes nothing.
	DisconnectClients(ctx context.Context, ends []release.ClientEnd) error
	// TouchClients notes when clients were last heard of.
	TouchClients(ctx context.Context, nodeID string, clientIDs []string, at time.Time) error
	// ReleaseNode ends all sessions that an earlier run of this node left behind. It is called once, before any other.
	ReleaseNode(ctx context.Context, nodeID string, at time.Time) error
	// CertificateValid says whether a certificate is known and not revoked.
	CertificateValid(ctx context.Context, clientID, serial string) (bool, error)
}

// Sink stores what agents report. Each method is called by one goroutine at a time; both may run at once. Returning without
// an error means committed: the hub then acknowledges to the agents. After an error the hub tries again.
type Sink interface {
	RecordResults(ctx context.Context, results []release.StepResult) ([]release.Step, error)
	// AppendLogs answers, for each step it saw, up to which position it holds the log without a gap.
	AppendLogs(ctx context.Context, records []release.LogRecord) ([]release.LogAck, error)
}

// Enroller decides who may join. RedeemJoinToken answers with the sentinels of package auth, wrapped or not.
type Enroller interface {
	RedeemJoinToken(ctx context.Context, r auth.Redemption) error
	RecordCertificate(ctx context.Context, clientID, serial string, notAfter time.Time, publicKeyHash string) error
}

// Config is what a hub is made from.
type Config struct {
	Addr   string // UDP address to listen on. Defaults to ":8474".
	NodeID string // names this hub in the Registry and to agents. Required.

	CA          *pki.CA         // issues and verifies agents' certificates. Required.
	Certificate tls.Certificate // of the hub. Defaults to one issued by CA for Hosts, and reissued at half its life.
	Hosts       []string        // further names and addresses of the default Certificate. Defaults to none.
	ServerCAs   [][]byte        // DER of the CAs that agents shall verify the hub with. Defaults to CA's certificate.

	Registry Registry // Required.
	Sink     Sink     // Required.
	Enroller Enroller // Defaults to nil: no one can join or renew here.

	MaxClients             int           // sessions at a time. Defaults to 10,000.
	HelloTimeout           time.Duration // from a connection to its Hello. Defaults to 10 s.
	HeartbeatInterval      time.Duration // that agents are told. Defaults to 15 s.
	HeartbeatTimeout       time.Duration // a heartbeat older than this is a strike. Defaults to 45 s.
	HeartbeatCheckInterval time.Duration // between two checks. Defaults to 5 s.
	MaxTimeoutCount        int           // strikes in a row that end a session. Defaults to 3.
	OfflineGrace           time.Duration // how long a lost session counts as reconnecting. Defaults to 90 s.
	DrainTimeout           time.Duration // how long agents may take to leave in Stop. Defaults to 3 s.

	MaxPromises          int           // requests awaiting an answer. Defaults to 50,000.
	PromiseWarnThreshold int           // so many of them are logged as a warning. Defaults to 4/5 of MaxPromises.
	DefaultTimeout       time.Duration // of a Request whose context has no deadline. Defaults to 30 s.

	LogBuffer int64 // bytes of logs on their way to the Sink; above it agents are not read from. Defaults to 256 MiB.

	// QUIC tunes the transport: idle timeout, windows, streams. Defaults to quic-go's values, and an idle timeout of 60 s.
	// The idle timeout is raised where it would end a session before MaxTimeoutCount strikes do. The number of unidirectional
	// streams is lowered to what the connection's window holds, as log streams that are not read must not block the control
	// stream.
	QUIC *quic.Config

	OnStored func(taskID string) // called after results or logs of a task were committed; must not block. Defaults to nil.
	Hooks    Hooks               // Defaults to none.
	Metrics  *Metrics            // Defaults to metrics that no one sees.
	Logger   *slog.Logger        // Defaults to slog.Default().
	Now      func() time.Time    // Defaults to time.Now.
}

// What quic-go uses where the configuration leaves it open.
const (
	defaultMaxUniStreams       = 100
	defaultMaxStreamWindow     = 6 << 20
	defaultMaxConnectionWindow = 15 << 20
)

// initialPacketSize is the least that QUIC allows, in bytes of UDP payload: it passes where IP packets of 1280 bytes do,
// which quic-go's own default does not. Larger packets follow once the path is known to take them.
const initialPacketSize = 1200

func (c Config) validate() (Config, error) {
	switch {
	case c.NodeID == "":
		return c, errors.New("hub: NodeID is required")
	case c.CA == nil:
		return c, errors.New("hub: CA is required")
	case c.Registry == nil:
		return c, errors.New("hub: Registry is required")
	case c.Sink == nil:
		return c, errors.New("hub: Sink is required")
	}
	setDefault(&c.Addr, ":8474")
	setDefault(&c.MaxClients, 10_000)
	setDefault(&c.HelloTimeout, 10*time.Second)
	setDefault(&c.HeartbeatInterval, 15*time.Second)
	setDefault(&c.HeartbeatTimeout, 45*time.Second)
	setDefault(&c.HeartbeatCheckInterval, 5*time.Second)
	setDefault(&c.MaxTimeoutCount, 3)
	setDefault(&c.OfflineGrace, 90*time.Second)
	setDefault(&c.DrainTimeout, 3*time.Second)
	setDefault(&c.MaxPromises, 50_000)
	setDefault(&c.PromiseWarnThreshold, c.MaxPromises/5*4)
	setDefault(&c.DefaultTimeout, 30*time.Second)
	setDefault(&c.LogBuffer, 256<<20)
	setDefault(&c.Logger, slog.Default())
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.ServerCAs == nil {
		c.ServerCAs = [][]byte{c.CA.Certificate().Raw}
	}
	for name, d := range map[string]time.Duration{
		"HelloTimeout": c.HelloTimeout, "HeartbeatInterval": c.HeartbeatInterval, "HeartbeatTimeout": c.HeartbeatTimeout,
		"HeartbeatCheckInterval": c.HeartbeatCheckInterval, "OfflineGrace": c.OfflineGrace, "DrainTimeout": c.DrainTimeout,
		"DefaultTimeout": c.DefaultTimeout,
	} {
		if d < 0 {
			return c, fmt.Errorf("hub: %s is negative", name)
		}
	}
	for name, n := range map[string]int{
		"MaxClients": c.MaxClients, "MaxTimeoutCount": c.MaxTimeoutCount, "MaxPromises": c.MaxPromises,
		"PromiseWarnThreshold": c.PromiseWarnThreshold, "LogBuffer": int(c.LogBuffer),
	} {
		if n < 0 {
			return c, fmt.Errorf("hub: %s is negative", name)
		}
	}
	if c.HeartbeatTimeout <= c.HeartbeatInterval {
		return c, fmt.Errorf("hub: HeartbeatTimeout (%s) must be longer than HeartbeatInterval (%s)", c.HeartbeatTimeout, c.HeartbeatInterval)
	}
	var err error
	if c.Metrics == nil {
		if c.Metrics, err = NewMetrics(nil); err != nil {
			return c, err
		}
	}
	c.QUIC, err = c.transport()
	return c, err
}

// transport fills a copy of the transport's configuration.
func (c Config) transport() (*quic.Config, error) {
	q := &quic.Config{}
	if c.QUIC != nil {
		q = c.QUIC.Clone()
	}
	setDefault(&q.MaxIdleTimeout, time.Minute)
	setDefault(&q.InitialPacketSize, initialPacketSize)
	setDefault(&q.MaxStreamReceiveWindow, defaultMaxStreamWindow)
	setDefault(&q.MaxConnectionReceiveWindow, defaultMaxConnectionWindow)
	if q.MaxStreamReceiveWindow >= q.MaxConnectionReceiveWindow {
		return nil, fmt.Errorf("hub: the stream receive window (%d) must be smaller than the connection's (%d), or one log stream could block the control stream",
			q.MaxStreamReceiveWindow, q.MaxConnectionReceiveWindow)
	}
	// One check more than the strikes need: the first one may come just before the timeout.
	strikesTake := c.HeartbeatTimeout + time.Duration(c.MaxTimeoutCount+1)*c.HeartbeatCheckInterval
	q.MaxIdleTimeout = max(q.MaxIdleTimeout, strikesTake)
	setDefault(&q.MaxIncomingUniStreams, defaultMaxUniStreams)
	q.MaxIncomingUniStreams = min(q.MaxIncomingUniStreams, int64((q.MaxConnectionReceiveWindow-1)/q.MaxStreamReceiveWindow))
	q.Allow0RTT = false // a replayed Hello must not open a session
	return q, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
