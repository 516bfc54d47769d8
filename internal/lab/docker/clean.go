//go:build linux

package docker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Close ends all processes of the lab and removes what it made.
func (l *Lab) Close() error {
	var errs []error
	for _, p := range slices.Backward(l.processes) {
		errs = append(errs, p.stop())
	}
	l.processes = nil
	l.sweep()
	if _, err := os.Stat(l.Dir); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("%s could not be removed", l.Dir))
	}
	return errors.Join(append(errs, l.lock.Close())...)
}

// sweep removes whatever is left of a lab of this slot. Its engines get a moment to stop their containers; the rest is killed.
func (l *Lab) sweep() {
	deadline := time.Now().Add(stopTimeout)
	for tick := time.NewTicker(poll); ; <-tick.C {
		pids := l.alive()
		if len(pids) == 0 {
			tick.Stop()
			break
		}
		sig := syscall.SIGTERM
		if time.Now().After(deadline.Add(-stopTimeout / 2)) {
			sig = syscall.SIGKILL
		}
		for pid, shim := range pids {
			if shim { // its containers go first: they would live on without it
				for _, child := range children(pid) {
					_ = syscall.Kill(child, syscall.SIGKILL)
				}
			}
			if !shim || sig == syscall.SIGKILL {
				_ = syscall.Kill(pid, sig)
			}
		}
		if time.Now().After(deadline) {
			tick.Stop()
			break
		}
	}
	for range 10 { // mounts upon mounts
		table, _ := os.ReadFile("/proc/self/mountinfo")
		var below []string
		for line := range strings.Lines(string(table)) {
			if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], l.Dir+"/") {
				below = append(below, fields[4])
			}
		}
		if len(below) == 0 {
			break
		}
		for _, path := range slices.Backward(below) {
			_ = syscall.Unmount(path, syscall.MNT_DETACH)
		}
	}
	_ = exec.Command("ip", "netns", "del", l.namespace).Run()
	_ = exec.Command("ip", "link", "del", l.namespace).Run()
	_ = os.RemoveAll(l.Dir)
}

// alive gives the processes of the lab, and of each whether it is the parent of a container's.
func (l *Lab) alive() map[int]bool {
	pids := map[int]bool{}
	network, _ := os.Stat("/run/netns/" + l.namespace)
	entries, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range entries {
		line, _ := os.ReadFile(path)
		own, err := os.Stat(filepath.Join(filepath.Dir(path), "ns/net"))
		if !bytes.Contains(line, []byte(l.Dir+"/")) && (network == nil || err != nil || !os.SameFile(network, own)) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && pid != os.Getpid() {
			pids[pid] = bytes.Contains(line, []byte("containerd-shim"))
		}
	}
	return pids
}

func children(parent int) (pids []int) {
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range entries {
		stat, _ := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
