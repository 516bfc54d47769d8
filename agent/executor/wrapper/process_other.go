//go:build !linux

package wrapper

import (
	"os"
	"syscall"
)

// processStart is not known here; what a dead wrapper left behind is then not killed.
func processStart(int) string { return "" }

func self() (string, error) { return os.Executable() }

// processAttributes gives a process a process group of its own.
func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
