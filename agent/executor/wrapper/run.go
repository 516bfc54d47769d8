package wrapper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
)

// process is a script or a program that is to run.
type process struct {
	name           string
	path           string // or a name to find in PATH
	args           []string
	dir            string
	env            map[string]string
	user           *Account // nil: the agent's own
	stdin          io.Reader
	stdout, stderr io.Writer
	script         *os.File // the process has it open as its third file; nil: none
	limits         *release.ProcessLimits
	ends           bool // its children end with it
}

// tail keeps the end of what passes.
type tail struct {
	io.Writer
	mu   sync.Mutex
	last []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.last = spool.AppendTail(t.last, p)
	t.mu.Unlock()
	return t.Writer.Write(p)
}

// line is the last line.
func (t *tail) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return lastLine(t.last)
}

// runProcess gives the exit code of a process that ended by itself and the last line of its stderr; and an error, with exit code -1,
// for one that did not begin or that was stopped.
func (w *wrapper) runProcess(ctx context.Context, p *process) (code int, line string, err error) {
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir = p.dir
	cmd.Env = []string{}
	for name, value := range p.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	slices.Sort(cmd.Env)
	cmd.SysProcAttr = processAttributes()
	if p.user != nil {
		cmd.SysProcAttr.Credential = p.user.Credential()
	}
	if p.script != nil {
		defer p.script.Close()
		cmd.ExtraFiles = []*os.File{p.script}
	}
	if p.stdin != nil {
		cmd.Stdin = p.stdin
		cmd.WaitDelay = w.plan.KillGrace // for what feeds it
	}
	said := &tail{Writer: p.stderr}
	stderr, err := newPipe(said)
	if err != nil {
		return -1, "", err
	}
	pipes := []*pipe{stderr}
	cmd.Stderr, cmd.Stdout = stderr.write, stderr.write
	if p.stdout != p.stderr {
		stdout, err := newPipe(p.stdout)
		if err != nil {
			stderr.begin()
			letGo(pipes)
			return -1, "", err
		}
		pipes = append(pipes, stdout)
		cmd.Stdout = stdout.write
	}
	code, err = w.supervise(ctx, cmd, p, pipes)
	for _, pipe := range pipes {
		pipe.flush()
	}
	if p.ends {
		letGo(pipes)
	} else {
		w.mu.Lock()
		w.pipes = append(w.pipes, pipes...)
		w.mu.Unlock()
	}
	return code, said.line(), err
}

// supervise runs a process until it has ended; its children may outlive it. When ctx ends first, the whole process group is killed.
func (w *wrapper) supervise(ctx context.Context, cmd *exec.Cmd, p *process, pipes []*pipe) (int, error) {
	runtime.LockOSThread() // the process's life hangs on the thread that starts it; see processAttributes
	defer runtime.UnlockOSThread()
	err := context.Cause(ctx)
	if err == nil {
		err = w.start(cmd, p)
	}
	for _, p := range pipes {
		p.begin()
	}
	if err != nil {
		return -1, err
	}
	pid := cmd.Process.Pid
	if err := w.dir.writeGroup(pid); err != nil {
		fmt.Fprintln(os.Stderr, "write process group:", err)
	}
	defer os.Remove(w.dir.groupFile(pid))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
		if p.ends {
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
	case <-ctx.Done():
		w.kill(pid, ended)
		return -1, context.Cause(ctx)
	}
	var exit *exec.ExitError
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return 0, nil
	case !errors.As(err, &exit):
		return -1, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// start starts a process within its limits. The thread is locked.
func (w *wrapper) start(cmd *exec.Cmd, p *process) error {
	if p.limits == nil {
		return cmd.Start()
	}
	return w.startLimited(cmd, p.limits)
}

// kill ends a process group: politely first, and when its main process has ended or the grace is over, for good.
func (w *wrapper) kill(group int, ended <-chan error) {
	_ = syscall.Kill(-group, syscall.SIGTERM)
	grace := time.NewTimer(w.plan.KillGrace)
	defer grace.Stop()
	select {
	case <-ended:
		_ = syscall.Kill(-group, syscall.SIGKILL)
	case <-grace.C:
		_ = syscall.Kill(-group, syscall.SIGKILL)
		<-ended
	}
}
