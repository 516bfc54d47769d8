package executortest_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const patience = 30 * time.Second

// These tests are here and not in package wrapper, as a wrapper of the test's own binary needs a worker.

type host struct {
	t    *testing.T
	dir  string
	cfg  wrapper.Config
	step *executor.Step
}

// newHost makes a step of a fake that does this.
func newHost(t *testing.T, ops ...executortest.Op) *host {
	t.Helper()
	dir := t.TempDir()
	step := &executor.Step{
		ID: "task/deploy/host-1/0", TaskID: "task", Action: release.StepInstall, Project: "app", Version: "1.0", ConfigID: "c",
		Host: executor.Host{ClientID: "host-1", DataDir: dir}, NotAfter: time.Now().Add(time.Hour), Dir: filepath.Join(dir, "steps", "1"),
		Config: release.Merged{Type: release.TypeGit, Spec: release.Spec{Git: &release.GitSpec{
			Env: map[string]string{"FAKE": executortest.Do(ops...)}, Timeout: release.Duration(patience),
		}}},
	}
	step.Log = spool.NewWriter(spool.Config{Path: filepath.Join(step.Dir, "spool")})
	t.Cleanup(func() { _ = step.Log.Close() })
	return &host{t: t, dir: dir, cfg: wrapper.Config{Worker: executortest.Fake{Of: release.TypeGit}}, step: step}
}

func (h *host) spec() *release.GitSpec { return h.step.Config.Git }

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// run carries the step out, for at most the patience.
func (h *host) run() *quicflowv1.StepResult {
	h.t.Helper()
	x := executortest.NewExecutor(h.t, h.cfg)
	require.NoError(h.t, x.Start(context.Background(), h.step))
	return h.wait(x)
}

func (h *host) wait(x executor.Executor) *quicflowv1.StepResult {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	result := x.Wait(ctx, h.step)
	require.NotNil(h.t, result)
	return result
}

func (h *host) output(stream quicflowv1.Stream) string {
	h.t.Helper()
	reader := spool.NewReader(h.step.Log.Path(), 0)
	defer reader.Close()
	var all strings.Builder
	for {
		records, err := reader.Next(1 << 20)
		require.NoError(h.t, err)
		if len(records) == 0 {
			return all.String()
		}
		for _, r := range records {
			if r.Stream == stream {
				all.Write(r.Data)
			}
		}
	}
}

// A wrapper that dies is followed by another, which goes on where it was; what was printed counts once.
func TestWorkGoesOnAfterADeadWrapper(t *testing.T) {
	t.Parallel()
	h := newHost(t, executortest.Op{Print: "one"}, executortest.Op{Script: "echo script; echo x >> $QUICFLOW_TARGET"}, executortest.Op{Die: 1},
		executortest.Op{Print: "two"}, executortest.Op{Die: 2}, executortest.Op{Script: "echo end"})
	result := h.run()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.Equal(t, "one\nscript\ntwo\nend\n", h.output(quicflowv1.Stream_STREAM_STDOUT))
	require.Equal(t, "one\nscript\ntwo\nend\n", string(result.StdoutTail))
	require.EqualValues(t, 19, result.StdoutBytes)
	text, err := os.ReadFile(h.path("projects/app/host-1"))
	require.NoError(t, err)
	require.Equal(t, "x\n", string(text), "scripts run in the project's directory")
}

// A script whose end was noted is not run again, however it ended.
func TestEndedScriptIsKnown(t *testing.T) {
	t.Parallel()
	h := newHost(t, executortest.Op{Script: "echo x >> runs; echo oops >&2; exit 7"})
	first := h.run()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, first.Outcome)
	require.NoError(t, os.Remove(filepath.Join(h.step.Dir, "result")), "as if the wrapper had died just before")
	x := executortest.NewExecutor(t, h.cfg)
	state, err := x.Recover(context.Background(), h.step)
	require.NoError(t, err)
	require.Equal(t, executor.GoesOn, state)
	again := h.wait(x)
	require.Equal(t, first.Outcome, again.Outcome)
	require.Equal(t, "script-0: exit code 7: oops", again.Error)
	require.Equal(t, first.ExitCode, again.ExitCode)
	text, err := os.ReadFile(h.path("projects/app/runs"))
	require.NoError(t, err)
	require.Equal(t, "x\n", string(text))
}

