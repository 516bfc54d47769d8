package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// promise is a request that awaits its answer. Whoever takes it out of session.waiting settles it, exactly once.
type promise struct {
	id      uint64 // of the request
	session *session
	start   time.Time
	expires time.Time // of a Request whose context has no deadline

	done   chan outcome // of a Request: has room for the one outcome
	gather *gathering   // of a Broadcast, in place of done
	turn   Turn         // of a Broadcast
}

type outcome struct {
	response *quicflowv1.Response
	err      error
}

// promises that were settled; each has had its outcome read.
var spent = sync.Pool{New: func() any { return &promise{done: make(chan outcome, 1)} }}

// settle hands the outcome to who waits for it, and counts it.
func (p *promise) settle(out outcome) {
	h, s, wait := p.session.hub, p.session, time.Since(p.start)
	h.promises.Add(-1)
	switch {
	case out.err == nil:
		h.metrics.promisesCompleted.Inc()
		h.metrics.requestDuration.Observe(wait.Seconds())
		if p.id%sampleEvery == 0 {
			h.turns.observe(s.conn.ConnectionStats(), !s.answered)
		}
		s.answered = true
	case errors.Is(out.err, ErrPromiseTimeout):
		h.metrics.promisesTimedOut.Inc()
		call2(h.cfg.Hooks.OnPromiseTimeout, s.event(), wait)
	default:
		h.metrics.promisesFailed.Inc()
	}
	if p.gather != nil {
		p.gather.settled(p, out)
	} else {
		p.done <- out
	}
}

// Request sends a request to an agent and waits for its answer. req is not changed, so one may go to many agents; its id is
// given by the hub. Without a deadline in ctx, Config.DefaultTimeout applies.
//
// A Failure that the agent answers is a response, not an error. Errors: ErrNotConnected, ErrDraining, ErrTooManyPromises,
// ErrBusy, ErrSessionLost, ErrPromiseTimeout, and the cause of a cancelled ctx.
func (h *Hub) Request(ctx context.Context, clientID string, req *quicflowv1.Request) (*quicflowv1.Response, error) {
	return h.RequestIn(ctx, clientID, 0, req)
}

// RequestIn is Request in the session of this epoch, as Presence gave it; if that is over, the error is ErrNotConnected and
// nothing was sent. What a caller read from the store about an agent holds for a session: the next one may be that of
// another journal. An epoch of 0 means any session.
func (h *Hub) RequestIn(ctx context.Context, clientID string, epoch int64, req *quicflowv1.Request) (*quicflowv1.Response, error) {
	response, err := h.request(ctx, clientID, epoch, req)
	if err != nil {
		return nil, fmt.Errorf("request to agent %s: %w", clientID, err)
	}
	return response, nil
}

func (h *Hub) request(ctx context.Context, clientID string, epoch int64, req *quicflowv1.Request) (*quicflowv1.Response, error) {
	if ctx.Err() != nil {
		return nil, whyDone(ctx)
	}
	s, err := h.sessionOf(clientID)
	if err != nil {
		return nil, err
	}
	if epoch != 0 && epoch != s.epoch {
		return nil, fmt.Errorf("%w in session %d any more", ErrNotConnected, epoch)
	}
	if !h.takePromise() {
		return nil, ErrTooManyPromises
	}
	p := spent.Get().(*promise)
	p.expires = time.Time{}
	if _, ok := ctx.Deadline(); !ok {
		p.expires = time.Now().Add(h.cfg.DefaultTimeout)
	}
	if err := s.ask(p, req); err != nil {
		spent.Put(p)
		return nil, err
	}
	var out outcome
	select {
	case out = <-p.done:
	case <-ctx.Done():
		if s.withdraw(p.id) != nil {
			p.settle(outcome{err: whyDone(ctx)})
		} // else the answer comes at the same moment
		out = <-p.done
	}
	p.session = nil
	spent.Put(p)
	return out.response, out.err
}

