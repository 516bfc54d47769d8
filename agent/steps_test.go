package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// gate is an executor that counts its runs and holds each step until it is opened, or until it is cancelled.
type gate struct {
	runs atomic.Int32
	open chan struct{}
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) Run(ctx context.Context, _ *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult {
	g.runs.Add(1)
	log.Printf("running")
	select {
	case <-g.open:
		return succeeded()
	case <-ctx.Done():
		if c := executor.CancelledBy(ctx); c != nil {
			return executor.EndedWith(quicflowv1.Outcome_OUTCOME_CANCELLED, c.Error())
		}
		return nil
	}
}

func TestRepeatedStepRunsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, g := w.config("a"), newGate()
	cfg.Executor = g
	w.connect(cfg)
	s := step("a", "0", "x")
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() { w.accepted("a", s) })
	}
	group.Wait()
	close(g.open)
	require.Equal(t, release.StepSucceeded, w.result(s.StepId).State)
	w.forgotten(cfg.DataDir)
	again := w.request("a", s).GetStep()
	require.Equal(t, quicflowv1.StepState_STEP_STATE_FINISHED, again.GetState())
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, again.GetResult().GetOutcome())
	require.EqualValues(t, 1, g.runs.Load())
	require.Equal(t, "running\n", w.output(s.StepId, release.StreamSystem))
}

func TestStepsThatAreNotAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, g := w.config("a"), newGate()
	cfg.Executor, cfg.MaxSteps, cfg.MaxJournal = g, 2, 3
	w.connect(cfg)
	code := func(change func(*quicflowv1.StepRequest)) quicflowv1.FailureCode {
		s := step("a", "9", "x")
		change(s)
		return w.request("a", s).GetFailure().GetCode()
	}
	invalid := quicflowv1.FailureCode_FAILURE_CODE_INVALID
	require.Equal(t, invalid, code(func(s *quicflowv1.StepRequest) { s.StepId = stepID("b", "0") }))
	require.Equal(t, invalid, code(func(s *quicflowv1.StepRequest) { s.StepId = "../../x" }))
	require.Equal(t, invalid, code(func(s *quicflowv1.StepRequest) { s.NotAfterUnixMs = 0 }))
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, code(func(s *quicflowv1.StepRequest) { s.Spec = nil }))

	w.accepted("a", step("a", "0", "x"))
	w.accepted("a", step("a", "1", "x"))
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, code(func(*quicflowv1.StepRequest) {}))
	w.accepted("a", step("a", "0", "x")) // known ones are answered all the same

	w.store.with(func() { w.store.broken = true }) // nothing is confirmed
	close(g.open)
	w.eventually(func() (both bool) {
		w.store.with(func() { both = w.store.deliverd[stepID("a", "0")] > 0 && w.store.deliverd[stepID("a", "1")] > 0 })
		return both
	}, "results come")
	w.online("a")
	w.eventually(func() bool { // the session ends now and then, as nothing can be stored
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		response, err := w.hub.Request(ctx, "a", &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: step("a", "9", "x")}})
		return err == nil && response.GetStep() != nil
	}, "the third fits")
	w.eventually(func() bool { return g.runs.Load() == 3 }, "it runs")
	w.online("a")
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_JOURNAL_FULL, code(func(s *quicflowv1.StepRequest) { s.StepId = stepID("a", "10") }))
	require.EqualValues(t, 3, g.runs.Load())
}

func TestLateStepIsRefusedForGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, g := w.config("a"), newGate()
	cfg.Executor = g
	w.connect(cfg)
	s := step("a", "0", "x")
	s.NotAfterUnixMs = time.Now().Add(-time.Second).UnixMilli()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, w.request("a", s).GetStep().GetResult().GetOutcome())
	require.Equal(t, release.StepRefused, w.result(s.StepId).State)
	require.Zero(t, g.runs.Load())
}

func TestCancel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, g := w.config("a"), newGate()
	cfg.Executor = g
	w.connect(cfg)
	w.accepted("a", step("a", "0", "x"))
	w.eventually(func() bool { return g.runs.Load() == 1 }, "the step runs")
	w.cancelStep("a", stepID("a", "0"))
	result := w.result(stepID("a", "0"))
	require.Equal(t, release.StepCancelled, result.State)
	require.Equal(t, "cancelled: because", result.Error)

	// A step that never came is marked, and does not start when it comes.
	status := w.cancelStep("a", stepID("a", "1")).GetStep()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, status.GetResult().GetOutcome())
	require.Equal(t, release.StepRefused, w.result(stepID("a", "1")).State)
	again := w.request("a", step("a", "1", "x")).GetStep()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, again.GetResult().GetOutcome())
	require.EqualValues(t, 1, g.runs.Load())

	// One that has ended stays as it ended.
	close(g.open)
	w.accepted("a", step("a", "2", "x"))
	require.Equal(t, release.StepSucceeded, w.result(stepID("a", "2")).State)
	w.eventually(func() bool {
		return w.cancelStep("a", stepID("a", "2")).GetStep().GetResult().GetOutcome() == quicflowv1.Outcome_OUTCOME_SUCCEEDED
	}, "result")
}

// Request and cancellation race: the step runs or it does not, and what is reported is what happened.
func TestCancelRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, g := w.config("a"), newGate()
	cfg.Executor = g
	w.connect(cfg)
	ran := int32(0)
	for i := range 30 {
		s := step("a", string(rune('a'+i)), "x")
		s.StepId = stepID("a", itoa(i))
		var group sync.WaitGroup
		group.Go(func() { w.request("a", s) })
		group.Go(func() { w.cancelStep("a", s.StepId) })
		group.Wait()
		switch result := w.result(s.StepId); result.State {
		case release.StepCancelled:
			ran++
		case release.StepRefused:
		default:
			require.Fail(t, "unexpected", "%+v", result)
		}
		require.Equal(t, ran, g.runs.Load())
	}
}

