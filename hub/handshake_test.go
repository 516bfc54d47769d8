package hub_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/telemetry"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func TestSessionIsAccepted(t *testing.T) {
	b := start(t)
	who := b.join("web-1")
	changed, cancel := b.WatchClient("web-1")
	defer cancel()

	a := b.connect(who)
	require.Equal(t, "web-1", a.welcome.ClientId)
	require.Equal(t, "node-1", a.welcome.NodeId)
	require.EqualValues(t, 1, a.welcome.SessionEpoch)
	require.EqualValues(t, 15_000, a.welcome.HeartbeatIntervalMs)
	signal(t, "the watch fires", changed)
	require.Equal(t, hub.Presence{Status: release.ClientOnline, Session: a.welcome.SessionEpoch}, b.Presence("web-1"))
	require.Equal(t, 1, b.Connected())
	b.registry.mu.Lock()
	session, released := b.registry.sessions[0], b.registry.released
	b.registry.mu.Unlock()
	require.Equal(t, []string{"node-1"}, released)
	require.Equal(t, "node-1", session.NodeID)
	require.Equal(t, a.address(), session.Address)
	require.Equal(t, "host", session.Hostname)
	require.Equal(t, map[string]string{"env": "test"}, session.Labels)
	a.alive()

	a.goodbye()
	signal(t, "the watch fires", changed)
	eventually(t, "offline at once", func() bool { return b.Presence("web-1").Status == release.ClientOffline })
	eventually(t, "written down", func() bool { return !b.registry.isOnline("web-1") && b.registry.saidGoodbye("web-1") })
}

func TestStrangersAreRefusedByTLS(t *testing.T) {
	b := start(t)
	other, err := pki.LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	server, err := ca.IssueServer(nil, time.Hour)
	require.NoError(t, err)
	for name, certs := range map[string][]tls.Certificate{
		"no certificate":       nil,
		"another CA":           {issue(t, other, "web-1", 0).cert},
		"expired":              {issue(t, ca, "web-1", -time.Minute).cert},
		"a server certificate": {server},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := b.dial(wire.ALPN, certs...)
			if err == nil { // in TLS 1.3 a client is done before the server has looked at its certificate
				_, err = conn.AcceptStream(t.Context())
			}
			var refused *quic.TransportError
			require.ErrorAs(t, err, &refused)
			require.True(t, refused.ErrorCode.IsCryptoError(), refused)
		})
	}
	_, err = b.dial("h3", b.join("web-1").cert)
	require.Error(t, err)
	require.Zero(t, b.Connected())
}

