package hub

import (
	"context"
	"errors"
	"fmt"
	"time"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// promise is a request that awaits its answer.
type promise struct {
	done chan outcome // buffered; whoever takes the promise out of session.waiting sends exactly one outcome
}

type outcome struct {
	response *quicflowv1.Response
	err      error
}

// Request sends a request to an agent and waits for its answer. req is not changed, so one may go to many agents; its id is
// given by the hub. Without a deadline in ctx, Config.DefaultTimeout applies.
//
// A Failure that the agent answers is a response, not an error. Errors: ErrNotConnected, ErrDraining, ErrTooManyPromises,
// ErrBusy, ErrSessionLost, ErrPromiseTimeout, and the cause of a cancelled ctx.
func (h *Hub) Request(ctx context.Context, clientID string, req *quicflowv1.Request) (*quicflowv1.Response, error) {
	response, err := h.request(ctx, clientID, req)
	if err != nil {
		return nil, fmt.Errorf("request to agent %s: %w", clientID, err)
	}
	return response, nil
}

func (h *Hub) request(ctx context.Context, clientID string, req *quicflowv1.Request) (*quicflowv1.Response, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.cfg.DefaultTimeout)
		defer cancel()
	}
	if ctx.Err() != nil {
		return nil, whyDone(ctx)
	}
	s, err := h.sessionOf(clientID)
	if err != nil {
		return nil, err
	}
	if !h.takePromise() {
		return nil, ErrTooManyPromises
	}
	defer h.promises.Add(-1)

	start := time.Now()
	id := h.requests.Add(1)
	p, err := s.promise(id)
	if err != nil {
		return nil, err
	}
	h.metrics.promisesCreated.Inc()
	frame := &quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_Request{Request: &quicflowv1.Request{Id: id, Body: req.Body}}}
	if err := s.send(frame, maxRequests); err != nil && s.withdraw(id) {
		h.metrics.promisesFailed.Inc()
		if errors.Is(err, errOutboxFull) {
			err = ErrBusy
		}
		return nil, err
	}
	var out outcome
	select {
	case out = <-p.done:
	case <-ctx.Done():
		if s.withdraw(id) {
			out.err = whyDone(ctx)
		} else { // the answer came at the same moment
			out = <-p.done
		}
	}
	wait := time.Since(start)
	switch {
	case out.err == nil:
		h.metrics.promisesCompleted.Inc()
		h.metrics.requestDuration.Observe(wait.Seconds())
	case errors.Is(out.err, ErrPromiseTimeout):
		h.metrics.promisesTimedOut.Inc()
		call2(h.cfg.Hooks.OnPromiseTimeout, s.event(), wait)
	default:
		h.metrics.promisesFailed.Inc()
	}
	return out.response, out.err
}

func whyDone(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ErrPromiseTimeout
	}
	return context.Cause(ctx)
}

func (h *Hub) sessionOf(clientID string) (*session, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.draining {
		return nil, ErrDraining
	}
	s := h.sessions[clientID]
	if s == nil || !s.accepted {
		return nil, ErrNotConnected
	}
	return s, nil
}

// takePromise counts one more promise unless there are too many. Whoever gets one gives it back.
func (h *Hub) takePromise() bool {
	n := int(h.promises.Add(1))
	if n > h.cfg.MaxPromises {
		h.promises.Add(-1)
		return false
	}
	switch { // warn once per crossing, with some way back down so that it does not flap
	case n >= h.cfg.PromiseWarnThreshold && h.crowded.CompareAndSwap(false, true):
		h.log.Warn("many requests await an answer", "promises", n, "max", h.cfg.MaxPromises)
	case n < h.cfg.PromiseWarnThreshold*9/10 && h.crowded.Load():
		h.crowded.Store(false)
	}
	return true
}

// promise starts to wait for the answer to a request.
func (s *session) promise(id uint64) (*promise, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return nil, s.refuse
	}
	if s.waiting == nil {
		s.waiting = make(map[uint64]*promise)
	}
	p := &promise{done: make(chan outcome, 1)}
	s.waiting[id] = p
	return p, nil
}

// withdraw ends the wait, unless the outcome is there already or on its way.
func (s *session) withdraw(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.waiting[id]
	delete(s.waiting, id)
	return ok
}

// complete hands an answer to who waits for it. One that comes too late has no one.
func (s *session) complete(response *quicflowv1.Response) {
	s.mu.Lock()
	p := s.waiting[response.GetId()]
	delete(s.waiting, response.GetId())
	s.mu.Unlock()
	if p != nil {
		p.done <- outcome{response: response}
	}
}

// failPromises ends all waits for this reason, and all later ones.
func (s *session) failPromises(reason error) {
	s.mu.Lock()
	waiting := s.waiting
	s.waiting = nil
	if s.refuse == nil {
		s.refuse = reason
	}
	s.mu.Unlock()
	for _, p := range waiting {
		p.done <- outcome{err: reason}
	}
}
