package executortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Behaviour is what a configuration makes a step do.
type Behaviour int

// The behaviours that a Factory has configurations for.
const (
	Succeeds    Behaviour = iota // soon
	TakesASec                    // succeeds after about a second
	Fails                        // soon, with one line that says why
	Blocks                       // until the step is stopped, or its time is over
	Wrong                        // Check refuses it
	UsesASecret                  // succeeds, and needs the secret variable TOKEN for it
)

// Factory gives what the suite needs of one executor.
type Factory struct {
	// New makes the executor, once for each life of the agent. Required.
	New func(t testing.TB) executor.Executor
	// Config gives the configuration of a version that behaves so. step says whose it is; its id is in the labels of what the executor
	// makes, and its Host's DataDir is the test's own. Required.
	Config func(t testing.TB, behaviour Behaviour, step *executor.Step) release.Merged
	// Effects counts how often a step's effect happened on the host. Defaults to nil: it cannot be counted.
	Effects func(t testing.TB, step *executor.Step) int
	// CleanUp removes what a test may have left. Defaults to nil: everything is below DataDir.
	CleanUp func(t testing.TB, host executor.Host, project string)
	// Patience bounds every wait. Defaults to 30s.
	Patience time.Duration
	// Timeout is what the step that blocks has. Defaults to 500ms; it must be enough for it to begin.
	Timeout time.Duration
	// SurvivesKill says that a step whose wrapper was killed goes on. Otherwise it is unknown.
	SurvivesKill bool
	// HasLogs says that what runs can be read.
	HasLogs bool
	// Alone keeps the tests from running at the same time.
	Alone bool
}

// bench is where one test of the suite is done.
type bench struct {
	Factory
	t       testing.TB
	host    executor.Host
	project string
	steps   int
}

// secretValue is one that is found nowhere by chance.
const secretValue = "s3cr3t-of-the-conformance-suite"

// Conformance is what every Executor passes.
func Conformance(t *testing.T, f Factory) {
	if f.Patience == 0 {
		f.Patience = 30 * time.Second
	}
	if f.Timeout == 0 {
		f.Timeout = 500 * time.Millisecond
	}
	for name, test := range map[string]func(*bench){
		"Probe": (*bench).probe, "Succeeds": (*bench).succeeds, "Fails": (*bench).fails, "WrongConfiguration": (*bench).wrong,
		"StopBeforeItBegins": (*bench).stopBefore, "StopWhileItRuns": (*bench).stopDuring, "StopAfterTheEnd": (*bench).stopAfter,
		"StopAfterTheAgentCameBack": (*bench).stopAfterReturn, "TooLate": (*bench).tooLate, "TimesOut": (*bench).timesOut,
		"TwoStarts": (*bench).twoStarts, "ManyWaits": (*bench).manyWaits,
		"DiesBeforeStart": (*bench).diesBeforeStart, "DiesAfterStart": (*bench).diesAfterStart, "DiesWhileItRuns": (*bench).diesDuring,
		"DiesAndItEndsMeanwhile": (*bench).endsMeanwhile, "DiesAfterTheEnd": (*bench).diesAfterEnd, "KilledWrapper": (*bench).killedWrapper,
		"KilledWrapperWhileCancelled": (*bench).killedWhileCancelled,
		"Secrets":                     (*bench).secrets, "Life": (*bench).life,
	} {
		t.Run(name, func(t *testing.T) {
			if !f.Alone {
				t.Parallel()
			}
			b := &bench{Factory: f, t: t, project: "conformance-" + strings.ToLower(name)}
			b.host = executor.Host{ClientID: "host-1", DataDir: t.TempDir(), Labels: map[string]string{"zone": "eu"}}
			if f.CleanUp != nil {
				t.Cleanup(func() { f.CleanUp(t, b.host, b.project) })
			}
			test(b)
		})
	}
}

// step makes one that behaves so; it installs version 1, or updates to the next.
func (b *bench) step(behaviour Behaviour) *executor.Step {
	b.t.Helper()
	b.steps++
	step := &executor.Step{
		ID: fmt.Sprintf("task-%d/deploy/host-1/0", b.steps), TaskID: fmt.Sprintf("task-%d", b.steps), Action: release.StepInstall,
		Project: b.project, Version: fmt.Sprintf("%d.0", b.steps), ConfigID: fmt.Sprintf("config-%d", b.steps),
		Host: b.host, NotAfter: time.Now().Add(time.Hour),
		Dir: filepath.Join(b.host.DataDir, "steps", fmt.Sprint(b.steps)),
	}
	if b.steps > 1 {
		step.Action, step.Previous = release.StepUpdate, fmt.Sprintf("%d.0", b.steps-1)
	}
	step.Log = spool.NewWriter(spool.Config{Path: filepath.Join(step.Dir, "spool")})
	b.t.Cleanup(func() { _ = step.Log.Close() })
	step.Config = b.Config(b.t, behaviour, step)
	if behaviour == UsesASecret {
		step.Secrets = map[string]string{"TOKEN": secretValue}
		require.NoError(b.t, executor.KeepSecrets(step.Dir, step.Secrets))
	}
	return step
}

