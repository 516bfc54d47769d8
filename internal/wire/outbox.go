package wire

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/quic-go/quic-go"
)

// inlineBytes is how much an Outbox hands to QUIC before it makes sure that QUIC sends it. QUIC itself would take as much
// as the peer's window allows.
const inlineBytes = 64 << 10

// maxSpare is the largest buffer that a writer keeps for its next round.
const maxSpare = 64 << 10

// ErrOutboxFull reports a frame that was not queued, as too much waits before it.
var ErrOutboxFull = errors.New("outbox is full")

// OutboxOwner is what an Outbox belongs to. Its methods must not block.
type OutboxOwner interface {
	// Go runs a function in a goroutine that the owner waits for.
	Go(f func())
	// Wrote counts bytes that were handed to the stream.
	Wrote(bytes int)
	// WriteFailed says that the stream is broken. It is called from a goroutine of Go.
	WriteFailed(err error)
}

// OutboxStream is the sending side of a QUIC stream.
type OutboxStream interface {
	io.Writer
	TryWriteAll(p []byte) error
}

var _ OutboxStream = (*quic.Stream)(nil)

// Outbox sends frames on a stream without ever waiting for the peer. As long as QUIC takes a frame at once, it is handed
// over by whoever sends it; else it is queued, and a goroutine that lives only while the queue does writes it. So an idle
// Outbox holds neither goroutine nor buffer, and what is queued together leaves together. It is safe for concurrent use.
type Outbox struct {
	stream OutboxStream
	owner  OutboxOwner

	mu      sync.Mutex
	closed  error
	queue   []byte
	taken   int  // bytes of the queue that the goroutine has at the stream
	writing bool // a goroutine writes
	inline  int  // bytes handed over since QUIC is known to have sent what it had
}

// NewOutbox makes an Outbox; it is to be the only writer of the stream.
func NewOutbox(stream OutboxStream, owner OutboxOwner) *Outbox {
	return &Outbox{stream: stream, owner: owner}
}

// Send queues a frame unless limit bytes are queued before it. Errors: ErrOutboxFull, ErrFrameTooLarge, the cause given to
// Close.
func (o *Outbox) Send(m Message, limit int) error { return o.send(m, limit, false) }

// SendSoon is Send for a frame that may have company in a moment: it leaves when those who are ready to send have sent, in as
// few packets as all of it takes.
func (o *Outbox) SendSoon(m Message, limit int) error { return o.send(m, limit, true) }

func (o *Outbox) send(m Message, limit int, soon bool) error {
	b := buffers.Get().(*[]byte)
	defer release(b)
	frame, err := AppendFrame((*b)[:0], m)
	if err != nil {
		return err
	}
	*b = frame
	broken, err := o.put(frame, limit, soon)
	if broken != nil {
		o.owner.Go(func() { o.owner.WriteFailed(fmt.Errorf("write frame: %w", broken)) })
	}
	return err
}

func (o *Outbox) put(frame []byte, limit int, soon bool) (broken, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed != nil {
		return nil, o.closed
	}
	if !soon && !o.writing && o.inline+len(frame) <= inlineBytes {
		switch err := o.stream.TryWriteAll(frame); {
		case err == nil:
			o.inline += len(frame)
			o.owner.Wrote(len(frame))
			return nil, nil
		case !errors.Is(err, quic.ErrWouldBlock):
			return err, nil // as if it had been queued: the owner closes
		}
	}
	if o.taken+len(o.queue) >= limit {
		return nil, ErrOutboxFull
	}
	o.queue = append(o.queue, frame...)
	if !o.writing {
		o.writing = true
		if soon {
			o.owner.Go(o.writeSoon)
		} else {
			o.owner.Go(o.write)
		}
	}
	return nil, nil
}

// writeSoon lets whoever is ready to run go first.
func (o *Outbox) writeSoon() {
	runtime.Gosched()
	o.write()
}

// Close drops what is queued; Send gives cause from now on. A writer ends when the stream does.
func (o *Outbox) Close(cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed == nil {
		o.closed = cause
	}
	o.queue = nil
}

// write empties the queue and ends.
func (o *Outbox) write() {
	var spare []byte
	for {
		o.mu.Lock()
		if len(o.queue) == 0 {
			o.queue, o.writing = nil, false
			o.mu.Unlock()
			return
		}
		frames := o.queue
		o.queue = spare
		if o.inline+len(frames) <= inlineBytes && o.stream.TryWriteAll(frames) == nil {
			o.inline += len(frames)
			o.mu.Unlock()
			o.owner.Wrote(len(frames))
			spare = frames[:0]
			continue
		}
		o.taken = len(frames)
		o.mu.Unlock()
		if _, err := o.stream.Write(frames); err != nil {
			o.mu.Lock()
			o.queue, o.taken, o.writing = nil, 0, false
			o.mu.Unlock()
			o.owner.WriteFailed(fmt.Errorf("write frames: %w", err))
			return
		}
		o.mu.Lock()
		o.taken = 0
		o.inline = 0 // the write waited until all but a packet's worth was sent
		o.mu.Unlock()
		o.owner.Wrote(len(frames))
		spare = nil
		if cap(frames) <= maxSpare {
			spare = frames[:0]
		}
	}
}