func TestSessionsAreRefused(t *testing.T) {
	b := start(t)
	refused := func(t *testing.T, who identity, hello *quicflowv1.ToHub, code quicflowv1.RefusalCode, message string) {
		t.Helper()
		a := b.open(who)
		a.send(hello)
		refusal := a.receive().GetRefusal()
		require.NotNil(t, refusal)
		require.Equal(t, code, refusal.Code, refusal.Message)
		require.Contains(t, refusal.Message, message)
		require.NoError(t, a.conn.CloseWithError(wire.CloseNormal, "as told"))
		require.Zero(t, b.Connected())
	}
	hello := helloOf("journal", "boot")

	t.Run("revoked", func(t *testing.T) {
		b.join("web-1")
		refused(t, issue(t, ca, "web-1", 0), hello, quicflowv1.RefusalCode_REFUSAL_CODE_REVOKED, "certificate is revoked or not known here; join again")
	})
	t.Run("stranger", func(t *testing.T) {
		refused(t, issue(t, ca, "stranger", 0), hello, quicflowv1.RefusalCode_REFUSAL_CODE_REVOKED, "join again")
	})
	t.Run("unknown client", func(t *testing.T) {
		who := b.join("web-2")
		b.registry.forget("web-2")
		refused(t, who, hello, quicflowv1.RefusalCode_REFUSAL_CODE_REVOKED, "web-2")
	})
	t.Run("registry fails to check", func(t *testing.T) {
		b.registry.setScript(func(string) error { return errors.New("database is down") })
		defer b.registry.setScript(nil)
		refused(t, b.join("web-3"), hello, quicflowv1.RefusalCode_REFUSAL_CODE_INTERNAL, "could not be written down")
	})
	t.Run("registry fails to write", func(t *testing.T) {
		b.registry.setScript(func(method string) error {
			if method == "ConnectClients" {
				return errors.New("database is down")
			}
			return nil
		})
		defer b.registry.setScript(nil)
		refused(t, b.join("web-3"), hello, quicflowv1.RefusalCode_REFUSAL_CODE_INTERNAL, "could not be written down")
	})
	t.Run("protocol version", func(t *testing.T) {
		wrong := helloOf("journal", "boot")
		wrong.GetHello().Protocol = 99
		refused(t, b.join("web-3"), wrong, quicflowv1.RefusalCode_REFUSAL_CODE_PROTOCOL, "version 99")
	})
	t.Run("no journal", func(t *testing.T) {
		refused(t, b.join("web-3"), helloOf("", "boot"), quicflowv1.RefusalCode_REFUSAL_CODE_PROTOCOL, "journal")
	})
	t.Run("something else first", func(t *testing.T) {
		refused(t, b.join("web-3"), resultOf(step("web-3")), quicflowv1.RefusalCode_REFUSAL_CODE_PROTOCOL, "first frame")
	})
	b.connect(b.join("web-3")).alive()
}

func TestHelloMustComeInTime(t *testing.T) {
	b := start(t, func(c *hub.Config) { c.HelloTimeout = 50 * time.Millisecond })
	who := b.join("web-1")
	t.Run("no stream", func(t *testing.T) {
		conn, err := b.dial(wire.ALPN, who.cert)
		require.NoError(t, err)
		closedWith(t, conn, wire.CloseRefused, "no hello")
	})
	t.Run("half a frame", func(t *testing.T) {
		a := b.open(who)
		_, err := a.stream.Write([]byte{0, 0})
		require.NoError(t, err)
		require.Contains(t, a.receive().GetRefusal().GetMessage(), "no hello")
		a.closedWith(wire.CloseRefused, "no hello")
	})
}

func TestMaxClients(t *testing.T) {
	b := start(t, func(c *hub.Config) { c.MaxClients = 2 })
	one := b.join("web-1")
	first, second := b.connect(one), b.connect(b.join("web-2"))
	third := b.join("web-3")
	_, answer := b.greet(third, "journal", "boot")
	require.Equal(t, quicflowv1.RefusalCode_REFUSAL_CODE_FULL, answer.GetRefusal().GetCode())
	require.Positive(t, answer.GetRefusal().GetRetryAfterMs())

	again := b.connect(one) // a takeover needs no place of its own
	first.closedWith(wire.CloseTakenOver, "took over")
	second.goodbye()
	eventually(t, "there is room", func() bool { return b.Connected() == 1 })
	b.connect(third).alive()
	again.alive()
}