// An executor in process cannot tell what became of its steps, so they are unknown; they do not run again.
func TestUnfinishedStepIsUnknownAfterRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, g := w.config("a"), newGate()
	cfg.Executor = g
	first := w.connect(cfg)
	w.accepted("a", step("a", "0", "x"))
	w.eventually(func() bool { return g.runs.Load() == 1 }, "it runs")
	first.stop()
	w.connect(cfg)
	result := w.result(stepID("a", "0"))
	require.Equal(t, release.StepUnknown, result.State)
	require.Contains(t, result.Error, "restarted")
	require.EqualValues(t, 1, g.runs.Load())
	require.Equal(t, "running\n", w.output(stepID("a", "0"), release.StreamSystem))
	w.forgotten(cfg.DataDir)
}

func TestResultIsCutToSize(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	cfg.Executor = executorFunc(func(context.Context, *quicflowv1.StepRequest, *spool.Writer) *quicflowv1.StepResult {
		return &quicflowv1.StepResult{
			Outcome: quicflowv1.Outcome_OUTCOME_FAILED, Error: "two\nlines\xff", StdoutTail: make([]byte, 100_000),
		}
	})
	w.connect(cfg)
	w.accepted("a", step("a", "0", "x"))
	result := w.result(stepID("a", "0"))
	require.Equal(t, "two lines�", result.Error)
	require.Len(t, result.StdoutTail, 4096)
}

// Two scripts of a project at once would undo each other's work.
func TestStepsOfAProjectTakeTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, g := w.config("a"), newGate()
	cfg.Executor = g
	w.connect(cfg)
	other := step("a", "2", "x")
	other.Project = "other"
	w.accepted("a", step("a", "0", "x"))
	w.accepted("a", step("a", "1", "x"))
	w.accepted("a", other)
	w.eventually(func() bool { return g.runs.Load() == 2 }, "another project's step need not wait")
	require.Equal(t, quicflowv1.StepState_STEP_STATE_ACCEPTED, w.request("a", step("a", "1", "x")).GetStep().GetState())
	require.EqualValues(t, 2, g.runs.Load())

	// One that waits never started.
	w.accepted("a", step("a", "3", "x"))
	w.cancelStep("a", stepID("a", "3"))
	require.Equal(t, release.StepRefused, w.result(stepID("a", "3")).State)
	close(g.open)
	require.Equal(t, release.StepSucceeded, w.result(stepID("a", "1")).State)
	require.EqualValues(t, 3, g.runs.Load())
}

// The server may have given the deploy step up, and not know that it still runs.
func TestRollbackEndsTheStepThatItUndoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, g := w.config("a"), newGate()
	var order []string
	cfg.Executor = executorFunc(func(ctx context.Context, s *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult {
		if s.Action == string(release.StepRollbackTo) {
			order = append(order, "rollback")
			return succeeded()
		}
		result := g.Run(ctx, s, log)
		order = append(order, "deploy")
		return result
	})
	w.connect(cfg)
	deploy := step("a", "0", "x")
	w.accepted("a", deploy)
	w.eventually(func() bool { return g.runs.Load() == 1 }, "the deploy step runs")
	rollback := step("a", "0", "x")
	rollback.StepId, rollback.Action = release.StepID("task", release.StepRollback, "a", 0), string(release.StepRollbackTo)
	w.accepted("a", rollback)
	require.Equal(t, release.StepSucceeded, w.result(rollback.StepId).State)
	require.Equal(t, release.StepCancelled, w.result(deploy.StepId).State)
	require.Equal(t, []string{"deploy", "rollback"}, order)
}

// resumable counts how often it goes on with a step.
type resumable struct {
	*gate
	resumed atomic.Int32
}

func (r *resumable) Resume(ctx context.Context, s *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult {
	r.resumed.Add(1)
	return r.Run(ctx, s, log)
}

// The original may have carried out what the copy of its journal takes for unfinished, so that must not begin once more.
func TestRestoredJournalRunsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, r := w.config("a"), &resumable{gate: newGate()}
	cfg.Executor = r
	first := w.connect(cfg)
	w.accepted("a", step("a", "0", "x"))
	w.eventually(func() bool { return r.runs.Load() == 1 }, "it runs")
	first.stop()
	restored := t.TempDir()
	require.NoError(t, os.CopyFS(restored, os.DirFS(cfg.DataDir)))
	require.NoError(t, filepath.Walk(restored, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			err = os.Chmod(path, info.Mode()&0o700)
		}
		return err
	}))
	cfg.DataDir = restored
	close(r.open)
	w.connect(cfg)
	result := w.result(stepID("a", "0"))
	require.Equal(t, release.StepUnknown, result.State)
	require.Contains(t, result.Error, "restored from a copy")
	require.Equal(t, "running\n", w.output(stepID("a", "0"), release.StreamSystem))
	require.Zero(t, r.resumed.Load())
	require.EqualValues(t, 1, r.runs.Load())
	w.store.with(func() {
		require.Len(t, w.store.sessions, 2)
		require.NotEqual(t, w.store.sessions[0].JournalID, w.store.sessions[1].JournalID, "the server sees another journal")
		require.Greater(t, w.store.sessions[1].Generation, w.store.sessions[0].Generation, "though it went forward")
	})
	w.forgotten(restored)
}
