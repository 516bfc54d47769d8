package fleet_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/fleet"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/store"
)

// patience bounds every wait of these tests.
const patience = time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a hub on a store, which can be stopped and started again.
type server struct {
	t      *testing.T
	ca     *pki.CA
	store  *store.Store
	change []func(*hub.Config)
	addr   string
	hub    *hub.Hub // nil while it is stopped
}

func startServer(t *testing.T, change ...func(*hub.Config)) *server {
	t.Helper()
	ca, err := pki.LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	s, err := store.Open(t.Context(), store.Config{Driver: store.SQLite, DSN: filepath.Join(t.TempDir(), "quicflow.db"),
		OfflineGrace: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	b := &server{t: t, ca: ca, store: s, change: change, addr: "127.0.0.1:0"}
	b.start()
	t.Cleanup(func() {
		if b.hub != nil {
			b.stop()
		}
	})
	return b
}

func (b *server) start() {
	b.t.Helper()
	cfg := hub.Config{
		Addr: b.addr, NodeID: "node-1", CA: b.ca, Registry: b.store, Sink: b.store, Enroller: b.store,
		HeartbeatInterval: 300 * time.Millisecond, DrainTimeout: 200 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range b.change {
		f(&cfg)
	}
	h, err := hub.New(cfg)
	require.NoError(b.t, err)
	require.NoError(b.t, h.Start(b.t.Context()))
	b.hub, b.addr = h, h.Addr().String()
}

func (b *server) stop() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(b.t, b.hub.Stop(ctx))
	b.hub = nil
}

// behindRelay makes later fleets reach the hub through a relay, for one socket of a fleet, and gives what cuts it.
func (b *server) behindRelay() (cut func()) {
	b.t.Helper()
	front, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(b.t, err)
	back, err := net.Dial("udp", b.addr)
	require.NoError(b.t, err)
	b.addr = front.LocalAddr().String()
	var client atomic.Pointer[net.Addr]
	var copying sync.WaitGroup
	copying.Go(func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := front.ReadFrom(buffer)
			if err != nil {
				return
			}
			client.Store(&from)
			_, _ = back.Write(buffer[:n])
		}
	})
	copying.Go(func() {
		buffer := make([]byte, 2048)
		for {
			n, err := back.Read(buffer)
			if err != nil {
				return
			}
			_, _ = front.WriteTo(buffer[:n], *client.Load())
		}
	})
	cut = sync.OnceFunc(func() {
		_, _ = front.Close(), back.Close()
		copying.Wait()
	})
	b.t.Cleanup(cut)
	return cut
}

// token makes a join token for so many agents.
func (b *server) token(uses int) string {
	b.t.Helper()
	token := auth.NewJoinToken(b.ca.Fingerprint())
	require.NoError(b.t, b.store.CreateJoinToken(context.Background(), store.JoinToken{
		ID: uuid.NewString(), Hash: token.Hash(), Pattern: "sim-*", Uses: uses, ExpiresAt: time.Now().Add(time.Hour),
	}))
	return token.String()
}

func ids(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("sim-%03d", i)
	}
	return all
}

// join enrols agents over the network.
func (b *server) join(ids []string) *fleet.Identities {
	b.t.Helper()
	cache, err := fleet.OpenCache(filepath.Join(b.t.TempDir(), "test.identities"))
	require.NoError(b.t, err)
	require.NoError(b.t, fleet.Enrol(b.t.Context(), fleet.Enrolment{Server: b.addr, Token: b.token(len(ids)), IDs: ids, Cache: cache}))
	require.Empty(b.t, cache.Missing(ids))
	identities := cache.Identities()
	require.NoError(b.t, cache.Close())
	return identities
}

// fleet makes a fleet that is closed with the test.
func (b *server) fleet(n int, change ...func(*fleet.Config)) *fleet.Fleet {
	b.t.Helper()
	cfg := fleet.Config{
		Servers: []string{b.addr}, IDs: ids(n), AgentsPerSocket: 64, Concurrency: 16, ConnectTimeout: patience, Logger: slog.New(slog.DiscardHandler),
	}
	cfg.Backoff.Min, cfg.Backoff.Max = 50*time.Millisecond, 200*time.Millisecond
	for _, f := range change {
		f(&cfg)
	}
	if cfg.Identities == nil {
		cfg.Identities = b.join(cfg.IDs)
	}
	f, err := fleet.New(cfg)
	require.NoError(b.t, err)
	b.t.Cleanup(f.Close)
	return f
}

func (b *server) connect(f *fleet.Fleet) error {
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	return f.Connect(ctx)
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 5*time.Millisecond, what)
}
