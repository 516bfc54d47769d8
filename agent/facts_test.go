package agent_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/script"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func TestFactsAreOrderedAndBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	git, container := executortest.Fake{Of: release.TypeGit}, executortest.Fake{Of: release.TypeContainer, Unable: "no engine answers"}
	exec := executortest.NewSet(t, executor.Host{ClientID: "a", DataDir: dir}, script.New(), git, container)
	cfg := agent.Config{
		Servers: []string{"x"}, ClientID: "a", DataDir: dir, Version: "1.2.3", Executor: exec, Labels: map[string]string{"zone": "eu", "env": "prod"},
		Facts: func(context.Context) agent.Facts {
			return agent.Facts{Hostname: "web-1", Distribution: "debian", CPUs: 4, MemoryMB: 1024}
		},
	}
	a, err := agent.New(cfg)
	require.NoError(t, err)
	text, err := a.CollectFacts(t.Context())
	require.NoError(t, err)
	var f agent.Facts
	require.NoError(t, json.Unmarshal(text, &f))
	want := fmt.Sprintf(`{"hostname":"web-1","os":%q,"distribution":"debian","arch":%q,"cpus":4,"memory_mb":1024,"labels":{"env":"prod","zone":"eu"},`+
		`"agent_version":"1.2.3","capabilities":["deploy.git","deploy.script","echo","exec_shell","get_status","ping","script"],"deploy":[{"type":"git","version":"1","details":{"kind":"fake"}},{"type":"script","details":{"limits":%q}}]}`, f.OS, f.Arch, wrapper.LimitsBy())
	require.Equal(t, []byte(want), text, "in this order")

	cfg.Facts = func(context.Context) agent.Facts {
		f := agent.Facts{Hostname: "web-1"}
		for i := range 500 {
			f.Network = append(f.Network, agent.NetworkFact{Name: fmt.Sprint("veth", i), Addresses: []string{"10.0.0.1"}})
			f.Disks = append(f.Disks, agent.DiskFact{Mountpoint: strings.Repeat("/x", 50), SizeMB: 1})
		}
		return f
	}
	a, err = agent.New(cfg)
	require.NoError(t, err)
	text, err = a.CollectFacts(t.Context())
	require.NoError(t, err)
	require.LessOrEqual(t, len(text), agent.MaxFacts)
	require.NoError(t, json.Unmarshal(text, &f))
	require.True(t, f.Truncated)
	require.NotEmpty(t, f.Network)
	require.NotEmpty(t, f.Disks)
	require.Equal(t, "prod", f.Labels["env"])
}

// factsHub takes in sessions, and asks for facts where told.
type factsHub struct {
	t        *testing.T
	listener *quic.Listener
}

// session waits for an agent's hello and gives it and the frames that follow it, but for heartbeats.
func (h *factsHub) session(want bool) (*quicflowv1.Hello, func() *quicflowv1.ToHub, *quic.Conn) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	conn, err := h.listener.Accept(ctx)
	require.NoError(h.t, err)
	stream, err := conn.AcceptStream(ctx)
	require.NoError(h.t, err)
	reader := wire.NewReader(stream, wire.MaxFrame)
	next := func() *quicflowv1.ToHub {
		require.NoError(h.t, stream.SetReadDeadline(time.Now().Add(patience)))
		for {
			frame := new(quicflowv1.ToHub)
			require.NoError(h.t, reader.Read(frame))
			if frame.GetHeartbeat() == nil {
				return frame
			}
		}
	}
	hello := next().GetHello()
	require.NoError(h.t, wire.WriteFrame(stream, &quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_Welcome{
		Welcome: &quicflowv1.Welcome{HeartbeatIntervalMs: 60_000, WantFacts: want}}}))
	return hello, next, conn
}

func TestFactsAreToldWhenWantedAndWhenChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server, err := w.ca.IssueServer(nil, time.Hour)
	require.NoError(t, err)
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	transport := &quic.Transport{Conn: socket}
	listener, err := transport.Listen(&tls.Config{
		Certificates: []tls.Certificate{server}, NextProtos: []string{wire.ALPN}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(listener.Close(), transport.Close(), socket.Close())) })
	h := &factsHub{t, listener}
	var cpus atomic.Int64
	cpus.Store(2)
	cfg := w.config("a")
	cfg.Servers, cfg.Token, cfg.Identity = []string{listener.Addr().String()}, "", w.identity("a")
	var looks atomic.Int64
	cfg.Facts = func(context.Context) agent.Facts {
		defer looks.Add(1)
		return agent.Facts{Hostname: "h", CPUs: int(cpus.Load())}
	}
	connected := make(chan struct{}, 1)
	cfg.OnConnect = func(*quicflowv1.Welcome) { connected <- struct{}{} }
	a := run(t, cfg)

	hello, next, conn := h.session(true)
	facts := next().GetFacts()
	sum := fnv.New64a()
	_, _ = sum.Write(facts.GetJson())
	require.Equal(t, sum.Sum64(), facts.GetHash())
	require.Equal(t, facts.Hash, hello.FactsHash)
	require.Contains(t, string(facts.Json), `"cpus":2`)

	await(t, connected)
	before := looks.Load()
	a.RefreshFacts() // nothing has changed, so nothing is told
	w.eventually(func() bool { return looks.Load() > before }, "the agent looks")
	cpus.Store(3)
	a.RefreshFacts()
	changed := next().GetFacts()
	require.Contains(t, string(changed.GetJson()), `"cpus":3`)
	require.NotEqual(t, facts.Hash, changed.Hash)
	_ = conn.CloseWithError(wire.CloseInternal, "test")

	hello, next, _ = h.session(false)
	require.Equal(t, changed.Hash, hello.FactsHash)
	await(t, connected)
	cpus.Store(4)
	a.RefreshFacts()
	require.Contains(t, string(next().GetFacts().GetJson()), `"cpus":4`, "nothing was told before, as the hub has it")
}

// A host whose disk hangs is still an agent's to work on.
func TestFactsThatTakeLongHoldNothingUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	hang := make(chan struct{})
	cfg.Facts = func(context.Context) agent.Facts {
		<-hang
		return agent.Facts{}
	}
	defer close(hang)
	w.connect(cfg)
	require.NotNil(t, w.ask("a", message("ping", nil)).GetMessage())
}
