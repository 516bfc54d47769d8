package app

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

func testDirectory(t *testing.T) *directory {
	d, err := openDirectory(filepath.Join(t.TempDir(), "data"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.unlock() })
	return d
}

func TestDirectoryIsLocked(t *testing.T) {
	d := testDirectory(t)
	_, err := openDirectory(d.path)
	require.ErrorContains(t, err, "uses the data directory "+d.path)
	require.NoError(t, d.unlock())
	again, err := openDirectory(d.path)
	require.NoError(t, err)
	require.NoError(t, again.unlock())
}

func TestDirectoryIsPrivate(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	d, err := openDirectory(dir)
	require.NoError(t, err, "an empty one is taken")
	require.NoError(t, d.unlock())
	require.NoError(t, os.Chmod(dir, 0o755))
	d, err = openDirectory(dir)
	require.NoError(t, err, "so is one of ours")
	require.NoError(t, d.unlock())
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	home := t.TempDir()
	require.NoError(t, os.Chmod(home, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(home, "letter"), nil, 0o644))
	_, err = openDirectory(home)
	require.ErrorContains(t, err, "holds something else")
	info, err = os.Stat(home)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode().Perm())
}

func TestNodeID(t *testing.T) {
	d := testDirectory(t)
	id, err := d.nodeID()
	require.NoError(t, err)
	again, err := d.nodeID()
	require.NoError(t, err)
	require.Equal(t, id, again)
	require.NoError(t, os.WriteFile(d.file(nodeIDFile), []byte("nonsense"), 0o600))
	_, err = d.nodeID()
	require.ErrorContains(t, err, "node-id is damaged")
}

// Whatever a crash left of file and row, the next start makes them fit.
func TestAdminToken(t *testing.T) {
	ctx := context.Background()
	d := testDirectory(t)
	open := func(file string) *store.Store {
		s, err := store.Open(ctx, store.Config{Driver: store.SQLite, DSN: d.file(file)})
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	works := func(s *store.Store, token string) error {
		_, err := s.TokenByHash(ctx, auth.HashSecret(token))
		return err
	}
	read := func() string {
		text, err := os.ReadFile(d.file(adminTokenFile))
		require.NoError(t, err)
		return strings.TrimSpace(string(text))
	}

	s := open("a.db")
	first, err := ensureAdminToken(ctx, d, s, "node")
	require.NoError(t, err)
	require.Equal(t, first, read())
	require.NoError(t, works(s, first))

	made, err := ensureAdminToken(ctx, d, s, "node")
	require.NoError(t, err)
	require.Empty(t, made, "shown once")

	// File without row: the crash came between the two, or the database is another one.
	s2 := open("b.db")
	made, err = ensureAdminToken(ctx, d, s2, "node")
	require.NoError(t, err)
	require.Empty(t, made)
	require.NoError(t, works(s2, first))

	// Row without file: a new token, and the lost one is no longer good. Another node's is.
	other, _ := auth.NewAPIToken()
	require.NoError(t, s.PutToken(ctx, "admin-other", "admin", auth.HashSecret(other)))
	require.NoError(t, os.Remove(d.file(adminTokenFile)))
	second, err := ensureAdminToken(ctx, d, s, "node")
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	require.NoError(t, works(s, second))
	require.NoError(t, works(s, other))
	require.ErrorIs(t, works(s, first), release.ErrNotFound)

	require.NoError(t, os.WriteFile(d.file(adminTokenFile), []byte("half"), 0o600))
	_, err = ensureAdminToken(ctx, d, s, "node")
	require.ErrorContains(t, err, "admin.token does not hold an API token")
}
