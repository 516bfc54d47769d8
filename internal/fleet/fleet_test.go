package fleet_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/fleet"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// What the fleet calls accepted, the hub does, too; all answer, and leave.
func TestFleetConnects(t *testing.T) {
	// Not as often as in the other tests: 200 agents leave nothing of a busy machine for the requests then.
	b := startServer(t, func(c *hub.Config) { c.HeartbeatInterval = time.Second })
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
	require.Empty(t, s.Dropped)
	eventually(t, "heartbeats are answered", func() bool { return f.Snapshot().RoundTrip.Count >= 400 })

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	requests, requestsCtx := errgroup.WithContext(ctx)
	requests.SetLimit(20)
	for _, id := range ids(200) {
		requests.Go(func() error {
			answer, err := b.hub.Request(requestsCtx, id, &quicflowv1.Request{Body: &quicflowv1.Request_Message{
				Message: &quicflowv1.Message{Type: "echo", Payload: []byte(id)}}})
			if err == nil && id != string(answer.GetMessage().GetPayload()) {
				err = fmt.Errorf("the answer of %s is %q", id, answer.GetMessage().GetPayload())
			}
			return err
		})
	}
	require.NoError(t, requests.Wait())
	began := time.Now()
	answer, err := b.hub.Request(ctx, "sim-007", &quicflowv1.Request{Body: &quicflowv1.Request_Message{
		Message: &quicflowv1.Message{Type: "sleep", Payload: []byte("100ms")}}})
	require.NoError(t, err)
	require.Equal(t, "sleep", answer.GetMessage().GetType())
	require.GreaterOrEqual(t, time.Since(began), 100*time.Millisecond)
	require.EqualValues(t, 201, f.Snapshot().Requests)

	f.Close()
	eventually(t, "the hub has taken all off its books", func() bool { return b.hub.Connected() == 0 })
	s = f.Snapshot()
	require.Zero(t, s.Accepted)
	require.Empty(t, s.Dropped, "to leave is not to be dropped")
}

// batches notes how many sessions are written down at a time.
type batches struct {
	*store.Store
	most atomic.Int64
}

func (b *batches) ConnectClients(ctx context.Context, sessions []release.ClientSession) (map[string]release.ClientEntry, error) {
	b.most.Store(max(b.most.Load(), int64(len(sessions))))
	return b.Store.ConnectClients(ctx, sessions)
}

// No more agents connect at a time than may, as each of them waits for its welcome; and they share sockets.
func TestAgentsConnectInTurnOnFewSockets(t *testing.T) {
	var registry *batches
	var mu sync.Mutex
	agents := map[string]int{} // by address
	var told atomic.Int64
	b := startServer(t, func(c *hub.Config) {
		registry = &batches{Store: c.Registry.(*store.Store)}
		c.Registry = registry
		c.Hooks.OnConnect = func(e hub.Event) {
			mu.Lock()
			defer mu.Unlock()
			agents[e.Address]++
			told.Add(1)
		}
	})
	require.NoError(t, b.connect(b.fleet(150, func(c *fleet.Config) { c.Concurrency, c.AgentsPerSocket = 3, 60 })))
	require.LessOrEqual(t, registry.most.Load(), int64(3))
	// An agent may know that it was accepted before the hub's hook has run.
	eventually(t, "the hub has told of all", func() bool { return told.Load() == 150 })
	mu.Lock()
	defer mu.Unlock()
	require.ElementsMatch(t, []int{60, 60, 30}, slices.Collect(maps.Values(agents)))
}

// The second server may have another kind of address than the first.
func TestServersOfBothFamilies(t *testing.T) {
	b, foreign := startServer(t, func(c *hub.Config) { c.Addr = "[::1]:0" }), startServer(t)
	known := b.join(ids(3))
	for name, servers := range map[string][]string{"one": {b.addr}, "the first": {b.addr, foreign.addr}, "the second": {foreign.addr, b.addr}} {
		t.Run(name, func(t *testing.T) {
			f := b.fleet(3, func(c *fleet.Config) { c.Servers, c.Identities = servers, known })
			require.NoError(t, b.connect(f))
			f.Close()
			eventually(t, "all have left", func() bool { return b.hub.Connected() == 0 })
		})
	}
}

