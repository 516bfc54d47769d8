package git

import "syscall"

// ownGroup gives a program a process group of its own, that it dies with this process.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
