package hub

import (
	"container/list"
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
	grant int64 // bytes of one, at most

	mu       sync.Mutex
	unused   int64
	buffered int64
	queue    list.List // of *session: those that offered, the first first
}

// minGrant is granted to who asks for less, in bytes: so that a few lines more need no further offer.
const minGrant = 4 << 10

// maxGrants is how many of a session's streams have credit at a time: the one that is read, and the one that follows it.
const maxGrants = 2

// offering is the part of a session that its hub's credits guard.
type offering struct {
	open    bool          // an offer has not been answered
	place   *list.Element // in the queue; nil while earlier streams have to end first
	want    int64         // bytes, of the offer
	grants  []int64       // bytes, of streams that have not ended: those of the one that is read first
	reading bool          // a goroutine takes in the streams
	gone    bool
}

// offer takes in a LogOffer.
func (c *credits) offer(s *session, want uint64) *endError {
	c.mu.Lock()
	if s.offering.open {
		c.mu.Unlock()
		return violation("log offer before the last one was answered")
	}
	s.offering.open = true
	if s.offering.want = c.grant; want != 0 {
		s.offering.want = int64(min(max(want, minGrant), uint64(c.grant)))
	}
	c.line(s)
	granted := c.give()
	c.mu.Unlock()
	c.tell(granted)
	return nil
}

// line puts a session at the end of the queue, if it offered logs and may have more credit.
func (c *credits) line(s *session) {
	if o := &s.offering; o.open && o.place == nil && len(o.grants) < maxGrants && !o.gone {
		o.place = c.queue.PushBack(s)
	}
}

// granted is credit that its session has to be told about, without the lock.
type granted struct {
	to    *session
	bytes int64
}

// give grants what there is room for: generously from the first half of it. The rest is for what is really waiting, so that
// agents which print a line now and then cannot keep it all from the others.
func (c *credits) give() (all []granted) {
	for c.queue.Len() > 0 {
		s := c.queue.Front().Value.(*session)
		o := &s.offering
		size := c.grant
		if c.unused+c.buffered+size > c.limit/2 {
			size = o.want
		}
		if c.unused+c.buffered+size > c.limit {
			break
		}
		c.queue.Remove(o.place)
		o.open, o.place = false, nil
		o.grants = append(o.grants, size)
		c.unused += size
		if !o.reading {
			o.reading = true
			c.hub.conns.Go(s.readLogs) // the goroutine of a session that is not gone is still among them
		}
		all = append(all, granted{s, size})
	}
	return all
}

func (c *credits) tell(all []granted) {
	for _, g := range all {
		g.to.acknowledge(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_LogCredit{LogCredit: &quicflowv1.LogCredit{Bytes: uint64(g.bytes)}}})
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
	s.offering.grants = s.offering.grants[1:]
	c.line(s)
	granted := c.give()
	c.mu.Unlock()
	c.tell(granted)
}

// next gives the credit of the next stream to take in. If there is none, the goroutine that asks must end.
func (c *credits) next(s *session) (credit int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &s.offering
	if o.reading = len(o.grants) > 0; !o.reading {
		o.grants = nil
		return 0, false
	}
	return o.grants[0], true
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

// uninvited looks for a log stream that was opened without credit. No goroutine waits for such a stream; what it brings
// stays within its flow control window until a session is looked at.
func (c *credits) uninvited(s *session) *endError {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.offering.reading {
		return nil
	}
	if stream, err := s.conn.AcceptUniStream(noWait); err == nil {
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
