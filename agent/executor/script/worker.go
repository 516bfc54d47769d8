// Package script carries out the steps of script projects: pre-script, script and post-script, each run by an interpreter, then a
// health check. A version may bring artifacts, which make up a release directory that the scripts run in. It also runs the command
// exec_shell.
package script

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/release"
)

// Worker does the work of script steps, and of exec_shell.
type Worker struct{}

var (
	_ executor.Worker       = Worker{}
	_ executor.Commander    = Worker{}
	_ executor.ArtifactUser = Worker{}
)

// New makes a worker.
func New() Worker { return Worker{} }

// Type is release.TypeScript.
func (Worker) Type() release.Type { return release.TypeScript }

// Probe finds nothing missing: every host can run scripts. It says how their limits are kept.
func (Worker) Probe(context.Context) (executor.Capability, error) {
	return executor.Capability{Type: release.TypeScript, Details: map[string]string{"limits": wrapper.LimitsBy()}}, nil
}

// errNoLogs says what does not exist.
var errNoLogs = release.Unavailable(nil, "what a script started is not QuicFlow's to read: a script project has no logs but those of its steps")

// Logs says that there are none.
func (Worker) Logs(context.Context, executor.Deployed, executor.LogOptions, io.Writer) error {
	return errNoLogs
}

// Check says what is wrong with a step.
func (Worker) Check(step *executor.Step) error {
	spec := step.Config.Script
	if spec == nil {
		return release.Invalid("script", "there is no configuration")
	}
	main, err := spec.Script(step.Action)
	switch {
	case err != nil:
		return err
	case spec.WorkDir != "" && !filepath.IsAbs(spec.WorkDir):
		return release.Invalid("script.work_dir", "%q is not an absolute path", spec.WorkDir)
	case spec.User != "" && spec.WorkDir == "":
		return release.Invalid("script.user", "another user cannot enter the agent's data directory: it needs a work_dir, too")
	case strings.ContainsRune(spec.Interpreter+spec.WorkDir+spec.User, 0):
		return release.Invalid("script", "it has a NUL character")
	case main == "" && len(spec.Artifacts) == 0:
		return release.Invalid("script", "the version has no script for the action %s", step.Action)
	}
	if err := checkArtifacts(step); err != nil {
		return err
	}
	if spec.Health != nil && step.Action != release.StepUninstall {
		env := executor.BaseVariables()
		for name, value := range step.Variables() {
			env[name] = value
		}
		env[varWorkDir] = workDir(step)
		if len(spec.Artifacts) > 0 {
			env[varReleaseDir], _ = releaseOf(step)
		}
		if _, err := executor.ExpandHealth(*spec.Health, env); err != nil {
			return err
		}
	}
	return nil
}

// Variables that scripts get beside those of every type.
const (
	varWorkDir    = "QUICFLOW_WORK_DIR"
	varReleaseDir = "QUICFLOW_RELEASE_DIR" // of a version with artifacts
)

func workDir(step *executor.Step) string {
	if dir := step.Config.Script.WorkDir; dir != "" {
		return dir
	}
	return step.ProjectDir()
}

// job is the work of one step.
type job struct {
	*executor.Run
	spec    *release.ScriptSpec
	workDir string
	user    *wrapper.Account
	env     map[string]string
	begun   bool // the main script, or what comes in its place, has begun: the host has changed
}

// Work carries out a step or a command.
func (Worker) Work(ctx context.Context, run *executor.Run) error {
	if run.Command != nil {
		return runShell(ctx, run)
	}
	j := &job{Run: run, spec: run.Config.Script, workDir: workDir(run.Step), env: run.Tools.Environment(true)}
	var err error
	if j.user, err = wrapper.FindUser(j.spec.User); err != nil {
		return err
	}
	j.env[varWorkDir] = j.workDir
	record, _, err := readRecord(run.Host, run.Project)
	if err != nil {
		return err
	}
	record = record.before(run.ID)
	if run.Action == release.StepUninstall {
		err = j.uninstall(ctx, record)
	} else {
		err = j.deploy(ctx)
	}
	return errors.Join(err, j.keepRecord(record, err))
}

func (j *job) deploy(ctx context.Context) error {
	main, err := j.spec.Script(j.Action)
	if err != nil {
		return err
	}
	if len(j.spec.Artifacts) > 0 {
		return j.deployRelease(ctx, main)
	}
	dir := j.workDir
	if err := j.script(ctx, "pre_script", j.spec.PreScript, dir); err != nil {
		return err
	}
	j.begun = true
	if err := j.script(ctx, executor.MainScript, main, dir); err != nil {
		return err
	}
	if err := j.script(ctx, "post_script", j.spec.PostScript, dir); err != nil {
		return err
	}
	return j.Tools.Health(ctx, j.env)
}

// uninstall runs the script, in the release that is in use if there is one, and removes what this package made.
func (j *job) uninstall(ctx context.Context, before record) error {
	dir := j.workDir
	if before.Release != "" && isDir(before.Release) {
		dir = before.Release
		j.env[varReleaseDir] = dir
	}
	j.begun = true
	if err := j.script(ctx, executor.MainScript, j.spec.Uninstall, dir); err != nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	dirs := before.WorkDirs
	if len(j.spec.Artifacts) > 0 && !slices.Contains(dirs, j.workDir) {
		dirs = append(slices.Clone(dirs), j.workDir)
	}
	if len(dirs) == 0 {
		return nil
	}
	j.Tools.Printf("releases are removed")
	return uninstallReleases(dirs)
}

func (j *job) script(ctx context.Context, name, text, dir string) error {
	return j.Tools.Script(ctx, executor.Script{
		Name: name, Text: text, Interpreter: j.spec.Interpreter, User: j.spec.User, Dir: dir, Env: j.env, Limits: j.spec.Limits,
	})
}
