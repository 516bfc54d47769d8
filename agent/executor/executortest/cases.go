package executortest

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func (b *bench) probe() {
	x := b.New(b.t)
	ctx, cancel := context.WithTimeout(context.Background(), b.Patience)
	defer cancel()
	first, err := x.Probe(ctx)
	require.NoError(b.t, err)
	require.Equal(b.t, x.Type(), first.Type)
	second, err := x.Probe(ctx)
	require.NoError(b.t, err)
	require.Equal(b.t, first, second, "facts change only when the host does")
}

func (b *bench) succeeds() {
	step := b.step(Succeeds)
	begin := time.Now().Add(-time.Second).UnixMilli()
	result := b.run(step)
	b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, result)
	require.Equal(b.t, step.ID, result.StepId)
	require.Greater(b.t, result.StartedUnixMs, begin)
	require.GreaterOrEqual(b.t, result.FinishedUnixMs, result.StartedUnixMs)
	require.False(b.t, result.TimedOut || result.NotStarted)
	end, err := spool.End(filepath.Join(step.Dir, "spool"))
	require.NoError(b.t, err)
	require.Equal(b.t, end, result.LogEnd)
	b.effects(step, 1)

	var running executor.Running
	require.NoError(b.t, json.Unmarshal(result.Result, &running))
	require.Equal(b.t, executor.RunOK, running.State, running.Reason)
	require.Equal(b.t, step.Version, running.Version)
	require.Equal(b.t, step.ConfigID, running.ConfigID)
	require.Equal(b.t, step.TaskID, running.TaskID)
	require.Equal(b.t, step.Project, running.Project)
}

func (b *bench) fails() {
	step := b.step(Fails)
	result := b.run(step)
	b.outcome(quicflowv1.Outcome_OUTCOME_FAILED, result)
	require.NotZero(b.t, result.ExitCode)
	require.NotZero(b.t, result.StartedUnixMs)
	require.False(b.t, result.TimedOut || result.NotStarted)
	require.NotEqual(b.t, executor.RunOK, b.describe(step).State)
}

func (b *bench) wrong() {
	x := b.New(b.t)
	step := b.step(Wrong)
	require.ErrorIs(b.t, x.Start(context.Background(), step), release.ErrInvalid)
	state, err := b.New(b.t).Recover(context.Background(), b.again(step))
	require.NoError(b.t, err)
	require.Equal(b.t, executor.NotStarted, state)
}

func (b *bench) stopBefore() {
	x := b.New(b.t)
	step := b.step(Succeeds)
	require.NoError(b.t, x.Start(context.Background(), step))
	x.Stop(step, &executor.Cancelled{Reason: "too early"})
	x.Stop(step, &executor.Cancelled{Reason: "again"})
	result := b.wait(x, step)
	b.outcome(quicflowv1.Outcome_OUTCOME_REFUSED, result)
	require.Contains(b.t, result.Error, "too early")
	b.effects(step, 0)
	// It never begins in another life of the agent either.
	next, again := b.New(b.t), b.again(step)
	state, err := next.Recover(context.Background(), again)
	require.NoError(b.t, err)
	require.Equal(b.t, executor.Ended, state)
	b.outcome(quicflowv1.Outcome_OUTCOME_REFUSED, b.wait(next, again))
	b.effects(step, 0)
}

func (b *bench) stopDuring() {
	x := b.New(b.t)
	step := b.step(Blocks)
	setTimeout(&step.Config, b.Patience)
	require.NoError(b.t, x.Start(context.Background(), step))
	results := make(chan *quicflowv1.StepResult, 1)
	go func() { results <- b.wait(x, step) }()
	b.begins(step)
	for range 3 {
		x.Stop(step, &executor.Cancelled{Reason: "enough"})
	}
	result := <-results
	b.outcome(quicflowv1.Outcome_OUTCOME_CANCELLED, result)
	require.Contains(b.t, result.Error, "enough")
	require.NotEqual(b.t, executor.RunOK, b.describe(step).State)
}

func (b *bench) stopAfter() {
	x := b.New(b.t)
	step := b.step(Succeeds)
	require.NoError(b.t, x.Start(context.Background(), step))
	b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.wait(x, step))
	x.Stop(step, &executor.Cancelled{Reason: "too late"})
	next, again := b.New(b.t), b.again(step)
	state, err := next.Recover(context.Background(), again)
	require.NoError(b.t, err)
	require.Equal(b.t, executor.Ended, state)
	b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.wait(next, again))
}

