package hub_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func TestDrain(t *testing.T) {
	b := start(t, func(c *hub.Config) { c.DrainTimeout, c.DrainAddress = 2*patience, "hub-2.example.com:8474" })
	idle, busy := b.connect(b.join("idle")), b.connect(b.join("busy"))
	promised := b.ask(t.Context(), "busy")
	request := busy.receive().GetRequest()
	require.NotNil(t, request)

	stopped := make(chan error, 1)
	go func() { stopped <- b.Stop(context.Background()) }()
	b.stopped = true

	// Who has nothing in flight leaves at once; new requests fail at once.
	goodbye := idle.receive().GetGoodbye()
	require.Equal(t, "hub-2.example.com:8474", goodbye.GetAlternate())
	for _, id := range []string{"idle", "busy"} {
		_, err := b.Request(t.Context(), id, ping())
		require.ErrorIs(t, err, hub.ErrDraining)
	}
	// Who comes now is told to go elsewhere; what those still there send is stored.
	_, answer := b.greet(b.join("newcomer"), "journal", "boot")
	require.Equal(t, quicflowv1.RefusalCode_REFUSAL_CODE_DRAINING, answer.GetRefusal().GetCode())
	id := step("idle")
	idle.send(resultOf(id))
	require.Equal(t, id, idle.receive().GetResultAck().GetStepId())

	// What was in flight is answered, and only then its agent is sent away.
	busy.alive()
	busy.answer(request.Id)
	require.NoError(t, outcomeOf(t, promised))
	require.NotNil(t, busy.receive().GetGoodbye())

	require.NoError(t, idle.conn.CloseWithError(wire.CloseNormal, "as told"))
	select {
	case err := <-stopped:
		require.Fail(t, "the hub did not wait", err)
	default:
	}
	require.NoError(t, busy.conn.CloseWithError(wire.CloseNormal, "as told"))
	require.NoError(t, outcomeOf(t, stopped))
	for _, id := range []string{"idle", "busy"} {
		require.False(t, b.registry.isOnline(id))
		require.False(t, b.registry.saidGoodbye(id), "they will be back")
	}
}

// A request that is not answered in half of the time fails for the reason, and its agent still has the other half.
func TestDrainFailsWhatIsNotAnswered(t *testing.T) {
	b := start(t, func(c *hub.Config) { c.DrainTimeout = 600 * time.Millisecond })
	a := b.connect(b.join("slow"))
	promised := b.ask(t.Context(), "slow")
	require.NotNil(t, a.receive().GetRequest())
	began := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- b.Stop(context.Background()) }()
	b.stopped = true
	require.ErrorIs(t, outcomeOf(t, promised), hub.ErrDraining)
	require.GreaterOrEqual(t, time.Since(began), 300*time.Millisecond)
	require.NotNil(t, a.receive().GetGoodbye())
	a.closedWith(wire.CloseDraining, "draining")
	require.GreaterOrEqual(t, time.Since(began), 600*time.Millisecond)
	require.NoError(t, outcomeOf(t, stopped))
}

func TestDrainDoesNotWaitForEver(t *testing.T) {
	b := start(t)
	a := b.connect(b.join("stubborn"))
	mute := b.open(b.join("mute")) // never says hello
	b.stop()
	a.closedWith(wire.CloseDraining, "draining")
	select {
	case <-mute.conn.Context().Done():
	case <-time.After(patience):
		require.Fail(t, "the connection is still there")
	}
	require.False(t, b.registry.isOnline("stubborn"))
}

func TestStopThatIsCutShort(t *testing.T) {
	b := start(t, func(c *hub.Config) { c.DrainTimeout = patience })
	b.registry.setScript(nil)
	a := b.connect(b.join("stubborn"))
	b.sink.setScript(func(string) error { return errors.New("database is down") })
	a.send(resultOf(step("stubborn")))
	a.alive()
	cause := errors.New("no patience left")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	b.stopped = true
	require.ErrorIs(t, b.Stop(ctx), cause)
	a.closedWith(wire.CloseDraining, "draining")
	results, _ := b.sink.stored()
	require.Zero(t, results)
}

// An agent whose hub was killed learns from the next one on that port that its connection is gone.
func TestRestartedHubResetsOldConnections(t *testing.T) {
	b := start(t)
	a := b.connect(b.join("web-1"))
	hub.Kill(b.Hub)
	b.stopped = true
	next := start(t, func(c *hub.Config) { c.Addr = b.Addr().String() })
	eventually(t, "the old connection is reset", func() bool {
		_ = wire.WriteFrame(a.stream, &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Heartbeat{Heartbeat: &quicflowv1.Heartbeat{}}})
		return a.conn.Context().Err() != nil
	})
	require.ErrorContains(t, context.Cause(a.conn.Context()), "stateless reset")
	require.Zero(t, next.Connected())
}
