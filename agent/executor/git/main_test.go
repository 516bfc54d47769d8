package git_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/git"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// patience bounds every wait of these tests.
const (
	patience = 30 * time.Second
	pollTime = 5 * time.Millisecond
)

// childStep names the file of a step that this process carries out, and nothing else: a wrapper that may be killed.
const childStep = "QUICFLOW_GIT_TEST_STEP"

func TestMain(m *testing.M) {
	if file := os.Getenv(childStep); file != "" {
		os.Exit(workInChild(file))
	}
	wrapper.MaybeRun(worker)
	goleak.VerifyTestMain(m)
}

// worker is impatient.
var worker = git.New(git.Config{ConnectTimeout: 2 * time.Second, StallTimeout: time.Second})

// host is where steps of one project run.
type host struct {
	t     *testing.T
	dir   string
	base  string // PATH
	steps int
	last  *executor.Step // that ran
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := shortDir(t)
	t.Setenv("TMPDIR", filepath.Join(dir, "tmp"))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "tmp"), 0o777))
	require.NoError(t, os.Chmod(filepath.Join(dir, "tmp"), 0o777))
	return &host{t: t, dir: dir, base: filepath.Join(dir, "site")}
}

// shortDir is a directory whose path leaves room for the names of sockets, and that every user may enter.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "qg")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// step gives a step that deploys a version. Its ref is the version's name.
func (h *host) step(action release.StepAction, version string, spec release.GitSpec) *executor.Step {
	h.t.Helper()
	h.steps++
	if spec.Path == "" {
		spec.Path = h.base
	}
	if spec.Ref == "" {
		spec.Ref = version
	}
	id := fmt.Sprintf("task-%d/deploy/host-1/0", h.steps)
	dir := filepath.Join(h.dir, "steps", strconv.Itoa(h.steps))
	require.NoError(h.t, os.MkdirAll(dir, 0o700))
	v := release.Version{}
	return &executor.Step{
		ID: id, TaskID: fmt.Sprintf("task-%d", h.steps), Action: action, Project: "web", Version: version, ConfigID: "config-" + version,
		Config:   release.Merge(release.Project{Type: release.TypeGit, Spec: release.Spec{Git: &spec}}, v, release.Override{}),
		Host:     executor.Host{ClientID: "host-1", DataDir: filepath.Join(h.dir, "data"), Labels: map[string]string{"rack": "r1"}},
		NotAfter: time.Now().Add(time.Hour), Dir: dir,
	}
}

// work carries a step out.
func (h *host) work(step *executor.Step) error {
	h.t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, &executor.TimedOut{After: patience})
	defer cancel()
	return h.workWith(ctx, step)
}

func (h *host) workWith(ctx context.Context, step *executor.Step) error {
	h.last = step
	if err := worker.Check(step); err != nil {
		return err
	}
	return worker.Work(ctx, &executor.Run{Step: step, Tools: &tools{step: step}})
}

// deploy deploys a version and wants that to succeed.
func (h *host) deploy(action release.StepAction, version string, spec release.GitSpec) executor.Running {
	h.t.Helper()
	step := h.step(action, version, spec)
	err := h.work(step)
	require.NoError(h.t, err, "%s", h.log())
	return h.reported()
}

// refused carries a step out that has to fail, and gives the one line that says why.
func (h *host) refused(step *executor.Step) string {
	h.t.Helper()
	err := h.work(step)
	require.Error(h.t, err, "%s", h.log())
	require.NotContains(h.t, err.Error(), "\n")
	return err.Error()
}

func (h *host) log() string {
	text, _ := os.ReadFile(filepath.Join(h.last.Dir, "log"))
	return string(text)
}

func (h *host) reported() executor.Running {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.last.Dir, "report"))
	require.NoError(h.t, err)
	var running executor.Running
	require.NoError(h.t, json.Unmarshal(text, &running))
	return running
}

func (h *host) describe(spec release.GitSpec) executor.Running {
	h.t.Helper()
	if spec.Path == "" {
		spec.Path = h.base
	}
	config, err := json.Marshal(spec)
	require.NoError(h.t, err)
	host := executor.Host{ClientID: "host-1", DataDir: filepath.Join(h.dir, "data"), Labels: map[string]string{"rack": "r1"}}
	return executortest.NewSet(h.t, host, worker).Describe(context.Background(), &quicflowv1.DescribeProject{
		Project: "web", Deploy: &quicflowv1.DeployStep{Type: string(release.TypeGit), Config: config},
	})
}

// current reads a file of the release in use; empty if there is none.
func (h *host) current(name string) string {
	text, _ := os.ReadFile(filepath.Join(h.base, "current", name))
	return strings.TrimSpace(string(text))
}

func (h *host) currentLink() string {
	target, _ := os.Readlink(filepath.Join(h.base, "current"))
	return target
}

func (h *host) releases() []string { return names(filepath.Join(h.base, "releases")) }

// clean checks that nothing is left that no one needs: of each release a directory and a record, no half-made link, no session.
func (h *host) clean() {
	h.t.Helper()
	require.Empty(h.t, names(filepath.Join(h.dir, "tmp")), "sessions left behind")
	var records []string
	for _, name := range names(filepath.Join(h.base, ".quicflow")) {
		require.False(h.t, strings.HasSuffix(name, ".new"), name)
		if release, ok := strings.CutSuffix(name, ".json"); ok {
			records = append(records, release)
		}
	}
	require.ElementsMatch(h.t, h.releases(), records)
	for _, name := range names(h.base) {
		require.False(h.t, strings.HasPrefix(name, ".current-"), name)
	}
	if link := h.currentLink(); link != "" {
		require.DirExists(h.t, filepath.Join(h.base, link))
	}
}

