package auth_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/auth"
)

func TestServerRunsWhileItHoldsItsLock(t *testing.T) {
	dir := t.TempDir()
	require.False(t, auth.ServerRuns(dir))
	lock, err := os.Create(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	require.False(t, auth.ServerRuns(dir), "a file that a dead server left")
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	require.True(t, auth.ServerRuns(dir))
	require.NoError(t, lock.Close())
	require.False(t, auth.ServerRuns(dir))
}

func TestFindServer(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	_, err := auth.FindServer(dir)
	require.ErrorIs(t, err, auth.ErrNoServer)
	write("endpoint.json", `{"api": "http://127.0.0.1:1", "quic": "127.0.0.1:2", "ui": ""}`)
	_, err = auth.FindServer(dir)
	require.ErrorIs(t, err, auth.ErrNoServer, "nobody holds the lock: whoever listens there gets no token")

	lock, err := os.Create(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	s, err := auth.FindServer(dir)
	require.NoError(t, err)
	require.Equal(t, auth.LocalServer{API: "http://127.0.0.1:1", QUIC: "127.0.0.1:2"}, s)
	write("admin.token", "secret\n")
	s, err = auth.FindServer(dir)
	require.NoError(t, err)
	require.Equal(t, "secret", s.Token)
	write("endpoint.json", "{")
	_, err = auth.FindServer(dir)
	require.ErrorContains(t, err, "endpoint.json")
}

func TestIsLoopback(t *testing.T) {
	for address, want := range map[string]bool{"localhost": true, "127.0.0.1:8474": true, "[::1]:1": true, "::1": true,
		"10.0.0.1:8474": false, "example.org": false, "": false} {
		require.Equal(t, want, auth.IsLoopback(address), address)
	}
}

func TestStateDir(t *testing.T) {
	dir, err := auth.StateDir()
	require.NoError(t, err)
	if os.Geteuid() == 0 {
		require.Equal(t, "/var/lib/quicflow", dir)
		return
	}
	t.Setenv("XDG_STATE_HOME", "/x")
	dir, err = auth.StateDir()
	require.NoError(t, err)
	require.Equal(t, "/x/quicflow", dir)
}
