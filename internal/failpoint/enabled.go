//go:build failpoint

// Package failpoint marks the lines where a test lets the process die.
package failpoint

import (
	"os"
	"syscall"
)

var armed = os.Getenv("QUICFLOW_FAILPOINT")

// Here kills the process, as kill -9 would, if QUICFLOW_FAILPOINT is the name.
func Here(name string) {
	if name == armed {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal may take a moment; nothing after this line may run
	}
}
