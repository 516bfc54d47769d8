package hub_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/telemetry"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// ask sends a message to the hub.
func (a *agent) ask(id uint64, kind string, payload []byte) {
	a.t.Helper()
	a.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Request{Request: &quicflowv1.Request{
		Id: id, Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: kind, Payload: payload}}}}})
}

// response is the next frame, which must be one.
func (a *agent) response() *quicflowv1.Response {
	a.t.Helper()
	frame := a.receive()
	require.NotNil(a.t, frame.GetResponse(), "got %v", frame)
	return frame.GetResponse()
}

func (a *agent) failed(id uint64, code quicflowv1.FailureCode, message string) {
	a.t.Helper()
	r := a.response()
	require.Equal(a.t, id, r.Id)
	require.Equal(a.t, code, r.GetFailure().GetCode(), "got %v", r)
	require.Contains(a.t, r.GetFailure().GetMessage(), message)
}

// observed is how often a histogram observed something, and the sum of it.
func observed(t *testing.T, reg *prometheus.Registry, name string) (count int, sum float64) {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			h := f.GetMetric()[0].GetHistogram()
			return int(h.GetSampleCount()), h.GetSampleSum()
		}
	}
	require.FailNow(t, "no metric "+name)
	return 0, 0
}

// dispatched waits until the dispatcher is idle, and checks what it counted.
func dispatched(t *testing.T, reg *prometheus.Registry, handled, rejected int) {
	t.Helper()
	eventually(t, "the dispatcher is idle", func() bool { return value(t, reg, telemetry.DispatcherWorkersBusy) == 0 })
	require.EqualValues(t, 0, value(t, reg, telemetry.DispatcherQueueDepth))
	require.EqualValues(t, rejected, value(t, reg, telemetry.DispatcherRejectedTotal))
	count, _ := observed(t, reg, telemetry.HandlerDuration)
	require.Equal(t, handled, count)
}

// gate is a handler that holds its messages until it is opened.
type gate struct {
	open          chan struct{}
	running, most atomic.Int32
	seen          sync.Map // by payload
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) handle(_ context.Context, _ hub.Event, m *quicflowv1.Message) (*quicflowv1.Message, error) {
	n := g.running.Add(1)
	defer g.running.Add(-1)
	for most := g.most.Load(); n > most && !g.most.CompareAndSwap(most, n); most = g.most.Load() {
	}
	g.seen.Store(string(m.Payload), true)
	<-g.open
	return m, nil
}

func handlers(h map[string]hub.Handler) func(*hub.Config) {
	return func(c *hub.Config) { c.Handlers = h }
}

func TestMessagesAreAnswered(t *testing.T) {
	reg := prometheus.NewRegistry()
	var log bytes.Buffer
	told := make(chan struct{})
	var tell sync.Once
	b := start(t, counted(reg), handlers(map[string]hub.Handler{
		"who": func(_ context.Context, from hub.Event, _ *quicflowv1.Message) (*quicflowv1.Message, error) {
			return &quicflowv1.Message{Type: from.ClientID, Payload: []byte(from.Address)}, nil
		},
		"fail": func(context.Context, hub.Event, *quicflowv1.Message) (*quicflowv1.Message, error) {
			return nil, errors.New("no such \xff thing")
		},
		"panic": func(context.Context, hub.Event, *quicflowv1.Message) (*quicflowv1.Message, error) { panic("secret") },
		"exit": func(context.Context, hub.Event, *quicflowv1.Message) (*quicflowv1.Message, error) {
			runtime.Goexit()
			return nil, nil
		},
		"quiet": func(context.Context, hub.Event, *quicflowv1.Message) (*quicflowv1.Message, error) { return nil, nil },
		"huge": func(context.Context, hub.Event, *quicflowv1.Message) (*quicflowv1.Message, error) {
			return &quicflowv1.Message{Payload: make([]byte, wire.MaxFrame)}, nil
		},
		"tell": func(context.Context, hub.Event, *quicflowv1.Message) (*quicflowv1.Message, error) {
			tell.Do(func() { close(told) })
			return &quicflowv1.Message{}, nil
		},
	}), func(c *hub.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	a := b.connect(b.join("a"))

	for kind, want := range map[string]*quicflowv1.Message{
		"ping":  {Type: "pong", Payload: []byte("x")},
		"echo":  {Type: "echo", Payload: []byte("x")},
		"who":   {Type: "a", Payload: []byte(a.address())},
		"quiet": {},
	} {
		a.ask(7, kind, []byte("x"))
		r := a.response()
		require.EqualValues(t, 7, r.Id)
		require.NotNil(t, r.GetMessage(), "%s: %v", kind, r)
		require.Equal(t, want.Type, r.GetMessage().Type)
		require.Equal(t, want.Payload, r.GetMessage().Payload)
	}
	internal, unsupported := quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED
	for kind, want := range map[string]struct {
		code quicflowv1.FailureCode
		text string
	}{
		"fail":  {internal, "no such  thing"},
		"panic": {internal, "the hub's handler failed"},
		"exit":  {internal, "gave up"},
		"huge":  {internal, "frame too large"},
		"other": {unsupported, `no handler for "other"`},
	} {
		a.ask(8, kind, nil)
		a.failed(8, want.code, want.text)
	}
	a.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Request{Request: &quicflowv1.Request{Id: 9, Body: &quicflowv1.Request_Step{Step: &quicflowv1.StepRequest{}}}}})
	a.failed(9, unsupported, "messages alone")

	// Without an id there is no answer: the next frame is the one to the heartbeat.
	a.ask(0, "tell", nil)
	a.ask(0, "other", nil)
	signal(t, "the handler was called", told)
	dispatched(t, reg, 9, 0)
	a.alive()
	b.stop()
	require.Contains(t, log.String(), "secret")
}

