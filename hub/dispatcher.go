package hub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Handler answers one message of an agent. Up to Config.WorkerCount run at a time, those of one agent included.
//
// ctx ends after Config.HandlerTimeout, and with the cause ErrDraining when the hub stops. It does not end with the
// session: a message that was taken is worked on to its end, whether or not anyone is left to read the answer. A nil answer
// is an empty one. The text of an error is sent to the agent.
//
// A handler that runs on after its ctx has ended holds its worker until it returns, although its agent was answered at the
// deadline.
type Handler func(ctx context.Context, from Event, message *quicflowv1.Message) (*quicflowv1.Message, error)

// builtinHandlers answer ping with pong and echo with itself, payload included: so an agent can try out its hub.
func builtinHandlers() map[string]Handler {
	answer := func(kind string) Handler {
		return func(_ context.Context, _ Event, m *quicflowv1.Message) (*quicflowv1.Message, error) {
			return &quicflowv1.Message{Type: kind, Payload: m.Payload}, nil
		}
	}
	return map[string]Handler{"ping": answer("pong"), "echo": answer("echo")}
}

const (
	// maxQueueBytes bounds the payloads in the queue, whatever their number.
	maxQueueBytes = 64 << 20
	// maxFailure bounds what an agent is told of a handler's error, in bytes.
	maxFailure = 4 << 10
)

var errHandlerTimeout = errors.New("the handler did not end in time")

// dispatcher has workers answer the messages of agents. A worker is a slot: its goroutine lives for one message and begins
// the next one in the queue with its last breath, so that an idle hub holds none.
type dispatcher struct {
	hub      *Hub
	handlers map[string]Handler
	ctx      context.Context // of all handlers
	cancel   context.CancelCauseFunc

	mu     sync.Mutex
	queue  []*task
	bytes  int // of payload in queue
	busy   int // handlers that have not returned
	closed bool
	idle   chan struct{} // closed when closed and no handler runs
}

// task is a message on its way to its answer.
type task struct {
	from    *session
	id      uint64 // 0: no one waits for an answer
	message *quicflowv1.Message
	handler Handler
	once    sync.Once // the first answer counts
}

func newDispatcher(h *Hub) *dispatcher {
	d := &dispatcher{hub: h, handlers: builtinHandlers(), idle: make(chan struct{})}
	maps.Copy(d.handlers, h.cfg.Handlers)
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	return d
}

// dispatch takes a request of an agent. It never waits.
func (d *dispatcher) dispatch(s *session, request *quicflowv1.Request) *endError {
	t := &task{from: s, id: request.GetId(), message: request.GetMessage()}
	if t.message == nil {
		return t.answer(failure(quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, "a hub takes messages alone"))
	}
	if t.handler = d.handlers[t.message.Type]; t.handler == nil {
		return t.answer(failure(quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, fmt.Sprintf("the hub has no handler for %q", t.message.Type)))
	}
	if why := d.take(t); why != "" {
		return d.reject(t, why)
	}
	return nil
}

// take begins a task or queues it, or says why neither was possible.
func (d *dispatcher) take(t *task) (why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch size := len(t.message.Payload); {
	case d.closed:
		return "the hub is stopping"
	case d.busy < d.hub.cfg.WorkerCount:
		d.busy++
		go d.run(t) // awaited by wait
		return ""
	case len(d.queue) >= d.hub.cfg.QueueSize, d.bytes > 0 && d.bytes+size > maxQueueBytes:
		return "too many messages wait for a worker of the hub; try again later"
	default:
		d.queue = append(d.queue, t)
		d.bytes += size
		return ""
	}
}

// next begins the task that waits longest, or gives the worker back.
func (d *dispatcher) next() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		d.queue = nil
		d.busy--
		d.settle()
		return
	}
	t := d.queue[0]
	d.queue[0] = nil
	d.queue = d.queue[1:]
	d.bytes -= len(t.message.Payload)
	go d.run(t) // awaited by wait
}

// settle notes that no handler runs any more. d.mu is held.
func (d *dispatcher) settle() {
	if d.closed && d.busy == 0 {
		close(d.idle)
	}
}