// The id of a wrapper that is dead may be another process's by now, which is left alone.
func TestStopSparesWhoHasTheIdOfADeadWrapper(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	other := exec.Command("sleep", "1000")
	require.NoError(t, other.Start())
	ended := make(chan error, 1)
	go func() { ended <- other.Wait() }()
	x := executortest.NewExecutor(t, h.cfg)
	require.NoError(t, x.Start(context.Background(), h.step))
	require.NoError(t, os.WriteFile(filepath.Join(h.step.Dir, "wrapper.pid"), fmt.Appendf(nil, "%d 1", other.Process.Pid), 0o600))
	x.Stop(h.step, &executor.Cancelled{Reason: "enough"})
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, h.wait(x).Outcome)
	require.NoError(t, other.Process.Kill())
	require.EqualError(t, <-ended, "signal: killed", "and not terminated")
}

func TestWrapperThatDiesAgainAndAgain(t *testing.T) {
	t.Parallel()
	result := newHost(t, executortest.Op{Die: 1000}).run()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_UNKNOWN, result.Outcome)
	require.Contains(t, result.Error, "the step's wrapper ended again and again")
}

func TestWorkerThatPanics(t *testing.T) {
	t.Parallel()
	h := newHost(t, executortest.Op{Print: "x"}, executortest.Op{Panic: "oh no"})
	result := h.run()
	require.Equal(t, "x\n", h.output(quicflowv1.Stream_STREAM_STDOUT), "it is not called again")
	require.Equal(t, quicflowv1.Outcome_OUTCOME_UNKNOWN, result.Outcome)
	require.Contains(t, result.Error, "panicked: oh no")
}

func TestProgram(t *testing.T) {
	t.Parallel()
	h := newHost(t, executortest.Op{Program: []string{"sh", "-c", "echo out; echo err >&2; pwd"}},
		executortest.Op{Program: []string{"sh", "-c", "sleep 1000 & echo fatal: no such ref >&2; exit 128"}})
	result := h.run()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Equal(t, "sh: exit code 128: fatal: no such ref", result.Error)
	require.EqualValues(t, 128, result.ExitCode)
	require.Equal(t, "out\n"+h.path("projects/app")+"\n", h.output(quicflowv1.Stream_STREAM_STDOUT))
	require.Equal(t, "err\nfatal: no such ref\n", h.output(quicflowv1.Stream_STREAM_STDERR))

	result = newHost(t, executortest.Op{Program: []string{"/no/such/program"}}).run()
	require.Contains(t, result.Error, "program: ")
	require.EqualValues(t, -1, result.ExitCode)
}

// The health check has its own time, that a step which is tried again has not used up.
func TestHealthTakesNoTimeFromTheStep(t *testing.T) {
	t.Parallel()
	h := newHost(t, executortest.Op{Health: true}, executortest.Op{Sleep: 100 * time.Millisecond})
	h.spec().Timeout = release.Duration(time.Second)
	h.spec().Health = &release.Health{
		Exec:     `[ -e ready ] || { [ $(ls tries | wc -l) -gt 30 ] && touch ready; mkdir -p tries; mktemp tries/XXXXXX; exit 1; }`,
		Interval: release.Duration(50 * time.Millisecond), Retries: 1000,
	}
	result := h.run()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.Greater(t, result.FinishedUnixMs-result.StartedUnixMs, int64(1500))
}

// A wrapper that makes a health check for long, as another user, opens no more and more files.
func TestHealthOfAnotherUserLeavesNothingOpen(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run scripts as another user")
	}
	count := executortest.Op{Program: []string{"sh", "-c", "ls /proc/$PPID/fd | wc -l"}}
	h := newHost(t, count, executortest.Op{Health: true}, count)
	dir, err := os.MkdirTemp("/tmp", "quicflow-health-") // where another user gets to
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o777))
	h.spec().Path, h.spec().User = dir, "nobody"
	h.spec().Health = &release.Health{
		Exec: "id -un >> tries; [ $(wc -l < tries) -gt 50 ]", Interval: release.Duration(time.Millisecond), Retries: 1000,
	}
	result := h.run()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	var before, after int
	_, err = fmt.Sscan(string(result.StdoutTail), &before, &after)
	require.NoError(t, err)
	require.Less(t, after, before+10)
	tries, err := os.ReadFile(filepath.Join(dir, "tries"))
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("nobody\n", 51), string(tries))
}

