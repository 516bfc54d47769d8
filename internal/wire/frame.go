package wire

import (
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

// Reader reads frames. It keeps no buffer between frames, so that an idle stream costs nothing, and reads no byte beyond
// the frame it returns. It is not safe for concurrent use. After an error other than io.EOF the position in the stream is
// lost and Read must not be called again.
type Reader struct {
	r      io.Reader
	max    int
	header [HeaderSize]byte
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
	if _, err := io.ReadFull(r.r, r.header[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return fmt.Errorf("read frame length: %w", err)
	}
	size := binary.BigEndian.Uint32(r.header[:])
	if uint64(size) > uint64(r.max) {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrFrameTooLarge, size, r.max)
	}
	b := buffers.Get().(*[]byte)
	defer release(b)
	payload, err := readPayload(r.r, (*b)[:0], int(size))
	*b = payload
	if err != nil {
		return fmt.Errorf("read frame of %d bytes: %w", size, err)
	}
	m.Reset()
	if err := m.UnmarshalVT(payload); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
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
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return buffer[:have+n], err
		}
	}
	return buffer, nil
}
