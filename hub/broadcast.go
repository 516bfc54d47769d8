package hub

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Answer is how one target of a Broadcast fared.
type Answer struct {
	ClientID string
	Response *quicflowv1.Response // nil where there is an Err
	Err      error                // as Request gives it
}

// Clients are the ids of all agents with an accepted session, in no order.
func (h *Hub) Clients() []string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := make([]string, 0, len(h.sessions))
	for id, s := range h.sessions {
		if s.accepted {
			all = append(all, id)
		}
	}
	return all
}

// Broadcast sends one request to many agents and gives an Answer for each, first answered first. All of them share the
// deadline of ctx, or Config.DefaultTimeout. Where there are more targets than promises, the rest wait for room. An id that is
// given twice is asked once.
//
// Nothing is sent before the sequence is read, and each reading of it is a broadcast of its own. Who stops reading before
// the end gives up the answers that are missing.
func (h *Hub) Broadcast(ctx context.Context, clientIDs []string, req *quicflowv1.Request) iter.Seq[Answer] {
	return func(yield func(Answer) bool) {
		ids := unique(clientIDs)
		h.metrics.broadcasts.Inc()
		h.metrics.broadcastTargets.Add(float64(len(ids)))
		call(h.cfg.Hooks.OnBroadcast, len(ids))

		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if _, ok := ctx.Deadline(); !ok {
			var expire context.CancelFunc
			ctx, expire = context.WithTimeout(ctx, h.cfg.DefaultTimeout)
			defer expire()
		}
		g := &gathering{pending: make(map[*promise]struct{}), wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			for _, id := range ids {
				if err := h.askFor(ctx, g, id, req); err != nil {
					g.add(Answer{ClientID: id, Err: err})
				}
			}
		}()
		defer func() {
			cancel()
			<-asked
			g.withdraw(ctx)
		}()
		over := ctx.Done()
		for missing := len(ids); missing > 0; {
			select {
			case <-g.wake:
			case <-over:
				<-asked
				g.withdraw(ctx)
				over = nil // what could not be withdrawn is being answered
			}
			for _, a := range g.take() {
				missing--
				if a.Err != nil {
					a.Err = fmt.Errorf("request to agent %s: %w", a.ClientID, a.Err)
				}
				if !yield(a) {
					return
				}
			}
		}
	}
}

func unique(ids []string) []string {
	seen := make(map[string]struct{}, len(ids))
	first := make([]string, 0, len(ids))
	for _, id := range ids {
		if _, twice := seen[id]; !twice {
			seen[id] = struct{}{}
			first = append(first, id)
		}
	}
	return first
}

// askFor asks one agent. Where promises are short it waits for one of the broadcast's own, if there is one.
func (h *Hub) askFor(ctx context.Context, g *gathering, id string, req *quicflowv1.Request) error {
	if ctx.Err() != nil {
		return whyDone(ctx)
	}
	s, err := h.sessionOf(id)
	if err != nil {
		return err
	}
	turn, err := h.AwaitTurn(ctx)
	if err != nil {
		return err
	}
	for !h.takePromise() {
		if g.size() == 0 {
			turn.Done()
			return ErrTooManyPromises
		}
		select {
		case <-g.room:
		case <-ctx.Done():
			turn.Done()
			return whyDone(ctx)
		}
	}
	p := &promise{gather: g, turn: turn}
	g.expect(p)
	if err := s.ask(p, req); err != nil {
		turn.Done()
		g.forget(p)
		return err
	}
	return nil
}

// gathering collects the answers of a broadcast.
type gathering struct {
	wake chan struct{} // there are answers
	room chan struct{} // a promise was given back

	mu      sync.Mutex
	pending map[*promise]struct{}
	answers []Answer
}

func (g *gathering) expect(p *promise) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending[p] = struct{}{}
}

func (g *gathering) forget(p *promise) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.pending, p)
}

func (g *gathering) size() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.pending)
}

// settled takes the outcome of a promise.
func (g *gathering) settled(p *promise, out outcome) {
	p.turn.Done()
	g.forget(p)
	g.add(Answer{ClientID: p.session.id, Response: out.response, Err: out.err})
	nudge(g.room)
}

func (g *gathering) add(a Answer) {
	g.mu.Lock()
	g.answers = append(g.answers, a)
	g.mu.Unlock()
	nudge(g.wake)
}

// take gives the answers that came since the last time.
func (g *gathering) take() []Answer {
	g.mu.Lock()
	defer g.mu.Unlock()
	answers := g.answers
	g.answers = nil
	return answers
}

// withdraw gives up what is not answered.
func (g *gathering) withdraw(ctx context.Context) {
	g.mu.Lock()
	pending := slices.Collect(maps.Keys(g.pending))
	g.mu.Unlock()
	for _, p := range pending {
		if p.session.withdraw(p.id) != nil {
			p.settle(outcome{err: whyDone(ctx)})
		}
	}
}