func TestOneSessionPerIdentity(t *testing.T) {
	var said journalOf
	b := start(t, func(c *hub.Config) {
		c.HeartbeatInterval = 400 * time.Millisecond
		c.HeartbeatTimeout = time.Minute
		c.Hooks.OnDuplicateIdentity = func(e hub.Event, holder string) { said.add("duplicate %s, held by %s", e.ClientID, holder) }
		c.Hooks.OnReconnect = func(e hub.Event) { said.add("reconnect %s", e.ClientID) }
	})
	who := b.join("web-1")
	first, answer := b.greet(who, "journal-1", "boot-1")
	require.NotNil(t, answer.GetWelcome())

	first.alive()
	for _, other := range [][2]string{{"journal-2", "boot-1"}, {"journal-1", "boot-2"}} {
		_, answer = b.greet(who, other[0], other[1])
		require.Equal(t, quicflowv1.RefusalCode_REFUSAL_CODE_DUPLICATE_IDENTITY, answer.GetRefusal().GetCode())
	}
	require.True(t, said.has("duplicate web-1, held by "+first.address()))
	first.alive()

	second, answer := b.greet(who, "journal-1", "boot-1")
	require.EqualValues(t, 2, answer.GetWelcome().GetSessionEpoch())
	first.closedWith(wire.CloseTakenOver, "took over")
	second.alive()
	require.True(t, said.has("reconnect web-1"))

	// A silent session loses its place to any newcomer, after a heartbeat interval.
	var third *agent
	eventually(t, "the silent session is replaced", func() bool {
		third, answer = b.greet(who, "journal-3", "boot-3")
		return answer.GetWelcome() != nil
	})
	second.closedWith(wire.CloseTakenOver, "took over")
	third.alive()
	require.True(t, b.registry.isOnline("web-1"), "the end of an old session changes nothing")
	require.Equal(t, 1, b.Connected())
}

func TestManyRegistrationsShareACall(t *testing.T) {
	b := start(t)
	entered, gate := make(chan struct{}, 1), make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	defer open()
	b.registry.setScript(func(method string) error {
		if method == "ConnectClients" {
			select {
			case entered <- struct{}{}:
			default:
			}
			<-gate
		}
		return nil
	})
	const n = 30
	var wg sync.WaitGroup
	connect := func(id string) {
		a := b.open(b.join(id))
		a.send(helloOf("journal", "boot"))
		wg.Go(func() {
			if frame, err := a.tryReceive(); err != nil || frame.GetWelcome() == nil {
				t.Errorf("%s: got %v, %v", id, frame, err)
			}
		})
	}
	connect("web-first")
	signal(t, "the first call", entered)
	for i := range n {
		connect(fmt.Sprintf("web-%d", i))
	}
	eventually(t, "all wait", func() bool { return hub.Queued(b.Hub) == n })
	open()
	wg.Wait()
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	require.Equal(t, []int{1, n}, b.registry.batches)
}

func TestPresenceWithinTheGrace(t *testing.T) {
	b := start(t, func(c *hub.Config) { c.OfflineGrace = 300 * time.Millisecond })
	never := b.Presence("never-seen")
	require.Equal(t, release.ClientReconnecting, never.Status, "it may not have found its way back since the hub started")
	who := b.join("web-1")
	a := b.connect(who)
	lost := time.Now()
	require.NoError(t, a.conn.CloseWithError(99, "pulled the plug"))
	eventually(t, "reconnecting", func() bool { return b.Presence("web-1").Status == release.ClientReconnecting })
	require.WithinDuration(t, lost.Add(300*time.Millisecond), b.Presence("web-1").Until, 200*time.Millisecond)
	eventually(t, "offline", func() bool { return b.Presence("web-1") == hub.Presence{Status: release.ClientOffline} })
	require.Equal(t, release.ClientOffline, b.Presence("never-seen").Status)
	b.connect(who)
	require.Equal(t, release.ClientOnline, b.Presence("web-1").Status)
}

func TestRevokedSessionEnds(t *testing.T) {
	b := start(t)
	a := b.connect(b.join("web-1"))
	require.True(t, b.Disconnect("web-1"))
	a.closedWith(wire.CloseRevoked, "revoked")
	eventually(t, "it is gone", func() bool { return !b.Disconnect("web-1") })
}

func TestEndsAreWrittenDownWhenTheRegistryIsBack(t *testing.T) {
	b := start(t)
	a := b.connect(b.join("web-1"))
	failed := make(chan struct{}, 100)
	b.registry.setScript(func(string) error {
		select {
		case failed <- struct{}{}:
		default:
		}
		return errors.New("database is down")
	})
	require.NoError(t, a.conn.CloseWithError(99, ""))
	signal(t, "a call fails", failed)
	signal(t, "it is tried again", failed)
	require.True(t, b.registry.isOnline("web-1"))
	b.registry.setScript(nil)
	eventually(t, "written down", func() bool { return !b.registry.isOnline("web-1") })
}

