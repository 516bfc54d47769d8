package fleet

import (
	"slices"
	"time"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	defaultInterval = 15 * time.Second // where a Welcome tells none
	slotTime        = 10 * time.Millisecond

	// The rule of the real agent: a heartbeat each interval; while one is not answered more at a third of it, and the end
	// after so many.
	ticksPerInterval = 3
	maxStrikes       = 3
	// minSilence keeps short intervals from ending sessions on a host that is only busy.
	minSilence = 5 * time.Second
)

// slots is how many parts a third of the interval has; in each, one part of the agents has its turn.
func (f *Fleet) slots() int {
	return max(1, int(time.Duration(f.interval.Load())/ticksPerInterval/slotTime))
}

// sweep gives each agent its turn every third of the interval, evenly spread. So no agent needs a timer.
func (f *Fleet) sweep() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	next := time.Now()
	for slot := 0; ; slot++ {
		select {
		case <-timer.C:
		case <-f.ctx.Done():
			return
		}
		slots := f.slots()
		now := time.Now()
		for i := slot % slots; i < len(f.agents); i += slots {
			f.agents[i].tick(now)
		}
		next = next.Add(time.Duration(f.interval.Load()) / ticksPerInterval / time.Duration(slots))
		if now.Sub(next) > 2*slotTime {
			next = now // heartbeats that are late come later still: a burst of them would only make a hub late, too
		}
		timer.Reset(time.Until(next))
	}
}

// tick is an agent's turn.
func (a *simulated) tick(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.session
	if s == nil || s.ended {
		return
	}
	s.ticks++
	s.checkLogs(now)
	unanswered := s.acked < s.sequence
	if unanswered {
		s.strikes++
	} else {
		s.strikes = 0
	}
	if s.strikes >= maxStrikes && now.Sub(s.heard) > minSilence {
		s.end(errSilent)
		return
	}
	if !unanswered && s.ticks%ticksPerInterval != 0 {
		return
	}
	s.beat()
}

// beat sends a heartbeat. agent.mu is held.
func (s *session) beat() {
	// The time of sending gives the round trip. And a number that large makes a packet that a hub which has restarted
	// answers with a stateless reset (quic-go does so above 42 bytes), so that the agent knows at once.
	s.sequence = max(s.sequence+1, uint64(time.Now().UnixNano()))
	s.agent.fleet.stats.heartbeats.Add(1)
	s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Heartbeat{Heartbeat: &quicflowv1.Heartbeat{Sequence: s.sequence}}})
}

const (
	confirmPart  = 100 // sessions that are asked at a time; not all at once, as nothing keeps answers that find no room
	confirmPause = 5 * time.Millisecond
)

// Confirm asks in each session once more whether the hub is there, and waits for the answers, for up to patience after the
// last question. Sessions without an answer end as dropped. Without it those would count as held that went silent since their
// last heartbeat.
func (f *Fleet) Confirm(patience time.Duration) {
	type question struct {
		session  *session
		sequence uint64
	}
	var open []question
	for i, a := range f.agents {
		a.mu.Lock()
		if s := a.session; s != nil && !s.ended {
			s.beat()
			open = append(open, question{s, s.sequence})
		}
		a.mu.Unlock()
		if i%confirmPart == confirmPart-1 && !f.sleep(confirmPause) {
			return
		}
	}
	answered := func(q question) bool {
		a := q.session.agent
		a.mu.Lock()
		defer a.mu.Unlock()
		return q.session.acked >= q.sequence || a.session != q.session
	}
	for deadline := time.Now().Add(patience); len(open) > 0 && time.Now().Before(deadline) && f.sleep(confirmPause); {
		open = slices.DeleteFunc(open, answered)
	}
	for _, q := range open {
		a := q.session.agent
		a.mu.Lock()
		q.session.end(errSilent)
		a.mu.Unlock()
	}
	for len(open) > 0 && f.sleep(confirmPause) { // until their readers have counted them
		open = slices.DeleteFunc(open, func(q question) bool {
			q.session.agent.mu.Lock()
			defer q.session.agent.mu.Unlock()
			return q.session.agent.session != q.session
		})
	}
}
