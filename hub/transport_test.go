package hub_test

import (
	"context"
	"crypto/tls"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/config"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// ear hears, at an agent's end, what a hub says of its transport.
type ear struct {
	mu         sync.Mutex
	said       *qlog.ParametersSet
	sent       int64 // bytes of the control stream
	stream     int64 // the most that the hub allowed beyond sent: there
	connection int64 // in all
}

func (e *ear) trace(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return e }
func (e *ear) AddProducer() qlogwriter.Recorder                                { return e }
func (e *ear) SupportsSchemas(string) bool                                     { return true }
func (e *ear) Close() error                                                    { return nil }

func (e *ear) RecordEvent(event qlogwriter.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch event := event.(type) {
	case qlog.ParametersSet:
		if event.Initiator == qlog.InitiatorRemote {
			e.said = &event
		}
	case qlog.PacketReceived:
		for _, f := range event.Frames {
			switch f := f.Frame.(type) {
			case *qlog.MaxDataFrame:
				e.connection = max(e.connection, int64(f.MaximumData)-e.sent)
			case *qlog.MaxStreamDataFrame:
				e.stream = max(e.stream, int64(f.MaximumStreamData)-e.sent)
			}
		}
	}
}

func (e *ear) parameters(t *testing.T) qlog.ParametersSet {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	require.NotNil(t, e.said, "the hub said nothing of its transport")
	return *e.said
}

// hearing is open for an agent with an ear.
func (b *bench) hearing(who identity) (*agent, *ear) {
	b.t.Helper()
	e := new(ear)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, b.Addr().String(),
		&tls.Config{RootCAs: ca.Pool(), ServerName: pki.HubServerName, NextProtos: []string{wire.ALPN}, Certificates: []tls.Certificate{who.cert}},
		&quic.Config{Tracer: e.trace})
	require.NoError(b.t, err)
	b.t.Cleanup(func() { conn.CloseWithError(wire.CloseNormal, "the test is over") })
	stream, err := conn.OpenStream()
	require.NoError(b.t, err)
	return &agent{t: b.t, id: who.id, conn: conn, stream: stream, reader: wire.NewReader(stream, wire.MaxFrame)}, e
}

// startWith starts a hub with the keys of a configuration that are about transport, session and logs.
func startWith(t *testing.T, keys config.Config) *bench {
	t.Helper()
	require.NoError(t, keys.Validate())
	s := hub.Settings(keys)
	return start(t, func(c *hub.Config) {
		c.QUIC, c.LogCredit, c.LogBuffer = s.QUIC, s.LogCredit, s.LogBuffer
		c.HeartbeatInterval, c.HeartbeatTimeout, c.HeartbeatCheckInterval = s.HeartbeatInterval, s.HeartbeatTimeout, s.HeartbeatCheckInterval
		c.MaxTimeoutCount = s.MaxTimeoutCount
	})
}

// Each key of section quic as an agent hears of it, and keeps to.
func TestKeysOfTheTransport(t *testing.T) {
	const streamMax, connectionMax = 64 << 10, 256 << 10
	keys := config.Standard()
	keys.QUIC = config.QUIC{
		MaxIdleTimeout:     config.Duration(77 * time.Second),
		MaxIncomingStreams: 7, MaxIncomingUniStreams: 3,
		InitialStreamReceiveWindow: 20_000, MaxStreamReceiveWindow: streamMax,
		InitialConnectionReceiveWindow: 50_000, MaxConnectionReceiveWindow: connectionMax,
	}
	keys.Logs.CreditBytes = 64 << 10
	keys.Session.HeartbeatInterval = config.Duration(14 * time.Second)
	b := startWith(t, keys)
	a, e := b.hearing(b.join("web-1"))
	hello := helloOf("journal", "boot")
	e.sent = int64(len(frame(t, hello)))
	a.send(hello)
	require.EqualValues(t, 14_000, a.receive().GetWelcome().GetHeartbeatIntervalMs())
	said := e.parameters(t)
	require.Equal(t, 77*time.Second, said.MaxIdleTimeout)
	require.EqualValues(t, 7, said.InitialMaxStreamsBidi)
	require.EqualValues(t, 3, said.InitialMaxStreamsUni)
	require.EqualValues(t, 20_000, said.InitialMaxStreamDataBidiRemote)
	require.EqualValues(t, 20_000, said.InitialMaxStreamDataUni)
	require.EqualValues(t, 50_000, said.InitialMaxData)
	for range 6 { // beside the control stream
		_, err := a.conn.OpenStream()
		require.NoError(t, err)
	}
	_, err := a.conn.OpenStream()
	require.ErrorAs(t, err, new(*quic.StreamLimitReachedError))

	// Windows grow with what an agent sends, up to the largest and no further.
	heard := func() (stream, connection int64) {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.stream, e.connection
	}
	note := frame(t, &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Request{Request: &quicflowv1.Request{
		Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: "note", Payload: make([]byte, 4000)}}}}})
	require.NoError(t, a.stream.SetWriteDeadline(time.Now().Add(patience)))
	write := func(bytes int) {
		for range bytes / len(note) {
			e.mu.Lock()
			e.sent += int64(len(note))
			e.mu.Unlock()
			_, err := a.stream.Write(note)
			require.NoError(t, err)
		}
	}
	write(8 << 20)
	for stream, _ := heard(); stream <= 20_000; stream, _ = heard() {
		write(1 << 20)
	}
	stream, connection := heard()
	require.LessOrEqual(t, stream, int64(streamMax))
	require.LessOrEqual(t, connection, int64(connectionMax))
	a.alive()
}

// An idle timeout that would end a session before its strikes do is raised to what they take.
func TestIdleTimeoutComesAfterTheStrikes(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{time.Second: 65 * time.Second, 66 * time.Second: 66 * time.Second} {
		keys := config.Standard() // a heartbeat may be 45 s old, and the third check of every 5 s ends the session
		keys.QUIC.MaxIdleTimeout = config.Duration(given)
		b := startWith(t, keys)
		_, e := b.hearing(b.join("web-1"))
		require.Equal(t, want, e.parameters(t).MaxIdleTimeout)
	}
}

// A connection on which nothing comes ends when its time is over. A session ends by its strikes before; a stranger's has none.
func TestIdleTimeout(t *testing.T) {
	keys := config.Standard()
	keys.QUIC.MaxIdleTimeout = config.Duration(time.Second)
	keys.Session.HeartbeatInterval, keys.Session.HeartbeatTimeout = config.Duration(100*time.Millisecond), config.Duration(200*time.Millisecond)
	keys.Session.HeartbeatCheckInterval = config.Duration(100 * time.Millisecond)
	b := startWith(t, keys)
	begun := time.Now()
	conn, err := b.dial(wire.ALPNEnrol)
	require.NoError(t, err)
	select {
	case <-conn.Context().Done():
	case <-time.After(patience): // the hub's HelloTimeout, which would close it
		require.FailNow(t, "the connection is still there")
	}
	var idle *quic.IdleTimeoutError
	require.ErrorAs(t, context.Cause(conn.Context()), &idle)
	require.GreaterOrEqual(t, time.Since(begun), time.Second)
}
