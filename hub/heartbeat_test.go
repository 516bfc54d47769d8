package hub_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func TestMissedHeartbeatsEndASession(t *testing.T) {
	strikes := make(chan int, 10)
	causes := make(chan error, 10)
	b := start(t, func(c *hub.Config) {
		c.HeartbeatInterval, c.HeartbeatTimeout, c.HeartbeatCheckInterval = 20*time.Millisecond, 150*time.Millisecond, 30*time.Millisecond
		c.Hooks.OnHeartbeatTimeout = func(e hub.Event, n int) {
			if e.ClientID == "silent" {
				strikes <- n
			}
		}
		c.Hooks.OnDisconnect = func(e hub.Event, cause error) {
			if e.ClientID == "silent" {
				causes <- cause
			}
		}
	})
	lively := b.connect(b.join("lively"))
	began := time.Now()
	silent := b.connect(b.join("silent"))
	for done := false; !done; {
		lively.alive()
		select {
		case <-silent.conn.Context().Done():
			done = true
		case <-time.After(10 * time.Millisecond):
		}
		require.Less(t, time.Since(began), patience)
	}
	silent.closedWith(wire.CloseHeartbeat, "heartbeats were missed")
	require.GreaterOrEqual(t, time.Since(began), 150*time.Millisecond+30*time.Millisecond, "three checks in a row take two intervals, of which a late one may shorten the next")
	for want := 1; want <= 3; want++ {
		require.Equal(t, want, <-strikes)
	}
	select {
	case cause := <-causes:
		require.ErrorIs(t, cause, hub.ErrHeartbeatLost)
	case <-time.After(patience):
		require.FailNow(t, "OnDisconnect was not called")
	}
	lively.alive()
	require.Equal(t, 1, b.Connected())
	eventually(t, "the node is touched", func() bool {
		b.registry.mu.Lock()
		defer b.registry.mu.Unlock()
		return b.registry.touched["node-1"] > 0
	})
}

// Quiet heartbeats keep a session, and are not answered.
func TestQuietHeartbeats(t *testing.T) {
	checked := make(chan int, 100)
	b := start(t, func(c *hub.Config) {
		c.HeartbeatInterval, c.HeartbeatTimeout, c.HeartbeatCheckInterval = 100*time.Millisecond, time.Second, 50*time.Millisecond
		c.Hooks.OnHeartbeatTimeout = func(_ hub.Event, strikes int) { checked <- strikes }
	})
	a := b.connect(b.join("web-1"))
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		a.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Heartbeat{Heartbeat: &quicflowv1.Heartbeat{Sequence: 1, Quiet: true}}})
		<-time.After(100 * time.Millisecond)
	}
	a.alive() // the next frame is the answer to this one
	a.closedWith(wire.CloseHeartbeat, "missed")
	require.Equal(t, 1, <-checked)
}

// A session must not be ended for heartbeats that the hub itself did not read.
func TestSessionHeldUpByTheHubIsNotBlamed(t *testing.T) {
	gate := make(chan struct{})
	checked := make(chan struct{}, 100)
	b := start(t, func(c *hub.Config) {
		c.HeartbeatInterval, c.HeartbeatTimeout, c.HeartbeatCheckInterval = 10*time.Millisecond, 40*time.Millisecond, 10*time.Millisecond
		c.Hooks.OnHeartbeatTimeout = func(hub.Event, int) { checked <- struct{}{} }
	})
	hub.LimitResults(b.Hub, 1)
	b.sink.setScript(func(string) error { <-gate; return nil })
	a := b.connect(b.join("web-1"))
	first, second := step("web-1"), step("web-1")
	a.send(resultOf(first))
	a.send(resultOf(second)) // waits for room, as the first is not stored yet
	eventually(t, "the session is held up", func() bool { return hub.HeldUp(b.Hub, "web-1") })
	hold := time.NewTimer(200 * time.Millisecond)
	defer hold.Stop()
	select {
	case <-a.conn.Context().Done():
		require.FailNow(t, "the session ended")
	case <-hold.C:
	}
	close(gate)
	require.Equal(t, first, a.receive().GetResultAck().GetStepId())
	require.Equal(t, second, a.receive().GetResultAck().GetStepId())
	a.closedWith(wire.CloseHeartbeat, "missed") // now it is its own fault
}

// A check that comes late, as the hub itself was held up, does not count, and nor does the tick that waited meanwhile.
func TestLateChecksDoNotCount(t *testing.T) {
	const interval = 100 * time.Millisecond
	type strike struct {
		number int
		at     time.Time
	}
	strikes := make(chan strike, 100)
	released := make(chan time.Time, 1)
	b := start(t, func(c *hub.Config) {
		c.HeartbeatInterval, c.HeartbeatTimeout, c.HeartbeatCheckInterval, c.MaxTimeoutCount = interval, 2*interval, interval, 3
		c.Hooks.OnHeartbeatTimeout = func(_ hub.Event, number int) {
			strikes <- strike{number, time.Now()}
			if number == 1 {
				<-time.After(3 * interval) // the check itself is what is held up
				released <- time.Now()
			}
		}
	})
	a := b.connect(b.join("silent"))
	a.closedWith(wire.CloseHeartbeat, "missed")
	require.Equal(t, 1, (<-strikes).number)
	second := <-strikes
	require.Equal(t, 2, second.number)
	require.Greater(t, second.at.Sub(<-released), interval/2, "neither the late check nor the one that follows it at once")
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*hub.Config){
		"NodeID is required":                    func(c *hub.Config) { c.NodeID = "" },
		"CA is required":                        func(c *hub.Config) { c.CA = nil },
		"Registry is required":                  func(c *hub.Config) { c.Registry = nil },
		"Sink is required":                      func(c *hub.Config) { c.Sink = nil },
		"MaxClients is negative":                func(c *hub.Config) { c.MaxClients = -1 },
		"OfflineGrace is negative":              func(c *hub.Config) { c.OfflineGrace = -1 },
		"must be longer than HeartbeatInterval": func(c *hub.Config) { c.HeartbeatTimeout = time.Second },
		"LogCredit (65535) must be at least":    func(c *hub.Config) { c.LogCredit = 64<<10 - 1 },
		"must not be larger than LogBuffer":     func(c *hub.Config) { c.LogBuffer = 256<<10 - 1 },
		"below half of the connection receive":  func(c *hub.Config) { c.LogCredit = 15 << 19 },
	} {
		cfg := hub.Config{NodeID: "n", CA: ca, Registry: newRegistry(), Sink: newSink()}
		change(&cfg)
		_, err := hub.New(cfg)
		require.ErrorContains(t, err, name)
		require.NotErrorIs(t, err, hub.ErrProtocol)
	}
}
