package hub_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
)

// connectMany connects agents that answer every request when told to.
func (b *bench) connectMany(n int) (ids []string, agents map[string]*agent) {
	b.t.Helper()
	agents = map[string]*agent{}
	for i := range n {
		id := fmt.Sprintf("client-%03d", i)
		agents[id] = b.connect(b.join(id))
		ids = append(ids, id)
	}
	return ids, agents
}

func TestBroadcastGivesEachTargetItsOutcome(t *testing.T) {
	var announced []int
	b := start(t, func(c *hub.Config) { c.Hooks.OnBroadcast = func(n int) { announced = append(announced, n) } })
	ids, agents := b.connectMany(20)
	require.ElementsMatch(t, ids, b.Clients())

	var answering sync.WaitGroup
	for _, a := range agents {
		answering.Go(a.pong)
	}
	got := map[string]hub.Answer{}
	for a := range b.Broadcast(t.Context(), append(ids, "nobody", ids[0]), ping()) {
		require.NotContains(t, got, a.ClientID)
		got[a.ClientID] = a
	}
	answering.Wait()
	require.Len(t, got, len(ids)+1)
	require.ErrorIs(t, got["nobody"].Err, hub.ErrNotConnected)
	for _, id := range ids {
		require.NoError(t, got[id].Err)
		require.Equal(t, "pong", got[id].Response.GetMessage().GetType())
	}
	require.Equal(t, []int{21}, announced)
}

func TestBroadcastGivesTheFirstAnswerFirst(t *testing.T) {
	b := start(t)
	ids, agents := b.connectMany(3)
	next := make(chan string, 3)
	go func() {
		for id := range next {
			agents[id].pong()
		}
	}()
	order := []string{ids[2], ids[0], ids[1]}
	next <- order[0]
	var got []string
	for a := range b.Broadcast(t.Context(), ids, ping()) {
		got = append(got, a.ClientID)
		if len(got) < len(order) {
			next <- order[len(got)]
		}
	}
	close(next)
	require.Equal(t, order, got)
}

func TestBroadcastEndsAtItsDeadline(t *testing.T) {
	b := start(t)
	ids, agents := b.connectMany(2)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	go agents[ids[0]].pong()
	got := map[string]error{}
	for a := range b.Broadcast(ctx, ids, ping()) {
		got[a.ClientID] = a.Err
	}
	require.NoError(t, got[ids[0]])
	require.ErrorIs(t, got[ids[1]], hub.ErrPromiseTimeout)
	require.Zero(t, hub.Promises(b.Hub))
}

func TestBroadcastThatIsNotReadToItsEndGivesItsPromisesBack(t *testing.T) {
	b := start(t)
	ids, agents := b.connectMany(5)
	go agents[ids[3]].pong()
	for a := range b.Broadcast(t.Context(), ids, ping()) {
		require.Equal(t, ids[3], a.ClientID)
		break
	}
	require.Zero(t, hub.Promises(b.Hub))
}

func TestBroadcastWaitsForPromises(t *testing.T) {
	b := start(t, func(c *hub.Config) { c.MaxPromises = 2 })
	ids, agents := b.connectMany(6)
	var answering sync.WaitGroup
	for _, a := range agents {
		answering.Go(a.pong)
	}
	n := 0
	for a := range b.Broadcast(t.Context(), ids, ping()) {
		require.NoError(t, a.Err)
		require.LessOrEqual(t, hub.Promises(b.Hub), 2)
		n++
	}
	answering.Wait()
	require.Equal(t, 6, n)
}

func TestBroadcastOfALostSessionSaysSo(t *testing.T) {
	b := start(t)
	ids, agents := b.connectMany(2)
	go func() {
		agents[ids[0]].receive()
		agents[ids[0]].goodbye()
		agents[ids[1]].pong()
	}()
	got := map[string]error{}
	for a := range b.Broadcast(t.Context(), ids, ping()) {
		got[a.ClientID] = a.Err
	}
	require.ErrorIs(t, got[ids[0]], hub.ErrSessionLost)
	require.NoError(t, got[ids[1]])
}