func TestWorkerCountBoundsHandlers(t *testing.T) {
	reg, g := prometheus.NewRegistry(), newGate()
	b := start(t, counted(reg), handlers(map[string]hub.Handler{"work": g.handle}), func(c *hub.Config) { c.WorkerCount = 3 })
	a, other := b.connect(b.join("a")), b.connect(b.join("b"))
	for id := range uint64(6) {
		a.ask(id+1, "work", nil)
	}
	for id := range uint64(4) {
		other.ask(id+1, "work", nil)
	}
	eventually(t, "the others wait", func() bool { return value(t, reg, telemetry.DispatcherQueueDepth) == 7 })
	require.EqualValues(t, 3, value(t, reg, telemetry.DispatcherWorkersBusy))
	eventually(t, "three work", func() bool { return g.running.Load() == 3 })
	close(g.open)
	for range 6 {
		require.NotNil(t, a.response().GetMessage())
	}
	for range 4 {
		require.NotNil(t, other.response().GetMessage())
	}
	require.EqualValues(t, 3, g.most.Load())
	dispatched(t, reg, 10, 0)
}

func TestFullQueueAnswersAtOnce(t *testing.T) {
	reg, g := prometheus.NewRegistry(), newGate()
	b := start(t, counted(reg), handlers(map[string]hub.Handler{"work": g.handle}), func(c *hub.Config) { c.WorkerCount, c.QueueSize = 1, 2 })
	a := b.connect(b.join("a"))
	for id := range uint64(10) {
		a.ask(id+1, "work", nil)
	}
	for id := range uint64(7) { // while not one handler has returned
		a.failed(id+4, quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, "try again later")
	}
	a.alive()
	require.EqualValues(t, 2, value(t, reg, telemetry.DispatcherQueueDepth))
	require.EqualValues(t, 7, value(t, reg, telemetry.DispatcherRejectedTotal))
	close(g.open)
	for id := range uint64(3) { // in the order in which they came
		r := a.response()
		require.Equal(t, id+1, r.Id)
		require.NotNil(t, r.GetMessage())
	}
	dispatched(t, reg, 3, 7)
	a.ask(11, "work", nil)
	require.NotNil(t, a.response().GetMessage())
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	reg, g := prometheus.NewRegistry(), newGate()
	b := start(t, counted(reg), handlers(map[string]hub.Handler{"work": g.handle}), func(c *hub.Config) { c.WorkerCount = 1 })
	a := b.connect(b.join("a"))
	megabyte := make([]byte, 1<<20-1024)
	for range 80 {
		a.ask(1, "work", megabyte)
	}
	a.aliveAmid(t)
	close(g.open)
	rejected := int(value(t, reg, telemetry.DispatcherRejectedTotal))
	require.Equal(t, 80-1-64, rejected)
	dispatched(t, reg, 65, rejected)
}

// aliveAmid is alive for an agent that is sent other frames too.
func (a *agent) aliveAmid(t *testing.T) {
	t.Helper()
	a.beat(1)
	for a.receive().GetHeartbeatAck() == nil {
	}
}