func (b *bench) stopAfterReturn() {
	first := b.New(b.t)
	step := b.step(Blocks)
	setTimeout(&step.Config, b.Patience)
	require.NoError(b.t, first.Start(context.Background(), step))
	b.abandon(first, step)
	x, again := b.New(b.t), b.again(step)
	state, err := x.Recover(context.Background(), again)
	require.NoError(b.t, err)
	require.Equal(b.t, executor.GoesOn, state)
	x.Stop(again, &executor.Cancelled{})
	b.outcome(quicflowv1.Outcome_OUTCOME_CANCELLED, b.wait(x, again))
}

func (b *bench) tooLate() {
	step := b.step(Succeeds)
	step.NotAfter = time.Now().Add(-time.Second)
	result := b.run(step)
	b.outcome(quicflowv1.Outcome_OUTCOME_REFUSED, result)
	require.Contains(b.t, result.Error, "too late")
	b.effects(step, 0)
}

func (b *bench) timesOut() {
	step := b.step(Blocks)
	setTimeout(&step.Config, b.Timeout)
	result := b.run(step)
	b.outcome(quicflowv1.Outcome_OUTCOME_FAILED, result)
	require.True(b.t, result.TimedOut)
	require.Contains(b.t, result.Error, "timed out")
	require.NotEqual(b.t, executor.RunOK, b.describe(step).State)
}

func (b *bench) twoStarts() {
	x := b.New(b.t)
	step := b.step(Succeeds)
	require.NoError(b.t, x.Start(context.Background(), step))
	require.Error(b.t, x.Start(context.Background(), step))
	b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.wait(x, step))
	require.Error(b.t, b.New(b.t).Start(context.Background(), b.again(step)))
	b.effects(step, 1)
}

// Several lives of an agent at once, as after a kill at a bad moment.
func (b *bench) manyWaits() {
	first := b.New(b.t)
	step := b.step(TakesASec)
	require.NoError(b.t, first.Start(context.Background(), step))
	var group sync.WaitGroup
	for range 4 {
		x := b.New(b.t)
		group.Go(func() {
			if _, err := x.Recover(context.Background(), step); err != nil {
				b.t.Error(err)
			}
			b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.wait(x, step))
		})
	}
	group.Wait()
	b.effects(step, 1)
}

func (b *bench) diesBeforeStart() {
	step := b.step(Succeeds)
	x := b.New(b.t)
	state, err := x.Recover(context.Background(), step)
	require.NoError(b.t, err)
	require.Equal(b.t, executor.NotStarted, state)
	require.NoError(b.t, x.Start(context.Background(), step))
	b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.wait(x, step))
	b.effects(step, 1)
}

// resume goes on with a step in the next life of the agent.
func (b *bench) resume(step *executor.Step) *quicflowv1.StepResult {
	b.t.Helper()
	x, again := b.New(b.t), b.again(step)
	state, err := x.Recover(context.Background(), again)
	require.NoError(b.t, err)
	require.NotEqual(b.t, executor.Unknown, state)
	if state == executor.NotStarted {
		require.NoError(b.t, x.Start(context.Background(), again))
	}
	return b.wait(x, again)
}

func (b *bench) diesAfterStart() {
	step := b.step(Succeeds)
	require.NoError(b.t, b.New(b.t).Start(context.Background(), step))
	b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.resume(step))
	b.effects(step, 1)
}

func (b *bench) diesDuring() {
	x := b.New(b.t)
	step := b.step(TakesASec)
	require.NoError(b.t, x.Start(context.Background(), step))
	b.abandon(x, step)
	b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.resume(step))
	b.effects(step, 1)
}

func (b *bench) endsMeanwhile() {
	x := b.New(b.t)
	step := b.step(TakesASec)
	require.NoError(b.t, x.Start(context.Background(), step))
	b.abandon(x, step)
	x, again := b.New(b.t), b.again(step)
	require.Eventually(b.t, func() bool {
		state, err := x.Recover(context.Background(), again)
		return err == nil && state == executor.Ended
	}, b.Patience, 10*time.Millisecond, "it ends by itself")
	b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.wait(x, again))
	b.effects(step, 1)
}

func (b *bench) diesAfterEnd() {
	step := b.step(Succeeds)
	first := b.run(step)
	second := b.resume(step)
	require.Equal(b.t, first.Outcome, second.Outcome)
	require.Equal(b.t, first.FinishedUnixMs, second.FinishedUnixMs, "the result is the same")
	b.effects(step, 1)
}

