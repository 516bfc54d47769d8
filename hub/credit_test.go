package hub_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// grant is the credit of most of these tests, the least there is.
const grant = wire.MinLogCredit

func smallCredit(pool int64) func(*hub.Config) {
	return func(c *hub.Config) { c.LogCredit, c.LogBuffer = grant, pool }
}

// chunkOf is a log record of size bytes, the nth of its step.
func chunkOf(stepID string, n uint64, size int) *quicflowv1.LogChunk {
	c := chunkAt(stepID, n)
	c.Data = bytes.Repeat(c.Data, size)
	return c
}

// filling gives records that together take just the bytes of one grant.
func filling(t *testing.T, stepID string) []*quicflowv1.LogChunk {
	first, second, third := chunkOf(stepID, 0, 30_000), chunkOf(stepID, 1, 30_000), chunkOf(stepID, 2, 5000)
	rest := grant - len(frame(t, first)) - len(frame(t, second)) - len(frame(t, third))
	third.Data = append(third.Data, make([]byte, rest)...)
	return []*quicflowv1.LogChunk{first, second, third}
}

// held waits for a sum of credit that is not used, and of logs that are not stored.
func (b *bench) held(unused, buffered int) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("%d bytes are granted and %d buffered", unused, buffered), func() bool {
		u, f := hub.Held(b.Hub)
		return u == int64(unused) && f == int64(buffered)
	})
}

// hang keeps the sink from storing logs until the answer is called.
func (b *bench) hang() (goOn func()) {
	gate := make(chan struct{})
	goOn = sync.OnceFunc(func() { close(gate) })
	b.t.Cleanup(goOn)
	b.sink.setScript(func(method string) error {
		if method == "AppendLogs" {
			<-gate
		}
		return nil
	})
	return goOn
}

func TestCreditIsGrantedUsedExtendedAndGivenBack(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics, err := hub.NewMetrics(registry)
	require.NoError(t, err)
	b := start(t, func(c *hub.Config) { c.Metrics = metrics })
	goOn := b.hang()
	a := b.connect(b.join("web-1"))
	id := step("web-1")
	require.False(t, hub.Reading(b.Hub, "web-1"))
	const grant = 256 << 10
	a.offer()
	require.Equal(t, grant, a.granted())
	b.held(grant, 0)
	require.True(t, hub.Reading(b.Hub, "web-1"))

	one, size := a.openLogs(), len(frame(t, chunkAt(id, 0)))
	require.NoError(t, wire.WriteFrame(one, chunkAt(id, 0)))
	b.held(grant-size, size)
	require.EqualValues(t, grant-size, gauge(t, registry, "quic_backbone_log_credit_bytes"))
	require.EqualValues(t, size, gauge(t, registry, "quic_backbone_log_bytes_buffered"))
	a.offer()
	require.Equal(t, grant, a.granted())
	b.held(2*grant-size, size)
	a.offer()
	a.alive() // two streams are open to credit; what comes next is the heartbeat's answer
	require.Zero(t, hub.Waiting(b.Hub))
	require.NoError(t, one.Close())
	require.Equal(t, grant, a.granted())
	b.held(2*grant, size)

	two := a.openLogs()
	require.NoError(t, wire.WriteFrame(two, chunkAt(id, 1)))
	require.NoError(t, two.Close())
	require.NoError(t, a.openLogs().Close()) // what was granted too much is given back
	b.held(0, size+len(frame(t, chunkAt(id, 1))))
	eventually(t, "no stream is expected", func() bool { return !hub.Reading(b.Hub, "web-1") })
	goOn()
	b.held(0, 0)
	require.Zero(t, gauge(t, registry, "quic_backbone_log_credit_bytes"))
	require.Zero(t, gauge(t, registry, "quic_backbone_log_bytes_buffered"))
	require.Equal(t, "ab", b.sink.text(id))
}

func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	require.FailNow(t, "there is no "+name)
	return 0
}

