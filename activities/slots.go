package activities

import (
	"context"
	"sync"
	"time"
)

// slotsGather is how long a taker waits for more slots than the few that are free: hosts that begin together share a write.
const slotsGather = 10 * time.Millisecond

// slots are places at work. Those who take some do so in turn.
type slots struct {
	turn  chan struct{} // holds one value: who has taken it out takes slots
	freed chan struct{} // holds one value when something was freed since the last look

	mu           sync.Mutex
	limit, taken int
	users        int // of a shared one; guarded by Activities.mu
}

func newSlots(limit int) *slots {
	s := &slots{turn: make(chan struct{}, 1), freed: make(chan struct{}, 1), limit: max(1, limit)}
	s.turn <- struct{}{}
	return s
}

// setLimit changes how many there are. Who has one keeps it.
func (s *slots) setLimit(limit int) {
	s.mu.Lock()
	s.limit = max(1, limit)
	s.mu.Unlock()
	s.nudge()
}

// take waits for slots and takes up to want of them, at least one; or none, once stop is closed.
func (s *slots) take(ctx context.Context, stop <-chan struct{}, want int) (int, error) {
	select {
	case <-s.turn:
	case <-stop:
		return 0, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	defer func() { s.turn <- struct{}{} }()
	var late <-chan time.Time
	for over := false; ; {
		if isDone(stop) {
			return 0, nil
		}
		n, more := s.tryTake(want, over)
		if n > 0 {
			return n, nil
		}
		if more && late == nil {
			timer := time.NewTimer(slotsGather)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-stop:
		case <-s.freed:
		case <-late:
			over = true
		}
	}
}

// tryTake takes what is free, unless that is little and more may come: then it says so.
func (s *slots) tryTake(want int, atOnce bool) (n int, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := s.limit - s.taken
	if free <= 0 {
		return 0, false
	}
	if !atOnce && free < want && free < s.limit/8 {
		return 0, true
	}
	n = min(free, want)
	s.taken += n
	return n, false
}

func (s *slots) give(n int) {
	s.mu.Lock()
	s.taken -= n
	s.mu.Unlock()
	s.nudge()
}

func (s *slots) nudge() {
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

// jobSlots gives the places at work that all dispatches of a job share here, until done is called.
func (a *Activities) jobSlots(jobID string, limit int) (s *slots, done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s = a.slots[jobID]
	if s == nil {
		s = newSlots(limit)
		a.slots[jobID] = s
	}
	s.users++
	s.setLimit(limit)
	return s, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if s.users--; s.users == 0 {
			delete(a.slots, jobID)
		}
	}
}
