package spool_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/quicflow/quicflow/agent/spool"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	stdout = quicflowv1.Stream_STREAM_STDOUT
	stderr = quicflowv1.Stream_STREAM_STDERR
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newWriter(t *testing.T, path string, wake func()) *spool.Writer {
	t.Helper()
	w := spool.NewWriter(spool.Config{Path: path, Wake: wake})
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// readAll reads from a position to the end.
func readAll(t require.TestingT, path string, position uint64) []spool.Record {
	r := spool.NewReader(path, position)
	defer r.Close()
	var all []spool.Record
	for {
		records, err := r.Next(100_000)
		require.NoError(t, err)
		if len(records) == 0 {
			return all
		}
		all = append(all, records...)
	}
}

func output(records []spool.Record, stream quicflowv1.Stream) (data []byte) {
	for _, r := range records {
		if r.Stream == stream {
			data = append(data, r.Data...)
		}
	}
	return data
}

func TestWriterCostsNothingUntilFirstWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "step", "spool")
	w := newWriter(t, path, nil)
	require.NoError(t, w.Append(stdout, nil))
	end, err := w.End()
	require.NoError(t, err)
	require.Zero(t, end)
	require.NoFileExists(t, path)
	require.Empty(t, readAll(t, path, 0))
}

func TestRecordsKeepOrderOffsetsAndBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool")
	woken := 0
	w := newWriter(t, path, func() { woken++ })
	long := make([]byte, 3*spool.MaxData+17)
	for i := range long {
		long[i] = byte(rand.Uint32())
	}
	require.NoError(t, w.Append(stdout, []byte("one\n")))
	require.NoError(t, w.Append(stderr, []byte("\x00\xff\n")))
	require.NoError(t, w.Append(stdout, long))
	require.Equal(t, 3, woken)
	records := readAll(t, path, 0)
	require.Len(t, records, 6)
	require.Equal(t, []byte("\x00\xff\n"), output(records, stderr))
	require.Equal(t, append([]byte("one\n"), long...), output(records, stdout))
	var position, offset uint64
	for _, r := range records {
		require.Equal(t, position, r.Position)
		position = r.Next
		if r.Stream == stdout {
			require.Equal(t, offset, r.Offset)
			offset += uint64(len(r.Data))
		}
		require.False(t, r.Time.IsZero())
	}
	end, err := w.End()
	require.NoError(t, err)
	require.Equal(t, position, end)
	require.Equal(t, records[3:], readAll(t, path, records[3].Position), "reading goes on at any record")
}

func TestWriterGoesOnAfterCrashAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	w := newWriter(t, whole, nil)
	require.NoError(t, w.Append(stdout, []byte("first")))
	first, err := w.End()
	require.NoError(t, err)
	require.NoError(t, w.Append(stderr, []byte("second")))
	content, err := os.ReadFile(whole)
	require.NoError(t, err)
	for cut := int(first); cut < len(content); cut++ {
		for _, zeroes := range []int{0, 100} { // a power cut may leave zeroes
			path := filepath.Join(dir, "cut")
			require.NoError(t, os.WriteFile(path, append(bytes.Clone(content[:cut]), make([]byte, zeroes)...), 0o600))
			end, err := spool.End(path)
			require.NoError(t, err)
			require.Equal(t, first, end)
			again := newWriter(t, path, nil)
			require.NoError(t, again.Append(stdout, []byte("third")))
			records := readAll(t, path, 0)
			require.Len(t, records, 2)
			require.Equal(t, []byte("firstthird"), output(records, stdout))
			require.EqualValues(t, 5, records[1].Offset)
		}
	}
}

func TestReaderSeesOnlyWholeRecords(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp("", "spool")
		require.NoError(r, err)
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "spool")
		w := spool.NewWriter(spool.Config{Path: path})
		defer w.Close()
		reader := spool.NewReader(path, 0)
		defer reader.Close()
		var written, read []byte
		for _, piece := range rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 3*spool.MaxData)).Draw(r, "pieces") {
			require.NoError(r, w.Append(stdout, piece))
			written = append(written, piece...)
			for rapid.Bool().Draw(r, "read") {
				records, err := reader.Next(rapid.IntRange(0, 1<<17).Draw(r, "limit"))
				require.NoError(r, err)
				read = append(read, output(records, stdout)...)
			}
		}
		read = append(read, output(readAll(r, path, reader.Position()), stdout)...)
		require.True(r, bytes.Equal(written, read))
	})
}

func TestConcurrentStreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool")
	w := newWriter(t, path, func() {})
	var group sync.WaitGroup
	for _, stream := range []quicflowv1.Stream{stdout, stderr} {
		group.Go(func() {
			for range 200 {
				_, _ = w.Stream(stream).Write([]byte("line\n"))
			}
		})
	}
	group.Wait()
	records := readAll(t, path, 0)
	require.Equal(t, bytes.Repeat([]byte("line\n"), 200), output(records, stdout))
	require.Equal(t, bytes.Repeat([]byte("line\n"), 200), output(records, stderr))
}

func TestClosedWriter(t *testing.T) {
	w := newWriter(t, filepath.Join(t.TempDir(), "spool"), nil)
	w.Printf("hello %d", 1)
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
	require.ErrorIs(t, w.Append(stdout, []byte("x")), spool.ErrClosed)
}

func TestWriterAfterFailedWrite(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	w := newWriter(t, filepath.Join(dir, "file", "spool"), nil)
	err := w.Append(stdout, []byte("x"))
	require.Error(t, err)
	require.Equal(t, err, w.Append(stdout, []byte("y")), "the first error stays")
}

func FuzzReader(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed")
	w := spool.NewWriter(spool.Config{Path: path})
	_ = w.Append(stdout, []byte("some output"))
	_ = w.Append(stderr, []byte("more"))
	_ = w.Close()
	seed, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "spool")
		require.NoError(t, os.WriteFile(path, content, 0o600))
		end, err := spool.End(path)
		require.NoError(t, err)
		require.LessOrEqual(t, end, uint64(len(content)))
	})
}

// Beyond its limit output is left out, to the byte; the log says where, and at its end how much.
func TestOutputBeyondTheLimit(t *testing.T) {
	const system = quicflowv1.Stream_STREAM_SYSTEM
	path := filepath.Join(t.TempDir(), "spool")
	limited := func() *spool.Writer {
		w := spool.NewWriter(spool.Config{Path: path, MaxBytes: 10})
		t.Cleanup(func() { _ = w.Close() })
		return w
	}
	w := limited()
	w.Printf("the agent's own words do not count")
	require.NoError(t, w.Append(stdout, []byte("12345")))
	require.NoError(t, w.Append(stderr, []byte("678")))
	require.NoError(t, w.Append(stdout, []byte("90")))
	_, err := w.End()
	require.NoError(t, err)
	require.Equal(t, "the agent's own words do not count\n", string(output(readAll(t, path, 0), system)), "nothing was cut")

	// One that goes on after a crash knows the limit, too.
	require.NoError(t, w.Close())
	w = limited()
	require.NoError(t, w.Append(stderr, []byte("too much")))
	require.NoError(t, w.Append(stdout, bytes.Repeat([]byte("x"), 1000)))
	w.Printf("they are never left out")
	end, err := w.End()
	require.NoError(t, err)
	records := readAll(t, path, 0)
	require.Equal(t, "1234590", string(output(records, stdout)))
	require.Equal(t, "678", string(output(records, stderr)))
	require.Equal(t, "the agent's own words do not count\nthe output is cut here: no more than 10 bytes of it are kept\nthey are never left out\n1008 bytes of the output were cut\n",
		string(output(records, system)))
	require.Equal(t, end, records[len(records)-1].Next)
	again, err := w.End()
	require.NoError(t, err)
	require.Equal(t, end, again, "it is said once")

	path = filepath.Join(t.TempDir(), "spool")
	require.NoError(t, limited().Append(stdout, []byte("0123456789abc")))
	require.Equal(t, "0123456789", string(output(readAll(t, path, 0), stdout)))
}
