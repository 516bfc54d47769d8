package hub

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// Requests of which there are many (a rollout's, a job's, a broadcast's) take turns, so that no more are on their way at once than
// pass without a queue. A queue gains nothing; and once it is longer than what a connection takes for its round trip, some 30 ms, QUIC
// sends all that is in it again, and again, which makes it longer still. Of 30,000 agents on one machine with 1,000 requests on their way
// at any time the last answered after 10 to 33 s; with 200 after 5 s.
//
// How many may be on their way is found as LEDBAT (RFC 6817) finds it for bytes: by how much longer than the shortest round trip of its
// connection the latest one was. Where that is a lot for most of those who answer, it is no matter of one agent's network.
const (
	minTurns   = 64
	firstTurns = 256
	maxTurns   = 5000
	// blindTurns bounds what may be on its way while no answer tells anything: with turnAge, 10,000 requests a second.
	blindTurns = 2500

	turnRound   = 50 * time.Millisecond // how often the number is looked at
	turnSamples = 8                     // that it takes to do so
	sampleEvery = 8                     // answers; one of so many is a sample
	turnDelay   = 30 * time.Millisecond // that a queue may cause for half of the answers; about when QUIC repeats itself
	// turnAge is after what time a request is not on its way any more: its agent takes its time.
	turnAge   = 250 * time.Millisecond
	turnParts = 5 // of turnAge, by which ages are counted
)

// turns hands out the turns. The zero value is not ready; see newTurns.
type turns struct {
	epoch time.Time     // its monotonic clock counts: the host's may be set
	wake  chan struct{} // someone waits

	mu     sync.Mutex
	room   int // turns at once
	taken  int // of requests that are on their way
	parts  [turnParts]int
	part   int64     // the latest of parts, counted since the epoch
	queue  list.List // of chan Turn with room for one
	began  time.Time // of the round
	known  int       // samples of the round
	late   int       // of them, those that a queue held up
	blind  int       // of them, those that cannot tell
	scarce bool      // someone had to wait in the round
}

func newTurns() *turns {
	return &turns{epoch: time.Now(), wake: make(chan struct{}, 1), room: firstTurns}
}

// Turn is the leave to send one request. Done must be called when that was answered, or will not be. That of the zero value does nothing.
type Turn struct {
	turns *turns
	part  int64
}

// AwaitTurn waits until the hub has room for one more of many requests: what is asked of one agent alone needs no turn. Errors: ErrDraining,
// and those of a ctx that ends as Request has them.
func (h *Hub) AwaitTurn(ctx context.Context) (Turn, error) { return h.turns.await(ctx, h.accepting) }

// Done gives the turn to the next one.
func (t Turn) Done() {
	if t.turns != nil {
		t.turns.give(t.part)
	}
}

func (t *turns) await(ctx, open context.Context) (Turn, error) {
	t.mu.Lock()
	t.advance(time.Now())
	if t.queue.Len() == 0 && t.taken < t.room {
		turn := t.take()
		t.mu.Unlock()
		return turn, nil
	}
	t.scarce = true
	mine := make(chan Turn, 1)
	place := t.queue.PushBack(mine)
	t.mu.Unlock()
	nudge(t.wake)
	var err error
	select {
	case turn := <-mine:
		return turn, nil
	case <-ctx.Done():
		err = whyDone(ctx)
	case <-open.Done():
		err = ErrDraining
	}
	t.mu.Lock()
	t.queue.Remove(place) // does nothing if its turn has come
	t.mu.Unlock()
	select {
	case turn := <-mine:
		turn.Done()
	default:
	}
	return Turn{}, err
}

// take counts one more. t.mu is held, as for all below but give, observe and run.
func (t *turns) take() Turn {
	t.taken++
	t.parts[t.part%turnParts]++
	return Turn{t, t.part}
}

func (t *turns) give(part int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.advance(time.Now())
	if t.part-part < turnParts {
		t.taken--
		t.parts[part%turnParts]--
	}
	t.next()
}

// next lets in who waits.
func (t *turns) next() {
	for t.queue.Len() > 0 && t.taken < t.room {
		t.queue.Remove(t.queue.Front()).(chan Turn) <- t.take()
	}
}

// advance forgets requests that are too old to be on their way, and ends a round whose time is over.
func (t *turns) advance(now time.Time) {
	part := int64(now.Sub(t.epoch) / (turnAge / turnParts))
	for t.part = max(t.part, part-turnParts); t.part < part; {
		t.part++
		t.taken -= t.parts[t.part%turnParts]
		t.parts[t.part%turnParts] = 0
	}
	if now.Sub(t.began) < turnRound || t.known > 0 && t.known < turnSamples {
		return
	}
	switch {
	case 2*t.late > t.known:
		t.room = max(minTurns, t.room-t.room/4)
	case 2*(t.late+t.blind) > t.known:
	case t.known > 0 && t.scarce:
		t.room = min(maxTurns, t.room+t.room/8)
	case t.scarce:
		t.room = max(t.room, min(blindTurns, t.room+t.room/8))
	}
	t.began, t.known, t.late, t.blind, t.scarce = now, 0, 0, 0, t.queue.Len() > 0
}

// observe takes the delay of an answer. The first one of a session has only the handshake to be compared with, which may have stood in a
// queue itself, as when all agents return at once: it can tell of a queue, and that there is none only where the round trip is as short
// as no queue is.
func (t *turns) observe(s quic.ConnectionStats, first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known++
	switch {
	case s.LatestRTT-s.MinRTT > turnDelay:
		t.late++
	case first && s.LatestRTT > turnDelay:
		t.blind++
	}
}

// run lets in, until ctx ends, those who wait for what becomes too old.
func (t *turns) run(ctx context.Context) {
	ticker := time.NewTicker(turnAge / turnParts)
	ticker.Stop()
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
			ticker.Reset(turnAge / turnParts)
		case now := <-ticker.C:
			t.mu.Lock()
			t.advance(now)
			t.next()
			over := t.queue.Len() == 0
			t.mu.Unlock()
			if over {
				ticker.Stop()
			}
		}
	}
}
