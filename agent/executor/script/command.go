package script

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/quicflow/quicflow/agent/command"
	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/lazyregexp"
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

// CommandTypes lists what commands Work carries out.
func (Worker) CommandTypes() []string { return []string{ExecShell} }

// CheckCommand says what is wrong with a command.
func (Worker) CheckCommand(c *quicflowv1.CommandStep) error {
	_, err := readShell(c)
	return err
}

var variable = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)

// readShell reads and checks a payload.
func readShell(c *quicflowv1.CommandStep) (*shell, error) {
	s := new(shell)
	if err := command.Decode(c.Payload, s); err != nil {
		return nil, err
	}
	switch {
	case strings.TrimSpace(s.Command) == "":
		return nil, release.Invalid("payload.command", "it is empty")
	case strings.ContainsRune(s.Command, 0):
		return nil, release.Invalid("payload.command", "it has a NUL character")
	case s.WorkDir != "" && !filepath.IsAbs(s.WorkDir):
		return nil, release.Invalid("payload.work_dir", "%q is not an absolute path", s.WorkDir)
	case strings.ContainsRune(s.Interpreter+s.WorkDir, 0):
		return nil, release.Invalid("payload", "it has a NUL character")
	}
	for name, value := range s.Env {
		if !variable.MatchString(name) || strings.ContainsRune(value, 0) {
			return nil, release.Invalid("payload.env", "%q is not a variable that can be set", name)
		}
	}
	if _, err := wrapper.FindUser(s.User); err != nil {
		return nil, release.Invalid("payload.user", "%v", err)
	}
	return s, nil
}

// runShell runs a command. It ends as its line does.
func runShell(ctx context.Context, run *executor.Run) error {
	if run.Command.Type != ExecShell {
		return fmt.Errorf("%q is no command for the shell", run.Command.Type)
	}
	s, err := readShell(run.Command)
	if err != nil {
		return err
	}
	who, err := wrapper.FindUser(s.User)
	if err != nil {
		return release.Invalid("payload.user", "%v", err)
	}
	own := run.Tools.Environment(false)
	env := executor.BaseVariables()
	if who != nil {
		env["USER"], env["LOGNAME"], env["HOME"] = who.Name, who.Name, who.Home
	}
	if s.WorkDir == "" {
		s.WorkDir = "/"
		if isDir(env["HOME"]) {
			s.WorkDir = env["HOME"]
		}
	}
	maps.Copy(env, s.Env)
	maps.Copy(env, own)
	if !isDir(s.WorkDir) {
		return release.Invalid("payload.work_dir", "%s is not a directory of this host", s.WorkDir)
	}
	return run.Tools.Script(ctx, executor.Script{
		Name: executor.MainScript, Text: s.Command, Interpreter: s.Interpreter, User: s.User, Dir: s.WorkDir, Env: env,
	})
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
