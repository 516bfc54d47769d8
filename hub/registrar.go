package hub

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

const (
	maxRegistrations = 1000             // sessions in one call of the Registry
	storeTimeout     = 30 * time.Second // of one call of Registry or Sink
	firstBackoff     = 50 * time.Millisecond
	lastBackoff      = 5 * time.Second
	maxAttempts      = 5 // of a call that cannot be put off for ever

	// While agents come one after the other, a call waits so long for company: most of what a call costs it costs once.
	registerGather = 20 * time.Millisecond
	registerBusy   = 100 * time.Millisecond // since the last call
)

// registrar writes down sessions that begin and end. One goroutine does it, so that all that came while one call ran shares
// the next: that is what a reconnect storm needs.
type registrar struct {
	hub  *Hub
	wake chan struct{}

	mu       sync.Mutex
	connects []registration
	ends     []release.ClientEnd
	closed   bool
}

type registration struct {
	session release.ClientSession
	done    chan registered // buffered
}

// registered is what came of a registration: an entry, unless the client is not known.
type registered struct {
	release.ClientEntry
	known bool
	err   error
}

func newRegistrar(h *Hub) *registrar {
	return &registrar{hub: h, wake: make(chan struct{}, 1)}
}

// connect queues a session that begins. Exactly one answer comes.
func (r *registrar) connect(s release.ClientSession) <-chan registered {
	done := make(chan registered, 1)
	r.mu.Lock()
	r.connects = append(r.connects, registration{session: s, done: done})
	r.mu.Unlock()
	nudge(r.wake)
	return done
}

// disconnect queues a session that ended. It is kept until the Registry took it.
func (r *registrar) disconnect(e release.ClientEnd) {
	r.mu.Lock()
	r.ends = append(r.ends, e)
	r.mu.Unlock()
	nudge(r.wake)
}

// close lets run end once everything is written down. Nothing may be queued after it.
func (r *registrar) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	nudge(r.wake)
}

func (r *registrar) run() {
	failures := 0
	var called time.Time
	for {
		if time.Since(called) < registerBusy && r.hub.accepting.Err() == nil {
			pause(r.hub.accepting, registerGather)
		}
		connects, ends, closed := r.take()
		if len(connects)+len(ends) == 0 {
			if closed {
				return
			}
			<-r.wake
			continue
		}
		called = time.Now()
		if r.storeEnds(ends) {
			failures = 0
		} else if failures++; closed && (failures >= maxAttempts || r.hub.ctx.Err() != nil) {
			return // ReleaseNode of the next run makes up for it
		}
		switch {
		case len(connects) > 0:
			r.storeConnects(connects)
		case failures > 0 && r.hub.ctx.Err() != nil:
			<-r.wake // nothing can be stored any more; close will come
		case failures > 0:
			pause(r.hub.ctx, backoff(failures))
		}
	}
}

// take cuts the next batch: at most maxRegistrations, and no client twice among those that begin.
func (r *registrar) take() (connects []registration, ends []release.ClientEnd, closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ends = slices.Clone(r.ends[:min(len(r.ends), maxRegistrations)])
	seen := make(map[string]struct{})
	n := 0
	for n < min(len(r.connects), maxRegistrations) {
		id := r.connects[n].session.ClientID
		if _, twice := seen[id]; twice {
			break
		}
		seen[id] = struct{}{}
		n++
	}
	connects = slices.Clone(r.connects[:n])
	r.connects = slices.Delete(r.connects, 0, n)
	return connects, ends, r.closed
}

// storeEnds writes down the first of r.ends, which ends are, and drops them once that is done.
func (r *registrar) storeEnds(ends []release.ClientEnd) bool {
	if len(ends) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(r.hub.ctx, storeTimeout)
	defer cancel()
	if err := r.hub.cfg.Registry.DisconnectClients(ctx, ends); err != nil {
		r.hub.log.Error("ends of sessions not written down; trying again", "sessions", len(ends), "error", err)
		return false
	}
	r.mu.Lock()
	r.ends = slices.Delete(r.ends, 0, len(ends))
	r.mu.Unlock()
	return true
}

func (r *registrar) storeConnects(connects []registration) {
	sessions := make([]release.ClientSession, len(connects))
	for i, c := range connects {
		sessions[i] = c.session
	}
	ctx, cancel := context.WithTimeout(r.hub.ctx, storeTimeout)
	defer cancel()
	entries, err := r.hub.cfg.Registry.ConnectClients(ctx, sessions)
	if err != nil {
		r.hub.log.Error("sessions not written down", "sessions", len(sessions), "error", err)
	}
	for _, c := range connects {
		entry, known := entries[c.session.ClientID]
		c.done <- registered{ClientEntry: entry, known: known, err: err}
	}
}

// backoff grows from firstBackoff to lastBackoff with the number of failures.
func backoff(failures int) time.Duration {
	return min(firstBackoff<<min(failures-1, 16), lastBackoff)
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