// An offer may come before or after the end of the stream before it: each brings the credit of one stream, and no sum drifts.
// The order of the records stays.
func TestOffersThatCrossTheEndOfAStream(t *testing.T) {
	b := start(t, smallCredit(2*grant))
	a := b.connect(b.join("web-1"))
	one, two := step("web-1"), step("web-1")
	const streams, each = 200, 5
	a.offer()
	end, credits := map[string]uint64{}, 0
	for credits < streams || end[one] < streams*each || end[two] < streams*each {
		f := a.receive()
		if ack := f.GetLogAck(); ack != nil {
			end[ack.StepId] = ack.Position
			continue
		}
		require.EqualValues(t, grant, f.GetLogCredit().GetBytes())
		n := uint64(credits)
		credits++
		if n%3 == 0 && credits < streams {
			a.offer() // while this stream has its credit
		}
		s := a.openLogs()
		for p := range uint64(each) {
			require.NoError(t, wire.WriteFrame(s, chunkAt(one, n*each+p)))
			require.NoError(t, wire.WriteFrame(s, chunkAt(two, n*each+p)))
		}
		require.NoError(t, s.Close())
		if n%3 != 0 && credits < streams {
			a.offer() // in a race with the end of the stream
		}
	}
	require.Len(t, b.sink.text(one), streams*each)
	require.Len(t, b.sink.text(two), streams*each)
	b.held(0, 0)
	a.alive() // no credit is left over
	require.Zero(t, hub.Waiting(b.Hub))
}

func TestSessionsWaitForCreditInTurn(t *testing.T) {
	b := start(t, smallCredit(grant))
	goOn := b.hang()
	first, second, third, fourth := b.connect(b.join("web-1")), b.connect(b.join("web-2")), b.connect(b.join("web-3")), b.connect(b.join("web-4"))
	s, id := first.logs(), step("web-1")
	for i, a := range []*agent{second, third, fourth} {
		a.offer()
		a.alive() // no credit
		require.Equal(t, i+1, hub.Waiting(b.Hub))
	}
	require.NoError(t, wire.WriteFrame(s, chunkAt(id, 0)))
	require.NoError(t, s.Close())
	b.held(0, len(frame(t, chunkAt(id, 0))))
	second.alive() // there is no room while anything waits to be stored
	goOn()
	require.Equal(t, grant, second.granted())
	require.EqualValues(t, 1, first.receive().GetLogAck().GetPosition())

	third.alive()
	third.goodbye() // gives up its place
	eventually(t, "the third left", func() bool { return hub.Waiting(b.Hub) == 1 })
	require.NoError(t, second.conn.CloseWithError(99, "gone")) // with its credit
	require.Equal(t, grant, fourth.granted())
	require.NoError(t, fourth.conn.CloseWithError(99, "gone"))
	b.held(0, 0)
	require.NoError(t, first.logs().Close())
	b.held(0, 0)
}

// The first half of the memory is given away generously, the second to who needs it.
func TestScarceCreditIsSharedOut(t *testing.T) {
	b := start(t, smallCredit(4*grant))
	for i, c := range []struct{ ask, get int }{
		{1, grant}, {200, grant}, {1, 4 << 10}, {10_000, 10_000}, {10 * grant, grant},
		{0, 0}, // no room for all, and it waits
		{1, 0}, // behind that
	} {
		a := b.connect(b.join(fmt.Sprintf("web-%d", i)))
		if a.offerBytes(uint64(c.ask)); c.get == 0 {
			a.alive()
		} else {
			require.Equal(t, c.get, a.granted(), "%d bytes were asked for", c.ask)
		}
	}
	require.Equal(t, 2, hub.Waiting(b.Hub))
	b.held(3*grant+(4<<10)+10_000, 0)
}