// Secrets do not get into our own lines by accident.
func TestSecretsAreTakenOutOfMessages(t *testing.T) {
	t.Parallel()
	h := newHost(t, executortest.Op{Say: "the token is ${TOKEN}"}, executortest.Op{Fail: "login with ${TOKEN} failed"})
	h.step.Secrets = map[string]string{"TOKEN": "hunter22"}
	result := h.run()
	require.Equal(t, "login with ${TOKEN} failed", result.Error)
	require.Equal(t, "the token is ${TOKEN}\nlogin with ${TOKEN} failed\n", h.output(quicflowv1.Stream_STREAM_SYSTEM))
}

// One secret may begin as another does, and one may have what other texts are not written with.
func TestSecretsAreTakenOutWhole(t *testing.T) {
	t.Parallel()
	for name, secret := range map[string]string{
		"beginning as another": "hunter22-and-more", "of two lines": "hunter22\nline two", "quoted in JSON": `hunter22"<&>\`,
	} {
		h := newHost(t, executortest.Op{Reason: "WHY"}, executortest.Op{FailAs: "WHY"})
		h.step.Secrets = map[string]string{"TOKEN": "hunter22", "OTHER": secret, "MORE": "hunter22-and"}
		h.spec().Env["WHY"] = "login with ${OTHER} failed"
		result := h.run()
		require.Equal(t, "login with ${OTHER} failed", result.Error, name)
		require.Equal(t, "login with ${OTHER} failed\n", h.output(quicflowv1.Stream_STREAM_SYSTEM), name)
		var running executor.Running
		require.NoError(t, json.Unmarshal(result.Result, &running))
		require.Equal(t, "login with ${OTHER} failed", running.Reason, name)
	}
}

// What runs is told within its limit, however long it takes to write.
func TestReportIsCut(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{strings.Repeat("<", 100_000), strings.Repeat("long ", 100_000)} {
		h := newHost(t, executortest.Op{Reason: "WHY"}, executortest.Op{Fail: "it does"})
		h.spec().Env["WHY"] = reason
		result := h.run()
		require.Equal(t, "it does", result.Error)
		require.LessOrEqual(t, len(result.Result), 8<<10)
		var running executor.Running
		require.NoError(t, json.Unmarshal(result.Result, &running))
		require.Equal(t, executor.RunDegraded, running.State)
		require.Greater(t, len(running.Reason), 500)
		require.True(t, strings.HasPrefix(reason, running.Reason))
	}
}

// fetcher puts artifacts into the cache when it is told to.
type fetcher struct {
	dir      string
	gets     atomic.Int32
	released atomic.Int32
	get      func(ctx context.Context) error
	url      string // that was asked for last
}

func (f *fetcher) Get(ctx context.Context, sum, url string) (string, func(), error) {
	f.gets.Add(1)
	f.url = url
	if f.get != nil {
		if err := f.get(ctx); err != nil {
			return "", nil, err
		}
	}
	return filepath.Join(f.dir, sum), func() { f.released.Add(1) }, nil
}

// fetching gives a host whose step takes an artifact.
func fetching(t *testing.T, get func(ctx context.Context) error) (*host, *fetcher) {
	t.Helper()
	content := []byte("the artifact\n")
	sum := sha256.Sum256(content)
	name := hex.EncodeToString(sum[:])
	h := newHost(t, executortest.Op{Take: name, From: "https://host/${TOKEN}"})
	h.step.Secrets = map[string]string{"TOKEN": "hunter22"}
	f := &fetcher{dir: h.path("cache"), get: get}
	require.NoError(t, os.Mkdir(f.dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, name), content, 0o600))
	h.cfg.Fetcher = f
	return h, f
}

func TestArtifactsComeBeforeTheWork(t *testing.T) {
	t.Parallel()
	h, f := fetching(t, nil)
	result := h.run()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.Equal(t, "the artifact\n", string(result.StdoutTail))
	require.Equal(t, "artifact artifact is fetched\n", h.output(quicflowv1.Stream_STREAM_SYSTEM))
	require.EqualValues(t, 1, f.released.Load())
	require.Equal(t, "https://host/hunter22", f.url)
	require.Equal(t, []string{filepath.Join(h.step.Dir, "secrets.json")}, executortest.FilesWith(t, h.dir, "hunter22"), "it is in no other file")
}

func TestArtifactThatCannotBeHad(t *testing.T) {
	t.Parallel()
	h, _ := fetching(t, func(context.Context) error { return errors.New("https://host/hunter22: checksum mismatch") })
	result := h.run()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Equal(t, "artifact artifact: https://host/${TOKEN}: checksum mismatch", result.Error)
	require.Equal(t, "artifact artifact is fetched\n"+result.Error+"\n", h.output(quicflowv1.Stream_STREAM_SYSTEM))
	require.NoFileExists(t, filepath.Join(h.step.Dir, "started"))
	end, err := spool.End(h.step.Log.Path())
	require.NoError(t, err)
	require.Equal(t, end, result.LogEnd)

	// As it is written in a URL.
	h, _ = fetching(t, func(context.Context) error { return errors.New("https://host/a%20b%25c/file answers 404 Not Found") })
	h.step.Secrets["TOKEN"] = "a b%c"
	result = h.run()
	require.Equal(t, "artifact artifact: https://host/${TOKEN}/file answers 404 Not Found", result.Error)
}

func TestStepIsStoppedWhileItsArtifactComes(t *testing.T) {
	t.Parallel()
	waiting := make(chan struct{}, 10)
	forever := func(ctx context.Context) error {
		waiting <- struct{}{}
		<-ctx.Done()
		return context.Cause(ctx)
	}
	h, _ := fetching(t, forever)
	x := executortest.NewExecutor(t, h.cfg)
	require.NoError(t, x.Start(context.Background(), h.step))
	go func() {
		<-waiting
		x.Stop(h.step, &executor.Cancelled{Reason: "enough"})
	}()
	result := h.wait(x)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, result.Outcome)
	require.Contains(t, result.Error, "enough")

	h, _ = fetching(t, forever)
	h.spec().Timeout = release.Duration(200 * time.Millisecond)
	result = h.run()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.True(t, result.TimedOut)
	require.Contains(t, result.Error, "the artifacts did not come in time: timed out after 200ms")
}

// The agent dies while an artifact comes, which takes longer than the step may wait to begin.
func TestAgentDiesWhileAnArtifactComes(t *testing.T) {
	t.Parallel()
	waiting := make(chan struct{}, 1)
	h, f := fetching(t, nil)
	h.step.NotAfter = time.Now().Add(time.Second)
	f.get = func(ctx context.Context) error {
		if f.gets.Load() == 1 {
			close(waiting)
			<-ctx.Done()
			return context.Cause(ctx)
		}
		<-time.After(time.Until(h.step.NotAfter) + 10*time.Millisecond)
		return nil
	}
	first := executortest.NewExecutor(t, h.cfg)
	require.NoError(t, first.Start(context.Background(), h.step))
	ctx, die := context.WithCancel(context.Background())
	go func() {
		<-waiting
		die()
	}()
	require.Nil(t, first.Wait(ctx, h.step))
	x := executortest.NewExecutor(t, h.cfg)
	state, err := x.Recover(context.Background(), h.step)
	require.NoError(t, err)
	require.Equal(t, executor.GoesOn, state)
	result := h.wait(x)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.EqualValues(t, 2, f.gets.Load())
}

func TestStepOfAnotherVersionOfTheAgent(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	require.NoError(t, os.MkdirAll(h.step.Dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(h.step.Dir, "plan.json"), []byte(`{"version":1}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(h.step.Dir, "started"), []byte("1000"), 0o600))
	x := executortest.NewExecutor(t, h.cfg)
	_, err := x.Recover(context.Background(), h.step)
	require.NoError(t, err)
	result := h.wait(x)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_UNKNOWN, result.Outcome)
	require.Contains(t, result.Error, "begun by another version of the agent")
}

