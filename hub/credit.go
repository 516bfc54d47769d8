package hub

import (
	"container/list"
	"context"
	"sync"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// credits shares out the memory that logs may take in a hub. What was granted and is not used yet, and what was read and is
// not stored yet, are together never more than the limit: who offers logs when there is no room waits for its turn, and
// nobody who has credit waits for anything. It is safe for concurrent use.
//
// The nth grant of a session is for its nth log stream, whatever crosses on the way: so the two sides cannot come to
// different sums.
type credits struct {
	hub   *Hub
	limit int64
	grant int64 // bytes of one

	mu       sync.Mutex
	unused   int64
	buffered int64
	queue    list.List // of *session: those that offered, the first first
}

// maxGrants is how many of a session's streams have credit at a time: the one that is read, and the one that follows it.
const maxGrants = 2

// offering is the part of a session that its hub's credits guard.
type offering struct {
	open    bool          // an offer has not been answered
	place   *list.Element // in the queue; nil while earlier streams have to end first
	grants  int           // of streams that have not ended
	reading bool          // a goroutine takes in the streams
	gone    bool
}

// offer takes in a LogOffer.
func (c *credits) offer(s *session) *endError {
	c.mu.Lock()
	if s.offering.open {
		c.mu.Unlock()
		return violation("log offer before the last one was answered")
	}
	s.offering.open = true
	c.line(s)
	granted := c.give()
	c.mu.Unlock()
	c.tell(granted)
	return nil
}

// line puts a session at the end of the queue, if it offered logs and may have more credit.
func (c *credits) line(s *session) {
	if o := &s.offering; o.open && o.place == nil && o.grants < maxGrants && !o.gone {
		o.place = c.queue.PushBack(s)
	}
}

// give grants what there is room for. The sessions it gives have to be told once the lock is released.
func (c *credits) give() (granted []*session) {
	for c.queue.Len() > 0 && c.unused+c.buffered+c.grant <= c.limit {
		s := c.queue.Remove(c.queue.Front()).(*session)
		s.offering.open, s.offering.place = false, nil
		s.offering.grants++
		c.unused += c.grant
		if !s.offering.reading {
			s.offering.reading = true
			c.hub.conns.Go(s.readLogs) // the goroutine of a session that is not gone is still among them
		}
		granted = append(granted, s)
	}
	return granted
}

func (c *credits) tell(granted []*session) {
	for _, s := range granted {
		s.acknowledge(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_LogCredit{LogCredit: &quicflowv1.LogCredit{Bytes: uint64(c.grant)}}})
	}
}

// use turns credit into something that waits to be stored.
func (c *credits) use(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unused -= bytes
	c.buffered += bytes
}

// stored takes back what a batch took.
func (c *credits) stored(bytes int64) {
	c.mu.Lock()
	c.buffered -= bytes
	granted := c.give()
	c.mu.Unlock()
	c.tell(granted)
}

// ended takes back what a log stream left of its credit.
func (c *credits) ended(s *session, rest int64) {
	c.mu.Lock()
	c.unused -= rest
	s.offering.grants--
	c.line(s)
	granted := c.give()
	c.mu.Unlock()
	c.tell(granted)
}

// more says whether there is another stream to take in. If not, the goroutine that asks must end.
func (c *credits) more(s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.offering.reading = s.offering.grants > 0
	return s.offering.reading
}

// leave forgets a session that ended. What it was granted comes back from the goroutine that reads its streams.
func (c *credits) leave(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.offering.gone = true
	if s.offering.place != nil {
		c.queue.Remove(s.offering.place)
		s.offering.place = nil
	}
}

// over is a context to ask with, but not to wait.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// uninvited looks for a log stream that was opened without credit. No goroutine waits for such a stream; what it brings
// stays within its flow control window until a session is looked at.
func (c *credits) uninvited(s *session) *endError {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.offering.reading {
		return nil
	}
	if stream, err := s.conn.AcceptUniStream(over); err == nil {
		return violation("log stream %d was opened without credit", stream.StreamID())
	}
	return nil
}

// sums gives the credit that is not used, and what waits to be stored, in bytes.
func (c *credits) sums() (unused, buffered int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unused, c.buffered
}
