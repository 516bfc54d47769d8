//go:build !linux

package main

import (
	"errors"
	"syscall"
)

// reaper does nothing where the children of a process cannot be listed.
type reaper struct{}

func newReaper() *reaper { return &reaper{} }

func (*reaper) adopt() {}

func (*reaper) stop() {}

func trialAttributes() *syscall.SysProcAttr { return nil }

func programOf(int) (string, error) {
	return "", errors.New("an agent that runs can be upgraded on Linux only: stop it first")
}