func TestSet(t *testing.T) {
	t.Parallel()
	h := executor.Host{ClientID: "a", DataDir: t.TempDir()}
	one := executortest.NewExecutor(t, wrapper.Config{Worker: executortest.Fake{Of: release.TypeGit}})
	_, err := executor.NewSet(h, one, one)
	require.ErrorContains(t, err, "two executors for git")
	set := executortest.NewSet(t, h, executortest.Fake{Of: release.TypeKubernetes}, executortest.Fake{Of: release.TypeGit},
		executortest.Fake{Of: release.TypeContainer, Unable: "no engine answers"})
	able, unable := set.Probe(context.Background())
	require.Len(t, unable, 1)
	require.EqualError(t, unable[release.TypeContainer], "no engine answers")
	require.Len(t, able, 2)
	require.Equal(t, release.TypeGit, able[0].Type)
	require.Empty(t, set.CommandTypes())
	require.Nil(t, set.Executor(release.TypeScript))

	step := &quicflowv1.StepRequest{StepId: "t/deploy/a/0", Project: "app", Action: "install", NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli()}
	deploy := func(kind, config string) error {
		step.Spec = &quicflowv1.StepRequest_Deploy{Deploy: &quicflowv1.DeployStep{Type: kind, Config: []byte(config)}}
		return set.CheckStep(step)
	}
	require.NoError(t, deploy("git", `{}`))
	require.EqualError(t, deploy("script", `{}`), `the agent does not know this kind of step: it is of type "script", this agent does container, git, kubernetes`)
	require.ErrorIs(t, deploy("git", `{"branch":"x"}`), release.ErrInvalid, "a field that is not known")
	require.ErrorIs(t, deploy("git", `[]`), release.ErrInvalid)

	// After a restart without the executor nobody can know.
	require.Error(t, deploy("script", `{}`))
	log := spool.NewWriter(spool.Config{Path: filepath.Join(h.DataDir, "steps", "1", "spool")})
	defer log.Close()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_UNKNOWN, set.Resume(context.Background(), step, log).Outcome)

	require.NoError(t, deploy("git", fmt.Sprintf(`{"env":{"FAKE":%q}}`, executortest.Do(executortest.Op{Print: "x"}))))
	result := set.Run(context.Background(), step, log)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	var running executor.Running
	require.NoError(t, json.Unmarshal(result.Result, &running))
	require.Equal(t, executor.RunOK, running.State)
}

