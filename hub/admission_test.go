package hub_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/telemetry"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// watch counts the handshakes of a hub by what its transport traces.
type watch struct{ now, peak, total atomic.Int64 }

func (w *watch) install(c *hub.Config) {
	c.QUIC = &quic.Config{Tracer: func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace {
		w.total.Add(1)
		n := w.now.Add(1)
		for peak := w.peak.Load(); n > peak && !w.peak.CompareAndSwap(peak, n); peak = w.peak.Load() {
		}
		return &handshakeTrace{over: sync.OnceFunc(func() { w.now.Add(-1) })}
	}}
}

type handshakeTrace struct{ over func() }

func (t *handshakeTrace) AddProducer() qlogwriter.Recorder { return t }
func (t *handshakeTrace) SupportsSchemas(string) bool      { return true }
func (t *handshakeTrace) RecordEvent(e qlogwriter.Event) {
	if u, ok := e.(qlog.ConnectionStateUpdated); ok && u.State == qlog.ConnectionStateHandshakeComplete {
		t.over()
	}
}
func (t *handshakeTrace) Close() error {
	t.over()
	return nil
}

func refusedAs(t *testing.T, reg *prometheus.Registry, reason string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != telemetry.RefusalsTotal {
			continue
		}
		for _, m := range f.Metric {
			if m.Label[0].GetValue() == reason {
				return m.Counter.GetValue()
			}
		}
	}
	require.FailNow(t, "no refusals for the reason "+reason)
	return 0
}

// Hundreds of agents at once against a hub with room for a few handshakes: all get in, never too many at a time, and the
// session that is there does not notice.
func TestReconnectStorm(t *testing.T) {
	const agents, room = 300, 16
	var handshakes watch
	reg := prometheus.NewRegistry()
	b := start(t, counted(reg), handshakes.install, func(c *hub.Config) { c.MaxHandshakes = room })
	old := b.connect(b.join("old"))
	who := make([]identity, agents)
	for i := range who {
		who[i] = b.join(fmt.Sprintf("web-%d", i))
	}
	var refused atomic.Int64
	deadline := time.Now().Add(6 * patience)
	go_, storm := make(chan struct{}), sync.WaitGroup{}
	for _, one := range who {
		storm.Go(func() {
			<-go_
			for {
				err := b.tryConnect(one)
				if err == nil {
					return
				}
				closed, silent := (*quic.TransportError)(nil), (*quic.IdleTimeoutError)(nil)
				switch {
				case time.Now().After(deadline):
					t.Errorf("%s: %v", one.id, err)
					return
				case errors.As(err, &closed) && closed.ErrorCode == quic.ConnectionRefused:
					refused.Add(1)
				case errors.As(err, &silent), errors.Is(err, context.DeadlineExceeded): // the answers to it were lost; an agent tries again too
				default:
					t.Errorf("%s: %v", one.id, err)
					return
				}
				<-time.After(300*time.Millisecond + rand.N(300*time.Millisecond))
			}
		})
	}
	over := make(chan struct{})
	close(go_)
	go func() {
		storm.Wait()
		close(over)
	}()
	beats := 0
	for done := false; !done; beats++ {
		old.alive()
		select {
		case <-over:
			done = true
		case <-time.After(5 * time.Millisecond):
		}
	}
	require.Greater(t, beats, 1)
	require.Equal(t, agents+1, b.Connected())
	require.LessOrEqual(t, handshakes.peak.Load(), int64(room))
	require.Greater(t, handshakes.peak.Load(), int64(1), "the watch sees handshakes")
	require.Positive(t, refused.Load(), "there was a storm")
	// A refusal that gets lost is asked for again, so that the hub may have counted more than the agents saw.
	counted := refusedAs(t, reg, "handshakes")
	require.GreaterOrEqual(t, counted, float64(refused.Load()))
	require.Equal(t, counted, value(t, reg, telemetry.HandshakesRefusedTotal))
	eventually(t, "all slots are given back", func() bool { return hub.Handshakes(b.Hub) == 0 })
	t.Logf("%d refused, %d heartbeats answered, peak %d", refused.Load(), beats, handshakes.peak.Load())
}

func TestFewHandshakesWhileBehind(t *testing.T) {
	require.False(t, hub.Overrun(511, 512, false))
	require.False(t, hub.Overrun(31, 512, true))
	require.True(t, hub.Overrun(32, 512, true))
	require.False(t, hub.Overrun(0, 1, true), "one gets in even so")
	require.True(t, hub.Overrun(1, 1, true))
}

// tryConnect is connect for other goroutines than the test's.
func (b *bench) tryConnect(who identity) error {
	conn, err := b.dial(wire.ALPN, who.cert)
	if err != nil {
		return err
	}
	stream, err := conn.OpenStream()
	if err != nil {
		return err
	}
	if err := wire.WriteFrame(stream, helloOf("journal-"+who.id, "boot")); err != nil {
		return err
	}
	if err := stream.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	answer := new(quicflowv1.ToAgent)
	if err := wire.NewReader(stream, wire.MaxFrame).Read(answer); err != nil {
		return err
	}
	if answer.GetWelcome() == nil {
		return fmt.Errorf("not welcome: %v", answer)
	}
	return nil
}

// hole is a socket that sends, and drops all that comes; it notes whether a Retry was among that.
type hole struct {
	*net.UDPConn
	retried chan struct{}
	once    sync.Once
	deaf    bool
}