// A session that ends gives back everything, wherever it stands.
func TestSessionDiesWithCredit(t *testing.T) {
	b := start(t, smallCredit(10*grant))
	who := b.join("web-1")
	for name, do := range map[string]func(*agent){
		"before its stream": func(a *agent) { a.offer(); a.granted() },
		"with a stream":     func(a *agent) { require.NoError(t, wire.WriteFrame(a.logs(), chunkAt(step("web-1"), 0))) },
		"with two":          func(a *agent) { a.logs(); a.logs() },
		"with an offer":     func(a *agent) { a.logs(); a.logs(); a.offer() },
	} {
		t.Run(name, func(t *testing.T) {
			a := b.connect(who)
			do(a)
			require.True(t, hub.Reading(b.Hub, "web-1"))
			require.NoError(t, a.conn.CloseWithError(99, "gone"))
			b.held(0, 0)
			require.Zero(t, hub.Waiting(b.Hub))
		})
	}
}

// Who takes more than was granted loses its session, and no one else does.
func TestBrokenRulesOfCredit(t *testing.T) {
	beatUntilClosed := func(a *agent) {
		heartbeat := &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Heartbeat{Heartbeat: &quicflowv1.Heartbeat{}}}
		for wire.WriteFrame(a.stream, heartbeat) == nil {
			if _, err := a.tryReceive(); err != nil {
				return
			}
		}
	}
	write := func(s *quic.SendStream, chunks ...*quicflowv1.LogChunk) {
		for _, c := range chunks {
			_ = wire.WriteFrame(s, c) // fails if the hub has closed the session by then
		}
	}
	for name, c := range map[string]struct {
		do     func(*testing.T, *agent)
		reason string
	}{
		"frame beyond the credit": {func(_ *testing.T, a *agent) {
			id := step(a.id)
			write(a.logs(), chunkOf(id, 0, 30_000), chunkOf(id, 1, 30_000), chunkOf(id, 2, 30_000))
		}, "log frame beyond the credit, of which "},
		"one byte beyond the credit": {func(t *testing.T, a *agent) {
			chunks := filling(t, step(a.id))
			chunks[2].Data = append(chunks[2].Data, '!')
			write(a.logs(), chunks...)
		}, "log frame beyond the credit, of which "},
		"empty frame beyond the credit": {func(t *testing.T, a *agent) {
			chunks, s := filling(t, step(a.id)), a.logs()
			chunks[2].Data = chunks[2].Data[2:] // two bytes are left, and a length takes four
			write(s, chunks...)
			_, _ = s.Write(length(0))
		}, "log frame of 4 bytes beyond the credit, of which 2 bytes are left"},
		"stream without credit": {func(_ *testing.T, a *agent) {
			write(a.openLogs(), chunkAt(step(a.id), 0))
			beatUntilClosed(a)
		}, "was opened without credit"},
		"second stream without credit": {func(t *testing.T, a *agent) {
			require.NoError(t, a.logs().Close())
			write(a.openLogs(), chunkAt(step(a.id), 0))
			beatUntilClosed(a)
		}, "was opened without credit"},
		"second offer": {func(_ *testing.T, a *agent) {
			a.logs()
			a.logs()
			a.offer()
			a.offer()
		}, "log offer before the last one was answered"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t, smallCredit(10*grant))
			bystander := b.connect(b.join("bystander"))
			s, id := bystander.logs(), step("bystander")
			a := b.connect(b.join("culprit"))
			c.do(t, a)
			a.closedWith(wire.CloseProtocol, c.reason)
			bystander.alive()
			require.NoError(t, wire.WriteFrame(s, chunkAt(id, 0)))
			require.EqualValues(t, 1, bystander.receive().GetLogAck().GetPosition())
			require.NoError(t, s.Close())
			b.held(0, 0)
		})
	}
}