// A hub that is full is no success.
func TestAFullHub(t *testing.T) {
	b := startServer(t, func(c *hub.Config) { c.MaxClients = 50 })
	f := b.fleet(200, func(c *fleet.Config) { c.ConnectTimeout = 8 * time.Second })
	require.ErrorIs(t, b.connect(f), fleet.ErrNotAccepted)
	s := f.Snapshot()
	require.Equal(t, 50, s.EverAccepted)
	require.Equal(t, 50, s.Accepted)
	require.Equal(t, 50, b.hub.Connected())
	require.Equal(t, map[string]int{"full": 150}, s.Failed)
	require.Empty(t, s.Dropped)
}

// A hub that stops and comes back: every session was dropped, and all are back by their tickets.
func TestAHubThatRestarts(t *testing.T) {
	b := startServer(t, func(c *hub.Config) { c.DrainTimeout = patience }) // that is over as soon as all have left
	f := b.fleet(200)
	require.NoError(t, b.connect(f))
	first := f.Snapshot()
	require.InEpsilon(t, 200/first.Connecting.Seconds(), first.HandshakesPerSecond, 1e-6)
	b.stop()
	eventually(t, "all sessions end", func() bool { return f.Snapshot().Accepted == 0 })
	require.Equal(t, 200, f.Snapshot().DroppedTotal())
	require.Equal(t, 200, f.Snapshot().Dropped["goodbye"])
	b.start()
	eventually(t, "all are back", func() bool { return f.Snapshot().Reconnected == 200 })
	require.Equal(t, 200, b.hub.Connected())
	s := f.Snapshot()
	require.Equal(t, 200, s.Accepted)
	require.Equal(t, 200, s.EverAccepted)
	require.Equal(t, 200, s.DroppedTotal())
	require.Equal(t, 200, s.Resumed)
	require.Equal(t, first.Connecting, s.Connecting, "who comes back does not count for the time that all took to come")
	require.Equal(t, first.HandshakesPerSecond, s.HandshakesPerSecond)
}

// A hub that has gone without a word is not one that holds sessions, though no heartbeat was due yet.
func TestASilentHubIsFoundOut(t *testing.T) {
	b := startServer(t, func(c *hub.Config) { c.HeartbeatInterval, c.HeartbeatTimeout = time.Hour, 2*time.Hour })
	cut := b.behindRelay()
	f := b.fleet(50)
	require.NoError(t, b.connect(f))
	f.Confirm(patience)
	require.Zero(t, f.Snapshot().DroppedTotal())
	require.Equal(t, uint64(50), f.Snapshot().Confirm.Count)
	require.Zero(t, f.Snapshot().RoundTrip.Count, "what all ask at once is no heartbeat in its time")
	cut()
	require.Equal(t, 50, f.Snapshot().Accepted, "as far as the fleet has seen")
	f.Confirm(200 * time.Millisecond)
	require.Equal(t, 50, f.Snapshot().DroppedTotal())
	require.Zero(t, f.Snapshot().Accepted)
}

// An agent that the hub does not know gives up at once, and says why.
func TestAForeignHub(t *testing.T) {
	b, other := startServer(t), startServer(t)
	known := b.join(ids(3))
	require.ErrorContains(t, other.connect(other.fleet(3, func(c *fleet.Config) { c.Identities, c.ConnectTimeout = known, time.Second })), "3 of 3")
}

// Without a server there is no agent.
func TestNoHub(t *testing.T) {
	b := startServer(t)
	known := b.join(ids(3))
	b.stop()
	f := b.fleet(3, func(c *fleet.Config) { c.Identities = known })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, f.Connect(ctx), context.DeadlineExceeded)
	require.Zero(t, f.Snapshot().EverAccepted)
}

func TestBadConfigurations(t *testing.T) {
	good := fleet.Config{Servers: []string{"a"}, IDs: []string{"x"}, Identities: fleet.NewIdentities(nil, nil, map[string][]byte{"x": {1}})}
	_, err := fleet.New(good)
	require.NoError(t, err)
	for want, change := range map[string]func(*fleet.Config){
		"server":         func(c *fleet.Config) { c.Servers = nil },
		"is not an":      func(c *fleet.Config) { c.Servers = []string{":1"} },
		"at least one":   func(c *fleet.Config) { c.IDs = nil },
		"Identities":     func(c *fleet.Config) { c.Identities = nil },
		"no certificate": func(c *fleet.Config) { c.IDs = []string{"y"} },
		"between 0":      func(c *fleet.Config) { c.FailureRate = 1.5 },
		"before":         func(c *fleet.Config) { c.ExecMin, c.ExecMax = 2, 1 },
		"negative":       func(c *fleet.Config) { c.LogBytes = -1 },
	} {
		bad := good
		change(&bad)
		_, err := fleet.New(bad)
		require.ErrorContains(t, err, want)
	}
}