// run carries a task to its answer. The deferred calls hold even for a handler that ends its goroutine.
func (d *dispatcher) run(t *task) {
	defer d.next()
	ctx, cancel := context.WithTimeoutCause(d.ctx, d.hub.cfg.HandlerTimeout, errHandlerTimeout)
	defer cancel()
	told := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		defer close(told)
		if errors.Is(context.Cause(ctx), errHandlerTimeout) {
			d.hub.log.Warn("handler takes too long", "client_id", t.from.id, "type", t.message.Type, "timeout", d.hub.cfg.HandlerTimeout)
			t.tell(failure(quicflowv1.FailureCode_FAILURE_CODE_TIMEOUT, fmt.Sprintf("the hub's handler did not end within %s", d.hub.cfg.HandlerTimeout)))
		}
	})
	start := time.Now()
	response := failure(quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, "the hub's handler gave up")
	defer func() {
		d.hub.metrics.handlerDuration.Observe(time.Since(start).Seconds())
		// At the deadline it is the deadline that is told, even if the handler has seen it first.
		if errors.Is(context.Cause(ctx), errHandlerTimeout) || !unwatch() {
			<-told
		}
		t.tell(response)
	}()
	response = d.call(ctx, t)
}

// call runs a handler and gives its answer, whatever it does.
func (d *dispatcher) call(ctx context.Context, t *task) (response *quicflowv1.Response) {
	defer func() {
		if cause := recover(); cause != nil {
			d.hub.log.Error("handler panicked", "client_id", t.from.id, "type", t.message.Type, "panic", cause, "stack", string(debug.Stack()))
			response = failure(quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, "the hub's handler failed")
		}
	}()
	answer, err := t.handler(ctx, t.from.event(), t.message)
	switch {
	case err != nil && errors.Is(context.Cause(ctx), ErrDraining):
		return failure(quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, "the hub is stopping: "+err.Error())
	case err != nil:
		return failure(quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, err.Error())
	case answer == nil:
		answer = &quicflowv1.Message{}
	}
	return &quicflowv1.Response{Body: &quicflowv1.Response_Message{Message: answer}}
}

// reject answers a task that no handler has seen.
func (d *dispatcher) reject(t *task, why string) *endError {
	d.hub.metrics.messagesRejected.Inc()
	return t.answer(failure(quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, why))
}

// tell is answer for who cannot end the session by an error.
func (t *task) tell(response *quicflowv1.Response) {
	if err := t.answer(response); err != nil {
		t.from.close(err)
	}
}

// answer sends the one response of a task. An agent that does not read gets a short one, and if that is too much as well,
// its session ends.
func (t *task) answer(response *quicflowv1.Response) (ended *endError) {
	if t.id == 0 {
		return nil
	}
	t.once.Do(func() {
		frame := func(r *quicflowv1.Response) *quicflowv1.ToAgent {
			// A copy, as a handler may give the same answer twice.
			return &quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_Response{Response: &quicflowv1.Response{Id: t.id, Body: r.Body}}}
		}
		switch err := t.from.send(frame(response), maxRequests); {
		case err == nil, errors.Is(err, ErrSessionLost):
		case errors.Is(err, wire.ErrOutboxFull):
			if response.GetFailure() == nil {
				response = failure(quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, "the answer was dropped: "+ErrBusy.Error())
			}
			ended = t.from.reply(frame(response))
		default:
			ended = t.from.reply(frame(failure(quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, "the answer cannot be sent: "+err.Error())))
		}
	})
	return ended
}

// close answers what waits, cancels what runs, and takes nothing any more.
func (d *dispatcher) close() {
	d.mu.Lock()
	waiting := d.queue
	d.queue, d.bytes, d.closed = nil, 0, true
	d.settle()
	d.mu.Unlock()
	d.cancel(ErrDraining)
	for _, t := range waiting {
		if err := d.reject(t, "the hub is stopping"); err != nil {
			t.from.close(err)
		}
	}
}

// wait waits, after close, for the last handler to return; when ctx ends before, it says how many have not.
func (d *dispatcher) wait(ctx context.Context) error {
	select {
	case <-d.idle:
		return nil
	case <-ctx.Done():
	}
	_, busy := d.load()
	if busy == 0 {
		return nil
	}
	return fmt.Errorf("%d handlers of messages did not end", busy)
}

func (d *dispatcher) load() (queued, busy int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queue), d.busy
}

// failure is a response that says why there is no other.
func failure(code quicflowv1.FailureCode, message string) *quicflowv1.Response {
	message = strings.ToValidUTF8(message[:min(len(message), maxFailure)], "")
	return &quicflowv1.Response{Body: &quicflowv1.Response_Failure{Failure: &quicflowv1.Failure{Code: code, Message: message}}}
}
