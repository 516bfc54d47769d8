package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	maxFacts      = 16 << 10               // bytes of the facts of one agent
	factsBuffer   = 64 << 20               // bytes of facts on their way to the Registry
	factsInterval = 250 * time.Millisecond // between two calls of StoreFacts, unless a whole batch waits
)

// takeFacts queues what an agent says of its host. It waits for nothing: facts that find no room are dropped, and the next
// session of their agent is asked for them again, as the hash that is stored is another.
func (s *session) takeFacts(f *quicflowv1.Facts) *endError {
	object := bytes.TrimSpace(f.GetJson())
	switch {
	case len(f.GetJson()) > maxFacts:
		return violation("facts of %d bytes, at most %d are allowed", len(f.GetJson()), maxFacts)
	case len(object) == 0 || object[0] != '{' || !json.Valid(object):
		return violation("facts are not a JSON object")
	}
	s.hub.facts.put(release.ClientFacts{ClientID: s.id, Hash: f.GetHash(), JSON: object})
	return nil
}

// factsIntake collects the facts of agents, of each the newest alone, and has one goroutine store them: so an agent that
// sends them all the time costs no more than one row of a batch every factsInterval.
type factsIntake struct {
	hub  *Hub
	wake chan struct{} // something came, or closed
	full chan struct{} // a whole batch is there, or closed

	mu      sync.Mutex
	waiting map[string]release.ClientFacts // by client
	bytes   int64
	crowded bool // some were dropped since it was empty
	closed  bool
}

func newFactsIntake(h *Hub) *factsIntake {
	return &factsIntake{hub: h, wake: make(chan struct{}, 1), full: make(chan struct{}, 1), waiting: make(map[string]release.ClientFacts)}
}

func (in *factsIntake) put(f release.ClientFacts) {
	in.mu.Lock()
	defer in.mu.Unlock()
	older, replaces := in.waiting[f.ClientID]
	grows := factsSize(f)
	if replaces {
		grows -= factsSize(older)
	}
	if in.bytes+grows > factsBuffer {
		if !in.crowded {
			in.crowded = true
			in.hub.log.Warn("facts dropped, as more come than are stored; the next sessions of their agents are asked for them", "client_id", f.ClientID, "waiting", len(in.waiting))
		}
		return
	}
	in.waiting[f.ClientID] = f
	in.bytes += grows
	nudge(in.wake)
	if len(in.waiting) >= maxBatchItems {
		nudge(in.full)
	}
}

func factsSize(f release.ClientFacts) int64 { return int64(len(f.JSON)) + itemOverhead }

// close lets run end once all that waits is stored. Nothing may be put after it.
func (in *factsIntake) close() {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	nudge(in.wake)
	nudge(in.full)
}

func (in *factsIntake) run() {
	for {
		batch, closed := in.take()
		if len(batch) > 0 {
			in.store(batch)
		} else if closed {
			return
		} else {
			<-in.wake
		}
		in.gather()
	}
}

// gather waits for factsInterval, unless a whole batch is there before.
func (in *factsIntake) gather() {
	in.mu.Lock()
	now := in.closed || len(in.waiting) >= maxBatchItems
	in.mu.Unlock()
	if now {
		return
	}
	timer := time.NewTimer(factsInterval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-in.full:
	}
}

func (in *factsIntake) take() (batch []release.ClientFacts, closed bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	size := int64(0)
	for id, f := range in.waiting {
		if len(batch) == maxBatchItems || len(batch) > 0 && size+factsSize(f) > maxBatchBytes {
			break
		}
		batch = append(batch, f)
		size += factsSize(f)
		delete(in.waiting, id)
	}
	if in.bytes -= size; len(in.waiting) == 0 {
		in.crowded = false
	}
	return batch, in.closed
}

// store writes a batch, several times if need be. What fails for good is dropped, like what finds no room.
func (in *factsIntake) store(batch []release.ClientFacts) {
	for attempt := 1; ; attempt++ {
		ctx, cancel := context.WithTimeout(in.hub.ctx, storeTimeout)
		err := in.hub.cfg.Registry.StoreFacts(ctx, batch)
		cancel()
		if err == nil {
			return
		}
		in.hub.metrics.storeErrors.Inc()
		in.hub.log.Error("facts of agents are not stored", "agents", len(batch), "attempt", attempt, "error", err)
		if attempt == maxAttempts || in.hub.ctx.Err() != nil {
			return
		}
		pause(in.hub.ctx, backoff(attempt))
	}
}
