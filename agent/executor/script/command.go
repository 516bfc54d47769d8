package script

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/agent/command"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// ExecShell is the type of the command that runs a line for the shell.
const ExecShell = "exec_shell"

// shell is the payload of exec_shell.
type shell struct {
	Command     string            `json:"command"`
	WorkDir     string            `json:"work_dir"`    // default: the user's home directory
	Env         map[string]string `json:"env"`         // beside what scripts get
	User        string            `json:"user"`        // default: the agent's
	Interpreter string            `json:"interpreter"` // default: /bin/sh; may carry arguments
}

// CommandTypes lists what commands Run carries out.
func (e *Executor) CommandTypes() []string { return []string{ExecShell} }

// CheckCommand says what is wrong with a command.
func (e *Executor) CheckCommand(c *quicflowv1.CommandStep) error {
	_, _, err := readShell(c)
	return err
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// readShell reads and checks a payload; the account is nil where it is the agent's own.
func readShell(c *quicflowv1.CommandStep) (*shell, *account, error) {
	s := new(shell)
	if err := command.Decode(c.Payload, s); err != nil {
		return nil, nil, err
	}
	switch {
	case strings.TrimSpace(s.Command) == "":
		return nil, nil, release.Invalid("payload.command", "it is empty")
	case strings.ContainsRune(s.Command, 0):
		return nil, nil, release.Invalid("payload.command", "it has a NUL character")
	case s.WorkDir != "" && !filepath.IsAbs(s.WorkDir):
		return nil, nil, release.Invalid("payload.work_dir", "%q is not an absolute path", s.WorkDir)
	case strings.ContainsRune(s.Interpreter+s.WorkDir, 0):
		return nil, nil, release.Invalid("payload", "it has a NUL character")
	}
	for name, value := range s.Env {
		if !variable.MatchString(name) || strings.ContainsRune(value, 0) {
			return nil, nil, release.Invalid("payload.env", "%q is not a variable that can be set", name)
		}
	}
	if s.User == "" {
		return s, nil, nil
	}
	who, err := lookUp(s.User)
	return s, who, err
}

func (e *Executor) commandPlan(step *quicflowv1.StepRequest, c *quicflowv1.CommandStep) (*plan, error) {
	if c.Type != ExecShell {
		return nil, fmt.Errorf("%q is no command for the shell", c.Type)
	}
	s, who, err := readShell(c)
	if err != nil {
		return nil, err
	}
	p := &plan{
		StepID: step.StepId, NotAfter: time.UnixMilli(step.NotAfterUnixMs), Interpreter: strings.Fields(s.Interpreter),
		WorkDir: s.WorkDir, Timeout: time.Duration(c.TimeoutMs) * time.Millisecond, KillGrace: e.cfg.KillGrace,
		Scripts: []scriptText{{mainScript, s.Command}}, Command: true, User: who,
	}
	if len(p.Interpreter) == 0 {
		p.Interpreter = []string{release.DefaultInterpreter}
	}
	if p.Timeout <= 0 {
		p.Timeout = release.DefaultStepTimeout
	}
	env := baseVariables()
	if who != nil {
		env["USER"], env["LOGNAME"], env["HOME"] = who.Name, who.Name, who.Home
	}
	if p.WorkDir == "" {
		p.WorkDir = "/"
		if info, err := os.Stat(env["HOME"]); err == nil && info.IsDir() {
			p.WorkDir = env["HOME"]
		}
	}
	maps.Copy(env, s.Env)
	e.addLabels(env)
	env["QUICFLOW_TARGET"] = e.cfg.ClientID
	for _, name := range slices.Sorted(maps.Keys(env)) {
		p.Env = append(p.Env, name+"="+env[name])
	}
	return p, nil
}

// account is a user of the host.
type account struct {
	Name   string   `json:"name"`
	Home   string   `json:"home"`
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
}

func (a *account) credential() *syscall.Credential {
	return &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: a.Groups}
}

// lookUp finds a user by name; it gives nil for the agent's own.
func lookUp(name string) (*account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if errors.As(err, new(user.UnknownUserError)) {
			return nil, release.Invalid("payload.user", "this host has no user %q", name)
		}
		return nil, release.Invalid("payload.user", "%v", err)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, release.Invalid("payload.user", "its groups cannot be read: %v", err)
	}
	a := &account{Name: u.Username, Home: u.HomeDir}
	if a.UID, err = number(u.Uid); err != nil {
		return nil, err
	}
	if a.GID, err = number(u.Gid); err != nil {
		return nil, err
	}
	for _, id := range ids {
		gid, err := number(id)
		if err != nil {
			return nil, err
		}
		a.Groups = append(a.Groups, gid)
	}
	switch own := os.Geteuid(); {
	case int(a.UID) == own:
		return nil, nil
	case own != 0:
		return nil, release.Invalid("payload.user", "the agent does not run as root, so it can become no other user than its own")
	}
	return a, nil
}

func number(id string) (uint32, error) {
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, release.Invalid("payload.user", "%q is not a number of a user or group", id)
	}
	return uint32(n), nil
}
