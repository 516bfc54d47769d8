package hub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/wire"
)

// story is what hooks tell of one agent, in its order.
type story struct {
	journalOf
	kinds journalOf // of messages

	mu    sync.Mutex
	shift time.Duration // of the hub's clock
	from  string        // address of the agent; "": it has several
	told  int           // lines that were expected so far
}

func (s *story) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.shift)
}

func (s *story) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

var causes = map[string]error{
	"goodbye": hub.ErrGoodbye, "taken over": hub.ErrTakenOver, "heartbeat": hub.ErrHeartbeatLost, "protocol": hub.ErrProtocol,
	"not stored": hub.ErrNotStored, "revoked": hub.ErrRevoked, "network": hub.ErrNetwork, "draining": hub.ErrDraining,
}

// tell notes an event with all that its cause is.
func (s *story) tell(e hub.Event, what string, cause error) {
	for text, is := range causes {
		if errors.Is(cause, is) {
			what += ": " + text
		}
	}
	now := s.now()
	s.mu.Lock()
	from := s.from
	s.mu.Unlock()
	if age := now.Sub(e.At); e.ClientID != "web-1" || from != "" && e.Address != from || age < 0 || age > patience {
		what += fmt.Sprintf(" of %+v", e)
	}
	s.add("%s", what)
}

func (s *story) hooks(c *hub.Config) {
	kind := func(way string) func(hub.Event, string) {
		return func(e hub.Event, kind string) { s.kinds.add("%s %s %s", e.ClientID, way, kind) }
	}
	c.Now = s.now
	c.Hooks = hub.Hooks{
		OnConnect:         func(e hub.Event) { s.tell(e, "connect", nil) },
		OnReconnect:       func(e hub.Event) { s.tell(e, "reconnect", nil) },
		OnDisconnect:      func(e hub.Event, cause error) { s.tell(e, "disconnect", cause) },
		OnError:           func(e hub.Event, err error) { s.tell(e, "error", err) },
		OnRefused:         func(e hub.Event, reason error) { s.tell(e, "refused", reason) },
		OnPromiseTimeout:  func(e hub.Event, _ time.Duration) { s.tell(e, "promise timeout", nil) },
		OnBroadcast:       func(n int) { s.add("broadcast to %d", n) },
		OnMessageSent:     kind("sent"),
		OnMessageReceived: kind("received"),
	}
}

// lines are those that were not expected yet.
func (s *story) lines() []string {
	s.journalOf.mu.Lock()
	defer s.journalOf.mu.Unlock()
	return slices.Clone(s.said[s.told:])
}

func (s *story) String() string { return fmt.Sprintf("%q", s.lines()) }

// goesOn waits for the next lines, and no others.
func (s *story) goesOn(t *testing.T, want ...string) {
	t.Helper()
	require.Eventually(t, func() bool { return slices.Equal(want, s.lines()) }, patience, 2*time.Millisecond, "%q, not %v", want, s)
	s.told += len(want)
}

// A hook is called for what it is about, once, with whom it is about and why.
func TestHooks(t *testing.T) {
	s := new(story)
	b := start(t, s.hooks)
	who := b.join("web-1")
	open := func() *agent {
		t.Helper()
		a := b.open(who)
		s.set(func() { s.from = a.address() })
		a.send(helloOf("journal", "boot"))
		return a
	}
	connect := func() *agent {
		t.Helper()
		a := open()
		require.NotNil(t, a.receive().GetWelcome())
		return a
	}

	a := connect()
	s.goesOn(t, "connect")
	a.alive()
	a.ask(1, "ping", nil)
	require.NotNil(t, a.response().GetMessage())
	a.send(resultOf(step("web-1")))
	require.NotNil(t, a.receive().GetResultAck())
	a.logs()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		a.pong()
	}()
	for range b.Broadcast(t.Context(), []string{"web-1", "web-2"}, ping()) {
	}
	signal(t, "the agent answered", answered)
	s.goesOn(t, "broadcast to 2")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.Error(t, outcomeOf(t, b.ask(ctx, "web-1")))
	s.goesOn(t, "promise timeout")
	require.NotNil(t, a.receive().GetRequest())
	a.goodbye()
	s.goesOn(t, "disconnect: goodbye")
	for _, line := range []string{"received hello", "sent welcome", "received heartbeat", "sent heartbeat_ack", "received request", "sent response",
		"sent request", "received response", "received result", "sent result_ack", "received log_offer", "sent log_credit", "received goodbye"} {
		require.True(t, s.kinds.has("web-1 "+line), line)
	}

	// It comes again: not back, as it had said goodbye; back; and again, as the grace is over.
	for _, lines := range [][]string{{"connect"}, {"connect", "reconnect"}} {
		a = connect()
		s.goesOn(t, lines...)
		require.NoError(t, a.conn.CloseWithError(99, "pulled the plug"))
		s.goesOn(t, "disconnect: network")
	}
	s.set(func() { s.shift = 2 * time.Minute })
	connect()
	s.goesOn(t, "connect")

	// One that takes over does so while the other ends.
	next := b.open(who)
	s.set(func() { s.from = "" })
	next.send(helloOf("journal", "boot"))
	require.NotNil(t, next.receive().GetWelcome())
	eventually(t, "both are told", func() bool { return len(s.lines()) == 3 })
	require.ElementsMatch(t, []string{"disconnect: taken over", "connect", "reconnect"}, s.lines())
	s.told += 3
	s.set(func() { s.from = next.address() })
	_, err := next.stream.Write(length(wire.MaxFrame + 1))
	require.NoError(t, err)
	s.goesOn(t, "error: protocol", "disconnect: protocol")

	a = connect()
	s.goesOn(t, "connect", "reconnect")
	b.sink.setScript(func(string) error { return errors.New("disk is full") })
	a.send(resultOf(step("web-1")))
	s.goesOn(t, "error: not stored", "disconnect: not stored")
	b.sink.setScript(nil)

	connect()
	s.goesOn(t, "connect", "reconnect")
	require.True(t, b.Disconnect("web-1"))
	s.goesOn(t, "disconnect: revoked")
	b.registry.mu.Lock()
	delete(b.registry.valid, pki.Serial(who.cert.Leaf))
	b.registry.mu.Unlock()
	a = open()
	require.NotNil(t, a.receive().GetRefusal())
	s.goesOn(t, "refused: revoked")
	require.NoError(t, a.conn.CloseWithError(wire.CloseNormal, "as told"))

	b.know(who)
	connect()
	s.goesOn(t, "connect", "reconnect")
	b.stop()
	s.goesOn(t, "disconnect: draining")
}
