// Package bus tells waiting readers within one process that something they follow has changed.
//
// A notification carries a topic and nothing else: readers read the store.
package bus

import (
	"sync"
	"time"
)

// Config sets up a Bus.
type Config struct {
	// Coalesce is the shortest time between two notifications of one topic; what happens in between is told by one
	// notification at its end. Defaults to 50ms.
	Coalesce time.Duration
}

// Bus passes notifications from those who changed something to those who wait for it. It is safe for concurrent use.
//
// It has no goroutine of its own, and keeps nothing for a topic without subscribers.
type Bus struct {
	coalesce time.Duration

	mu      sync.Mutex
	topics  map[string]*topic
	watches map[*Watch]struct{}
}

type topic struct {
	subscribers map[chan struct{}]struct{}
	last        time.Time
	timer       *time.Timer // set while a notification waits for the end of the interval
}

// New makes a Bus.
func New(config Config) *Bus {
	if config.Coalesce <= 0 {
		config.Coalesce = 50 * time.Millisecond
	}
	return &Bus{coalesce: config.Coalesce, topics: map[string]*topic{}}
}

// Task is the topic of a task: its progress, its targets and its logs.
func Task(id string) string { return "task/" + id }

// Subscribe gives a channel that has a value whenever the topic was notified since the last receive. It holds one
// value at most, so a slow reader misses no change, only repetitions. cancel ends the subscription and may be called
// more than once; the channel is never closed.
func (b *Bus) Subscribe(name string) (changed <-chan struct{}, cancel func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[name]
	if t == nil {
		t = &topic{subscribers: map[chan struct{}]struct{}{}}
		b.topics[name] = t
	}
	c := make(chan struct{}, 1)
	t.subscribers[c] = struct{}{}
	return c, func() { b.unsubscribe(name, t, c) }
}

func (b *Bus) unsubscribe(name string, t *topic, c chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(t.subscribers, c)
	if len(t.subscribers) > 0 || b.topics[name] != t {
		return
	}
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	delete(b.topics, name)
}

// Notify wakes the topic's subscribers: at once if it was quiet for the coalescing interval, else at the interval's end. Those
// who watch everything have it at once. It never blocks.
func (b *Bus) Notify(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.watches {
		w.note(name)
	}
	t := b.topics[name]
	if t == nil || t.timer != nil {
		return
	}
	wait := b.coalesce - time.Since(t.last)
	if wait <= 0 {
		t.wake()
		return
	}
	t.timer = time.AfterFunc(wait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if t.timer != nil {
			t.timer = nil
			t.wake()
		}
	})
}

// wake wants the bus's lock.
func (t *topic) wake() {
	t.last = time.Now()
	for c := range t.subscribers {
		select {
		case c <- struct{}{}:
		default: // it has not yet taken the last one
		}
	}
}
