package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
)

// Registry is where sessions are written down. The hub calls it from several goroutines, with many sessions a call. After
// an error the hub calls again with the same content; a call may therefore find its work already done.
type Registry interface {
	// ConnectClients gives each session an epoch that rises with every session of its client, and says whether it wants the
	// agent's facts. A client that does not exist is absent from the answer. One whose certificate is not known or was revoked
	// is answered so, and begins no session. A call never holds one client twice.
	ConnectClients(ctx context.Context, sessions []release.ClientSession) (map[string]release.ClientEntry, error)
	// StoreFacts keeps what agents say of their hosts, in place of what they said before. Clients that do not exist are
	// passed over. A call never holds one client twice.
	StoreFacts(ctx context.Context, facts []release.ClientFacts) error
	// DisconnectClients ends sessions. An end whose epoch is not the client's latest changes nothing.
	DisconnectClients(ctx context.Context, ends []release.ClientEnd) error
	// TouchNode notes that the sessions of this node are alive, once per heartbeat interval. One that has fallen silent is ended
	// by DisconnectClients, which says when it was last heard of.
	TouchNode(ctx context.Context, nodeID string, at time.Time) error
	// ReleaseNode ends all sessions that an earlier run of this node left behind. It is called once, before any other.
	ReleaseNode(ctx context.Context, nodeID string, at time.Time) error
	// CertificateValid says whether a certificate is known and not revoked. It is asked for those who renew, and for those
	// who would take the place of a session that showed another certificate.
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
	// ClassicKeyExchange leaves ML-KEM out of the key exchange: X25519 alone costs less. Defaults to false.
	ClassicKeyExchange bool
	ServerCAs          [][]byte // DER of the CAs that agents shall verify the hub with. Defaults to CA's certificate.

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
	DrainAddress           string        // host:port that agents are sent to in Stop. Defaults to "": they choose themselves.

	// Agents that come while so many others do are told to come back a little later.
	MaxHandshakes int // TLS handshakes in progress. Defaults to 256.
	MaxAdmissions int // connections between their handshake and Welcome. Defaults to 1024.
	MaxEnrolments int // enrolments in progress. Defaults to 64.

	MaxPromises          int           // requests awaiting an answer. Defaults to 50,000.
	PromiseWarnThreshold int           // so many of them are logged as a warning. Defaults to 4/5 of MaxPromises.
	DefaultTimeout       time.Duration // of a Request whose context has no deadline; it may take a tenth more. Defaults to 30 s.

	// Handlers answer messages of agents by their type, beside the built-in ping and echo. Defaults to none.
	Handlers       map[string]Handler
	WorkerCount    int           // handlers that run at a time. Defaults to 20.
	QueueSize      int           // messages that wait for a worker; more are answered as overloaded. Defaults to 2,000.
	HandlerTimeout time.Duration // from the start of a handler to the answer that it took too long. Defaults to 30 s.

	LogBuffer      int64         // bytes of log frames that agents have credit for or that wait for the Sink. Defaults to 256 MiB.
	LogCredit      int64         // bytes of log frames that an agent is granted at a time, at most; not less than 64 KiB. Defaults to 256 KiB.
	LogIdleTimeout time.Duration // credit that is neither used nor given back for longer ends its session. Defaults to 1 min.

	// Artifacts are what agents may fetch: any of them that is asked for by its SHA-256. Defaults to none.
	Artifacts      Artifacts
	MaxTransfers   int   // artifacts that are sent at a time; other agents wait, and are served in turns. Defaults to 64.
	ArtifactBuffer int64 // bytes of artifacts on their way: there are no more transfers than fit into it, at about 2 MiB each. Defaults to 256 MiB.

	// QUIC tunes the transport: idle timeout, windows, streams. Defaults to quic-go's values, and an idle timeout of 60 s.
	// The idle timeout is raised where it would end a session before MaxTimeoutCount strikes do. The number of unidirectional
	// streams is lowered to 4, or less: to what the connection's window holds, as log streams that are not read must not block
	// the control stream.
	QUIC *quic.Config

	OnStored  func(taskID string)  // called after results or logs of a task were committed; must not block. Defaults to nil.
	OnResults func([]release.Step) // called with what results changed, after they were committed; must not block. Defaults to nil.
	Hooks     Hooks                // Defaults to none.
	Metrics   *Metrics             // Defaults to metrics that no one sees.
	Logger    *slog.Logger         // Defaults to slog.Default().
	Now       func() time.Time     // Defaults to time.Now.
}

