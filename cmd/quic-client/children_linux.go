package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// reapInterval is how often wrappers that a previous version started are looked at: dead ones would stay as zombies.
const reapInterval = 5 * time.Second

// reaper waits for processes that are this one's children without its having started them: it became another program.
type reaper struct {
	done chan struct{}
	work sync.WaitGroup

	mu   sync.Mutex
	pids []int
}

func newReaper() *reaper {
	r := &reaper{done: make(chan struct{})}
	r.adopt()
	r.work.Go(r.run)
	return r
}

// adopt takes charge of all children that there are; it is called when no other part of the program has any.
func (r *reaper) adopt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pids = nil
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				r.pids = append(r.pids, pid)
			}
		}
	}
}

func (r *reaper) run() {
	ticker := time.NewTicker(reapInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.reap()
		case <-r.done:
			return
		}
	}
}

func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	alive := r.pids[:0]
	for _, pid := range r.pids {
		if got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); err == nil && got == 0 {
			alive = append(alive, pid)
		}
	}
	r.pids = alive
}

func (r *reaper) stop() {
	close(r.done)
	r.work.Wait()
}

// trialAttributes lets a program that is tried die with the one that tries it: it might not notice by itself.
func trialAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// programOf gives the file that a process runs.
func programOf(pid int) (string, error) {
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return "", fmt.Errorf("find the program of the agent: %w", err)
	}
	return strings.TrimSuffix(program, " (deleted)"), nil
}
