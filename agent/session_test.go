package agent_test

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func TestHelloSaysWhoComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	cfg.Labels = map[string]string{"zone": "eu"}
	cfg.BootID = "boot"
	w.connect(cfg).stop()
	w.connect(cfg).stop()
	w.eventually(func() (said bool) {
		w.store.with(func() { said = w.store.goodbyes["a"] == 2 })
		return said
	}, "two goodbyes")
	w.store.with(func() {
		require.Len(t, w.store.sessions, 2)
		first, second := w.store.sessions[0], w.store.sessions[1]
		require.Equal(t, map[string]string{"zone": "eu"}, first.Labels)
		require.Equal(t, "1.2.3", first.AgentVersion)
		require.Equal(t, "boot", first.BootID)
		require.NotEmpty(t, first.Hostname)
		require.NotEmpty(t, first.JournalID)
		require.Equal(t, first.JournalID, second.JournalID)
		require.Equal(t, first.Generation+1, second.Generation)
	})
}

func message(kind string, payload []byte) *quicflowv1.Request {
	return &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: kind, Payload: payload}}}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	cfg.Handlers = map[string]agent.Handler{
		"fail":  func(context.Context, *quicflowv1.Message) (*quicflowv1.Message, error) { return nil, errors.New("no") },
		"quiet": func(context.Context, *quicflowv1.Message) (*quicflowv1.Message, error) { return nil, nil },
		"panic": func(context.Context, *quicflowv1.Message) (*quicflowv1.Message, error) { panic("secret") },
		"huge": func(context.Context, *quicflowv1.Message) (*quicflowv1.Message, error) {
			return &quicflowv1.Message{Payload: make([]byte, wire.MaxFrame)}, nil
		},
	}
	w.connect(cfg)
	pong := w.ask("a", message("ping", []byte("x"))).GetMessage()
	require.Equal(t, "pong", pong.GetType())
	big := bytes.Repeat([]byte{0, 255}, 200_000)
	echo := w.ask("a", message("echo", big)).GetMessage()
	require.True(t, bytes.Equal(big, echo.GetPayload()))
	require.NotNil(t, w.ask("a", message("quiet", nil)).GetMessage())
	for kind, code := range map[string]quicflowv1.FailureCode{
		"fail":    quicflowv1.FailureCode_FAILURE_CODE_INTERNAL,
		"panic":   quicflowv1.FailureCode_FAILURE_CODE_INTERNAL,
		"huge":    quicflowv1.FailureCode_FAILURE_CODE_INTERNAL,
		"unknown": quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED,
	} {
		require.Equal(t, code, w.ask("a", message(kind, nil)).GetFailure().GetCode(), kind)
	}
	require.Equal(t, "the agent's handler failed", w.ask("a", message("panic", nil)).GetFailure().GetMessage())
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, w.ask("a", &quicflowv1.Request{}).GetFailure().GetCode())
}

func TestReconnectsAfterHubRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *hub.Config) { c.HeartbeatInterval = 200 * time.Millisecond })
	cfg := w.config("a")
	var connects, disconnects atomic.Int32
	cfg.OnConnect = func(*quicflowv1.Welcome) { connects.Add(1) }
	cfg.OnDisconnect = func(error) { disconnects.Add(1) }
	w.connect(cfg)
	w.stopHub()
	w.eventually(func() bool { return disconnects.Load() == 1 }, "session ended")
	w.startHub()
	w.eventually(func() bool { return connects.Load() == 2 }, "new session")
}

func TestNoticesASilentHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *hub.Config) { c.HeartbeatInterval = 100 * time.Millisecond })
	network := newRelay(t, w.addr)
	cfg := w.config("a")
	cfg.Servers = []string{network.addr}
	ended := make(chan error, 10)
	cfg.OnDisconnect = func(err error) { ended <- err }
	w.connect(cfg)
	network.setCut(true)
	require.ErrorContains(t, <-ended, "does not answer heartbeats")
	network.setCut(false)
	w.eventually(func() (back bool) {
		w.store.with(func() { back = w.store.epochs["a"] == 2 })
		return back
	}, "new session")
}

// A hub that dies and comes back tells the agent with its first heartbeat that the session is gone.
func TestNoticesARestartedHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *hub.Config) { c.HeartbeatInterval = 300 * time.Millisecond })
	network := newRelay(t, w.addr)
	cfg := w.config("a")
	cfg.Servers = []string{network.addr}
	ended := make(chan error, 10)
	cfg.OnDisconnect = func(err error) { ended <- err }
	w.connect(cfg)
	network.setCut(true) // so that the agent does not hear that it stops
	w.stopHub()
	w.startHub()
	network.setCut(false)
	var reset *quic.StatelessResetError
	require.ErrorAs(t, <-ended, &reset)
	w.online("a")
}

func TestTriesTheNextServerAndGivesUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	w.connect(cfg).stop() // joined
	cfg.Servers = []string{"no-such-host.invalid:1", w.addr}
	w.connect(cfg).stop()

	cfg.Servers = []string{"no-such-host.invalid:1"}
	cfg.MaxRetries = 2
	require.ErrorContains(t, run(t, cfg).wait(), "gave up after 2 attempts")
}

func TestHubAtAnIPv6Address(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *hub.Config) { c.Addr = "[::1]:0" })
	w.connect(w.config("a"))
}

func TestRefusedSessionIsNoSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	w.connect(cfg).stop()
	w.store.with(func() { clear(w.store.valid) })
	cfg.MaxRetries = 1
	cfg.OnConnect = func(*quicflowv1.Welcome) { t.Error("connected") }
	err := run(t, cfg).wait()
	require.ErrorContains(t, err, "revoked")
	require.ErrorIs(t, err, release.ErrUnavailable)
}

func TestSharedTransportAndGivenIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	transport := newTransport(t)
	for _, id := range []string{"a", "b", "c"} {
		cfg := w.config(id)
		cfg.Token, cfg.Transport, cfg.Identity = "", transport, w.identity(id)
		w.connect(cfg)
	}
	w.accepted("b", step("b", "0", "x"))
	require.Equal(t, release.StepSucceeded, w.result(stepID("b", "0")).State)
	require.ElementsMatch(t, []string{"a", "b", "c"}, sortedKeys(w.store.epochs))
}