// maxUniStreams is enough for the log streams of a session: one is read, one follows it, and QUIC has to tell the agent about
// those that ended.
const maxUniStreams = 4

// What quic-go uses where the configuration leaves it open.
const (
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
	setDefault(&c.MaxHandshakes, 256)
	setDefault(&c.MaxAdmissions, 1024)
	setDefault(&c.MaxEnrolments, 64)
	setDefault(&c.MaxPromises, 50_000)
	setDefault(&c.PromiseWarnThreshold, c.MaxPromises/5*4)
	setDefault(&c.DefaultTimeout, 30*time.Second)
	setDefault(&c.WorkerCount, 20)
	setDefault(&c.QueueSize, 2000)
	setDefault(&c.HandlerTimeout, 30*time.Second)
	setDefault(&c.LogBuffer, 256<<20)
	setDefault(&c.LogCredit, 256<<10)
	setDefault(&c.LogIdleTimeout, time.Minute)
	setDefault(&c.MaxTransfers, 64)
	setDefault(&c.ArtifactBuffer, 256<<20)
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
		"DefaultTimeout": c.DefaultTimeout, "HandlerTimeout": c.HandlerTimeout, "LogIdleTimeout": c.LogIdleTimeout,
	} {
		if d < 0 {
			return c, fmt.Errorf("hub: %s is negative", name)
		}
	}
	for name, n := range map[string]int{
		"MaxClients": c.MaxClients, "MaxTimeoutCount": c.MaxTimeoutCount, "MaxPromises": c.MaxPromises,
		"PromiseWarnThreshold": c.PromiseWarnThreshold, "LogBuffer": int(c.LogBuffer), "MaxHandshakes": c.MaxHandshakes,
		"MaxAdmissions": c.MaxAdmissions, "MaxEnrolments": c.MaxEnrolments,
		"WorkerCount": c.WorkerCount, "QueueSize": c.QueueSize,
		"MaxTransfers": c.MaxTransfers, "ArtifactBuffer": int(c.ArtifactBuffer),
	} {
		if n < 0 {
			return c, fmt.Errorf("hub: %s is negative", name)
		}
	}
	for name, handler := range c.Handlers {
		if handler == nil {
			return c, fmt.Errorf("hub: Handlers[%q] is nil", name)
		}
	}
	if c.HeartbeatTimeout <= c.HeartbeatInterval {
		return c, fmt.Errorf("hub: HeartbeatTimeout (%s) must be longer than HeartbeatInterval (%s)", c.HeartbeatTimeout, c.HeartbeatInterval)
	}
	if c.DrainAddress != "" {
		if _, _, err := net.SplitHostPort(c.DrainAddress); err != nil {
			return c, fmt.Errorf("hub: DrainAddress: %w", err)
		}
	}
	var err error
	if c.Metrics == nil {
		if c.Metrics, err = NewMetrics(nil); err != nil {
			return c, err
		}
	}
	if c.QUIC, err = c.transport(); err != nil {
		return c, err
	}
	return c, c.validateCredit()
}

func (c Config) validateCredit() error {
	switch {
	case c.LogCredit < wire.MinLogCredit:
		return fmt.Errorf("hub: LogCredit (%d) must be at least %d", c.LogCredit, wire.MinLogCredit)
	case c.LogCredit > c.LogBuffer:
		return fmt.Errorf("hub: LogCredit (%d) must not be larger than LogBuffer (%d)", c.LogCredit, c.LogBuffer)
	case uint64(c.LogCredit) >= c.QUIC.MaxConnectionReceiveWindow/2:
		return fmt.Errorf("hub: LogCredit (%d) must be below half of the connection receive window (%d), or logs could hold up the control stream",
			c.LogCredit, c.QUIC.MaxConnectionReceiveWindow)
	}
	return nil
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
	setDefault(&q.MaxIncomingUniStreams, maxUniStreams)
	q.MaxIncomingUniStreams = min(q.MaxIncomingUniStreams, maxUniStreams, int64((q.MaxConnectionReceiveWindow-1)/q.MaxStreamReceiveWindow))
	q.Allow0RTT = false // a replayed Hello must not open a session
	return q, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
