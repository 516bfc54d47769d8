package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const stopLimit = 20 * time.Second

// child is a program that the demo started, in a process group of its own, so that Ctrl-C reaches the demo alone.
// What it prints goes to a file.
type child struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// children starts and stops programs. One that ends by itself ends the demo.
type children struct {
	dir  string // of the logs
	fail context.CancelCauseFunc
	all  []*child
	stop chan struct{} // closed when they are meant to end
}

func newChildren(dir string, fail context.CancelCauseFunc) *children {
	return &children{dir: dir, fail: fail, stop: make(chan struct{})}
}

func (c *children) start(name string, env []string, program string, args ...string) error {
	path := filepath.Join(c.dir, name+".log")
	log, err := os.Create(path)
	if err != nil {
		return err
	}
	child := &child{name: name, log: path, cmd: exec.Command(program, args...), done: make(chan struct{})}
	child.cmd.Env = append(os.Environ(), env...)
	child.cmd.Stdout, child.cmd.Stderr = log, log
	child.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := child.cmd.Start(); err != nil {
		log.Close()
		return fmt.Errorf("start %s: %w", name, err)
	}
	c.all = append(c.all, child)
	if err := notePID(c.dir, child.cmd.Process.Pid); err != nil {
		c.fail(err)
	}
	go func() { // ends with the program
		_ = child.cmd.Wait() // ProcessState tells
		log.Close()
		close(child.done)
		select {
		case <-c.stop:
		default:
			c.fail(fmt.Errorf("%s ended by itself, %s; the end of %s:\n%s", name, child.cmd.ProcessState, path, tail(path)))
		}
	}()
	return nil
}

// running says whether a program was started and has not ended.
func (c *children) running(name string) bool {
	for _, child := range c.all {
		if child.name == name {
			select {
			case <-child.done:
				return false
			default:
				return true
			}
		}
	}
	return false
}

// stopAll ends the programs, the last one first, and waits until they are gone.
func (c *children) stopAll() {
	close(c.stop)
	for i := len(c.all) - 1; i > 0; i-- { // agents side by side
		_ = c.all[i].cmd.Process.Signal(syscall.SIGTERM)
	}
	for i := len(c.all) - 1; i >= 0; i-- { // the server, which is the first, when they have said goodbye
		child := c.all[i]
		_ = child.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-child.done:
		case <-time.After(stopLimit):
			fmt.Printf("%s does not stop; ending it\n", child.name)
			_ = child.cmd.Process.Kill()
			<-child.done
		}
	}
}

// tail gives the last lines of a file.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}