// All credit that was granted may be used.
func TestCreditToTheLastByte(t *testing.T) {
	b := start(t, smallCredit(grant))
	a := b.connect(b.join("web-1"))
	s := a.logs()
	for _, c := range filling(t, step("web-1")) {
		require.NoError(t, wire.WriteFrame(s, c))
	}
	for a.receive().GetLogAck().GetPosition() < 3 {
	}
	b.held(0, 0)
	require.True(t, hub.Reading(b.Hub, "web-1"), "the stream has not ended")
	require.NoError(t, s.Close())
	eventually(t, "the stream ended", func() bool { return !hub.Reading(b.Hub, "web-1") })
	a.alive()
}

func TestCreditThatIsKeptUnused(t *testing.T) {
	for name, do := range map[string]func(*agent){
		"no stream":       func(a *agent) { a.offer(); a.granted() },
		"silent stream":   func(a *agent) { require.NoError(t, wire.WriteFrame(a.logs(), chunkAt(step(a.id), 0))) },
		"half of a frame": func(a *agent) { _, err := a.logs().Write(length(100)); require.NoError(t, err) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t, smallCredit(grant), func(c *hub.Config) { c.LogIdleTimeout = 50 * time.Millisecond })
			a := b.connect(b.join("web-1"))
			do(a)
			a.closedWith(wire.CloseProtocol, "credit for logs was neither used nor given back for 50ms")
			b.held(0, 0)
		})
	}
}

// talker is an agent that has always more to log. It answers requests.
type talker struct {
	*agent
	step  string
	beats chan uint64 // answers to heartbeats
	mu    sync.Mutex  // for what is sent on the control stream
}

func (a *talker) say(f *quicflowv1.ToHub) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return wire.WriteFrame(a.stream, f)
}

// talk sends so many records as credit allows, and answers until the session ends.
func (a *talker) talk(records uint64) error {
	offer := &quicflowv1.ToHub{Body: &quicflowv1.ToHub_LogOffer{LogOffer: &quicflowv1.LogOffer{}}}
	if err := a.say(offer); err != nil {
		return err
	}
	for n := uint64(0); ; {
		f := new(quicflowv1.ToAgent)
		if err := a.reader.Read(f); err != nil {
			return nil // the test is over
		}
		var err error
		switch body := f.Body.(type) {
		case *quicflowv1.ToAgent_LogCredit:
			if err = a.ship(n); err == nil {
				if n += 2; n < records {
					err = a.say(offer)
				}
			}
		case *quicflowv1.ToAgent_HeartbeatAck:
			a.beats <- body.HeartbeatAck.Sequence
		case *quicflowv1.ToAgent_Request:
			err = a.say(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Response{Response: &quicflowv1.Response{Id: body.Request.Id,
				Body: &quicflowv1.Response_Message{Message: &quicflowv1.Message{Type: "pong"}}}}})
		}
		if err != nil {
			return err
		}
	}
}

// ship sends two records in a stream.
func (a *talker) ship(n uint64) error {
	s, err := a.conn.OpenUniStreamSync(a.t.Context())
	if err != nil {
		return err
	}
	for i := range uint64(2) {
		if err := wire.WriteFrame(s, chunkOf(a.step, n+i, 30_000)); err != nil {
			return err
		}
	}
	return s.Close()
}

