package fleet

import (
	"slices"
	"time"

	"github.com/quicflow/quicflow/agent"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	defaultInterval = 15 * time.Second // where a Welcome tells none
	slotTime        = 10 * time.Millisecond
)

// slots is how many parts a third of the interval has; in each, one part of the agents has its turn.
func (f *Fleet) slots() int {
	return max(1, int(time.Duration(f.interval.Load())/agent.TicksPerInterval/slotTime))
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
		next = next.Add(time.Duration(f.interval.Load()) / agent.TicksPerInterval / time.Duration(slots))
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
	s.checkLogs(now)
	if s.acked < s.asked {
		return // Confirm waits for the answer, and judges
	}
	beat, gone := s.pulse.Tick(now, s.acked, s.heard, s.conn.ConnectionStats().PacketsReceived)
	switch {
	case gone:
		s.end(errSilent)
	case beat != nil:
		s.beat(beat)
	}
}

// beat sends a heartbeat. agent.mu is held.
func (s *session) beat(beat *quicflowv1.Heartbeat) {
	s.agent.fleet.stats.heartbeats.Add(1)
	s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Heartbeat{Heartbeat: beat}})
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
			beat := s.pulse.Ask(time.Now())
			s.asked = beat.Sequence
			s.beat(beat)
			open = append(open, question{s, beat.Sequence})
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