// again is the step as the next life of the agent sees it.
func (b *bench) again(step *executor.Step) *executor.Step {
	b.t.Helper()
	_ = step.Log.Close()
	next := *step
	next.Log = spool.NewWriter(spool.Config{Path: filepath.Join(step.Dir, "spool")})
	b.t.Cleanup(func() { _ = next.Log.Close() })
	secrets, err := executor.ReadSecrets(step.Dir)
	require.NoError(b.t, err)
	next.Secrets = secrets
	return &next
}

// wait gives the result of a step.
func (b *bench) wait(x executor.Executor, step *executor.Step) *quicflowv1.StepResult {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), b.Patience)
	defer cancel()
	result := x.Wait(ctx, step)
	require.NotNil(b.t, result, "the step goes on and on")
	return result
}

// run carries out a step.
func (b *bench) run(step *executor.Step) *quicflowv1.StepResult {
	b.t.Helper()
	x := b.New(b.t)
	require.NoError(b.t, x.Start(context.Background(), step))
	return b.wait(x, step)
}

// abandon lets the agent die while a step runs, once it does.
func (b *bench) abandon(x executor.Executor, step *executor.Step) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan *quicflowv1.StepResult, 1)
	go func() { done <- x.Wait(ctx, step) }()
	b.begins(step)
	cancel()
	require.Nil(b.t, <-done, "the step goes on without the agent")
}

// begins waits until a step's work has begun.
func (b *bench) begins(step *executor.Step) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		if b.Effects != nil {
			return b.Effects(b.t, step) > 0
		}
		_, err := os.Stat(filepath.Join(step.Dir, "started"))
		return err == nil
	}, b.Patience, 5*time.Millisecond, "the step does not begin")
}

// effects checks how often a step's effect happened.
func (b *bench) effects(step *executor.Step, want int) {
	b.t.Helper()
	if b.Effects != nil {
		require.Equal(b.t, want, b.Effects(b.t, step), "effects of %s", step.ID)
	}
}

func (b *bench) outcome(want quicflowv1.Outcome, result *quicflowv1.StepResult) {
	b.t.Helper()
	require.Equal(b.t, want, result.Outcome, "%s\n%s", result.Error, result.StderrTail)
	require.NotContains(b.t, result.Error, "\n")
	require.NotZero(b.t, result.FinishedUnixMs)
	switch want {
	case quicflowv1.Outcome_OUTCOME_SUCCEEDED:
		require.Empty(b.t, result.Error)
		require.Zero(b.t, result.ExitCode)
	default:
		require.NotEmpty(b.t, result.Error)
	}
	if want == quicflowv1.Outcome_OUTCOME_REFUSED {
		require.Zero(b.t, result.StartedUnixMs)
	}
}

func (b *bench) logs(step *executor.Step) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), b.Patience)
	defer cancel()
	var out bytes.Buffer
	err := b.New(b.t).Logs(ctx, deployed(step), executor.LogOptions{Tail: 10}, &out)
	if b.HasLogs {
		require.NoError(b.t, err)
		return
	}
	require.Error(b.t, err)
	require.NotContains(b.t, err.Error(), "\n")
}

func deployed(step *executor.Step) executor.Deployed {
	return executor.Deployed{Project: step.Project, Version: step.Version, Config: step.Config, ConfigID: step.ConfigID, Host: step.Host}
}

func (b *bench) describe(step *executor.Step) executor.Running {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), b.Patience)
	defer cancel()
	running, err := b.New(b.t).Describe(ctx, deployed(step))
	require.NoError(b.t, err)
	require.Equal(b.t, step.Project, running.Project)
	require.Contains(b.t, states, running.State)
	return running
}

var states = []executor.RunState{
	executor.RunOK, executor.RunDegraded, executor.RunStopped, executor.RunMissing, executor.RunChanged, executor.RunUnknown,
}

// setTimeout sets the timeout of a configuration of any type, in a copy of its part.
func setTimeout(c *release.Merged, d time.Duration) {
	timeout := release.Duration(d)
	switch {
	case c.Script != nil:
		part := *c.Script
		part.Timeout, c.Script = timeout, &part
	case c.Container != nil:
		part := *c.Container
		part.Timeout, c.Container = timeout, &part
	case c.Git != nil:
		part := *c.Git
		part.Timeout, c.Git = timeout, &part
	case c.Kubernetes != nil:
		part := *c.Kubernetes
		part.Timeout, c.Kubernetes = timeout, &part
	}
}

// FilesWith lists the files below a directory that hold a text, in their order.
func FilesWith(t testing.TB, dir, text string) (found []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(text)) {
			found = append(found, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}))
	slices.Sort(found)
	return found
}
