package hub_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/telemetry"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Traffic of every kind, counted here by hand, against every number that the hub shows.
func TestMetricsAreTrue(t *testing.T) {
	reg := prometheus.NewRegistry()
	var late, sent, received atomic.Int64
	b := start(t, counted(reg), func(c *hub.Config) {
		c.HeartbeatInterval, c.HeartbeatTimeout, c.HeartbeatCheckInterval, c.MaxTimeoutCount = 50*time.Millisecond, time.Second, 50*time.Millisecond, 2
		c.MaxClients, c.MaxPromises, c.MaxHandshakes, c.LogBuffer = 77, 55, 33, 1<<20
		c.Hooks.OnHeartbeatTimeout = func(hub.Event, int) { late.Add(1) }
		c.Hooks.OnMessageSent = func(hub.Event, string) { sent.Add(1) }
		c.Hooks.OnMessageReceived = func(hub.Event, string) { received.Add(1) }
	})
	want := func(n float64, name string) {
		t.Helper()
		require.Equal(t, n, value(t, reg, name), name)
	}
	becomes := func(n float64, name string) {
		t.Helper()
		require.Eventually(t, func() bool { return value(t, reg, name) == n }, patience, 2*time.Millisecond, "%s = %v", name, n)
	}
	for name, n := range map[string]float64{
		telemetry.ClientsMax: 77, telemetry.PromiseMax: 55, telemetry.HandshakesMax: 33, telemetry.LogBytesMax: 1 << 20,
		telemetry.ConnectedClients: 0, telemetry.BroadcastsSentTotal: 0, telemetry.BroadcastTargetsTotal: 0, telemetry.LatencyP99: 0,
	} {
		want(n, name)
	}

	// Enrolments: one that succeeds, one that does not.
	key := newKey(t)
	require.Nil(t, b.enrol(b.token(nil), "joined", key).Error)
	require.NotNil(t, b.enrol("made up", "stranger", key).Error)
	want(1, telemetry.EnrolmentsTotal)
	require.EqualValues(t, 1, refusedAs(t, reg, "enrol_token_unknown"))

	// Sessions: one that stays, one refused, one that says goodbye, one that is lost, one that sends garbage, one that falls silent.
	a := b.connect(b.join("stays"))
	_, answer := b.greet(issue(t, ca, "revoked", 0), "journal", "boot")
	require.NotNil(t, answer.GetRefusal())
	require.EqualValues(t, 1, refusedAs(t, reg, "revoked"))
	want(2, telemetry.HandshakesRefusedTotal)
	b.connect(b.join("leaves")).goodbye()
	lost := b.connect(b.join("lost"))
	require.NoError(t, lost.conn.CloseWithError(99, "pulled the plug"))
	garbage := b.connect(b.join("garbage"))
	_, err := garbage.stream.Write([]byte{0, 0, 0, 1, 0xff})
	require.NoError(t, err)
	garbage.closedWith(wire.CloseProtocol, "")
	silent := b.connect(b.join("silent"))
	want(5, telemetry.TotalConnections)
	becomes(3, telemetry.TotalDisconnects)
	want(1, telemetry.DecodingErrorsTotal)
	want(1, telemetry.NetworkErrorsTotal)
	becomes(2, telemetry.SessionsReconnecting)
	want(2, telemetry.ConnectedClients)
	for beats := 0; ; beats++ {
		a.alive()
		if silent.conn.Context().Err() != nil {
			break
		}
		<-time.After(20 * time.Millisecond)
		require.Less(t, beats, 500)
	}
	silent.closedWith(wire.CloseHeartbeat, "")
	becomes(1, telemetry.ConnectedClients)
	want(4, telemetry.TotalDisconnects)
	require.EqualValues(t, 2, late.Load())
	want(2, telemetry.HeartbeatTimeouts)
	require.Equal(t, value(t, reg, telemetry.HeartbeatsReceived), value(t, reg, telemetry.HeartbeatsSent))
	before := value(t, reg, telemetry.HeartbeatsReceived)
	for range 7 {
		a.alive()
	}
	want(before+7, telemetry.HeartbeatsReceived)
	want(before+7, telemetry.HeartbeatsSent)

	// Requests: answered, timed out, cancelled, not sent.
	for range 3 {
		done := b.ask(t.Context(), "stays")
		request := a.receive().GetRequest()
		<-time.After(20 * time.Millisecond)
		want(1, telemetry.PromiseActive)
		a.answer(request.Id)
		require.NoError(t, outcomeOf(t, done))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, outcomeOf(t, b.ask(ctx, "stays")), hub.ErrPromiseTimeout)
	require.NotNil(t, a.receive().GetRequest())
	cancelled, cancel2 := context.WithCancelCause(t.Context())
	done := b.ask(cancelled, "stays")
	require.NotNil(t, a.receive().GetRequest())
	cancel2(errors.New("aborted"))
	require.Error(t, outcomeOf(t, done))
	_, err = b.Request(t.Context(), "stays", &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Payload: make([]byte, 2<<20)}}})
	require.ErrorContains(t, err, "frame too large")
	settled(t, reg, 3, 1, 2)
	want(1, telemetry.MessagesFailedTotal)
	want(1, telemetry.EncodingErrorsTotal)
	for _, name := range []string{telemetry.LatencyAverage, telemetry.LatencyP50, telemetry.LatencyP95, telemetry.LatencyP99} {
		ms := value(t, reg, name)
		require.GreaterOrEqual(t, ms, 19.0, name)
		require.Less(t, ms, 2000.0, name)
	}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == telemetry.RequestDuration {
			require.EqualValues(t, 3, f.Metric[0].Histogram.GetSampleCount())
			require.GreaterOrEqual(t, f.Metric[0].Histogram.GetSampleSum(), 0.06)
		}
	}

	// Results and logs, and a store that fails first.
	var failures atomic.Int64
	b.sink.setScript(func(string) error {
		if failures.Add(1) == 1 {
			return errors.New("database is down")
		}
		return nil
	})
	id := step("stays")
	a.send(resultOf(id))
	require.Equal(t, id, a.receive().GetResultAck().GetStepId())
	want(1, telemetry.ResultsStoredTotal)
	want(1, telemetry.StoreErrorsTotal)
	want(0, telemetry.LogBytesBuffered)

	// All frames, both ways, as the hooks saw them.
	becomes(float64(sent.Load()), telemetry.MessagesSentTotal)
	becomes(float64(received.Load()), telemetry.MessagesReceivedTotal)
	require.Greater(t, value(t, reg, telemetry.BytesSentTotal), 4*float64(sent.Load()))
	require.Greater(t, value(t, reg, telemetry.BytesReceivedTotal), 4*float64(received.Load()))
	rate, uptime := value(t, reg, telemetry.MessageThroughput), value(t, reg, telemetry.UptimeSeconds)
	require.Positive(t, uptime)
	require.InEpsilon(t, float64(sent.Load()+received.Load())/uptime, rate, 0.2, "the hub runs for less than ten seconds")
	b.stop()
	for _, name := range []string{telemetry.ConnectedClients, telemetry.UptimeSeconds, telemetry.ClientsMax} {
		want(0, name)
	}
}

