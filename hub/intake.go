package hub

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/wire"
)

const (
	gather        = 5 * time.Millisecond // how long a batch waits for company
	maxBatchItems = 1000
	maxBatchBytes = 4 << 20
	resultBuffer  = 64 << 20 // bytes of results on their way to the Sink
	itemOverhead  = 256      // what an item takes beside its payload
)

// received is something an agent sent that waits to be stored.
type received[T any] struct {
	from *session
	item T
	size int64
}

// intake collects what agents send into batches, in the order in which it came, and has one goroutine store them.
type intake[T any] struct {
	hub   *Hub
	store func(context.Context, []received[T]) error // stores a batch, and acknowledges it once that is done
	done  func(bytes int64)                          // called when a batch is stored, or given up

	wake chan struct{} // something came, or closed
	full chan struct{} // a whole batch is there

	mu     sync.Mutex
	queue  []received[T]
	closed bool
}

func newIntake[T any](h *Hub, store func(context.Context, []received[T]) error, done func(bytes int64)) *intake[T] {
	return &intake[T]{hub: h, store: store, done: done, wake: make(chan struct{}, 1), full: make(chan struct{}, 1)}
}

// put queues an item that takes size bytes, for which there is room: see credits and room.
func (in *intake[T]) put(from *session, item T, size int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.queue = append(in.queue, received[T]{from: from, item: item, size: size})
	nudge(in.wake)
	if len(in.queue) >= maxBatchItems {
		nudge(in.full)
	}
}

// close lets run end once the queue is stored. Nothing may be put after it.
func (in *intake[T]) close() {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	nudge(in.wake)
	nudge(in.full)
}

func (in *intake[T]) run() {
	for {
		batch, closed := in.take()
		if len(batch) == 0 {
			if closed {
				return
			}
			<-in.wake
			in.gather()
			continue
		}
		in.commit(batch)
		bytes := int64(0)
		for _, r := range batch {
			bytes += r.size
		}
		in.done(bytes)
	}
}

// gather gives the rest of a batch the time to come.
func (in *intake[T]) gather() {
	timer := time.NewTimer(gather)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-in.full:
	}
}

func (in *intake[T]) take() (batch []received[T], closed bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	n, bytes := 0, int64(0)
	for n < min(len(in.queue), maxBatchItems) && (n == 0 || bytes+in.queue[n].size <= maxBatchBytes) {
		bytes += in.queue[n].size
		n++
	}
	batch = in.queue[:n:n]
	if in.queue = in.queue[n:]; len(in.queue) == 0 {
		in.queue = nil
	}
	return batch, in.closed
}

// commit stores a batch, several times if need be. If that fails for good, what each agent sent is tried by itself, as one
// agent's bad data must not cost the others; the sessions of those that still fail are closed, so that they send again
// after they have reconnected. Nothing of theirs was acknowledged.
func (in *intake[T]) commit(batch []received[T]) {
	var err error
	for attempt := 1; attempt <= maxAttempts; attempt++ {
		if err = in.call(batch); err == nil {
			return
		}
		in.hub.log.Error("what agents sent is not stored; trying again", "items", len(batch), "attempt", attempt, "error", err)
		if attempt < maxAttempts {
			pause(in.hub.ctx, backoff(attempt))
		}
		if in.hub.ctx.Err() != nil {
			break
		}
	}
	bySession := make(map[*session][]received[T])
	for _, r := range batch {
		bySession[r.from] = append(bySession[r.from], r)
	}
	deadline := time.Now().Add(storeTimeout)
	for s, own := range bySession {
		if len(bySession) > 1 && time.Now().Before(deadline) {
			if err = in.call(own); err == nil {
				continue
			}
		}
		in.hub.log.Error("what an agent sent is not stored; its session is closed", "client_id", s.id, "items", len(own), "error", err)
		s.close(end(wire.CloseInternal, fmt.Errorf("%w: connect and send again", ErrNotStored)))
	}
}

func (in *intake[T]) call(batch []received[T]) error {
	ctx, cancel := context.WithTimeout(in.hub.ctx, storeTimeout)
	defer cancel()
	err := in.store(ctx, batch)
	if err != nil {
		in.hub.metrics.storeErrors.Inc()
	}
	return err
}

// room is a bounded number of bytes: who wants more waits.
type room struct {
	limit int64

	mu    sync.Mutex
	taken int64
	freed chan struct{} // closed when taken sinks
}

func newRoom(limit int64) *room { return &room{limit: limit, freed: make(chan struct{})} }

// take waits for room, but not longer than a session lives.
func (r *room) take(s *session, size int64) error {
	for {
		freed := r.tryTake(size)
		if freed == nil {
			return nil
		}
		s.blocked.Add(1)
		select {
		case <-freed:
			s.blocked.Add(-1)
		case <-s.conn.Context().Done():
			s.blocked.Add(-1)
			return fmt.Errorf("%w: %w", ErrNetwork, context.Cause(s.conn.Context()))
		}
	}
}

// tryTake takes room, or gives the channel that closes when it may be tried again. One item always fits where there is none.
func (r *room) tryTake(size int64) (freed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken > 0 && r.taken+size > r.limit {
		return r.freed
	}
	r.taken += size
	return nil
}

func (r *room) free(size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken -= size
	close(r.freed)
	r.freed = make(chan struct{})
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is pending already
	}
}

func items[T any](batch []received[T]) []T {
	all := make([]T, len(batch))
	for i, r := range batch {
		all[i] = r.item
	}
	return all
}
