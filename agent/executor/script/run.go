package script

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/agent/spool"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// maxTail is how much of a stream's end a result carries.
const maxTail = spool.TailSize

// capture is where a stream's output goes: into the spool, and its end into the result.
type capture struct {
	*spool.Capture // of the step

	mu   sync.Mutex
	last []byte // the end of what the script that runs wrote
}

func newCapture(log *spool.Writer, stream quicflowv1.Stream) *capture {
	return &capture{Capture: spool.NewCapture(log, stream)}
}

func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.last = spool.AppendTail(c.last, p)
	c.mu.Unlock()
	return c.Capture.Write(p)
}

func (c *capture) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = nil
}

// line is the last line of the script that runs.
func (c *capture) line() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return lastLine(c.last)
}

// runScript gives the exit code of a script that ended by itself, and an error, with exit code -1, for one that did not
// begin or that was stopped.
func (w *wrapper) runScript(ctx context.Context, s scriptText) (int, error) {
	cmd, err := w.command(s)
	if err != nil {
		return -1, err
	}
	stdout, err := newPipe(w.stdout)
	if err != nil {
		return -1, err
	}
	stderr, err := newPipe(w.stderr)
	if err != nil {
		return -1, err
	}
	w.pipes = append(w.pipes, stdout, stderr)
	cmd.Stdout, cmd.Stderr = stdout.write, stderr.write
	return w.supervise(ctx, cmd, func() {
		stdout.flush()
		stderr.flush()
	})
}

// command writes a script to a file and gives the command that runs it in a process group of its own.
func (w *wrapper) command(s scriptText) (*exec.Cmd, error) {
	file := w.dir.path(s.Name)
	if err := os.WriteFile(file, []byte(s.Text), 0o700); err != nil {
		return nil, fmt.Errorf("cannot write the script: %w", err)
	}
	args := append(w.plan.Interpreter[1:len(w.plan.Interpreter):len(w.plan.Interpreter)], file)
	cmd := exec.Command(w.plan.Interpreter[0], args...)
	cmd.Dir = w.plan.WorkDir
	cmd.Env = w.plan.Env
	cmd.SysProcAttr = scriptAttributes()
	if w.plan.User == nil {
		return cmd, nil
	}
	// Another user may not enter the step's directory, but read the file where it is open.
	if err := os.Chmod(file, 0o755); err != nil {
		return nil, fmt.Errorf("cannot write the script: %w", err)
	}
	open, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the script: %w", err)
	}
	w.files = append(w.files, open)
	cmd.ExtraFiles = []*os.File{open}
	cmd.Args[len(cmd.Args)-1] = "/dev/fd/3"
	cmd.SysProcAttr.Credential = w.plan.User.credential()
	return cmd, nil
}

// supervise runs a command until its main process has ended; its children may outlive it. When ctx ends first, the whole
// process group is killed. flush is called when it has ended.
func (w *wrapper) supervise(ctx context.Context, cmd *exec.Cmd, flush func()) (int, error) {
	runtime.LockOSThread() // the script's life hangs on the thread that starts it; see scriptAttributes
	defer runtime.UnlockOSThread()
	err := context.Cause(ctx)
	if err == nil {
		err = cmd.Start()
	}
	for _, p := range w.pipes {
		p.begin()
	}
	if err != nil {
		return -1, err
	}
	if err := w.dir.writeGroup(cmd.Process.Pid); err != nil {
		fmt.Fprintln(os.Stderr, "write process group:", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		w.kill(cmd.Process.Pid, ended)
		flush()
		return -1, context.Cause(ctx)
	}
	flush()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return -1, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
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