func names(dir string) []string {
	entries, _ := os.ReadDir(dir)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// tools are simple ones: what they keep is in files of the step's directory, so that they go on in another process.
type tools struct{ step *executor.Step }

var _ executor.Tools = (*tools)(nil)

func (k *tools) path(name string) string { return filepath.Join(k.step.Dir, name) }

// Write appends to the step's log.
func (k *tools) Write(p []byte) (int, error) {
	file, err := os.OpenFile(k.path("log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	return file.Write(p)
}

func (k *tools) Printf(format string, args ...any) { fmt.Fprintf(k, "# "+format+"\n", args...) }
func (k *tools) Stdout() io.Writer                 { return k }
func (k *tools) Stderr() io.Writer                 { return k }

func (k *tools) Script(ctx context.Context, s executor.Script) error {
	if s.Text == "" {
		return nil
	}
	var code int
	if known, err := k.Kept("ended."+s.Name, &code); err != nil || known {
		return ended(s.Name, code, err)
	}
	if started, err := k.Kept("started."+s.Name, &code); err != nil || started {
		return errors.Join(err, executor.ErrUnknown)
	}
	if err := k.Keep("started."+s.Name, 0); err != nil {
		return err
	}
	err := k.run(ctx, executor.Program{
		Path: s.Interpreter, Args: []string{"-c", s.Text}, User: s.User, Dir: s.Dir, Env: s.Env, Output: k,
	})
	var exit *executor.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.Code
	case err != nil:
		return err
	}
	return ended(s.Name, code, k.Keep("ended."+s.Name, code))
}

func ended(name string, code int, err error) error {
	if err == nil && code != 0 {
		return &executor.ExitError{Name: name, Code: code}
	}
	return err
}

func (k *tools) Program(ctx context.Context, p executor.Program) error {
	if p.Output == nil {
		p.Output = k
	}
	return k.run(ctx, p)
}

// run is what the wrapper's own will do: a process group that ends with ctx, and is killed by the next run if the wrapper dies.
func (k *tools) run(ctx context.Context, p executor.Program) error {
	cmd := exec.CommandContext(ctx, p.Path, p.Args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = p.Dir, p.Stdin, p.Output, p.Output
	cmd.Env = []string{}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		cmd.Env = append(cmd.Env, name+"="+p.Env[name])
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.User != "" {
		account, err := user.Lookup(p.User)
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(account.Uid)
		gid, _ := strconv.Atoi(account.Gid)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = os.WriteFile(k.path("group"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600)
	err := cmd.Wait()
	_ = os.Remove(k.path("group"))
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &exit):
		return &executor.ExitError{Name: p.Path, Code: exit.ExitCode()}
	}
	return err
}

func (k *tools) Health(ctx context.Context, env map[string]string) error {
	_, _, health := k.step.Config.Common()
	if health == nil {
		return nil
	}
	for i := 0; ; i++ {
		err := k.run(ctx, executor.Program{Path: "/bin/sh", Args: []string{"-c", health.Exec}, Dir: "/", Env: env, Output: k})
		if err == nil || ctx.Err() != nil {
			return err
		}
		if i+1 >= health.Retries {
			return fmt.Errorf("health check failed: %w", err)
		}
	}
}

func (k *tools) Artifact(context.Context, string) (string, error) {
	return "", errors.New("no artifacts here")
}

func (k *tools) Keep(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := os.WriteFile(k.path("kept."+name+".new"), text, 0o600); err != nil {
		return err
	}
	return os.Rename(k.path("kept."+name+".new"), k.path("kept."+name))
}

func (k *tools) Kept(name string, value any) (bool, error) {
	text, err := os.ReadFile(k.path("kept." + name))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, errors.Join(err, json.Unmarshal(text, value))
}

func (k *tools) Environment(base bool) map[string]string {
	env := map[string]string{"QUICFLOW_VERSION": k.step.Version}
	if base {
		env["PATH"], env["HOME"] = os.Getenv("PATH"), "/"
	}
	return env
}

func (k *tools) Report(running executor.Running) {
	text, err := json.Marshal(running)
	if err == nil {
		err = os.WriteFile(k.path("report"), text, 0o600)
	}
	if err != nil {
		panic(err)
	}
}

// childJob is a step for another process.
type childJob struct {
	Step  executor.Step
	Dir   string // the step's, which is not in its JSON
	Again bool
}

// workInChild carries a step out as a wrapper does. What came of it is in the step's directory.
func workInChild(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	var job childJob
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&job); err != nil {
		panic(err)
	}
	job.Step.Dir = job.Dir
	k := &tools{step: &job.Step}
	if job.Again {
		if group, err := os.ReadFile(k.path("group")); err == nil {
			if pid, _ := strconv.Atoi(string(group)); pid > 1 { // 0 would be the group that the tests run in
				_ = syscall.Kill(-pid, syscall.SIGKILL)
			}
		}
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, &executor.TimedOut{After: patience})
	defer cancel()
	if err := worker.Work(ctx, &executor.Run{Step: &job.Step, Again: job.Again, Tools: k}); err != nil {
		fmt.Fprint(os.Stdout, err.Error())
		return 1
	}
	return 0
}