// counting counts what is read.
type counting struct {
	io.Reader
	bytes atomic.Int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// Bytes, logs and broadcasts, each with numbers that nothing else has by chance.
func TestMetricsCountToTheByte(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := start(t, counted(reg), smallCredit(10*grant))
	becomes := func(n float64, name string) {
		t.Helper()
		require.Eventually(t, func() bool { return value(t, reg, name) == n }, patience, 2*time.Millisecond, "%s = %v", name, n)
	}
	sent := 0
	a := b.open(b.join("web-1"))
	read := &counting{Reader: a.stream}
	a.reader = wire.NewReader(read, wire.MaxFrame)
	say := func(f *quicflowv1.ToHub) {
		t.Helper()
		sent += len(frame(t, f))
		a.send(f)
	}
	say(helloOf("journal", "boot"))
	require.NotNil(t, a.receive().GetWelcome())

	// A broadcast to three, of which two are not there.
	answered := make(chan error, 1)
	go func() {
		for answer := range b.Broadcast(t.Context(), []string{"web-1", "web-2", "web-3", "web-1"}, ping()) {
			if answer.ClientID == "web-1" {
				answered <- answer.Err
			}
		}
	}()
	request := a.receive().GetRequest()
	becomes(1, telemetry.PromiseActive)
	say(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Response{Response: &quicflowv1.Response{
		Id: request.GetId(), Body: &quicflowv1.Response_Message{Message: &quicflowv1.Message{Type: "pong", Payload: make([]byte, 321)}}}}})
	require.NoError(t, outcomeOf(t, answered))
	becomes(1, telemetry.BroadcastsSentTotal)
	becomes(3, telemetry.BroadcastTargetsTotal)

	// Three log records, while nothing is stored and then.
	goOn := b.hang()
	id, logs := step("web-1"), 0
	say(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_LogOffer{LogOffer: &quicflowv1.LogOffer{}}})
	require.Equal(t, grant, a.granted())
	becomes(grant, telemetry.LogCreditBytes)
	stream := a.openLogs()
	for n, size := range []int{100, 2000, 30_000} {
		chunk := chunkOf(id, uint64(n), size)
		logs += len(frame(t, chunk))
		require.NoError(t, wire.WriteFrame(stream, chunk))
	}
	becomes(float64(logs), telemetry.LogBytesBuffered)
	becomes(float64(grant-logs), telemetry.LogCreditBytes)
	becomes(0, telemetry.LogRecordsStoredTotal)
	goOn()
	for a.receive().GetLogAck().GetPosition() < 3 {
	}
	becomes(3, telemetry.LogRecordsStoredTotal)
	becomes(32_100, telemetry.LogBytesStoredTotal)
	becomes(0, telemetry.LogBytesBuffered)
	require.NoError(t, stream.Close())
	becomes(0, telemetry.LogCreditBytes)

	becomes(float64(sent+logs), telemetry.BytesReceivedTotal)
	becomes(float64(read.bytes.Load()), telemetry.BytesSentTotal)
}
