package auth

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// ServerRuns says whether a server runs on a data directory: it holds the lock there as long as it lives. While none does,
// any user of the machine may listen at the address that the last one left, and must not be sent a token.
func ServerRuns(dataDir string) bool {
	lock, err := os.Open(filepath.Join(dataDir, "lock"))
	if err != nil {
		return false
	}
	defer lock.Close()
	// Shared, so that two who ask at the same time do not take each other for the server.
	return errors.Is(syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