// An agent that stops does not wait for a step that takes its time to stop: its next life gets the result.
func TestAgentStopsWhileAStepIsStopped(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	config, err := json.Marshal(release.GitSpec{Env: map[string]string{"FAKE": executortest.Do(
		executortest.Op{Effect: h.path("begun")}, executortest.Op{Linger: time.Second})}})
	require.NoError(t, err)
	request := &quicflowv1.StepRequest{
		StepId: h.step.ID, Project: "app", Action: "install", NotAfterUnixMs: h.step.NotAfter.UnixMilli(),
		Spec: &quicflowv1.StepRequest_Deploy{Deploy: &quicflowv1.DeployStep{Type: "git", Config: config}},
	}
	life, stop := context.WithCancel(context.Background())
	ctx, cancel := context.WithCancelCause(life)
	results := make(chan *quicflowv1.StepResult, 1)
	go func() {
		results <- executortest.NewSet(t, h.step.Host, h.cfg.Worker).Run(executor.WithLife(ctx, life), request, h.step.Log)
	}()
	require.Eventually(t, func() bool { _, err := os.Stat(h.path("begun")); return err == nil }, patience, time.Millisecond)
	cancel(&executor.Cancelled{Reason: "enough"})
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(h.step.Dir, "cancel")); return err == nil }, patience, time.Millisecond)
	stop()
	require.Nil(t, <-results)
	require.NoFileExists(t, filepath.Join(h.step.Dir, "result"))
	result := executortest.NewSet(t, h.step.Host, h.cfg.Worker).Resume(context.Background(), request, h.step.Log)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_CANCELLED, result.Outcome)
	require.Equal(t, "cancelled: enough", result.Error)
}
