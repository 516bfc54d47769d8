package spool

import (
	"bytes"
	"sync"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// TailSize is how much of a stream's end a Capture keeps, in bytes.
const TailSize = 4 << 10

// Capture is one stream of a spool that knows its length and its end. It is safe for concurrent use.
type Capture struct {
	log    *Writer
	stream quicflowv1.Stream

	mu    sync.Mutex
	tail  []byte
	total uint64
}

// NewCapture gives one that has seen nothing yet.
func NewCapture(log *Writer, stream quicflowv1.Stream) *Capture {
	return &Capture{log: log, stream: stream}
}

// Write never fails: who prints must not stall, or die, because its output cannot be kept.
func (c *Capture) Write(p []byte) (int, error) {
	_ = c.log.Append(c.stream, p)
	c.Count(p)
	return len(p), nil
}

// Count takes what is in the spool already for written.
func (c *Capture) Count(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail, c.total = AppendTail(c.tail, p), c.total+uint64(len(p))
}

// Tail is the end of what was written, at most TailSize bytes.
func (c *Capture) Tail() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.tail)
}

// Total is how many bytes were written.
func (c *Capture) Total() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

// AppendTail gives the last TailSize bytes of tail and p.
func AppendTail(tail, p []byte) []byte {
	if len(p) >= TailSize {
		return append(tail[:0], p[len(p)-TailSize:]...)
	}
	tail = append(tail, p...)
	if len(tail) <= TailSize {
		return tail
	}
	return append(tail[:0], tail[len(tail)-TailSize:]...)
}