func TestStartFailsClearly(t *testing.T) {
	b := start(t)
	cfg := hub.Config{Addr: b.Addr().String(), NodeID: "node-2", CA: ca, Registry: b.registry, Sink: b.sink}
	h, err := hub.New(cfg)
	require.NoError(t, err)
	require.ErrorContains(t, h.Start(t.Context()), "address already in use")

	b.registry.setScript(func(string) error { return errors.New("database is down") })
	defer b.registry.setScript(nil)
	require.ErrorContains(t, h.Start(t.Context()), "release sessions of an earlier run: database is down")
}

// resuming dials with a session cache and says hello.
func resuming(t *testing.T, b *bench, cfg *tls.Config, early bool) (*agent, *quicflowv1.ToAgent) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dial := quic.DialAddr
	if early {
		dial = quic.DialAddrEarly
	}
	conn, err := dial(ctx, b.Addr().String(), cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { conn.CloseWithError(wire.CloseNormal, "the test is over") })
	stream, err := conn.OpenStream()
	require.NoError(t, err)
	a := &agent{t: t, conn: conn, stream: stream, reader: wire.NewReader(stream, wire.MaxFrame)}
	a.send(helloOf("journal", "boot"))
	return a, a.receive()
}

func TestSessionIsResumed(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := start(t, counted(reg))
	who := b.join("web-1")
	cfg := &tls.Config{RootCAs: ca.Pool(), ServerName: pki.HubServerName, NextProtos: []string{wire.ALPN}, Certificates: []tls.Certificate{who.cert},
		ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for _, resumed := range []bool{false, true} {
		a, answer := resuming(t, b, cfg, false)
		require.Equal(t, "web-1", answer.GetWelcome().GetClientId(), "the certificate of a resumed session counts")
		require.Equal(t, resumed, a.conn.ConnectionState().TLS.DidResume)
		a.goodbye()
	}
	require.EqualValues(t, 1, value(t, reg, telemetry.SessionsResumedTotal))

	// The next run of the hub has the same keys.
	b.stop()
	next := start(t, func(c *hub.Config) { c.Registry = b.registry })
	a, answer := resuming(t, next, cfg, true)
	require.NotNil(t, answer.GetWelcome())
	require.True(t, a.conn.ConnectionState().TLS.DidResume)
	require.False(t, a.conn.ConnectionState().Used0RTT, "a Hello could be replayed")
	a.goodbye()

	// Another node has others.
	other := start(t, func(c *hub.Config) { c.Registry, c.NodeID = b.registry, "node-2" })
	a, answer = resuming(t, other, cfg, false)
	require.NotNil(t, answer.GetWelcome())
	require.False(t, a.conn.ConnectionState().TLS.DidResume)
	a.goodbye()
	other.stop()

	b.registry.mu.Lock()
	delete(b.registry.valid, pki.Serial(who.cert.Leaf))
	b.registry.mu.Unlock()
	again := start(t, func(c *hub.Config) { c.Registry, c.NodeID = b.registry, "node-2" })
	a, answer = resuming(t, again, cfg, false)
	require.True(t, a.conn.ConnectionState().TLS.DidResume)
	require.Equal(t, quicflowv1.RefusalCode_REFUSAL_CODE_REVOKED, answer.GetRefusal().GetCode(), "a ticket does not outlive a revocation")
}

func TestKeyExchange(t *testing.T) {
	for classic, want := range map[bool]tls.CurveID{false: tls.X25519MLKEM768, true: tls.X25519} {
		b := start(t, func(c *hub.Config) { c.ClassicKeyExchange = classic })
		a := b.connect(b.join("web-1"))
		require.Equal(t, want, a.conn.ConnectionState().TLS.CurveID)
	}
}
