package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
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
		cmd.SysProcAttr.Credential = o.credential()
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

// owner is the user that git and the scripts run as, where it is not the agent's own.
type owner struct {
	uid, gid int
	groups   []uint32
}

// findOwner looks up user or user:group, by names or numbers. It gives nil for the agent's own user.
func findOwner(text string) (*owner, error) {
	if text == "" {
		return nil, nil
	}
	name, group, hasGroup := strings.Cut(text, ":")
	account, err := user.Lookup(name)
	if err != nil {
		if account, err = user.LookupId(name); err != nil {
			return nil, release.Invalid("git.user", "there is no user %q on this host", name)
		}
	}
	o := &owner{}
	o.uid, _ = strconv.Atoi(account.Uid)
	o.gid, _ = strconv.Atoi(account.Gid)
	if hasGroup {
		found, err := user.LookupGroup(group)
		if err != nil {
			if found, err = user.LookupGroupId(group); err != nil {
				return nil, release.Invalid("git.user", "there is no group %q on this host", group)
			}
		}
		o.gid, _ = strconv.Atoi(found.Gid)
	} else if ids, err := account.GroupIds(); err == nil {
		for _, id := range ids {
			if n, err := strconv.ParseUint(id, 10, 32); err == nil {
				o.groups = append(o.groups, uint32(n))
			}
		}
	}
	if o.uid == os.Geteuid() && (o.gid == os.Getegid() || !hasGroup) {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("the agent must run as root to run git and scripts as %s", text)
	}
	return o, nil
}

func (o *owner) credential() *syscall.Credential {
	if o == nil {
		return nil
	}
	return &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid), Groups: o.groups}
}
