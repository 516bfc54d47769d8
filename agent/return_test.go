package agent_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/telemetry"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Agents of a hub that stops are with the other one as soon as their jitter lets them, and the hub need not wait.
func TestAgentsMoveToAnotherHub(t *testing.T) {
	t.Parallel()
	const agents, jitter, drain = 20, 500 * time.Millisecond, 20 * time.Second
	other := newWorld(t)
	w := newWorld(t, func(c *hub.Config) {
		c.CA, c.Registry, c.Sink, c.Enroller = other.ca, other.store, other.store, other.store
		c.DrainAddress, c.DrainTimeout = other.addr, drain
	})
	w.ca, w.store = other.ca, other.store
	for i := range agents {
		id := fmt.Sprint("web-", i)
		cfg := w.config(id)
		cfg.Token, cfg.Identity = "", w.identity(id)
		cfg.Backoff = agent.Backoff{Min: jitter, Max: time.Minute}
		w.connect(cfg)
	}
	require.Equal(t, agents, w.hub.Connected())
	began := time.Now()
	w.stopHub()
	require.Less(t, time.Since(began), drain/2, "agents leave when they are told")
	other.eventually(func() bool { return other.hub.Connected() == agents }, "all are with the other hub")
	require.Less(t, time.Since(began), jitter+5*time.Second)
}

// What an agent is still asked when its hub stops is answered.
func TestRequestInFlightIsAnsweredBeforeTheMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *hub.Config) { c.DrainTimeout = 20 * time.Second })
	cfg := w.config("a")
	asked, proceed := make(chan struct{}), make(chan struct{})
	cfg.Handlers = map[string]agent.Handler{"slow": func(ctx context.Context, m *quicflowv1.Message) (*quicflowv1.Message, error) {
		close(asked)
		select {
		case <-proceed:
			return m, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}}
	w.connect(cfg)
	h, answered := w.hub, make(chan error, 1)
	go func() {
		response, err := h.Request(context.Background(), "a", message("slow", []byte("x")))
		if err == nil && string(response.GetMessage().GetPayload()) != "x" {
			err = fmt.Errorf("got %v", response)
		}
		answered <- err
	}()
	<-asked
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.stopHub()
	}()
	w.eventually(func() bool {
		_, err := h.Request(context.Background(), "a", message("ping", nil))
		return err != nil
	}, "the hub drains")
	close(proceed)
	require.NoError(t, <-answered)
	<-stopped
}

// The second session of an agent resumes the first one's TLS session, also with the next run of its hub, and though that was too busy
// for it at first.
func TestReturnResumesTLS(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	metrics, err := hub.NewMetrics(reg)
	require.NoError(t, err)
	w := newWorld(t, func(c *hub.Config) { c.Metrics = metrics })
	resumed := func() float64 {
		families, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == telemetry.SessionsResumedTotal {
				return f.Metric[0].Counter.GetValue()
			}
		}
		return -1
	}
	cfg := w.config("a")
	var connects atomic.Int32
	cfg.OnConnect = func(*quicflowv1.Welcome) { connects.Add(1) }
	w.connect(cfg)
	require.Zero(t, resumed())
	for n := 1; n <= 2; n++ {
		w.stopHub()
		w.refuse(2)
		w.startHub()
		w.eventually(func() bool { return connects.Load() == int32(n)+1 }, "it is back")
		w.eventually(func() bool { return resumed() == float64(n) }, "it resumed")
	}
	w.store.with(func() { clear(w.store.valid) })
	w.stopHub()
	refused := make(chan error, 1)
	w.tune = func(c *hub.Config) {
		c.Hooks.OnRefused = func(_ hub.Event, reason error) {
			select {
			case refused <- reason:
			default:
			}
		}
	}
	w.startHub()
	require.ErrorContains(t, <-refused, "revoked", "a revoked certificate resumes into no session")
	require.Equal(t, release.ClientReconnecting, w.hub.Presence("a").Status)
}

// The limit of attempts is for those in a row: after a session that was accepted they are counted anew.
func TestRetryLimitStartsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	cfg.MaxRetries = 1
	var connects atomic.Int32
	cfg.OnConnect = func(*quicflowv1.Welcome) { connects.Add(1) }
	w.connect(cfg)
	for n := int32(1); n <= 4; n++ {
		w.eventually(func() bool { return connects.Load() == n && w.hub.Disconnect("a") }, "session %d", n)
	}
	w.eventually(func() bool { return connects.Load() == 5 }, "it is back")
}

// refuse answers handshakes at the hub's address as a busy hub does, until it has refused this many connections.
func (w *world) refuse(many int) {
	w.t.Helper()
	address, err := net.ResolveUDPAddr("udp", w.addr)
	require.NoError(w.t, err)
	socket, err := net.ListenUDP("udp", address)
	require.NoError(w.t, err)
	defer socket.Close()
	refused := make(chan struct{}, 100)
	transport := &quic.Transport{Conn: socket, ConnContext: func(context.Context, *quic.ClientInfo) (context.Context, error) {
		select {
		case refused <- struct{}{}:
		default:
		}
		return nil, errors.New("busy")
	}}
	defer transport.Close()
	server, err := w.ca.IssueServer(nil, time.Hour)
	require.NoError(w.t, err)
	listener, err := transport.Listen(&tls.Config{Certificates: []tls.Certificate{server}, NextProtos: []string{wire.ALPN}}, nil)
	require.NoError(w.t, err)
	defer listener.Close()
	for range many {
		<-refused
	}
}

// A hub that takes the connection but does not welcome the agent is one that could not be connected to.
func TestNoWelcomeIsAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server, err := w.ca.IssueServer(nil, time.Hour)
	require.NoError(t, err)
	for name, treat := range map[string]func(*quic.Conn, *quic.Stream){
		"closes the connection": func(c *quic.Conn, _ *quic.Stream) { _ = c.CloseWithError(wire.CloseInternal, "sorry") },
		"ends the stream":       func(_ *quic.Conn, s *quic.Stream) { _ = s.Close() },
		"talks of something else": func(_ *quic.Conn, s *quic.Stream) {
			_ = wire.WriteFrame(s, &quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_HeartbeatAck{HeartbeatAck: &quicflowv1.HeartbeatAck{}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{
				Certificates: []tls.Certificate{server}, NextProtos: []string{wire.ALPN}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
			}, nil)
			require.NoError(t, err)
			var dials atomic.Int32
			over := make(chan struct{})
			go func() {
				defer close(over)
				for {
					conn, err := listener.Accept(context.Background())
					if err != nil {
						return
					}
					dials.Add(1)
					if stream, err := conn.AcceptStream(conn.Context()); err == nil {
						treat(conn, stream)
					}
				}
			}()
			cfg := w.config("a")
			cfg.Servers, cfg.Token, cfg.Identity, cfg.MaxRetries = []string{listener.Addr().String()}, "", w.identity("a"), 3
			cfg.OnConnect = func(*quicflowv1.Welcome) { t.Error("connected") }
			cfg.Logger = slog.New(slog.DiscardHandler)
			require.ErrorContains(t, run(t, cfg).wait(), "gave up after 3 attempts")
			require.EqualValues(t, 4, dials.Load())
			require.NoError(t, listener.Close())
			<-over
		})
	}
}