// wrapperPID gives the process of a step's wrapper, 0 if the executor has none.
func (b *bench) wrapperPID(step *executor.Step) int {
	text, err := os.ReadFile(filepath.Join(step.Dir, "wrapper.pid"))
	if err != nil {
		return 0
	}
	id, _, _ := strings.Cut(string(text), " ")
	pid, _ := strconv.Atoi(id)
	return pid
}

func (b *bench) killedWrapper() {
	x := b.New(b.t)
	step := b.step(TakesASec)
	require.NoError(b.t, x.Start(context.Background(), step))
	results := make(chan *quicflowv1.StepResult, 1)
	go func() { results <- b.wait(x, step) }()
	b.begins(step)
	pid := b.wrapperPID(step)
	require.Positive(b.t, pid, "it runs under a wrapper")
	require.NoError(b.t, syscall.Kill(pid, syscall.SIGKILL))
	result := <-results
	if b.SurvivesKill {
		b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, result)
	} else {
		b.outcome(quicflowv1.Outcome_OUTCOME_UNKNOWN, result)
		require.Contains(b.t, result.Error, "cannot be known")
	}
	b.effects(step, 1)
}

// A wrapper that died before it could stop leaves that to the next one.
func (b *bench) killedWhileCancelled() {
	x := b.New(b.t)
	step := b.step(Blocks)
	setTimeout(&step.Config, b.Patience)
	require.NoError(b.t, x.Start(context.Background(), step))
	results := make(chan *quicflowv1.StepResult, 1)
	go func() { results <- b.wait(x, step) }()
	b.begins(step)
	pid := b.wrapperPID(step)
	require.Positive(b.t, pid, "it runs under a wrapper")
	require.NoError(b.t, syscall.Kill(pid, syscall.SIGSTOP))
	x.Stop(step, &executor.Cancelled{Reason: "enough"})
	require.NoError(b.t, syscall.Kill(pid, syscall.SIGKILL))
	result := <-results
	require.Contains(b.t, []quicflowv1.Outcome{quicflowv1.Outcome_OUTCOME_CANCELLED, quicflowv1.Outcome_OUTCOME_UNKNOWN}, result.Outcome)
	require.NotEqual(b.t, executor.RunOK, b.describe(step).State)
}

// A secret is in a file of its own, and in no other of the step's; the executor leaves it nowhere else on the disk.
func (b *bench) secrets() {
	x := b.New(b.t)
	lacking := b.step(UsesASecret)
	lacking.Secrets = nil
	require.ErrorIs(b.t, x.Start(context.Background(), lacking), release.ErrInvalid, "there is no such variable")

	step := b.step(UsesASecret)
	b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.run(step))
	want := []string{filepath.Join(lacking.Dir, "secrets.json"), filepath.Join(step.Dir, "secrets.json")}
	require.Equal(b.t, want, FilesWith(b.t, b.host.DataDir, secretValue))
	for _, path := range want {
		info, err := os.Stat(path)
		require.NoError(b.t, err)
		require.Equal(b.t, fs.FileMode(0o600), info.Mode().Perm())
	}
}

// A project from its installation to its end.
func (b *bench) life() {
	before := b.step(Succeeds)
	require.Equal(b.t, executor.RunMissing, b.describe(before).State)
	b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.run(before))
	running := b.describe(before)
	require.Equal(b.t, executor.RunOK, running.State, running.Reason)
	require.Equal(b.t, "1.0", running.Version)
	require.Equal(b.t, before.ConfigID, running.ConfigID)
	b.logs(before)

	update := b.step(Succeeds)
	b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.run(update))
	running = b.describe(update)
	require.Equal(b.t, executor.RunOK, running.State, running.Reason)
	require.Equal(b.t, "2.0", running.Version)

	rollback := b.step(Succeeds)
	rollback.Action, rollback.Version, rollback.Config, rollback.ConfigID = release.StepRollbackTo, before.Version, before.Config, before.ConfigID
	b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.run(rollback))
	running = b.describe(rollback)
	require.Equal(b.t, executor.RunOK, running.State, running.Reason)
	require.Equal(b.t, "1.0", running.Version)
	require.Equal(b.t, before.ConfigID, running.ConfigID)

	for range 2 { // what is gone can be removed
		uninstall := b.step(Succeeds)
		uninstall.Action, uninstall.Version, uninstall.Previous, uninstall.Config = release.StepUninstall, "", before.Version, before.Config
		b.outcome(quicflowv1.Outcome_OUTCOME_SUCCEEDED, b.run(uninstall))
		require.Equal(b.t, executor.RunMissing, b.describe(before).State)
	}
}
