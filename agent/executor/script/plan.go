package script

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// plan is all that a wrapper needs to know. It is kept as JSON in the step's directory.
type plan struct {
	StepID      string        `json:"step_id"`
	NotAfter    time.Time     `json:"not_after"`
	Interpreter []string      `json:"interpreter"`
	WorkDir     string        `json:"work_dir"`
	Env         []string      `json:"env"`
	Timeout     time.Duration `json:"timeout"`
	KillGrace   time.Duration `json:"kill_grace"`
	Scripts     []scriptText  `json:"scripts"`
	Health      *health       `json:"health,omitempty"`
	Command     bool          `json:"command,omitempty"` // it is a command: the work directory is not made, and no lines are added
	User        *account      `json:"user,omitempty"`    // if it is not the agent's own
}

// scriptText is one of a step's scripts.
type scriptText struct {
	Name string `json:"name"` // pre_script, script or post_script; also the name of its file
	Text string `json:"text"`
}

const mainScript = "script"

func (e *Executor) plan(step *quicflowv1.StepRequest) (*plan, error) {
	if command := step.GetCommand(); command != nil {
		return e.commandPlan(step, command)
	}
	deploy := step.GetDeploy()
	if deploy.GetType() != string(release.TypeScript) {
		return nil, errors.New("it is not a script step")
	}
	config, err := release.ParseConfig(release.TypeScript, deploy.Config)
	if err != nil {
		return nil, err
	}
	config, err = config.Expand(func(name string) (release.Value, bool) {
		value, ok := deploy.Secrets[name]
		return release.Value{Text: value}, ok
	}, true)
	if err != nil {
		return nil, err
	}
	spec := config.Script
	if !filepath.IsLocal(step.Project) || strings.ContainsAny(step.Project, `/\`) {
		return nil, fmt.Errorf("%q is not the name of a project", step.Project)
	}
	p := &plan{
		StepID:      step.StepId,
		NotAfter:    time.UnixMilli(step.NotAfterUnixMs),
		Interpreter: strings.Fields(spec.Interpreter),
		WorkDir:     spec.WorkDir,
		Timeout:     spec.Timeout.Std(),
		KillGrace:   e.cfg.KillGrace,
	}
	if len(p.Interpreter) == 0 {
		p.Interpreter = []string{release.DefaultInterpreter}
	}
	if p.WorkDir == "" {
		p.WorkDir = filepath.Join(e.cfg.DataDir, "projects", step.Project)
	}
	if !filepath.IsAbs(p.WorkDir) {
		return nil, fmt.Errorf("work_dir %q is not an absolute path", p.WorkDir)
	}
	if p.Timeout <= 0 {
		p.Timeout = release.DefaultStepTimeout
	}
	main, err := spec.Script(release.StepAction(step.Action))
	if err != nil {
		return nil, err
	}
	scripts := []scriptText{{"pre_script", spec.PreScript}, {mainScript, main}, {"post_script", spec.PostScript}}
	if step.Action == string(release.StepUninstall) {
		scripts, spec.Health = scripts[1:2], nil
	}
	for _, s := range scripts {
		if s.Text != "" {
			p.Scripts = append(p.Scripts, s)
		}
	}
	if main == "" {
		return nil, fmt.Errorf("it has no script for the action %s", step.Action)
	}
	env := e.environment(step, spec.Env, p.WorkDir)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		p.Env = append(p.Env, name+"="+env[name])
	}
	p.Health, err = newHealth(spec.Health, env)
	return p, err
}

// inherited are the variables that scripts get from the agent's own environment.
var inherited = []string{"HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// baseVariables are what every script gets.
func baseVariables() map[string]string {
	env := map[string]string{"HOME": "/", "LANG": "C.UTF-8", "PATH": defaultPath}
	for _, name := range inherited {
		if value := os.Getenv(name); value != "" {
			env[name] = value
		}
	}
	return env
}

func (e *Executor) addLabels(env map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(e.cfg.Labels)) {
		env["QUICFLOW_LABEL_"+labelVariable(name)] = e.cfg.Labels[name]
	}
}

func (e *Executor) environment(step *quicflowv1.StepRequest, own map[string]string, workDir string) map[string]string {
	env := baseVariables()
	maps.Copy(env, own)
	e.addLabels(env)
	maps.Copy(env, map[string]string{
		"QUICFLOW_RELEASE":          step.TaskId,
		"QUICFLOW_VERSION":          step.Version,
		"QUICFLOW_PREVIOUS_VERSION": step.PreviousVersion,
		"QUICFLOW_PROJECT":          step.Project,
		"QUICFLOW_TARGET":           e.cfg.ClientID,
		"QUICFLOW_ACTION":           step.Action,
		"QUICFLOW_WORK_DIR":         workDir,
	})
	return env
}

var notInVariable = regexp.MustCompile(`[^A-Z0-9_]`)

// labelVariable turns a label's name into part of a variable's: upper case, all else an underscore.
func labelVariable(label string) string {
	return notInVariable.ReplaceAllString(strings.ToUpper(label), "_")
}

var reference = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand replaces each ${NAME} by the variable's value.
func expand(text string, env map[string]string) (string, error) {
	var unknown error
	expanded := reference.ReplaceAllStringFunc(text, func(ref string) string {
		value, ok := env[ref[2:len(ref)-1]]
		if !ok && unknown == nil {
			unknown = fmt.Errorf("%s is not in the step's environment", ref)
		}
		return value
	})
	return expanded, unknown
}
