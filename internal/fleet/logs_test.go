package fleet_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/quicflow/quicflow/internal/fleet"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// peer is the hub's end of a session, frame by frame.
type peer struct {
	t      *testing.T
	conn   *quic.Conn
	stream *quic.Stream
	reader *wire.Reader
}

func accept(t *testing.T, listener *quic.Listener) *peer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := listener.Accept(ctx)
	require.NoError(t, err)
	stream, err := conn.AcceptStream(ctx)
	require.NoError(t, err)
	p := &peer{t, conn, stream, wire.NewReader(stream, wire.MaxFrame)}
	require.NotNil(t, p.next().GetHello())
	p.send(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_Welcome{Welcome: &quicflowv1.Welcome{HeartbeatIntervalMs: 60_000}}})
	return p
}

// peered connects a fleet of one agent to a peer.
func peered(t *testing.T, change func(*fleet.Config)) (*fleet.Fleet, *quic.Listener, *peer) {
	t.Helper()
	b := startServer(t)
	known := b.join(ids(1))
	certificate, err := b.ca.IssueServer(nil, 0)
	require.NoError(t, err)
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	transport := &quic.Transport{Conn: socket}
	listener, err := transport.Listen(&tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: b.ca.Pool(), NextProtos: []string{wire.ALPN},
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(listener.Close(), transport.Close(), socket.Close())) })
	f := b.fleet(1, func(c *fleet.Config) {
		c.Servers, c.Identities = []string{listener.Addr().String()}, known
		change(c)
	})
	connected := make(chan error, 1)
	go func() { connected <- f.Connect(t.Context()) }()
	p := accept(t, listener)
	require.NoError(t, <-connected)
	return f, listener, p
}

func (p *peer) send(frame *quicflowv1.ToAgent) {
	p.t.Helper()
	require.NoError(p.t, wire.WriteFrame(p.stream, frame))
}

// next gives the next frame that is no heartbeat.
func (p *peer) next() *quicflowv1.ToHub {
	p.t.Helper()
	require.NoError(p.t, p.stream.SetReadDeadline(time.Now().Add(patience)))
	for {
		frame := new(quicflowv1.ToHub)
		require.NoError(p.t, p.reader.Read(frame))
		if frame.GetHeartbeat() == nil {
			return frame
		}
	}
}

// offer waits for a LogOffer; only results and responses may come before it.
func (p *peer) offer() {
	p.t.Helper()
	for {
		frame := p.next()
		if frame.GetLogOffer() != nil {
			return
		}
		require.True(p.t, frame.GetResult() != nil || frame.GetResponse() != nil, "got %v", frame)
	}
}

// log grants credit and takes in the stream that uses it.
func (p *peer) log(credit int, into map[string][]byte) {
	p.t.Helper()
	p.send(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_LogCredit{LogCredit: &quicflowv1.LogCredit{Bytes: uint64(credit)}}})
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	stream, err := p.conn.AcceptUniStream(ctx)
	require.NoError(p.t, err)
	reader := wire.NewReader(stream, wire.MaxFrame)
	for {
		chunk := new(quicflowv1.LogChunk)
		if err := reader.Read(chunk); errors.Is(err, io.EOF) {
			return
		} else {
			require.NoError(p.t, err)
		}
		credit -= 4 + proto.Size(chunk)
		require.GreaterOrEqual(p.t, credit, 0, "more than was granted")
		require.EqualValues(p.t, len(into[chunk.StepId]), chunk.Position)
		require.Equal(p.t, chunk.Position+uint64(len(chunk.Data)), chunk.Next)
		into[chunk.StepId] = append(into[chunk.StepId], chunk.Data...)
	}
}

func (p *peer) ack(id string, position int) {
	p.send(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_LogAck{LogAck: &quicflowv1.LogAck{StepId: id, Position: uint64(position)}}})
}

// Logs wait for credit, never use more than there is, and are sent again in the next session from where the hub has them.
func TestLogsGoByCredit(t *testing.T) {
	const size = 50_000
	f, listener, p := peered(t, func(c *fleet.Config) { c.LogBytes = size })
	a, c := release.StepID("a", release.StepDeploy, "sim-000", 1), release.StepID("c", release.StepDeploy, "sim-000", 1)
	for i, id := range []string{a, c} {
		request := stepRequest(id)
		request.Id = uint64(i + 1)
		p.send(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_Request{Request: request}})
	}
	got := map[string][]byte{}
	for len(got[a])+len(got[c]) < 2*size {
		p.offer()
		p.log(20_000, got)
	}
	require.Len(t, got[a], size)
	require.Equal(t, got[a], got[c])
	require.Equal(t, 1, bytes.Count(got[a][:64], []byte("\n")))
	// What the agents have sent is counted once it is sent, and may be here before.
	eventually(t, "all is counted", func() bool { return f.Snapshot().LogBytes >= 2*size })
	require.EqualValues(t, 2*size, f.Snapshot().LogBytes)

	// Of one the hub has all, of the other it kept half.
	p.ack(a, size)
	p.ack(c, size/2)
	p.send(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_Request{Request: &quicflowv1.Request{Id: 3, Body: &quicflowv1.Request_Message{
		Message: &quicflowv1.Message{Type: "ping"}}}}})
	for p.next().GetResponse().GetMessage().GetType() != "pong" {
	}
	_ = p.conn.CloseWithError(wire.CloseInternal, "test")
	p = accept(t, listener)
	again := map[string][]byte{c: got[c][:size/2]}
	p.offer()
	p.log(1<<20, again)
	require.Equal(t, got[c], again[c])
	require.NotContains(t, again, a)
	require.Equal(t, map[string]int{"internal": 1}, f.Snapshot().Dropped)
	_ = p.conn.CloseWithError(wire.CloseNormal, "the test is over")
}