func TestHandlerTimeout(t *testing.T) {
	reg, g := prometheus.NewRegistry(), newGate()
	cause := make(chan error, 1)
	b := start(t, counted(reg), handlers(map[string]hub.Handler{
		"deaf": g.handle,
		"good": func(ctx context.Context, _ hub.Event, _ *quicflowv1.Message) (*quicflowv1.Message, error) {
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return nil, ctx.Err()
		},
	}), func(c *hub.Config) { c.WorkerCount, c.HandlerTimeout = 1, 200*time.Millisecond })
	a := b.connect(b.join("a"))
	a.ask(1, "good", nil)
	a.failed(1, quicflowv1.FailureCode_FAILURE_CODE_TIMEOUT, "200ms")
	require.ErrorContains(t, <-cause, "did not end in time")

	began := time.Now()
	a.ask(2, "deaf", nil)
	a.ask(3, "deaf", nil)
	a.failed(2, quicflowv1.FailureCode_FAILURE_CODE_TIMEOUT, "200ms")
	require.GreaterOrEqual(t, time.Since(began), 200*time.Millisecond)
	// The handler still has the worker, so the next message waits.
	eventually(t, "the next one waits", func() bool { return value(t, reg, telemetry.DispatcherQueueDepth) == 1 })
	require.EqualValues(t, 1, value(t, reg, telemetry.DispatcherWorkersBusy))
	close(g.open)
	r := a.response()
	require.EqualValues(t, 3, r.Id, "a second answer came to a message")
	require.NotNil(t, r.GetMessage())
	dispatched(t, reg, 3, 0)
	_, sum := observed(t, reg, telemetry.HandlerDuration)
	require.GreaterOrEqual(t, sum, 0.4)
	a.alive()
}

func TestStopDrainsMessages(t *testing.T) {
	reg := prometheus.NewRegistry()
	cause, begun := make(chan error, 1), make(chan struct{})
	b := start(t, counted(reg), handlers(map[string]hub.Handler{
		"work": func(ctx context.Context, _ hub.Event, m *quicflowv1.Message) (*quicflowv1.Message, error) {
			close(begun)
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return m, nil
		},
	}), func(c *hub.Config) { c.WorkerCount, c.DrainTimeout = 1, patience })
	a := b.connect(b.join("a"))
	for id := range uint64(3) {
		a.ask(id+1, "work", nil)
	}
	signal(t, "the handler runs", begun)
	eventually(t, "two wait", func() bool { return value(t, reg, telemetry.DispatcherQueueDepth) == 2 })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.stop()
	}()
	answers := map[uint64]*quicflowv1.Response{}
	for range 3 {
		r := a.response()
		answers[r.Id] = r
	}
	require.NotNil(t, answers[1].GetMessage(), "a handler that returns in time has its answer sent")
	for _, id := range []uint64{2, 3} {
		require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, answers[id].GetFailure().GetCode())
		require.Contains(t, answers[id].GetFailure().GetMessage(), "the hub is stopping")
	}
	require.NotNil(t, a.receive().GetGoodbye(), "it comes after the answers")
	require.ErrorIs(t, <-cause, hub.ErrDraining)
	a.conn.CloseWithError(wire.CloseNormal, "")
	signal(t, "the hub stopped", stopped)
	require.EqualValues(t, 2, value(t, reg, telemetry.DispatcherRejectedTotal))
}

func TestStopLeavesDeafHandlers(t *testing.T) {
	g := newGate()
	returned := make(chan struct{})
	b := start(t, handlers(map[string]hub.Handler{"work": func(ctx context.Context, from hub.Event, m *quicflowv1.Message) (*quicflowv1.Message, error) {
		defer close(returned)
		return g.handle(ctx, from, m)
	}}))
	b.stopped = true
	a := b.connect(b.join("a"))
	a.ask(1, "work", nil)
	eventually(t, "the handler runs", func() bool { return g.running.Load() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := b.Stop(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "1 handlers of messages did not end")
	close(g.open)
	signal(t, "the handler returned", returned)
}

// An agent that does not read loses answers, but not its session, and each message has one answer.
func TestAnswersToWhoDoesNotRead(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := start(t, counted(reg))
	a := b.connect(b.join("a"))
	payload := make([]byte, 1<<20-1024)
	const messages = 10
	for id := range uint64(messages) {
		a.ask(id+1, "echo", payload)
	}
	dispatchedAll := func() bool { n, _ := observed(t, reg, telemetry.HandlerDuration); return n == messages }
	eventually(t, "all are handled", dispatchedAll)
	answered, dropped := map[uint64]bool{}, 0
	for range messages {
		r := a.response()
		require.False(t, answered[r.Id])
		answered[r.Id] = true
		if f := r.GetFailure(); f != nil {
			require.Contains(t, f.Message, "the answer was dropped")
			dropped++
		}
	}
	require.Positive(t, dropped)
	require.Less(t, dropped, messages)
	a.alive()
}

func TestDispatcherConfig(t *testing.T) {
	for want, change := range map[string]func(*hub.Config){
		"WorkerCount is negative":    func(c *hub.Config) { c.WorkerCount = -1 },
		"QueueSize is negative":      func(c *hub.Config) { c.QueueSize = -1 },
		"HandlerTimeout is negative": func(c *hub.Config) { c.HandlerTimeout = -1 },
		`Handlers["x"] is nil`:       func(c *hub.Config) { c.Handlers = map[string]hub.Handler{"x": nil} },
	} {
		m := hub.NewMemory()
		cfg := hub.Config{NodeID: "n", CA: ca, Registry: m, Sink: m}
		change(&cfg)
		_, err := hub.New(cfg)
		require.ErrorContains(t, err, want)
	}
}
