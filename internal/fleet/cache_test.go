package fleet_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/fleet"
)

// Identities outlive the process, a torn end among them, and those that are there do not join again.
func TestCache(t *testing.T) {
	b := startServer(t)
	path := filepath.Join(t.TempDir(), "new", "test.identities")
	open := func() *fleet.Cache {
		cache, err := fleet.OpenCache(path)
		require.NoError(t, err)
		return cache
	}
	join := func(cache *fleet.Cache, n int, token string) error {
		return fleet.Enrol(t.Context(), fleet.Enrolment{Server: b.addr, Token: token, IDs: ids(n), Cache: cache})
	}
	_, err := fleet.LatestCache(filepath.Dir(path))
	require.ErrorIs(t, err, os.ErrNotExist)
	cache := open()
	_, err = fleet.OpenCache(path)
	require.ErrorContains(t, err, "another process")
	require.NoError(t, join(cache, 5, b.token(5)))
	require.NoError(t, cache.Close())
	latest, err := fleet.LatestCache(filepath.Dir(path))
	require.NoError(t, err)
	require.Equal(t, path, latest)

	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	for _, cut := range []int{1, 10, 200} {
		require.NoError(t, os.WriteFile(path, whole[:len(whole)-cut], 0o600))
		cache = open()
		require.Len(t, cache.Missing(ids(5)), 1)
		require.NoError(t, cache.Close())
	}
	cache = open()
	require.ErrorContains(t, join(cache, 5, b.token(5)), "--replace", "a known id joins no second time")
	require.NoError(t, cache.Close())

	require.NoError(t, os.WriteFile(path, whole, 0o600))
	cache = open()
	require.Empty(t, cache.Missing(ids(5)))
	require.NoError(t, join(cache, 7, b.token(2)))
	identities := cache.Identities()
	require.NoError(t, cache.Close())
	f := b.fleet(7, func(c *fleet.Config) { c.Identities = identities })
	require.NoError(t, b.connect(f))

	damaged := append([]byte("rubbish\n"), whole...)
	require.NoError(t, os.WriteFile(path, damaged, 0o600))
	_, err = fleet.OpenCache(path)
	require.ErrorContains(t, err, "damaged")
}

func TestEnrolmentDenied(t *testing.T) {
	b, other := startServer(t), startServer(t)
	cache, err := fleet.OpenCache(filepath.Join(t.TempDir(), "test.identities"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	join := func(token string, ids ...string) error {
		return fleet.Enrol(t.Context(), fleet.Enrolment{Server: b.addr, Token: token, IDs: ids, Cache: cache})
	}
	require.ErrorContains(t, join("rubbish", "sim-1"), "form")
	require.ErrorContains(t, join(b.token(1), "other-1"), "not for this client id")
	require.ErrorContains(t, join(b.token(1), "sim-1", "sim-2"), "used up")
	require.ErrorContains(t, join(other.token(1), "sim-3"), b.addr, "the token names another authority")
}
