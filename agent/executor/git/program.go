package git

import (
	"context"
	"errors"
	"io"
	"maps"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/release"
)

// runProgram runs a program outside of a step, in a process group that ends with ctx and with it. Errors go to stderr if that is set,
// to the program's Output otherwise.
func runProgram(ctx context.Context, p executor.Program, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, p.Path, p.Args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = p.Dir, p.Stdin, p.Output, stderr
	if stderr == nil {
		cmd.Stderr = p.Output
	}
	cmd.Env = []string{}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		cmd.Env = append(cmd.Env, name+"="+p.Env[name])
	}
	cmd.SysProcAttr = ownGroup()
	if p.User != "" {
		o, err := findOwner(p.User)
		if err != nil {
			return err
		}
		if o != nil {
			cmd.SysProcAttr.Credential = o.Credential()
		}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	runtime.LockOSThread() // the program dies with the thread that started it
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code := exit.ExitCode()
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			code = 128 + int(status.Signal())
		}
		return &executor.ExitError{Name: p.Path, Code: code}
	}
	return err
}

// findOwner looks up the user that git and the scripts run as; nil is the agent's own.
func findOwner(text string) (*wrapper.Account, error) {
	o, err := wrapper.FindUser(text)
	if err != nil {
		return nil, release.Invalid("git.user", "%v", err)
	}
	return o, nil
}
