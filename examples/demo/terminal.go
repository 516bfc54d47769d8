package main

import (
	"os"
	"os/signal"
	"syscall"
	"unsafe"
)

// takeTerminal puts the demo in a process group of its own, in the foreground of its terminal if it has one: Ctrl-C
// then reaches the demo and not the make that runs it, which would call the demo interrupted, however orderly it ended.
func takeTerminal() {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer tty.Close()
	if syscall.Setpgid(0, 0) != nil {
		return
	}
	signal.Ignore(syscall.SIGTTOU) // which a background group gets for what follows
	defer signal.Reset(syscall.SIGTTOU)
	group := int32(os.Getpid())
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, tty.Fd(), syscall.TIOCSPGRP, uintptr(unsafe.Pointer(&group)))
}