// A sink that hangs holds up the agents that write, within the bound, and neither requests nor heartbeats. When it goes on,
// everything arrives.
func TestLogsOfAHubWhoseSinkHangs(t *testing.T) {
	const agents, records, limit = 10, 40, 10*grant + 1234
	b := start(t, smallCredit(limit))
	goOn := b.hang()
	var all []*talker
	var group sync.WaitGroup
	for i := range agents {
		id := fmt.Sprintf("web-%d", i)
		a := &talker{agent: b.connect(b.join(id)), step: step(id), beats: make(chan uint64, 1)}
		all = append(all, a)
		group.Go(func() {
			if err := a.talk(records); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	most := int64(0)
	look := func() (buffered int64) {
		unused, buffered := hub.Held(b.Hub)
		most = max(most, unused+buffered)
		return buffered
	}
	eventually(t, "all wait", func() bool { return look() > limit-2*grant && hub.Waiting(b.Hub) == agents })
	for i, a := range all {
		require.NoError(t, a.say(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Heartbeat{Heartbeat: &quicflowv1.Heartbeat{Sequence: uint64(i)}}}))
		select {
		case n := <-a.beats:
			require.EqualValues(t, i, n)
		case <-time.After(patience):
			require.FailNow(t, "a heartbeat is not answered", a.id)
		}
		require.NoError(t, outcomeOf(t, b.ask(t.Context(), a.id)))
	}
	require.Equal(t, agents, hub.Waiting(b.Hub))
	goOn()
	for _, a := range all {
		eventually(t, "all arrives", func() bool { look(); return len(b.sink.text(a.step)) == records*30_000 })
	}
	require.LessOrEqual(t, most, int64(limit))
	b.held(0, 0)
	require.Zero(t, hub.Waiting(b.Hub))
	for _, a := range all {
		require.NoError(t, a.conn.CloseWithError(wire.CloseNormal, ""))
	}
	group.Wait()
}

// goroutines counts those that are in a function.
func goroutines(function string) (n int) {
	buffer := make([]byte, 16<<20)
	for stack := range strings.SplitSeq(string(buffer[:runtime.Stack(buffer, true)]), "\n\n") {
		if strings.Contains(stack, function) {
			n++
		}
	}
	return n
}

func TestIdleSessionHasNoGoroutineForLogs(t *testing.T) {
	const control, reading = "hub.(*session).read(", "hub.(*session).readLogs("
	b := start(t)
	var all []*agent
	for i := range 20 {
		all = append(all, b.connect(b.join(fmt.Sprintf("web-%d", i))))
	}
	eventually(t, "one goroutine a session", func() bool { return goroutines(control) == 20 })
	require.Zero(t, goroutines(reading)+goroutines("AcceptUniStream"))
	s := all[0].logs()
	require.Equal(t, 1, goroutines(reading))
	require.NoError(t, s.Close())
	eventually(t, "it ends with the stream", func() bool { return goroutines(reading) == 0 })
	all[0].alive()
}

// A flood of streams is refused by QUIC itself; quic.max_incoming_uni_streams can make their number smaller.
func TestLogStreamsAreFew(t *testing.T) {
	for name, c := range map[string]struct {
		quic *quic.Config
		want int
	}{
		"none given":    {nil, 2}, // as the windows have it
		"one":           {&quic.Config{MaxIncomingUniStreams: 1}, 1},
		"small windows": {&quic.Config{MaxIncomingUniStreams: 1000, MaxStreamReceiveWindow: 1 << 20}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, func(cfg *hub.Config) { cfg.QUIC = c.quic })
			a := b.connect(b.join("web-1"))
			for range c.want {
				_, err := a.conn.OpenUniStream()
				require.NoError(t, err)
			}
			_, err := a.conn.OpenUniStream()
			require.ErrorAs(t, err, new(*quic.StreamLimitReachedError))

			other := b.connect(b.join("web-2"))
			for range 10 { // one after the other there may be any number
				require.NoError(t, other.logs().Close())
			}
			other.alive()
		})
	}
}

// A hub that stops waits for no credit.
func TestStopWithCreditOut(t *testing.T) {
	b := start(t, smallCredit(2*grant))
	a, waiting := b.connect(b.join("web-1")), b.connect(b.join("web-2"))
	s := a.logs()
	a.logs()
	waiting.offer()
	waiting.alive()
	require.NoError(t, wire.WriteFrame(s, chunkAt(step("web-1"), 0)))
	require.EqualValues(t, 1, a.receive().GetLogAck().GetPosition())
	b.stop()
	unused, buffered := hub.Held(b.Hub)
	require.Zero(t, unused+buffered)
	require.Zero(t, hub.Waiting(b.Hub))
}
