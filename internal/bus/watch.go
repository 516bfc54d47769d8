package bus

import "sync"

// maxWatched is how many topics a Watch names at once. Beyond it, it says only that there were more.
const maxWatched = 256

// The topics of what is new, or of another kind than before. What changes within a task or a job is told by Task.
const (
	Clients   = "clients"   // an agent came, went, or was revoked
	Tasks     = "tasks"     // a task was made
	Jobs      = "jobs"      // a job was made
	Projects  = "projects"  // a project, or a version, environment or variable of one, was made, changed or deleted
	System    = "system"    // there are new figures of the server
	Schedules = "schedules" // a schedule was made, changed or deleted, or fired
)

// Watch follows every topic of a bus, for who does not know in advance what will change. It is safe for concurrent use.
type Watch struct {
	bus     *Bus
	changed chan struct{}

	mu     sync.Mutex
	topics map[string]struct{}
	more   bool
}

// Watch begins to follow all topics, until Close.
func (b *Bus) Watch() *Watch {
	w := &Watch{bus: b, changed: make(chan struct{}, 1), topics: map[string]struct{}{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.watches == nil {
		b.watches = map[*Watch]struct{}{}
	}
	b.watches[w] = struct{}{}
	return w
}

// Changed gives a channel that has a value when there may be something to take. It is never closed.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Take gives the topics that were notified since the last call, each once, in no order. more says that there were
// others too: whoever follows anything should look again.
func (w *Watch) Take() (topics []string, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.topics {
		topics = append(topics, name)
	}
	clear(w.topics)
	more, w.more = w.more, false
	return topics, more
}

// Close ends it. It may be called more than once.
func (w *Watch) Close() {
	w.bus.mu.Lock()
	defer w.bus.mu.Unlock()
	delete(w.bus.watches, w)
}

func (w *Watch) note(topic string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.topics[topic]; !known && len(w.topics) >= maxWatched {
		w.more = true
	} else {
		w.topics[topic] = struct{}{}
	}
	select {
	case w.changed <- struct{}{}:
	default: // it has not yet taken the last one
	}
}