// printing runs steps that each print so many times 16 KiB, and end once they may.
func printing(times int, end <-chan struct{}) executorFunc {
	line := bytes.Repeat([]byte("0123456789abcde\n"), 1024)
	return func(_ context.Context, _ *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult {
		for range times {
			_ = log.Append(quicflowv1.Stream_STREAM_STDOUT, line)
		}
		<-end
		return succeeded()
	}
}

func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func (w *world) gauge(registry *prometheus.Registry, name string) float64 {
	w.t.Helper()
	families, err := registry.Gather()
	require.NoError(w.t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	require.FailNow(w.t, "there is no "+name)
	return 0
}

// An agent asks for more while it has some, and gives back what it has no use for.
func TestCreditIsExtendedAndGivenBack(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	metrics, err := hub.NewMetrics(registry)
	require.NoError(t, err)
	var offers, grants atomic.Int32
	count := func(n *atomic.Int32, what string) func(hub.Event, string) {
		return func(_ hub.Event, kind string) {
			if kind == what {
				n.Add(1)
			}
		}
	}
	w := newWorld(t, func(c *hub.Config) {
		c.Metrics, c.LogCredit = metrics, 64<<10
		c.Hooks.OnMessageReceived, c.Hooks.OnMessageSent = count(&offers, "log_offer"), count(&grants, "log_credit")
	})
	cfg := w.config("a")
	end := make(chan struct{})
	cfg.LogIdle = 300 * time.Millisecond
	cfg.Executor = printing(3, end) // after two of them less than half of the credit is left
	w.connect(cfg)
	began := time.Now()
	w.accepted("a", step("a", "0", "x"))
	w.eventually(func() bool { return grants.Load() == 2 }, "the grant for a second stream")
	w.eventually(func() bool { return w.gauge(registry, "quic_backbone_log_credit_bytes") == 0 }, "credit is given back")
	require.Greater(t, time.Since(began), cfg.LogIdle)

	close(end)
	w.accepted("a", step("a", "1", "x")) // goes on with new credit
	w.eventually(func() bool { return grants.Load() == 4 }, "two more grants")
	for _, epoch := range []string{"0", "1"} {
		require.Len(t, w.output(stepID("a", epoch), release.StreamStdout), 48<<10)
	}
	require.EqualValues(t, 4, offers.Load())
}

// An agent without anything to log keeps no credit.
func TestCreditIsGivenBackWithTheLastStep(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	metrics, err := hub.NewMetrics(registry)
	require.NoError(t, err)
	w := newWorld(t, func(c *hub.Config) { c.Metrics = metrics })
	cfg := w.config("a")
	cfg.LogIdle, cfg.Executor = time.Hour, printing(20, closed())
	w.connect(cfg)
	w.accepted("a", step("a", "0", "x"))
	require.Len(t, w.output(stepID("a", "0"), release.StreamStdout), 320<<10)
	w.eventually(func() bool { return w.gauge(registry, "quic_backbone_log_credit_bytes") == 0 }, "credit is given back")
}

// An agent that had to wait for its credit for long uses it.
func TestCreditThatComesLate(t *testing.T) {
	t.Parallel()
	offers := make(chan struct{}, 1000)
	w := newWorld(t, func(c *hub.Config) {
		c.LogCredit, c.LogBuffer = 64<<10, 64<<10
		c.Hooks.OnMessageReceived = func(_ hub.Event, kind string) {
			if kind == "log_offer" {
				offers <- struct{}{}
			}
		}
	})
	cfg := w.config("a")
	cfg.LogIdle, cfg.Executor = 50*time.Millisecond, printing(10, closed())
	w.connect(cfg)
	w.store.with(func() { // nothing is stored meanwhile
		w.accepted("a", step("a", "0", "x"))
		<-offers
		<-offers // the second grant does not fit beside what the first was used for
		asked := time.Now()
		w.eventually(func() bool { return time.Since(asked) > 3*cfg.LogIdle }, "the agent was idle for longer than it keeps credit")
	})
	require.Len(t, w.output(stepID("a", "0"), release.StreamStdout), 160<<10)
	require.Less(t, len(offers), 10)
}

// Agents with much output and a hub with little memory for it: each gets its turn, and everything arrives.
func TestLogsOfManyAgentsThroughLittleMemory(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	metrics, err := hub.NewMetrics(registry)
	require.NoError(t, err)
	const pool, agents, steps, lines = 160 << 10, 5, 2, 64
	w := newWorld(t, func(c *hub.Config) {
		c.Metrics, c.LogCredit, c.LogBuffer = metrics, 64<<10, pool
		c.HeartbeatInterval = 100 * time.Millisecond
	})
	network := newRelay(t, w.addr)
	var all []*running
	var ids []string
	for i := range agents {
		id := string(rune('a' + i))
		cfg := w.config(id)
		cfg.Servers, cfg.Executor = []string{network.addr}, printing(lines, closed())
		all = append(all, w.connect(cfg))
		for epoch := range steps {
			s := step(id, strconv.Itoa(epoch), "x")
			w.accepted(id, s)
			ids = append(ids, s.StepId)
		}
	}
	stored := func(n int) {
		w.eventually(func() (some bool) {
			w.store.with(func() { some = len(w.store.records) >= n })
			return some
		}, "%d records", n)
	}
	stored(20)
	network.setCut(true)
	network.setCut(false)
	stored(100)
	w.stopHub()
	w.startHub()
	for _, id := range ids {
		require.Len(t, w.output(id, release.StreamStdout), lines*16<<10)
		require.LessOrEqual(t, w.gauge(registry, "quic_backbone_log_credit_bytes"), float64(pool))
		require.LessOrEqual(t, w.gauge(registry, "quic_backbone_log_bytes_buffered"), float64(pool))
	}
	for _, r := range all {
		r.stop()
	}
	w.eventually(func() bool { return w.gauge(registry, "quic_backbone_log_credit_bytes") == 0 }, "no credit without sessions")
}

func newTransport(t *testing.T) *quic.Transport {
	t.Helper()
	socket := listenUDP(t)
	transport := &quic.Transport{Conn: socket}
	t.Cleanup(func() {
		_ = transport.Close()
		_ = socket.Close()
	})
	return transport
}

// Much output of several steps at once, over a network that fails: it arrives whole, in order and once.
func TestLogsSurviveABadNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *hub.Config) { c.HeartbeatInterval = 100 * time.Millisecond })
	network := newRelay(t, w.addr)
	cfg := w.config("a")
	cfg.Servers = []string{network.addr}
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 4096) // 64 KiB
	proceed := make(chan struct{})
	cfg.Executor = executorFunc(func(_ context.Context, _ *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult {
		for i := range 40 {
			if i == 20 {
				<-proceed
			}
			_ = log.Append(quicflowv1.Stream_STREAM_STDOUT, chunk)
			_ = log.Append(quicflowv1.Stream_STREAM_STDERR, []byte{byte(i), '\n'})
		}
		return succeeded()
	})
	w.connect(cfg)
	epochs := []string{"0", "1", "2"}
	for _, epoch := range epochs {
		w.accepted("a", step("a", epoch, "x"))
	}
	w.eventually(func() (some bool) {
		w.store.with(func() { some = len(w.store.records) > 5 })
		return some
	}, "first records")
	network.setCut(true)
	close(proceed)
	network.setCut(false)
	for _, epoch := range epochs {
		require.True(t, string(bytes.Repeat(chunk, 40)) == w.output(stepID("a", epoch), release.StreamStdout))
		require.Len(t, w.output(stepID("a", epoch), release.StreamStderr), 80)
	}
	w.forgotten(cfg.DataDir)
}
