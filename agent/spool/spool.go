// Package spool keeps the output of a step in a file until the hub has stored it: one file a step, in the order in
// which the output was read.
//
// A spool is a sequence of records. A record is a header (length of the data, CRC-32C of all that follows it, time,
// offset within the stream, stream) and the data. Positions are byte positions in the file; a record's begins at its
// header. One process writes at a time; a record that a crash cut off is dropped when writing goes on.
package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// MaxData is how many bytes of output a record holds at most.
const MaxData = 16 << 10

const headerSize = 4 + 4 + 8 + 8 + 1

// ErrCorrupt means that what stands at a position is no record.
var ErrCorrupt = errors.New("spool is corrupt")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is a piece of output.
type Record struct {
	Position uint64 // where the record begins in the spool
	Next     uint64 // where it ends
	Stream   quicflowv1.Stream
	Offset   uint64 // of Data[0] within its stream
	Time     time.Time
	Data     []byte
}

func appendRecord(b []byte, r Record) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Data)))
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Time.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, r.Offset)
	b = append(b, byte(r.Stream))
	b = append(b, r.Data...)
	binary.BigEndian.PutUint32(b[start+4:], crc32.Checksum(b[start+8:], castagnoli))
	return b
}

// parseRecord takes the record at the beginning of b. ok is false if b ends before the record does.
func parseRecord(b []byte, position uint64) (r Record, ok bool, err error) {
	if len(b) < headerSize {
		return r, false, nil
	}
	size := int(binary.BigEndian.Uint32(b))
	if size == 0 || size > MaxData {
		return r, false, fmt.Errorf("%w: record of %d bytes at %d", ErrCorrupt, size, position)
	}
	if len(b) < headerSize+size {
		return r, false, nil
	}
	if crc32.Checksum(b[8:headerSize+size], castagnoli) != binary.BigEndian.Uint32(b[4:]) {
		return r, false, fmt.Errorf("%w: wrong checksum at %d", ErrCorrupt, position)
	}
	return Record{
		Position: position,
		Next:     position + uint64(headerSize+size),
		Time:     time.Unix(0, int64(binary.BigEndian.Uint64(b[8:]))),
		Offset:   binary.BigEndian.Uint64(b[16:]),
		Stream:   quicflowv1.Stream(b[24]),
		Data:     b[headerSize : headerSize+size : headerSize+size],
	}, true, nil
}

// End gives the position after the last whole record, 0 if there is no file.
func End(path string) (uint64, error) {
	tail, err := scan(path)
	return tail.end, err
}

type tail struct {
	end     uint64
	offsets map[quicflowv1.Stream]uint64 // where each stream goes on
}

// scan reads a spool from its beginning to its last whole record. What follows that, zeroes after a power cut among
// it, is the remainder of a write that was never confirmed.
func scan(path string) (tail, error) {
	t := tail{offsets: map[quicflowv1.Stream]uint64{}}
	reader := NewReader(path, 0)
	defer reader.Close()
	for {
		records, err := reader.Next(1 << 20)
		for _, r := range records {
			t.end, t.offsets[r.Stream] = r.Next, r.Offset+uint64(len(r.Data))
		}
		if errors.Is(err, ErrCorrupt) {
			return t, nil
		}
		if err != nil || len(records) == 0 {
			return t, err
		}
	}
}

// Reader reads a spool while it grows. It is not safe for concurrent use.
type Reader struct {
	path     string
	position uint64
	file     *os.File
}

// NewReader begins at a position that a record begins at. The file need not exist yet.
func NewReader(path string, position uint64) *Reader {
	return &Reader{path: path, position: position}
}

// Position is where the next record will begin.
func (r *Reader) Position() uint64 { return r.position }

// Next gives the whole records that are there, of up to limit bytes (but at least one), and none if there is no more for
// now. Records before an error are given with it.
func (r *Reader) Next(limit int) ([]Record, error) {
	if r.file == nil {
		file, err := os.Open(r.path)
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("open spool: %w", err)
		}
		r.file = file
	}
	info, err := r.file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	if info.Size() <= int64(r.position) {
		return nil, nil
	}
	buffer := make([]byte, min(info.Size()-int64(r.position), int64(max(limit, headerSize+MaxData))))
	n, err := r.file.ReadAt(buffer, int64(r.position))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	var records []Record
	for buffer = buffer[:n]; ; {
		record, ok, err := parseRecord(buffer, r.position)
		if err != nil || !ok {
			return records, err
		}
		records = append(records, record)
		buffer = buffer[record.Next-r.position:]
		r.position = record.Next
	}
}

// Close closes the file, if it is open.
func (r *Reader) Close() {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}
