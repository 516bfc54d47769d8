//go:build !linux

package script

import (
	"os"
	"syscall"
)

// processStart is not known here; what a dead wrapper left behind is then not killed.
func processStart(int) string { return "" }

func self() (string, error) { return os.Executable() }

// scriptAttributes gives a script a process group of its own.
func scriptAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
