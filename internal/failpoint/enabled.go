//go:build failpoint

// Package failpoint marks the lines where a test lets the process die.
package failpoint

import (
	"os"
	"syscall"
)

const (
	variable = "QUICFLOW_FAILPOINT"
	onceFile = "QUICFLOW_FAILPOINT_ONCE"
)

var armed = os.Getenv(variable)

// Here kills the process, as kill -9 would, if QUICFLOW_FAILPOINT is the name, and the file of QUICFLOW_FAILPOINT_ONCE, if that is
// set, is not there yet.
func Here(name string) {
	if name == armed && first() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal may take a moment; nothing after this line may run
	}
}

// first makes the file, and reports whether it was not there.
func first() bool {
	path := os.Getenv(onceFile)
	if path == "" {
		return true
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		_ = file.Close()
	}
	return err == nil
}

// Environment is what a process passes on to those of its own program that shall die at the same line.
func Environment() []string {
	if armed == "" {
		return nil
	}
	return []string{variable + "=" + armed, onceFile + "=" + os.Getenv(onceFile)}
}
