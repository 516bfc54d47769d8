package agent_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
)

func itoa(n int) string { return strconv.Itoa(n) }

func listenUDP(t *testing.T) net.PacketConn {
	t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	return socket
}

// identity issues a certificate that the hub accepts.
func (w *world) identity(id string) *agent.Identity {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(w.t, err)
	leaf := w.issue(id, key.Public(), time.Hour)
	return &agent.Identity{
		Certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, Roots: w.ca.Pool(),
	}
}

func (w *world) issue(id string, public crypto.PublicKey, ttl time.Duration) *x509.Certificate {
	w.t.Helper()
	der, serial, _, err := w.ca.IssueClient(id, public, ttl)
	require.NoError(w.t, err)
	w.store.with(func() { w.store.valid[serial] = true })
	leaf, err := x509.ParseCertificate(der)
	require.NoError(w.t, err)
	return leaf
}

func join(t *testing.T, cfg agent.Config) error {
	t.Helper()
	a, err := agent.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = a.Join(ctx)
	require.Equal(t, err == nil, a.Joined())
	return err
}

func TestJoin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	require.NoError(t, join(t, cfg))
	for name, mode := range map[string]os.FileMode{"": 0o700, "identity": 0o700, "identity/agent.key": 0o600} {
		info, err := os.Stat(filepath.Join(cfg.DataDir, name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), name)
	}
	cfg.Token = ""
	require.NoError(t, join(t, cfg), "once is enough")
	w.connect(cfg)
}

func TestJoinDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, c := range map[string]struct {
		err  error
		code release.Code
	}{
		"used up": {auth.ErrTokenUsedUp, release.CodeInvalid},
		"expired": {auth.ErrTokenExpired, release.CodeInvalid},
		"pattern": {auth.ErrIDNotAllowed, release.CodeInvalid},
		"taken":   {auth.ErrIDTaken, release.CodeConflict},
	} {
		cfg := w.config("a")
		cfg.Token = w.token(c.err)
		err := join(t, cfg)
		require.Equal(t, c.code, release.CodeOf(err), "%s: %v", name, err)
		require.NotContains(t, err.Error(), cfg.Token)
	}
	cfg := w.config("a")
	cfg.Token = "rubbish"
	require.ErrorIs(t, join(t, cfg), release.ErrInvalid)
	cfg.Token = ""
	require.ErrorIs(t, join(t, cfg), agent.ErrNoToken)
	cfg.Token = auth.NewJoinToken([32]byte{1}).String()
	require.ErrorContains(t, join(t, cfg), "does not belong to the CA that the join token names")
}

func TestJoinWaitsForTheServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	w.stopHub()
	w.startHubLater(cfg)
	w.online("a")
}

// startHubLater starts an agent first, and the hub once the agent has dialled in vain.
func (w *world) startHubLater(cfg agent.Config) {
	w.t.Helper()
	socket, err := net.ListenPacket("udp", w.addr)
	require.NoError(w.t, err)
	run(w.t, cfg)
	require.NoError(w.t, socket.SetReadDeadline(time.Now().Add(patience)))
	_, _, err = socket.ReadFrom(make([]byte, 2000))
	require.NoError(w.t, err)
	require.NoError(w.t, socket.Close())
	w.startHub()
}

func TestDataDirectoryIsOneAgents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	w.connect(cfg)
	require.ErrorIs(t, run(t, cfg).wait(), release.ErrConflict)
	other := w.config("b")
	require.NoError(t, join(t, other))
	other.ClientID = "c"
	require.ErrorContains(t, run(t, other).wait(), `belongs to the client "b"`)
}

// An identity of which a part is missing or damaged is no reason to join anew by itself; the error says what to do.
func TestLostIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for file, damage := range map[string]func(path string) error{
		"agent.key": os.Remove,
		"ca.crt":    func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		"agent.crt": func(path string) error { return os.Truncate(path, 0) },
	} {
		cfg := w.config("lost-" + file)
		require.NoError(t, join(t, cfg))
		require.NoError(t, damage(filepath.Join(cfg.DataDir, "identity", file)))
		err := run(t, cfg).wait()
		require.ErrorContains(t, err, file)
		require.ErrorContains(t, err, "quic-ctl agent token --replace")
	}
}

// Who may write into the data directory could put another identity there, and command the host.
func TestDataDirectoryIsPrivate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("private")
	require.NoError(t, os.MkdirAll(cfg.DataDir, 0o700))
	require.NoError(t, os.Chmod(cfg.DataDir, 0o777))
	require.NoError(t, join(t, cfg))
	info, err := os.Stat(cfg.DataDir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	cfg = w.config("home")
	require.NoError(t, os.MkdirAll(cfg.DataDir, 0o700))
	require.NoError(t, os.Chmod(cfg.DataDir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(cfg.DataDir, "letter"), nil, 0o644))
	require.ErrorContains(t, join(t, cfg), "open to other users")
}

// Certificates past half of their life are exchanged, even expired ones.
func TestRenewal(t *testing.T) {
	t.Parallel()
	for name, ttl := range map[string]time.Duration{"old": 30 * time.Minute, "expired": -time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cfg := w.config("a")
			require.NoError(t, join(t, cfg))
			pair, err := tls.LoadX509KeyPair(filepath.Join(cfg.DataDir, "identity/agent.crt"), filepath.Join(cfg.DataDir, "identity/agent.key"))
			require.NoError(t, err)
			old := w.issue("a", pair.PrivateKey.(*ecdsa.PrivateKey).Public(), ttl)
			text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: old.Raw})
			require.NoError(t, os.WriteFile(filepath.Join(cfg.DataDir, "identity/agent.crt"), text, 0o600))
			cfg.Token = ""
			w.connect(cfg)
			w.eventually(func() bool {
				renewed, err := tls.LoadX509KeyPair(filepath.Join(cfg.DataDir, "identity/agent.crt"), filepath.Join(cfg.DataDir, "identity/agent.key"))
				return err == nil && pki.Serial(renewed.Leaf) != pki.Serial(old) && time.Until(renewed.Leaf.NotAfter) > 24*time.Hour
			}, "renewed")
		})
	}
}

// An agent trusts the hubs of its own server alone, unless it is told not to look.
func TestForeignHub(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t), newWorld(t)
	cfg := w.config("a")
	require.NoError(t, join(t, cfg))
	cfg.Servers = []string{other.addr}
	cfg.MaxRetries = 1
	require.ErrorContains(t, run(t, cfg).wait(), "verify hub")

	cfg.Servers = []string{w.addr}
	cfg.Identity = w.identity("a")
	cfg.Identity.Roots = other.ca.Pool()
	require.ErrorContains(t, run(t, cfg).wait(), "verify hub")
	cfg.Insecure = true
	w.connect(cfg)
}
