package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// ErrClosed means that a writer was used after Close.
var ErrClosed = errors.New("spool writer is closed")

// Config says where a Writer writes.
type Config struct {
	// Path of the file. Required. It and its directory are made at the first write.
	Path string
	// Wake, if set, is called after each write. It must not block.
	Wake func()
	// MaxBytes bounds the output that is kept, of all streams but the system stream, which says what is cut. 0 is no limit.
	MaxBytes uint64
	// Now defaults to time.Now.
	Now func() time.Time
}

// Writer appends to a spool. It is safe for concurrent use and costs nothing until the first write.
type Writer struct {
	cfg Config

	mu     sync.Mutex
	file   *os.File
	tail   tail
	buffer []byte
	cut    uint64 // output that was not kept, in bytes
	err    error  // set for good: after a failed write, or by Close
}

// NewWriter gives a writer that goes on where the spool ends.
func NewWriter(cfg Config) *Writer {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wake == nil {
		cfg.Wake = func() {}
	}
	return &Writer{cfg: cfg}
}

// Path of the spool. Its directory is the step's own.
func (w *Writer) Path() string { return w.cfg.Path }

// MaxBytes is that of the Config.
func (w *Writer) MaxBytes() uint64 { return w.cfg.MaxBytes }

// Wake tells the reader that another process may have written to the spool.
func (w *Writer) Wake() { w.cfg.Wake() }

// Append writes output of a stream, cut into records where it is long. Output beyond Config.MaxBytes is left out. After an error
// nothing more is written; the records before stay.
func (w *Writer) Append(stream quicflowv1.Stream, data []byte) error {
	w.mu.Lock()
	err := w.append(stream, data)
	w.mu.Unlock()
	w.cfg.Wake()
	return err
}

func (w *Writer) append(stream quicflowv1.Stream, data []byte) error {
	if len(data) == 0 {
		return w.err
	}
	if err := w.open(); err != nil {
		return err
	}
	if stream == quicflowv1.Stream_STREAM_SYSTEM || w.cfg.MaxBytes == 0 {
		return w.write(stream, data)
	}
	room := w.cfg.MaxBytes - min(w.held(), w.cfg.MaxBytes)
	if uint64(len(data)) <= room {
		return w.write(stream, data)
	}
	if err := w.write(stream, data[:room]); err != nil {
		return err
	}
	first := w.cut == 0
	w.cut += uint64(len(data)) - room
	if !first {
		return nil
	}
	return w.write(quicflowv1.Stream_STREAM_SYSTEM, fmt.Appendf(nil, "the output is cut here: no more than %d bytes of it are kept\n", w.cfg.MaxBytes))
}

// held is how much output there is, in bytes.
func (w *Writer) held() (n uint64) {
	for stream, end := range w.tail.offsets {
		if stream != quicflowv1.Stream_STREAM_SYSTEM {
			n += end
		}
	}
	return n
}

// write adds records at the end.
func (w *Writer) write(stream quicflowv1.Stream, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	now := w.cfg.Now()
	offset := w.tail.offsets[stream]
	w.buffer = w.buffer[:0]
	for rest := data; len(rest) > 0; {
		piece := rest[:min(len(rest), MaxData)]
		rest = rest[len(piece):]
		w.buffer = appendRecord(w.buffer, Record{Stream: stream, Offset: offset, Time: now, Data: piece})
		offset += uint64(len(piece))
	}
	if _, err := w.file.WriteAt(w.buffer, int64(w.tail.end)); err != nil {
		w.err = fmt.Errorf("write spool: %w", err)
		_ = w.file.Truncate(int64(w.tail.end))
		return w.err
	}
	w.tail.end += uint64(len(w.buffer))
	w.tail.offsets[stream] = offset
	return nil
}

// open opens the file at the first write and drops a record that a crash cut off.
func (w *Writer) open() error {
	if w.file != nil || w.err != nil {
		return w.err
	}
	if err := w.openFile(); err != nil {
		w.err = fmt.Errorf("open spool: %w", err)
	}
	return w.err
}

func (w *Writer) openFile() (err error) {
	if w.tail, err = scan(w.cfg.Path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(w.cfg.Path), 0o700); err != nil {
		return err
	}
	if w.file, err = os.OpenFile(w.cfg.Path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	return w.file.Truncate(int64(w.tail.end))
}

// Stream gives an io.Writer for one stream.
func (w *Writer) Stream(stream quicflowv1.Stream) io.Writer { return streamWriter{w, stream} }

type streamWriter struct {
	w      *Writer
	stream quicflowv1.Stream
}

func (s streamWriter) Write(p []byte) (int, error) {
	if err := s.w.Append(s.stream, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Printf writes a line of the agent's own to the system stream.
func (w *Writer) Printf(format string, args ...any) {
	_ = w.Append(quicflowv1.Stream_STREAM_SYSTEM, fmt.Appendf(nil, format+"\n", args...))
}

// End drops a record that a crash cut off, makes all output durable and gives the position after it.
func (w *Writer) End() (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		if _, err := os.Stat(w.cfg.Path); errors.Is(err, os.ErrNotExist) {
			return 0, nil
		}
		if err := w.open(); err != nil {
			return 0, err
		}
	}
	if w.cut > 0 && w.err == nil {
		said := fmt.Appendf(nil, "%d bytes of the output were cut\n", w.cut)
		w.cut = 0
		if err := w.write(quicflowv1.Stream_STREAM_SYSTEM, said); err != nil {
			return w.tail.end, err
		}
	}
	if err := w.file.Sync(); err != nil {
		return w.tail.end, fmt.Errorf("sync spool: %w", err)
	}
	return w.tail.end, nil
}

// Close ends writing; what was written stays. It is safe to call twice.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = ErrClosed
	}
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}
