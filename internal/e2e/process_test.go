package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// process is a program under test, in a process group of its own. What it prints goes to a file.
type process struct {
	t    *testing.T
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of cmd.Wait; read after done
}

// start runs a program until it is stopped, at the latest with the test.
func start(t *testing.T, name, log string, env []string, program string, args ...string) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	p := &process{t: t, name: name, log: log, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		out.Close()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("the end of what %s printed:\n%s", name, tail(log, 8<<10))
		}
	})
	return p
}

// running says whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill9 ends the process as a power cut would, and waits until it is gone.
func (p *process) kill9() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Kill())
	<-p.done
}

// stop asks the process to end and insists after a while. It gives the exit code.
func (p *process) stop() int {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.t.Errorf("%s did not stop within 20 s of a SIGTERM", p.name)
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return p.cmd.ProcessState.ExitCode()
}

// wait waits for the process to end by itself and gives its exit code.
func (p *process) wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		require.FailNow(p.t, "timeout", "%s did not end within %s:\n%s", p.name, limit, tail(p.log, 4<<10))
	}
	return p.cmd.ProcessState.ExitCode()
}

// printed gives what the process has printed so far.
func (p *process) printed() string { return tail(p.log, 1<<20) }

// run runs a program to its end and gives its two outputs and its exit code.
func run(t *testing.T, env []string, program string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	require.NoError(t, ctx.Err(), "%s %v did not end within a minute", filepath.Base(program), args)
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// eventually waits for a condition and fails the test if it does not come true in time, telling the last state.
func eventually(t *testing.T, limit time.Duration, what string, condition func() (done bool, state any)) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		done, state := condition()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			require.FailNow(t, "timeout", "not within %s: %s; last seen: %+v", limit, what, state)
		}
	}
}

// tail gives the last n bytes of a file.
func tail(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-n):])
}
