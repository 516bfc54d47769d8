package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const pidFile = "pids"

// notePID remembers a process, for the next demo in case this one is killed.
func notePID(dir string, pid int) error {
	f, err := os.OpenFile(filepath.Join(dir, pidFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, pid)
	return errors.Join(err, f.Close())
}

// endLeftovers ends what a demo left behind that was killed.
func endLeftovers(dir string) error {
	err := endAll(filepath.Join(dir, "log", pidFile), dir)
	return errors.Join(err, endServices(dir))
}

// endServices ends the released service of each agent, which has the agent's work directory in its command line.
func endServices(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "agents", "*", "projects", project, "hello.pid"))
	for _, file := range files {
		err = errors.Join(err, endAll(file, filepath.Dir(file)))
	}
	return err
}

// endAll ends the processes whose ids are in a file, those at least that have a path in their command line: an id may
// long belong to another process. It returns when they are gone.
func endAll(file, path string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := end(pid, path); err != nil {
			return err
		}
	}
	return nil
}

func end(pid int, path string) error {
	gone := func() bool { return !strings.Contains(commandLine(pid), path) }
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if gone() {
			return nil
		}
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
		if await(context.Background(), stopLimit, "the process is gone", gone) == nil {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end", pid)
}

// commandLine gives the command line of a process, or "" if there is none.
func commandLine(pid int) string {
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		return string(bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
	}
	text, _ := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output() // no such process: nothing
	return string(text)
}