func newHole(t *testing.T, deaf bool) (*hole, *quic.Transport) {
	t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	h := &hole{UDPConn: socket, retried: make(chan struct{}), deaf: deaf}
	transport := &quic.Transport{Conn: struct{ net.PacketConn }{h}} // nothing but the plain interface
	t.Cleanup(func() {
		_ = transport.Close()
		_ = socket.Close()
	})
	return h, transport
}

func (h *hole) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := h.UDPConn.ReadFrom(p)
		if err != nil {
			return n, from, err
		}
		if n > 5 && p[0]&0xf0 == 0xf0 && p[4] == 1 { // long header, type Retry, version 1
			h.once.Do(func() { close(h.retried) })
		}
		if !h.deaf {
			return n, from, nil
		}
	}
}

// Handshakes that are never finished take half of the slots; then a source must prove its address. All slots come back.
func TestSourcesMustProveTheirAddress(t *testing.T) {
	const room = 8
	reg := prometheus.NewRegistry()
	b := start(t, counted(reg), func(c *hub.Config) {
		c.MaxHandshakes = room
		c.QUIC = &quic.Config{HandshakeIdleTimeout: 2 * time.Second}
	})
	who := b.join("web-1")
	cfg := &tls.Config{RootCAs: ca.Pool(), ServerName: pki.HubServerName, NextProtos: []string{wire.ALPN}, Certificates: []tls.Certificate{who.cert}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	forged, stop := context.WithCancel(ctx)
	var dials sync.WaitGroup
	defer dials.Wait()
	defer stop()
	forge := func() *hole {
		socket, transport := newHole(t, true)
		dials.Go(func() {
			_, err := transport.Dial(forged, b.Addr(), cfg, nil)
			if err == nil {
				t.Error("a forged address got in")
			}
		})
		return socket
	}
	for n := 1; n <= room/2+1; n++ {
		forge()
		eventually(t, "a slot is taken", func() bool { return hub.Handshakes(b.Hub) == n })
	}
	for range room {
		signal(t, "it is asked for a proof", forge().retried)
	}
	require.Equal(t, room/2+1, hub.Handshakes(b.Hub), "who proves nothing takes nothing")
	require.EqualValues(t, room/2+1, value(t, reg, telemetry.HandshakesActive))

	honest, transport := newHole(t, false)
	conn, err := transport.Dial(ctx, b.Addr(), cfg, nil)
	require.NoError(t, err)
	signal(t, "an honest source is asked too, and gets in", honest.retried)
	require.NoError(t, conn.CloseWithError(0, ""))
	stop()
	eventually(t, "slots come back when handshakes fail", func() bool { return hub.Handshakes(b.Hub) == 0 })
	require.Zero(t, refusedAs(t, reg, "handshakes"))
	b.connect(who).alive()
}

func TestAdmissionsAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := start(t, counted(reg), func(c *hub.Config) { c.MaxAdmissions = 2 })
	gate := make(chan struct{})
	b.registry.setScript(func(method string) error {
		if method == "ConnectClients" {
			<-gate
		}
		return nil
	})
	open := sync.OnceFunc(func() { close(gate) })
	defer open()
	first, second := b.open(b.join("web-1")), b.open(b.join("web-2"))
	first.send(helloOf("journal", "boot"))
	second.send(helloOf("journal", "boot"))
	eventually(t, "both are being admitted", func() bool { return hub.Admissions(b.Hub) == 2 })
	require.EqualValues(t, 2, value(t, reg, telemetry.AdmissionsActive))

	third := b.join("web-3")
	a, answer := b.greet(third, "journal", "boot")
	refusal := answer.GetRefusal()
	require.Equal(t, quicflowv1.RefusalCode_REFUSAL_CODE_OVERLOADED, refusal.GetCode())
	require.GreaterOrEqual(t, refusal.RetryAfterMs, int64(1000))
	require.NoError(t, a.conn.CloseWithError(wire.CloseNormal, "as told"))
	eventually(t, "it left", func() bool { return hub.TurnedAway(b.Hub) == 0 })

	// Telling takes a moment for those that do not listen; above the bound a close code has to do.
	var mute []*quic.Conn
	for i := range 2 {
		conn, err := b.dial(wire.ALPN, b.join(fmt.Sprintf("mute-%d", i)).cert)
		require.NoError(t, err)
		mute = append(mute, conn)
	}
	eventually(t, "two are being told", func() bool { return hub.TurnedAway(b.Hub) == 2 })
	conn, err := b.dial(wire.ALPN, third.cert)
	require.NoError(t, err)
	closedWith(t, conn, wire.CloseOverloaded, "too many agents")
	for _, conn := range mute {
		closedWith(t, conn, wire.CloseRefused, "too many agents")
	}
	require.EqualValues(t, 4, refusedAs(t, reg, "overloaded"))
	require.EqualValues(t, 4, value(t, reg, telemetry.HandshakesRefusedTotal))

	open()
	require.NotNil(t, first.receive().GetWelcome())
	require.NotNil(t, second.receive().GetWelcome())
	b.connect(third).alive()
	eventually(t, "slots come back", func() bool { return hub.Admissions(b.Hub) == 0 })
}

func TestComeBackLaterUnderLoad(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 100 {
		wait := hub.ComeBack(1, 1000)
		require.GreaterOrEqual(t, wait, time.Second)
		require.Less(t, wait, 2100*time.Millisecond)
		seen[wait] = true
	}
	require.Greater(t, len(seen), 90, "it is spread")
	require.GreaterOrEqual(t, hub.ComeBack(4000, 1000), 5*time.Second)
	for range 20 {
		require.LessOrEqual(t, hub.ComeBack(20_000, 100), 30*time.Second)
	}
}
