package auth

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestServerRunsWhileItHoldsItsLock(t *testing.T) {
	dir := t.TempDir()
	require.False(t, ServerRuns(dir))
	lock, err := os.Create(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	require.False(t, ServerRuns(dir), "a file that a dead server left")
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	require.True(t, ServerRuns(dir))
	require.NoError(t, lock.Close())
	require.False(t, ServerRuns(dir))
}
