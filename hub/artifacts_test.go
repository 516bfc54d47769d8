package hub_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	realagent "github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// endless are artifacts of any size: the size of one is its sum, and each has at every 8th place a number that says where it is.
type endless struct {
	mu     sync.Mutex
	opened []string
	broken map[string]error
	fails  int64 // reading fails at this offset, unless it is 0
}

func (e *endless) OpenArtifact(_ context.Context, sum string, offset int64) (io.ReadCloser, int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.opened = append(e.opened, sum)
	if err := e.broken[sum]; err != nil {
		return nil, 0, err
	}
	var size int64
	for _, digit := range sum {
		size = size*10 + int64(digit-'0')
	}
	if offset > size {
		return nil, 0, release.Invalid("offset", "it is beyond the end")
	}
	return &numbers{at: offset, end: size, fails: e.fails}, size, nil
}

func (e *endless) seen() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.opened, " ")
}

type numbers struct{ at, end, fails int64 }

func (n *numbers) Read(p []byte) (int, error) {
	if n.at == n.end {
		return 0, io.EOF
	}
	if n.fails > 0 && n.at >= n.fails {
		return 0, errors.New("bad sector")
	}
	p = p[:min(int64(len(p)), n.end-n.at)]
	for rest := p; len(rest) > 0; {
		done := 1
		if n.at%8 == 0 && len(rest) >= 8 {
			binary.BigEndian.PutUint64(rest, uint64(n.at/8))
			done = 8
		} else {
			rest[0] = byteAt(n.at)
		}
		n.at, rest = n.at+int64(done), rest[done:]
	}
	return len(p), nil
}

func (n *numbers) Close() error { return nil }

func byteAt(at int64) byte {
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(at/8))
	return number[at%8]
}

func withArtifacts(e *endless) func(*hub.Config) { return func(c *hub.Config) { c.Artifacts = e } }

// taker connects an agent that lets the hub open streams, with the windows of a real one.
func (b *bench) taker(id string) *agent {
	b.t.Helper()
	who := b.join(id)
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, b.Addr().String(), &tls.Config{
		RootCAs: ca.Pool(), ServerName: pki.HubServerName, NextProtos: []string{wire.ALPN}, Certificates: []tls.Certificate{who.cert}}, realagent.TransportConfig())
	require.NoError(b.t, err)
	b.t.Cleanup(func() { conn.CloseWithError(wire.CloseNormal, "the test is over") })
	stream, err := conn.OpenStream()
	require.NoError(b.t, err)
	a := &agent{t: b.t, id: id, conn: conn, stream: stream, reader: wire.NewReader(stream, wire.MaxFrame)}
	a.send(helloOf("journal-"+id, "boot"))
	require.NotNil(b.t, a.receive().GetWelcome())
	return a
}

func (a *agent) fetch(id uint64, sum string, offset uint64) {
	a.t.Helper()
	a.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Request{Request: &quicflowv1.Request{Id: id, Body: &quicflowv1.Request_FetchArtifact{
		FetchArtifact: &quicflowv1.FetchArtifact{Sha256: sum, Offset: offset}}}}})
}

// takes gives the next artifact's stream behind its header.
func (a *agent) takes() (*quicflowv1.ArtifactHeader, io.Reader, *quic.ReceiveStream) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	defer cancel()
	stream, err := a.conn.AcceptUniStream(ctx)
	require.NoError(a.t, err)
	require.NoError(a.t, stream.SetReadDeadline(time.Now().Add(3*patience)))
	header, reader := new(quicflowv1.ArtifactHeader), wire.NewReader(stream, 1000)
	require.NoError(a.t, reader.Read(header))
	return header, reader.Rest(), stream
}

func requireNumbers(t *testing.T, from io.Reader, offset, size int64) {
	t.Helper()
	got, err := io.ReadAll(from)
	require.NoError(t, err)
	want, err := io.ReadAll(&numbers{at: offset, end: size})
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "%d bytes, not %d", len(got), len(want))
}

func (a *agent) answered(id uint64) *quicflowv1.Response {
	a.t.Helper()
	response := a.receive().GetResponse()
	require.Equal(a.t, id, response.GetId())
	return response
}

func TestArtifactOnAStreamOfItsOwn(t *testing.T) {
	b := start(t, withArtifacts(&endless{}))
	a := b.taker("a")
	for i, offset := range []int64{0, 1, 999_999, 1_000_000} {
		id := uint64(i + 1)
		a.fetch(id, "1000000", uint64(offset))
		require.EqualValues(t, 1_000_000, a.answered(id).GetArtifact().GetSize())
		header, rest, _ := a.takes()
		require.Equal(t, id, header.RequestId)
		require.EqualValues(t, offset, header.Offset)
		require.EqualValues(t, 1_000_000, header.Size)
		requireNumbers(t, rest, offset, 1_000_000)
	}
	a.alive()
}

