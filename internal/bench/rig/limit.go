package rig

import "syscall"

// RaiseFileLimit has children inherit as many file descriptors as this process may have.
func RaiseFileLimit() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	const want = 1_000_000
	raised := syscall.Rlimit{Cur: want, Max: max(want, limit.Max)}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) != nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) // what is too little shows as an error of its own
	}
}
