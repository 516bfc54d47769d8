package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// HeaderSize is the length prefix of a frame, in bytes.
const HeaderSize = 4

// maxPooled keeps the rare large buffer from staying in memory for good.
const maxPooled = 64 << 10

var (
	// ErrFrameTooLarge reports a frame above the limit; its payload was not read, or not written.
	ErrFrameTooLarge = errors.New("frame too large")
	// ErrMalformed reports a frame whose payload is not the protobuf message that was expected.
	ErrMalformed = errors.New("malformed frame")
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

func release(b *[]byte) {
	if cap(*b) <= maxPooled {
		buffers.Put(b)
	}
}

// Message is a message of the protocol: protobuf with generated code in place of reflection.
//
// That code does not look into strings: what comes from a peer may be invalid UTF-8.
type Message interface {
	Reset()
	SizeVT() int
	MarshalToSizedBufferVT(b []byte) (int, error)
	UnmarshalVT(b []byte) error
}

// AppendFrame appends m as one frame to dst. On an error dst is returned as it was.
func AppendFrame(dst []byte, m Message) ([]byte, error) {
	size := m.SizeVT()
	if size > MaxFrame {
		return dst, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrFrameTooLarge, size, MaxFrame)
	}
	out := slices.Grow(binary.BigEndian.AppendUint32(dst, uint32(size)), size)
	payload := out[len(out) : len(out)+size]
	switch n, err := m.MarshalToSizedBufferVT(payload); {
	case err != nil:
		return dst, fmt.Errorf("encode frame: %w", err)
	case n != size: // a oneof whose message is nil
		return dst, errors.New("encode frame: the message lacks what it says to hold")
	}
	return out[:len(out)+size], nil
}

// WriteFrame writes m as one frame in one call of Write. It does not lock: concurrent writers of one stream must.
func WriteFrame(w io.Writer, m Message) error {
	b := buffers.Get().(*[]byte)
	defer release(b)
	frame, err := AppendFrame((*b)[:0], m)
	if err != nil {
		return err
	}
	*b = frame
	if _, err := w.Write(frame); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// readAhead is what a Reader holds: enough to take most frames in at one call, with the length before them.
const readAhead = 256

// Reader reads frames. Between frames it holds nothing but the start of what has come already, so it is to be the only one
// that reads from its stream. It is not safe for concurrent use. After an error other than io.EOF the position in the stream
// is lost and Read must not be called again.
type Reader struct {
	r        io.Reader
	max      int
	from, to int // of what is ahead
	ahead    [readAhead]byte
}

// NewReader reads frames of at most max bytes of payload from r.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{r: r, max: max}
}

// Limit changes how many bytes of payload the next frames may have.
func (r *Reader) Limit(max int) { r.max = max }

// Read reads the next frame into m. Errors: io.EOF when the stream ended between two frames, io.ErrUnexpectedEOF when it
// ended within one, ErrFrameTooLarge, ErrMalformed, or what the stream itself reports. Only io.EOF comes unwrapped.
func (r *Reader) Read(m Message) error {
	if err := r.fill(HeaderSize); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return fmt.Errorf("read frame length: %w", err)
	}
	length := binary.BigEndian.Uint32(r.ahead[r.from:])
	if uint64(length) > uint64(r.max) {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrFrameTooLarge, length, r.max)
	}
	r.from += HeaderSize
	if size := int(length); size <= r.to-r.from || size <= readAhead/2 {
		if err := r.fill(size); err != nil {
			return short(err, size)
		}
		r.from += size
		return decode(r.ahead[r.from-size:r.from], m)
	}
	return r.readLong(int(length), m)
}

// Rest gives what follows the frames that were read, as it comes. Read must not be called again.
func (r *Reader) Rest() io.Reader {
	return io.MultiReader(bytes.NewReader(r.ahead[r.from:r.to]), r.r)
}

// readLong reads a payload that is not worth to be held.
func (r *Reader) readLong(size int, m Message) error {
	b := buffers.Get().(*[]byte)
	defer release(b)
	start := append((*b)[:0], r.ahead[r.from:min(r.to, r.from+size)]...)
	r.from += len(start)
	payload, err := readPayload(r.r, start, size)
	*b = payload
	if err != nil {
		return short(err, size)
	}
	return decode(payload, m)
}

func decode(payload []byte, m Message) error {
	m.Reset()
	if err := m.UnmarshalVT(payload); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// short reports a frame of which only a part could be read.
func short(err error, size int) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read frame of %d bytes: %w", size, err)
}

// fill makes at least n bytes be ahead; n is at most readAhead. The error is io.EOF only if there was nothing at all.
func (r *Reader) fill(n int) error {
	if r.from == r.to {
		r.from, r.to = 0, 0
	}
	if r.from+n > len(r.ahead) {
		r.to = copy(r.ahead[:], r.ahead[r.from:r.to])
		r.from = 0
	}
	if missing := n - (r.to - r.from); missing > 0 {
		got, err := io.ReadAtLeast(r.r, r.ahead[r.to:], missing)
		if errors.Is(err, io.EOF) && r.to > r.from {
			err = io.ErrUnexpectedEOF
		}
		r.to += got
		return err
	}
	return nil
}

// readPayload reads size bytes into a buffer that grows with what has come, not with what was announced: a peer that
// announces much and sends little takes little memory.
func readPayload(from io.Reader, buffer []byte, size int) ([]byte, error) {
	for len(buffer) < size {
		have := len(buffer)
		next := min(size, max(2*have, maxPooled))
		buffer = slices.Grow(buffer, next-have)[:next]
		if n, err := io.ReadFull(from, buffer[have:]); err != nil {
			return buffer[:have+n], err
		}
	}
	return buffer, nil
}
