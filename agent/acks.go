package agent

import (
	"os"
	"time"

	"github.com/quicflow/quicflow/agent/journal"
)

// storeInterval is how long an acknowledged log position may stay out of the journal. After a crash the hub gets records
// again that it has, and says so.
const storeInterval = 5 * time.Second

// resultAcked notes that the hub has stored a result.
func (s *steps) resultAcked(id string) {
	s.mu.Lock()
	e := s.entries[id]
	if e != nil && e.finished {
		e.resultAcked, e.changed = true, true
	}
	s.mu.Unlock()
	wake(s.confirmed)
}

// logAcked notes that the hub has stored a step's spool up to a position. A lower one than before is believed: then the
// hub's store was set back.
func (s *steps) logAcked(id string, position uint64) {
	s.mu.Lock()
	e := s.entries[id]
	complete := false
	if e != nil && e.logAcked != position {
		e.logAcked, e.changed = position, true
		complete = e.finished && position >= e.logEnd
	}
	s.mu.Unlock()
	wake(s.logsReady)
	if complete {
		wake(s.confirmed)
	}
}

// keep stores acknowledgements, many at a time, and removes what has been confirmed.
func (s *steps) keep() {
	ticker := time.NewTicker(storeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-s.confirmed:
		case <-ticker.C:
		case <-s.life.Done():
			return
		}
		s.store()
	}
}

func (s *steps) store() {
	s.mu.Lock()
	var acks []journal.Ack
	for _, e := range s.entries {
		if e.changed {
			e.changed = false
			acks = append(acks, journal.Ack{StepID: e.id, Result: e.resultAcked, Log: e.logAcked})
		}
	}
	s.mu.Unlock()
	if len(acks) == 0 {
		return
	}
	gone, err := s.journal.Confirm(acks)
	if err != nil {
		s.cfg.Logger.Error("acknowledgements could not be stored", "error", err)
	}
	s.mu.Lock()
	if err != nil {
		for _, ack := range acks {
			if e := s.entries[ack.StepID]; e != nil {
				e.changed = true
			}
		}
	}
	for _, id := range gone {
		delete(s.entries, id)
	}
	s.mu.Unlock()
	for _, id := range gone {
		if err := os.RemoveAll(s.stepDir(id)); err != nil {
			s.cfg.Logger.Error("step directory could not be removed", "step_id", id, "error", err)
		}
	}
}
