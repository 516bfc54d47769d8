package wrapper

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// processStart gives a text that stays the same as long as a process lives, and differs for the next of that id. It is
// empty if there is no such process.
func processStart(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name, in parentheses, may hold anything; after it, the start time is the 20th field.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return ""
	}
	return string(fields[19])
}

// self is the program that runs, even if its file has been replaced since.
func self() (string, error) { return "/proc/self/exe", nil }

// processAttributes gives a process a process group of its own, and lets it die with its wrapper, also with one that is
// killed before it could write the group down.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
