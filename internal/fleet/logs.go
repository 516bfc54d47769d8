package fleet

import (
	"bytes"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// logStall is how long the hub may take to acknowledge something before all of it is sent again.
const logStall = 15 * time.Second

// frameOverhead is what surrounds a LogChunk without data, at most: the frame's length and the data's tag and length.
const frameOverhead = 4 + 5

// lineSize is what a line takes, its end included.
const lineSize = 64

// printed is what every step prints, over and over.
var printed = func() []byte {
	var b bytes.Buffer
	for i := range spool.MaxData / lineSize {
		fmt.Fprintf(&b, "%-63s\n", fmt.Sprintf("line %d of a simulated step", i))
	}
	return b.Bytes()
}()

// printedTail is the end of what a step prints.
func printedTail(end uint64) []byte {
	last := end % uint64(len(printed))
	if n := min(end, spool.TailSize); n <= last {
		return printed[last-n : last]
	}
	size := min(end, spool.TailSize)
	tail := make([]byte, 0, size)
	tail = append(tail, printed[uint64(len(printed))+last-size:]...)
	return append(tail, printed[:last]...)
}

// logSession is what a session knows about its logs. It is guarded by agent.mu.
type logSession struct {
	offered  bool   // the hub owes a LogCredit
	credit   uint64 // bytes
	shipping bool   // a goroutine sends
	progress time.Time
}

// offerLogs asks for credit if there is something to send. agent.mu is held.
func (s *session) offerLogs() {
	if s.ended || s.logs.offered || s.logs.shipping {
		return
	}
	if id, _ := s.agent.nextLog(); id == "" {
		return
	}
	s.logs.offered = true
	s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_LogOffer{LogOffer: &quicflowv1.LogOffer{}}})
}

// nextLog gives a step of whose log something was not sent. a.mu is held.
func (a *simulated) nextLog() (string, *step) {
	for id, p := range a.steps {
		if max(p.logSent, p.logAcked) < p.logEnd() {
			return id, p
		}
	}
	return "", nil
}

// credited lets logs be sent. agent.mu is held.
func (s *session) credited(bytes uint64) {
	s.logs.offered = false
	s.logs.credit += bytes
	if !s.logs.shipping && !s.ended {
		s.logs.shipping = true
		s.agent.fleet.work.Go(s.ship)
	}
}

// ship uses up the credit, or sends all there is, on one stream; its end gives the rest of the credit back.
func (s *session) ship() {
	stream, err := s.conn.OpenUniStreamSync(s.conn.Context())
	if err != nil {
		return // the session ends
	}
	sent := uint64(0)
	for {
		chunk := s.nextChunk()
		if chunk == nil {
			break
		}
		if err = wire.WriteFrame(stream, chunk); err != nil {
			break // the session ends
		}
		sent += uint64(len(chunk.Data))
	}
	_ = stream.Close()
	s.agent.fleet.stats.logBytes.Add(sent)
	if err == nil {
		s.shipped()
	}
}

// shipped ends the use of a credit.
func (s *session) shipped() {
	s.agent.mu.Lock()
	defer s.agent.mu.Unlock()
	s.logs.shipping, s.logs.credit = false, 0
	s.offerLogs()
}

// nextChunk takes the next record that the credit has room for, nil if there is none.
func (s *session) nextChunk() *quicflowv1.LogChunk {
	s.agent.mu.Lock()
	defer s.agent.mu.Unlock()
	id, p := s.agent.nextLog()
	if id == "" || s.ended {
		return nil
	}
	at := max(p.logSent, p.logAcked)
	from := at % uint64(len(printed))
	size := min(p.logEnd()-at, uint64(len(printed))-from)
	if s.agent.fleet.cfg.LogLines > 0 {
		size = min(size, lineSize-at%lineSize)
	}
	chunk := &quicflowv1.LogChunk{
		StepId: id, Position: at, Next: at + size, Stream: quicflowv1.Stream_STREAM_STDOUT, Offset: at,
		TimeUnixNano: time.Now().UnixNano(),
	}
	overhead := uint64(proto.Size(chunk) + frameOverhead)
	if s.logs.credit <= overhead {
		return nil
	}
	size = min(size, s.logs.credit-overhead)
	chunk.Next, chunk.Data = at+size, printed[from:from+size]
	s.logs.credit -= uint64(4 + proto.Size(chunk))
	p.logSent = chunk.Next
	s.logs.progress = time.Now()
	return chunk
}

// logAcked notes that the hub has stored a step's log up to a position. A lower one than before is believed: then the
// hub's store was set back. a.mu is held.
func (a *simulated) logAcked(id string, position uint64) {
	p := a.steps[id]
	if p == nil || p.logAcked == position {
		return
	}
	p.logAcked = position
	if s := a.session; s != nil {
		s.logs.progress = time.Now()
		s.offerLogs()
	}
}

// checkLogs sends again what the hub does not acknowledge. agent.mu is held.
func (s *session) checkLogs(now time.Time) {
	if s.logs.progress.IsZero() || s.logs.shipping || now.Sub(s.logs.progress) < logStall {
		return
	}
	s.logs.progress = time.Time{}
	for _, p := range s.agent.steps {
		p.logSent = p.logAcked
	}
	s.offerLogs()
}
