// Package git deploys git repositories: a checkout for each deployment, and a symlink to the one in use.
//
// Below a project's path it keeps
//
//	releases/COMMIT-STEP  checkouts, whole repositories of their own; 12 digits of the commit, 8 that name the step
//	current               symlink to one of them, replaced at once
//	shared                what releases have in common; only its owner removes it
//	.quicflow             a cache of the repository, and a record of each release
//
// It is the git program that speaks to the repository's host. It runs without the configuration of any user, with the protocols that
// are needed and no other, and never runs a hook. It gets a login from this process: the private key over the protocol of ssh-agent,
// the password over that of git-credential-cache, on sockets in a directory that goes when git has ended. Neither is ever in a file,
// an argument, an environment or a URL.
package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/lazyregexp"
	"github.com/quicflow/quicflow/internal/release"
)

// Worker is the executor.Worker of git projects.
type Worker struct {
	cfg Config
}

var _ executor.Worker = (*Worker)(nil)

// Config says how patient a Worker is with a repository's host.
type Config struct {
	// ConnectTimeout bounds how long an ssh host may take to answer. Defaults to 30s.
	ConnectTimeout time.Duration
	// StallTimeout ends a transfer over http that brings less than 1000 bytes a second for so long, and an ssh connection whose host
	// is silent for so long. Defaults to 60s.
	StallTimeout time.Duration
}

// New makes a worker.
func New(cfg Config) *Worker {
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = 30 * time.Second
	}
	if cfg.StallTimeout <= 0 {
		cfg.StallTimeout = time.Minute
	}
	return &Worker{cfg: cfg}
}

// Type says git.
func (w *Worker) Type() release.Type { return release.TypeGit }

// The oldest git that has all options that are used here.
const minMajor, minMinor = 2, 30

var versionForm = lazyregexp.New(`\b(\d+)\.(\d+)[^\s,]*`)

// Probe finds the git program, and what goes with it: ssh, git-lfs.
func (w *Worker) Probe(ctx context.Context) (executor.Capability, error) {
	c := executor.Capability{Type: release.TypeGit, Details: map[string]string{}}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	version, err := versionOf(ctx, "git", "--version")
	if err != nil {
		return c, fmt.Errorf("git cannot be run: %w", err)
	}
	if err := newEnough(version); err != nil {
		return c, err
	}
	c.Version = version
	if v, err := versionOf(ctx, "ssh", "-V"); err == nil {
		c.Details["ssh"] = v
	}
	if v, err := versionOf(ctx, "git", "lfs", "version"); err == nil {
		c.Details["lfs"] = v
	}
	return c, nil
}

func newEnough(version string) error {
	parts := versionForm.FindStringSubmatch(version)
	if parts == nil {
		return fmt.Errorf("git tells no version that can be read: %q", version)
	}
	major, _ := strconv.Atoi(parts[1])
	minor, _ := strconv.Atoi(parts[2])
	if major < minMajor || major == minMajor && minor < minMinor {
		return fmt.Errorf("git %s is too old: %d.%d is needed", version, minMajor, minMinor)
	}
	return nil
}

func versionOf(ctx context.Context, name string, args ...string) (string, error) {
	var out bytes.Buffer
	p := executor.Program{Path: name, Args: args, Env: quietEnvironment(), Output: &out}
	if err := runProgram(ctx, p, nil); err != nil {
		return "", err
	}
	return versionForm.FindString(out.String()), nil
}

// Logs fails: a git project runs nothing by itself.
func (w *Worker) Logs(context.Context, executor.Deployed, executor.LogOptions, io.Writer) error {
	return errors.New("a git project has no log of its own: it is files in place; see the logs of its steps")
}

// Check says what is wrong with a step's configuration.
func (w *Worker) Check(step *executor.Step) error {
	spec := step.Config.Git
	if spec == nil {
		return release.Invalid("git", "the step has no configuration of a git project")
	}
	switch step.Action {
	case release.StepInstall, release.StepUpdate, release.StepRollbackTo, release.StepUninstall:
	default:
		return release.Invalid("action", "%q is not an action", step.Action)
	}
	if spec.Path == "" && (!filepath.IsLocal(step.Project) || strings.ContainsRune(step.Project, filepath.Separator)) {
		return release.Invalid("project", "%q is not the name of a project", step.Project)
	}
	if err := checkPath(spec.Path); err != nil {
		return err
	}
	for i, shared := range spec.Shared {
		if err := checkShared(fmt.Sprintf("git.shared[%d]", i), shared); err != nil {
			return err
		}
	}
	if step.Action == release.StepUninstall {
		return nil
	}
	if !hasVariable(spec.Repository) {
		r, err := parseRemote(spec.Repository)
		if err != nil {
			return err
		}
		if err := r.checkAuth(spec.Auth); err != nil {
			return err
		}
	}
	if spec.Ref == "" {
		return release.Invalid("git.ref", "neither the version nor its project names a branch, a tag or a commit")
	}
	if hasVariable(spec.Ref) {
		return nil
	}
	return checkRef(spec.Ref)
}

// hasVariable says whether a text is not whole before its variables are replaced.
func hasVariable(text string) bool { return strings.Contains(text, "${") }

func checkPath(path string) error {
	switch {
	case path == "" || strings.HasPrefix(path, "${"):
	case !filepath.IsAbs(path) || strings.ContainsAny(path, "\x00\n"):
		return release.Invalid("git.path", "%q is not an absolute path", path)
	case filepath.Clean(path) == "/":
		return release.Invalid("git.path", "the root directory cannot hold releases")
	}
	return nil
}

func checkShared(field, name string) error {
	clean := filepath.Clean(name)
	first, _, _ := strings.Cut(clean, "/")
	switch {
	case name == "" || !filepath.IsLocal(name) || clean == "." || strings.ContainsAny(name, "\x00\n"):
		return release.Invalid(field, "%q is not a path within a release", name)
	case strings.EqualFold(first, ".git"):
		return release.Invalid(field, "%q belongs to git", name)
	}
	return nil
}

// basePath is where a project's releases are.
func basePath(spec *release.GitSpec, host executor.Host, project string) string {
	if spec.Path != "" {
		return filepath.Clean(spec.Path)
	}
	return executor.ProjectDir(host, project)
}

// quietEnvironment is that of programs which get no login.
func quietEnvironment() map[string]string {
	return map[string]string{
		"PATH": executor.BaseVariables()["PATH"], "LC_ALL": "C.UTF-8", "LANGUAGE": "",
		"HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent",
		"GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1",
		"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS_REQUIRE": "never",
	}
}