func TestArtifactThatIsNotSent(t *testing.T) {
	e := &endless{broken: map[string]error{"1": release.NotFound("artifact", "1"), "2": errors.New("the disk is on fire")}, fails: 500_000}
	b := start(t, withArtifacts(e))
	a := b.taker("a")
	for _, test := range []struct {
		sum    string
		offset uint64
		code   quicflowv1.FailureCode
		says   string
	}{
		{"1", 0, quicflowv1.FailureCode_FAILURE_CODE_NOT_FOUND, "does not have it"},
		{"2", 0, quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, "its log says why"},
		{"10", 11, quicflowv1.FailureCode_FAILURE_CODE_INVALID, "beyond the end"},
		{"10", 1 << 63, quicflowv1.FailureCode_FAILURE_CODE_INVALID, "beyond the end"},
	} {
		a.fetch(7, test.sum, test.offset)
		failure := a.answered(7).GetFailure()
		require.Equal(t, test.code, failure.GetCode(), failure)
		require.Contains(t, failure.GetMessage(), test.says)
		require.NotContains(t, failure.GetMessage(), "fire", "that is for operators")
	}
	// It fails in the middle.
	a.fetch(8, "1000000", 0)
	a.answered(8)
	stream, err := a.conn.AcceptUniStream(t.Context())
	require.NoError(t, err)
	got, err := io.ReadAll(stream) // what was sent before may be lost, the header included
	var reset *quic.StreamError
	require.ErrorAs(t, err, &reset)
	require.Less(t, len(got), 500_000+256<<10)
	a.alive()

	// Who has gone further than a hub allows.
	plain := start(t)
	a = plain.taker("a")
	a.fetch(1, "10", 0)
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, a.answered(1).GetFailure().GetCode())
	a.fetch(0, "10", 0)
	a.closedWith(wire.CloseProtocol, "without a request id")
}

// An artifact that its agent does not read takes no more than its window, and holds up neither heartbeats nor requests.
func TestControlBesideAnArtifactThatIsNotRead(t *testing.T) {
	b := start(t, withArtifacts(&endless{}))
	a := b.taker("a")
	a.fetch(1, "1000000000", 0)
	require.NotNil(t, a.answered(1).GetArtifact())
	_, rest, _ := a.takes()
	for _, read := range []int64{0, 1 << 20, 20 << 20} { // by which the windows grow to what they may be
		_, err := io.CopyN(io.Discard, rest, read)
		require.NoError(t, err)
		for range 50 {
			a.alive()
		}
		answer := make(chan error, 1)
		go func() {
			_, err := b.Request(t.Context(), "a", &quicflowv1.Request{Body: &quicflowv1.Request_Message{
				Message: &quicflowv1.Message{Type: "large", Payload: make([]byte, 900<<10)}}})
			answer <- err
		}()
		a.pong()
		require.NoError(t, <-answer)
	}
}

// One agent may ask for so many at a time.
func TestTooManyArtifactsForOneAgent(t *testing.T) {
	b := start(t, withArtifacts(&endless{}))
	a := b.taker("a")
	for id := range uint64(2) {
		a.fetch(id+1, "100000000", 0)
		require.NotNil(t, a.answered(id+1).GetArtifact())
	}
	a.fetch(5, "100", 0)
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, a.answered(5).GetFailure().GetCode())
	for range 2 {
		_, _, stream := a.takes()
		stream.CancelRead(0)
	}
	// They end, and there is room again.
	eventually(t, "room", func() bool {
		a.fetch(6, "100", 0)
		return a.answered(6).GetArtifact() != nil
	})
}

// With one courier: a large artifact gives way to a small one, whose agent came later, and one that is not read holds up nobody.
func TestArtifactsTakeTurns(t *testing.T) {
	e := &endless{}
	b := start(t, withArtifacts(e), func(c *hub.Config) { c.MaxTransfers = 1 })
	hub.SetArtifactTurn(b.Hub, 3<<20)
	stalled, large, small := b.taker("stalled"), b.taker("large"), b.taker("small")
	stalled.fetch(1, "5000000", 0)
	stalled.answered(1)
	large.fetch(1, "100000000", 0)
	large.answered(1)
	_, rest, _ := large.takes()
	_, err := io.CopyN(io.Discard, rest, 1<<20)
	require.NoError(t, err)
	small.fetch(1, "1000", 0)
	go func() { _, _ = io.CopyN(io.Discard, rest, 10<<20) }()
	small.answered(1)
	_, smallRest, _ := small.takes()
	requireNumbers(t, smallRest, 0, 1000)
	opened := strings.Fields(e.seen())
	require.Equal(t, []string{"5000000", "100000000"}, opened[:2])
	require.Contains(t, opened, "1000")

	// The one that was not read goes on where it was, once it is.
	_, stalledRest, _ := stalled.takes()
	_ = large.conn.CloseWithError(0, "")
	requireNumbers(t, stalledRest, 0, 5_000_000)
}

// ArtifactBuffer bounds the transfers as well.
func TestArtifactBuffer(t *testing.T) {
	b := start(t, withArtifacts(&endless{}), func(c *hub.Config) { c.ArtifactBuffer = 5 << 20 })
	var takers []*agent
	for _, id := range []string{"a", "b", "c"} {
		a := b.taker(id)
		a.fetch(1, "100000000", 0)
		takers = append(takers, a)
	}
	takers[0].answered(1)
	takers[1].answered(1)
	eventually(t, "two of three are sent", func() bool { waiting, busy := hub.Transfers(b.Hub); return waiting == 1 && busy == 2 })
	_ = takers[0].conn.CloseWithError(0, "")
	takers[2].answered(1)
}

// The hub stops in the middle of transfers, and leaves nothing behind.
func TestStopWithArtifactsUnderWay(t *testing.T) {
	b := start(t, withArtifacts(&endless{}), func(c *hub.Config) { c.MaxTransfers = 2 })
	for _, id := range []string{"a", "b", "c"} {
		b.taker(id).fetch(1, "1000000000", 0)
	}
	eventually(t, "they are under way", func() bool { waiting, busy := hub.Transfers(b.Hub); return waiting == 1 && busy == 2 })
	b.stop()
}