const (
	leastExpiry = 10 * time.Millisecond
	mostExpiry  = time.Second
)

// expirePromises ends the requests that waited for Config.DefaultTimeout, up to a tenth of it and a second late. One sweep
// for all: a timer a request would cost a third of what a request costs.
func (h *Hub) expirePromises() {
	ticker := time.NewTicker(min(max(h.cfg.DefaultTimeout/10, leastExpiry), mostExpiry))
	defer ticker.Stop()
	for {
		select {
		case <-h.accepting.Done():
			return
		case now := <-ticker.C:
			if h.promises.Load() == 0 {
				continue
			}
			for _, s := range h.acceptedSessions() {
				for _, p := range s.takeExpired(now) {
					p.settle(outcome{err: ErrPromiseTimeout})
				}
			}
		}
	}
}

// takeExpired takes out the promises whose time is over.
func (s *session) takeExpired(now time.Time) (expired []*promise) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil
	}
	s.waiting = slices.DeleteFunc(s.waiting, func(p *promise) bool {
		if p.expires.IsZero() || now.Before(p.expires) {
			return false
		}
		expired = append(expired, p)
		return true
	})
	return expired
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

// takePromise counts one more promise unless there are too many. What it counted, ask or settle gives back.
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

// ask sends a request with a promise, which is counted already. After an error there is no promise, and nothing was sent.
func (s *session) ask(p *promise, req *quicflowv1.Request) error {
	h := s.hub
	p.id, p.session, p.start = h.requests.Add(1), s, time.Now()
	s.mu.Lock()
	refuse := s.refuse
	company := len(s.waiting) > 0
	if refuse == nil {
		s.waiting = append(s.waiting, p)
	}
	s.mu.Unlock()
	if refuse != nil {
		h.promises.Add(-1)
		return refuse
	}
	h.metrics.promisesCreated.Inc()
	id := p.id // p belongs to its waiter once the answer is there
	err := s.sendRequest(id, req, company)
	if err == nil || s.withdraw(id) == nil {
		return nil // where it was not sent, someone else has settled it already
	}
	h.promises.Add(-1)
	h.metrics.promisesFailed.Inc()
	if errors.Is(err, wire.ErrOutboxFull) {
		return ErrBusy
	}
	return err
}

// requestFrame is all of a request's frame in one piece.
type requestFrame struct {
	frame   quicflowv1.ToAgent
	body    quicflowv1.ToAgent_Request
	request quicflowv1.Request
}

var requestFrames = sync.Pool{New: func() any {
	f := new(requestFrame)
	f.frame.Body, f.body.Request = &f.body, &f.request
	return f
}}

// sendRequest queues a request. Where others await an answer from the same agent, it is left time for company.
func (s *session) sendRequest(id uint64, req *quicflowv1.Request, company bool) error {
	f := requestFrames.Get().(*requestFrame)
	f.request.Id, f.request.Body = id, req.Body
	send := s.out.Send
	if company {
		send = s.out.SendSoon
	}
	err := send(&f.frame, maxRequests)
	s.sent(&f.frame, err)
	f.request.Body = nil
	requestFrames.Put(f)
	return err
}

// withdraw takes a promise out, unless it is settled already or about to be.
func (s *session) withdraw(id uint64) *promise {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.waiting, func(p *promise) bool { return p.id == id })
	if i < 0 {
		return nil
	}
	p := s.waiting[i]
	if len(s.waiting) == 1 {
		s.waiting = nil // an idle session holds nothing
	} else {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	}
	return p
}

// complete hands an answer to who waits for it. One that comes too late has no one.
func (s *session) complete(response *quicflowv1.Response) {
	if failure := response.GetFailure(); failure != nil {
		failure.Message = text(failure.Message)
	}
	if p := s.withdraw(response.GetId()); p != nil {
		p.settle(outcome{response: response})
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
		p.settle(outcome{err: reason})
	}
}
