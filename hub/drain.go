package hub

import (
	"context"
	"sync/atomic"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// tally counts, and tells when it comes down to nothing.
type tally struct {
	atomic.Int64
	none chan struct{} // buffered
}

// Add changes the count.
func (t *tally) Add(delta int64) int64 {
	n := t.Int64.Add(delta)
	if n == 0 {
		nudge(t.none)
	}
	return n
}

// drain gives the agents their time to leave, and answers the sessions there were. Whoever is not accepted by now will be
// refused.
//
// A request that is in flight may be answered first: its agent mostly has it already, and an answer now spares the caller
// to ask again elsewhere. Asking again would be safe for a step, which its journal knows, but not for a message. So who
// has nothing in flight leaves at once, and the others as soon as that is answered or half of the time is over.
func (h *Hub) drain() []*session {
	h.mu.Lock()
	h.draining = true
	h.mu.Unlock()
	sessions := h.acceptedSessions()
	h.log.Info("hub drains", "sessions", len(sessions), "promises", h.promises.Load(), "alternate", h.cfg.DrainAddress)
	ctx, cancel := context.WithTimeout(h.ctx, h.cfg.DrainTimeout)
	defer cancel()
	h.drainMessages(ctx)
	var busy []*session
	for _, s := range sessions {
		if s.refuseIfIdle(ErrDraining) {
			s.sendAway()
		} else {
			busy = append(busy, s)
		}
	}
	if len(busy) > 0 {
		h.awaitAnswers(ctx)
	}
	for _, s := range busy {
		s.failPromises(ErrDraining)
		s.sendAway()
	}
	for _, s := range sessions {
		select {
		case <-s.conn.Context().Done():
		case <-ctx.Done():
			return sessions
		}
	}
	return sessions
}

// drainMessages ends the handling of messages, while their agents can still read the answers.
func (h *Hub) drainMessages(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.DrainTimeout/2)
	defer cancel()
	h.messages.close()
	if err := h.messages.wait(ctx); err != nil {
		h.log.Warn("agents leave before all their messages are answered", "error", err)
	}
}

// awaitAnswers waits until no request is in flight, but not longer than half of DrainTimeout.
func (h *Hub) awaitAnswers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.DrainTimeout/2)
	defer cancel()
	for h.promises.Load() > 0 {
		select {
		case <-h.promises.none:
		case <-ctx.Done():
			return
		}
	}
}

// refuseIfIdle ends the taking of promises for this reason, unless one is waited for.
func (s *session) refuseIfIdle(reason error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 0 {
		return false
	}
	if s.refuse == nil {
		s.refuse = reason
	}
	return true
}

// sendAway tells the agent to leave. One that cannot be told is closed with all the others.
func (s *session) sendAway() {
	_ = s.send(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_Goodbye{
		Goodbye: &quicflowv1.Goodbye{Reason: "the hub is stopping", Alternate: s.hub.cfg.DrainAddress}}}, maxOutbox)
}
