package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func message(kind string, payload []byte) *quicflowv1.ToHub {
	return &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Response{Response: &quicflowv1.Response{Id: 7,
		Body: &quicflowv1.Response_Message{Message: &quicflowv1.Message{Type: kind, Payload: payload}}}}}
}

func encoded(t require.TestingT, m Message) []byte {
	b, err := AppendFrame(nil, m)
	require.NoError(t, err)
	return b
}

func TestFramesComeBackAsTheyWent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sent []*quicflowv1.ToHub
		var stream bytes.Buffer
		for range rapid.IntRange(0, 5).Draw(t, "frames") {
			m := message(rapid.String().Draw(t, "type"), rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(t, "payload"))
			sent = append(sent, m)
			require.NoError(t, WriteFrame(&stream, m))
		}
		var from io.Reader = &stream
		if rapid.Bool().Draw(t, "byte by byte") {
			from = iotest.OneByteReader(&stream)
		}
		r := NewReader(from, MaxFrame)
		for _, want := range sent {
			got := new(quicflowv1.ToHub)
			require.NoError(t, r.Read(got))
			require.Empty(t, cmp.Diff(want, got, protocmp.Transform()))
		}
		require.Equal(t, io.EOF, r.Read(new(quicflowv1.ToHub)))
	})
}

type oneWrite struct{ calls int }

func (w *oneWrite) Write(p []byte) (int, error) { w.calls++; return len(p), nil }

func TestAFrameIsWrittenAtOnce(t *testing.T) {
	w := &oneWrite{}
	require.NoError(t, WriteFrame(w, message("x", make([]byte, 500_000))))
	require.Equal(t, 1, w.calls)
	require.ErrorIs(t, WriteFrame(w, message("x", make([]byte, MaxFrame))), ErrFrameTooLarge)
	require.Equal(t, 1, w.calls, "nothing of a frame that is too large is written")
	broken := errors.New("broken")
	require.ErrorIs(t, WriteFrame(iotestWriter{broken}, message("x", nil)), broken)
	before := []byte("before")
	after, err := AppendFrame(before, message("x", make([]byte, MaxFrame)))
	require.Error(t, err)
	require.Equal(t, before, after)
}

type iotestWriter struct{ err error }

func (w iotestWriter) Write([]byte) (int, error) { return 0, w.err }

func TestTheLimitIsInclusive(t *testing.T) {
	m := message("x", make([]byte, 1000))
	size := m.SizeVT()
	frame := encoded(t, m)
	require.NoError(t, NewReader(bytes.NewReader(frame), size).Read(new(quicflowv1.ToHub)))
	require.ErrorIs(t, NewReader(bytes.NewReader(frame), size-1).Read(new(quicflowv1.ToHub)), ErrFrameTooLarge)

	filled := message("x", make([]byte, MaxFrame-message("x", make([]byte, MaxFrame/2)).SizeVT()+MaxFrame/2))
	require.Equal(t, MaxFrame, filled.SizeVT())
	require.NoError(t, NewReader(bytes.NewReader(encoded(t, filled)), MaxFrame).Read(new(quicflowv1.ToHub)))
}

func TestTruncationAtEveryByte(t *testing.T) {
	frame := encoded(t, message("ping", []byte("payload")))
	for n := range len(frame) {
		err := NewReader(bytes.NewReader(frame[:n]), MaxFrame).Read(new(quicflowv1.ToHub))
		if n == 0 {
			require.Equal(t, io.EOF, err)
		} else {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut after %d bytes", n)
			require.NotErrorIs(t, err, io.EOF)
		}
	}
}

func TestReadErrors(t *testing.T) {
	read := func(b []byte) error { return NewReader(bytes.NewReader(b), MaxFrame).Read(new(quicflowv1.ToHub)) }
	require.ErrorIs(t, read([]byte{0xff, 0xff, 0xff, 0xff}), ErrFrameTooLarge)
	require.ErrorIs(t, read([]byte{0, 0, 0, 2, 0xff, 0xff}), ErrMalformed)
	require.NoError(t, read([]byte{0, 0, 0, 0}))
	reset := errors.New("stream reset")
	err := NewReader(iotest.ErrReader(reset), MaxFrame).Read(new(quicflowv1.ToHub))
	require.ErrorIs(t, err, reset)
}

// A reader must not hold memory for a frame that has only been announced by a peer that says no more.
func TestReaderKeepsNothing(t *testing.T) {
	frame := encoded(t, message("ping", []byte("x")))
	r := NewReader(bytes.NewReader(bytes.Repeat(frame, 2000)), MaxFrame)
	m := new(quicflowv1.ToHub)
	perFrame := testing.AllocsPerRun(1000, func() {
		if err := r.Read(m); err != nil {
			t.Fatal(err)
		}
	})
	require.Less(t, perFrame, 10.0, "buffers are shared")
}

// Whoever announces a large frame gets memory for it as it comes, and no sooner.
func TestAnnouncedIsNotAllocated(t *testing.T) {
	announced := append(binary.BigEndian.AppendUint32(nil, MaxFrame), make([]byte, 10)...)
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			require.ErrorIs(b, NewReader(bytes.NewReader(announced), MaxFrame).Read(new(quicflowv1.ToHub)), io.ErrUnexpectedEOF)
		}
	})
	require.Less(t, result.AllocedBytesPerOp(), int64(2*maxPooled))
}

func FuzzReader(f *testing.F) {
	hello := &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Hello{Hello: &quicflowv1.Hello{Protocol: Protocol, JournalId: "j", Labels: map[string]string{"env": "prod"}}}}
	f.Add(encoded(f, hello))
	f.Add(append(encoded(f, hello), encoded(f, message("ping", []byte("x")))...))
	f.Add([]byte{0, 0, 0, 9, 1})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 4096
		r := NewReader(bytes.NewReader(data), limit)
		used := 0
		for {
			m := new(quicflowv1.ToHub)
			err := r.Read(m)
			if errors.Is(err, io.EOF) {
				if used != len(data) {
					t.Fatalf("end reported after %d of %d bytes", used, len(data))
				}
				return
			}
			if err != nil {
				if !errors.Is(err, ErrFrameTooLarge) && !errors.Is(err, ErrMalformed) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("unexpected error %v", err)
				}
				return
			}
			size := int(binary.BigEndian.Uint32(data[used:]))
			if size > limit {
				t.Fatalf("accepted a frame of %d bytes", size)
			}
			used += HeaderSize + size
			again := new(quicflowv1.ToHub)
			if err := NewReader(bytes.NewReader(encoded(t, m)), MaxFrame).Read(again); err != nil || !proto.Equal(m, again) {
				t.Fatalf("what was read does not survive writing: %v", err)
			}
		}
	})
}

// What goes over the wire is plain protobuf, whatever code wrote it.
func TestFramesAreProtobuf(t *testing.T) {
	m := message("echo", []byte("payload"))
	got := new(quicflowv1.ToHub)
	require.NoError(t, proto.Unmarshal(encoded(t, m)[HeaderSize:], got))
	require.Empty(t, cmp.Diff(m, got, protocmp.Transform()))
}
