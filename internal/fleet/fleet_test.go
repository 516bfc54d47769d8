package fleet_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/fleet"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// What the fleet calls accepted, the hub does, too; all answer, and leave.
func TestFleetConnects(t *testing.T) {
	b := startServer(t)
	f := b.fleet(200)
	require.NoError(t, b.connect(f))
	require.Equal(t, 200, b.hub.Connected())
	s := f.Snapshot()
	require.Equal(t, 200, s.Accepted)
	require.Equal(t, 200, s.EverAccepted)
	require.Equal(t, 200, s.Sessions)
	require.EqualValues(t, 200, s.Latency.Count)
	require.Positive(t, s.Latency.P50)
	require.GreaterOrEqual(t, s.Latency.Max, s.Latency.P99)
	require.Positive(t, s.HandshakesPerSecond)
	require.Zero(t, s.Resumed)
	require.Empty(t, s.Dropped)
	eventually(t, "heartbeats are answered", func() bool { return f.Snapshot().RoundTrip.Count >= 400 })

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, id := range ids(200) {
		answer, err := b.hub.Request(ctx, id, &quicflowv1.Request{Body: &quicflowv1.Request_Message{
			Message: &quicflowv1.Message{Type: "echo", Payload: []byte(id)}}})
		require.NoError(t, err)
		require.Equal(t, id, string(answer.GetMessage().GetPayload()))
	}
	began := time.Now()
	answer, err := b.hub.Request(ctx, "sim-007", &quicflowv1.Request{Body: &quicflowv1.Request_Message{
		Message: &quicflowv1.Message{Type: "sleep", Payload: []byte("100ms")}}})
	require.NoError(t, err)
	require.Equal(t, "sleep", answer.GetMessage().GetType())
	require.GreaterOrEqual(t, time.Since(began), 100*time.Millisecond)
	require.EqualValues(t, 201, f.Snapshot().Requests)

	f.Close()
	require.Zero(t, b.hub.Connected())
	s = f.Snapshot()
	require.Zero(t, s.Accepted)
	require.Empty(t, s.Dropped, "to leave is not to be dropped")
}

var _ = hub.Config{}
var _ = fleet.Config{}
