package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// What SendMessage can end in, beside the caller's own context. After ErrNotConnected, ErrInvalidMessage, ErrOverloaded and
// ErrUnsupported no handler has seen the message; after ErrTimeout and ErrSessionLost it is not known.
var (
	ErrNotConnected   = errors.New("the agent has no session")
	ErrInvalidMessage = errors.New("a message that cannot be sent")
	ErrOverloaded     = errors.New("message was not taken")
	ErrUnsupported    = errors.New("message is not supported")
	ErrSessionLost    = errors.New("the session ended before the answer came")
)

// ErrTimeout reports that no answer came in time, or that the hub's handler did not end in its time. It also matches
// context.DeadlineExceeded.
var ErrTimeout error = timeoutError{}

type timeoutError struct{}

func (timeoutError) Error() string        { return "no answer in time" }
func (timeoutError) Timeout() bool        { return true }
func (timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// HandlerError is what the hub's handler answered in place of a message. Find it with errors.As.
type HandlerError struct{ Text string }

func (e *HandlerError) Error() string { return "the hub's handler failed: " + e.Text }

// MaxMessage is what type and payload of a message may take, in bytes.
const MaxMessage = maxAnswer

// SendMessage sends a message to the hub over the session of this moment; it does not wait for one, and sends nothing again.
// With waitAck it returns the answer of the hub's handler; without, nil as soon as the message is queued, and whether it
// arrives is not known. The message is copied.
//
// timeout bounds all of it, as does ctx; with 0 the hub's own limit for handlers and the life of the session do. Errors:
// ErrNotConnected, ErrInvalidMessage, ErrOverloaded, ErrUnsupported, ErrTimeout, ErrSessionLost, a *HandlerError, and the
// cause of a cancelled ctx.
func (a *Agent) SendMessage(ctx context.Context, message *quicflowv1.Message, waitAck bool, timeout time.Duration) (*quicflowv1.Message, error) {
	answer, err := a.sendMessage(ctx, message, waitAck, timeout)
	if err != nil {
		return nil, fmt.Errorf("send message %q: %w", message.GetType(), err)
	}
	return answer, nil
}

func (a *Agent) sendMessage(ctx context.Context, message *quicflowv1.Message, waitAck bool, timeout time.Duration) (*quicflowv1.Message, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if ctx.Err() != nil {
		return nil, whyDone(ctx)
	}
	if err := checkMessage(message); err != nil {
		return nil, err
	}
	s := a.currentSession()
	if s == nil {
		return nil, ErrNotConnected
	}
	request := &quicflowv1.Request{Body: &quicflowv1.Request_Message{
		Message: &quicflowv1.Message{Type: message.Type, Payload: message.Payload}}}
	var answer <-chan *quicflowv1.Response
	if waitAck {
		request.Id, answer = s.calls.begin()
		defer s.calls.end(request.Id)
	}
	err := s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Request{Request: request}})
	if errors.Is(err, wire.ErrOutboxFull) {
		return nil, fmt.Errorf("%w: the hub does not read what it is sent", ErrOverloaded)
	}
	if err != nil {
		return nil, err
	}
	if !waitAck {
		return nil, nil
	}
	select {
	case response := <-answer:
		return messageOf(response)
	case <-s.calls.lost:
	case <-ctx.Done():
	}
	select {
	case response := <-answer: // it came at the same moment
		return messageOf(response)
	default:
	}
	if ctx.Err() != nil {
		return nil, whyDone(ctx)
	}
	return nil, s.calls.why()
}

func whyDone(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ErrTimeout
	}
	return context.Cause(ctx)
}

// checkMessage keeps from the session what would end it.
func checkMessage(m *quicflowv1.Message) error {
	switch size := len(m.GetType()) + len(m.GetPayload()); {
	case m == nil:
		return fmt.Errorf("%w: it is nil", ErrInvalidMessage)
	case !utf8.ValidString(m.Type):
		return fmt.Errorf("%w: its type is not valid UTF-8", ErrInvalidMessage)
	case size > MaxMessage:
		return fmt.Errorf("%w: it takes %d bytes, at most %d are allowed", ErrInvalidMessage, size, MaxMessage)
	}
	return nil
}

func messageOf(response *quicflowv1.Response) (*quicflowv1.Message, error) {
	if m := response.GetMessage(); m != nil {
		return m, nil
	}
	f := response.GetFailure()
	switch f.GetCode() {
	case quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED:
		return nil, fmt.Errorf("%w: %s", ErrOverloaded, f.Message)
	case quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED:
		return nil, fmt.Errorf("%w: %s", ErrUnsupported, f.Message)
	case quicflowv1.FailureCode_FAILURE_CODE_TIMEOUT:
		return nil, fmt.Errorf("%w: %s", ErrTimeout, f.Message)
	}
	return nil, &HandlerError{Text: f.GetMessage()}
}

// calls are the messages of a session that await their answer.
type calls struct {
	lost chan struct{} // closed when the session has ended

	mu      sync.Mutex
	last    uint64 // id given
	waiting map[uint64]chan<- *quicflowv1.Response
	cause   error // why the session ended; valid when lost is closed
}

func newCalls() *calls {
	return &calls{lost: make(chan struct{}), waiting: make(map[uint64]chan<- *quicflowv1.Response)}
}

// begin gives an id and where its answer will come. Whoever gets one ends it.
func (c *calls) begin() (uint64, <-chan *quicflowv1.Response) {
	answer := make(chan *quicflowv1.Response, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.waiting[c.last] = answer
	return c.last, answer
}

func (c *calls) end(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// complete hands an answer to who waits for it. One that comes too late, or twice, has no one.
func (c *calls) complete(response *quicflowv1.Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer := c.waiting[response.GetId()]; answer != nil {
		delete(c.waiting, response.Id)
		answer <- response
	}
}

// lose ends all waits; ctx is that of the session.
func (c *calls) lose(ctx context.Context, cause error) {
	if ctx.Err() != nil {
		cause = ErrStopping // the session may say what it saw of that instead
	}
	c.cause = cause
	close(c.lost)
}

func (c *calls) why() error { return fmt.Errorf("%w: %w", ErrSessionLost, c.cause) }

func (a *Agent) currentSession() *session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.session
}

func (a *Agent) setSession(s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.session = s
}
