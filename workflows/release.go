package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/quicflow/quicflow/internal/release"
)

// ReleaseWorkflowName is the type under which ReleaseWorkflow is registered.
const ReleaseWorkflowName = "ReleaseWorkflow"

// ReleaseInput starts a ReleaseWorkflow.
type ReleaseInput struct {
	TaskID           string
	Project          string
	Version          string
	SearchAttributes bool // whether the cluster knows ours
	// Carried is the state that a continued run takes over; nil in the first one.
	Carried *ReleaseState
}

// ReleaseState is all that a rollout remembers. It is what the query "state" answers and what a continued run carries.
type ReleaseState struct {
	Plan      Plan
	Status    release.Status
	Phase     release.Phase
	Next      int // index in Plan.Waves of the wave at work, or of the next one
	Soaked    bool
	SoakUntil time.Time
	Promoted  bool
	Failing   bool           // its failure budget is spent: nothing new starts any more, and it is about to end
	Ending    release.Status // StatusAborting or StatusRollingBack once that was decided
	Reason    string
	Avoid     []string // queues that did not answer in the last round
	Updates   []string // ids of the updates that were carried out, the latest last
}

type releaseRun struct {
	input   ReleaseInput
	state   ReleaseState
	writes  workflow.Mutex // orders what RecordProgress writes
	fences  workflow.Mutex // orders what SetHalt writes
	updates workflow.Mutex // lets updates take turns

	stopDispatch workflow.CancelFunc // cancels the chunks in flight; nil when there are none
}

// ReleaseWorkflow brings one task over its targets: canary, soak, promotion, waves; or back again.
func ReleaseWorkflow(ctx workflow.Context, input ReleaseInput) error {
	r := &releaseRun{input: input, writes: workflow.NewMutex(ctx), fences: workflow.NewMutex(ctx), updates: workflow.NewMutex(ctx)}
	if input.Carried != nil {
		r.state = *input.Carried
	} else {
		r.state = ReleaseState{Status: release.StatusRunning, Phase: release.PhasePlan}
	}
	if err := r.handleUpdates(ctx); err != nil {
		return err
	}
	if err := r.run(ctx); err != nil {
		return err
	}
	return allHandled(ctx)
}

func (r *releaseRun) run(ctx workflow.Context) error {
	if r.state.Plan.Total == 0 {
		if err := workflow.ExecuteActivity(storeOptions(ctx), ActivityLoadPlan, PlanRequest{TaskID: r.input.TaskID}).Get(ctx, &r.state.Plan); err != nil {
			return fmt.Errorf("load plan: %w", err)
		}
	}
	if err := r.goForward(ctx); err != nil {
		return err
	}
	switch r.state.Ending {
	case release.StatusAborting:
		return r.abort(ctx)
	case release.StatusRollingBack:
		return r.rollBack(ctx)
	}
	return nil
}

// goForward goes through the waves that are left, until all are done, or an end was decided.
func (r *releaseRun) goForward(ctx workflow.Context) error {
	for r.state.Ending == "" && r.state.Next < len(r.state.Plan.Waves) {
		wave := r.state.Plan.Waves[r.state.Next]
		if wave.Canary {
			r.state.Phase = release.PhaseCanary
		} else {
			r.state.Phase = release.PhaseWave
		}
		if !r.state.Soaked {
			verdict, err := r.deployWave(ctx, wave)
			if err != nil {
				return err
			}
			if verdict.Stop && r.state.Ending == "" {
				return r.giveUp(ctx, verdict.Reason)
			}
		}
		if wave.Canary && r.state.Ending == "" {
			if err := r.soak(ctx); err != nil {
				return err
			}
		}
		if r.state.Ending == "" {
			r.state.Next++
			r.state.Soaked = false
		}
	}
	if r.state.Ending != "" {
		return nil
	}
	counts, err := r.count(ctx)
	for err == nil && r.state.Ending == "" && r.state.Status == release.StatusPaused {
		if err = r.gate(ctx); err == nil {
			counts, err = r.count(ctx)
		}
	}
	if err != nil || r.state.Ending != "" {
		return err
	}
	final := release.FinalStatus(counts.All)
	reason := ""
	if final != release.StatusSucceeded {
		reason = fmt.Sprintf("%d of %d hosts did it: %d failed, %d unknown, %d offline",
			counts.All.Succeeded, counts.All.Total, counts.All.Failed, counts.All.Unknown, counts.All.Offline)
	}
	return r.end(ctx, final, reason)
}

// deployWave dispatches a wave until each of its hosts is decided, or the verdict or a person stops it.
func (r *releaseRun) deployWave(ctx workflow.Context, wave release.Wave) (release.Verdict, error) {
	var verdict release.Verdict // once it says stop it stands, whatever comes late
	for {
		if err := r.gate(ctx); err != nil || r.state.Ending != "" {
			return release.Verdict{}, err
		}
		if err := r.record(ctx); err != nil {
			return release.Verdict{}, err
		}
		counts, err := r.count(ctx)
		if err != nil {
			return release.Verdict{}, err
		}
		inWave := counts.ByWave[wave.Number]
		if !verdict.Stop {
			verdict = release.JudgeWave(r.state.Plan.Strategy, wave, inWave, counts.All)
		}
		if verdict.Stop {
			if inWave.Running == 0 || r.state.Plan.Strategy.OnFailure == release.OnFailureRollback {
				return verdict, nil
			}
			// A hub was lost with hosts at work. They are seen through before the end; the fence keeps others from starting.
			r.state.Failing = true
			if err := r.halt(ctx, true); err != nil {
				return release.Verdict{}, err
			}
		}
		if inWave.Pending+inWave.Running == 0 {
			return verdict, nil
		}
		chunks, err := r.planChunks(ctx, release.StepDeploy, wave.Number)
		if err != nil {
			return release.Verdict{}, err
		}
		if len(chunks) > 0 && r.state.Ending == "" {
			budget := release.BudgetLeft(r.state.Plan.Strategy, wave, inWave, counts.All)
			if err := r.dispatch(ctx, release.StepDeploy, chunks, budget); err != nil {
				return release.Verdict{}, err
			}
		}
		if verdict.Stop {
			continue
		}
		if err := r.continueIfLong(ctx); err != nil {
			return release.Verdict{}, err
		}
	}
}

// soak lets the canary hosts run for their time, then waits for a person where promotion is manual.
func (r *releaseRun) soak(ctx workflow.Context) error {
	canary := r.state.Plan.Strategy.Canary
	if !r.state.Soaked {
		if r.state.SoakUntil.IsZero() {
			r.state.SoakUntil = workflow.Now(ctx).Add(canary.Soak.Std())
		}
		r.state.Phase = release.PhaseSoak
		if err := r.record(ctx); err != nil {
			return err
		}
		moved := func() bool { return r.state.Promoted || r.state.Ending != "" }
		if _, err := workflow.AwaitWithTimeout(ctx, r.state.SoakUntil.Sub(workflow.Now(ctx)), moved); err != nil {
			return err
		}
		r.state.Soaked = true
	}
	if canary.Promote == release.PromoteManual && !r.state.Promoted && r.state.Ending == "" {
		r.state.Phase = release.PhasePromotion
		if err := r.record(ctx); err != nil {
			return err
		}
		if err := workflow.Await(ctx, func() bool { return r.state.Promoted || r.state.Ending != "" }); err != nil {
			return err
		}
	}
	return r.gate(ctx)
}

// gate holds a paused rollout until it is resumed or ended.
func (r *releaseRun) gate(ctx workflow.Context) error {
	return workflow.Await(ctx, func() bool { return r.state.Status != release.StatusPaused || r.state.Ending != "" })
}

// giveUp ends a rollout whose failure budget is spent.
func (r *releaseRun) giveUp(ctx workflow.Context, reason string) error {
	r.state.Failing = true
	if err := r.halt(ctx, true); err != nil || r.state.Ending != "" {
		return err
	}
	if r.state.Plan.Strategy.OnFailure == release.OnFailureRollback {
		r.state.Ending, r.state.Status, r.state.Reason = release.StatusRollingBack, release.StatusRollingBack, reason
		return nil
	}
	return r.end(ctx, release.StatusFailed, reason)
}

func (r *releaseRun) abort(ctx workflow.Context) error {
	if err := r.record(ctx); err != nil {
		return err
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	if r.state.Ending == release.StatusRollingBack { // decided while the abort was going on
		return r.rollBack(ctx)
	}
	return r.end(ctx, release.StatusAborted, r.state.Reason)
}

// rollBack returns every touched host, and no other, to what it ran before.
func (r *releaseRun) rollBack(ctx workflow.Context) error {
	r.state.Phase = release.PhaseRollback
	if err := r.record(ctx); err != nil {
		return err
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	for {
		chunks, err := r.planChunks(ctx, release.StepRollback, 0)
		if err != nil {
			return err
		}
		if len(chunks) == 0 {
			break
		}
		if err := r.dispatch(ctx, release.StepRollback, chunks, -1); err != nil {
			return err
		}
		if err := r.continueIfLong(ctx); err != nil {
			return err
		}
	}
	counts, err := r.count(ctx)
	if err != nil {
		return err
	}
	if n := counts.All.RollbackFailed; n > 0 {
		return r.end(ctx, release.StatusFailed, fmt.Sprintf("%s; rolled back, but %d of %d touched hosts did not return",
			r.state.Reason, n, n+counts.All.RolledBack))
	}
	return r.end(ctx, release.StatusRolledBack, r.state.Reason)
}

// settle asks the hosts at work to stop, and gives up on those that do not answer.
func (r *releaseRun) settle(ctx workflow.Context) error {
	if r.state.Next >= len(r.state.Plan.Waves) {
		return nil
	}
	wave := r.state.Plan.Waves[r.state.Next].Number
	for round := 0; round < maxSettleRounds; round++ {
		counts, err := r.count(ctx)
		if err != nil {
			return err
		}
		if counts.All.Running == 0 {
			return nil
		}
		chunks, err := r.planChunks(ctx, release.StepDeploy, wave)
		if err != nil {
			return err
		}
		if err := r.dispatchAll(ctx, chunks, func(chunk Chunk) any {
			return DispatchRequest{TaskID: r.input.TaskID, Step: release.StepDeploy, Chunk: chunk.Number, Parallel: chunk.Size, Cancel: true}
		}, func(DispatchReport) {}); err != nil {
			return err
		}
	}
	return nil
}

// maxSettleRounds bounds how often a hub that does not answer is asked to stop what runs. What is left then counts as
// touched, and is rolled back like the rest.
const maxSettleRounds = 5

func (r *releaseRun) end(ctx workflow.Context, status release.Status, reason string) error {
	r.state.Status, r.state.Phase, r.state.Reason = status, release.PhaseDone, reason
	return r.record(ctx)
}

// record writes the present state. Writers take turns and each writes what holds at its turn, so the last one is right.
func (r *releaseRun) record(ctx workflow.Context) error {
	if err := r.writes.Lock(ctx); err != nil {
		return err
	}
	defer r.writes.Unlock()
	wave := 0
	if n := len(r.state.Plan.Waves); n > 0 {
		wave = r.state.Plan.Waves[min(r.state.Next, n-1)].Number
	}
	request := ProgressRequest{TaskID: r.input.TaskID, Status: r.state.Status, Phase: r.state.Phase, Wave: wave,
		Reason: r.state.Reason, At: workflow.Now(ctx)}
	if r.state.Phase == release.PhaseSoak {
		until := r.state.SoakUntil
		request.SoakUntil = &until
	}
	if r.input.SearchAttributes {
		if err := workflow.UpsertTypedSearchAttributes(ctx, AttributeStatus.ValueSet(string(r.state.Status))); err != nil {
			return fmt.Errorf("set search attribute: %w", err)
		}
	}
	if err := workflow.ExecuteActivity(storeOptions(ctx), ActivityRecord, request).Get(ctx, nil); err != nil {
		return fmt.Errorf("record progress: %w", err)
	}
	return nil
}

// halt raises or lifts the fence. Writers take turns; it stays up for a rollout that is failing, or about to end.
func (r *releaseRun) halt(ctx workflow.Context, halted bool) error {
	if err := r.fences.Lock(ctx); err != nil {
		return err
	}
	defer r.fences.Unlock()
	request := HaltRequest{TaskID: r.input.TaskID, Halted: halted || r.state.Failing || r.state.Ending != ""}
	if err := workflow.ExecuteActivity(storeOptions(ctx), ActivitySetHalt, request).Get(ctx, nil); err != nil {
		return fmt.Errorf("set halt: %w", err)
	}
	return nil
}

func (r *releaseRun) count(ctx workflow.Context) (TargetCounts, error) {
	var counts TargetCounts
	if err := workflow.ExecuteActivity(storeOptions(ctx), ActivityCountTargets, CountRequest{TaskID: r.input.TaskID}).Get(ctx, &counts); err != nil {
		return counts, fmt.Errorf("count targets: %w", err)
	}
	return counts, nil
}

func (r *releaseRun) planChunks(ctx workflow.Context, step release.StepName, wave int) ([]Chunk, error) {
	request := ChunksRequest{TaskID: r.input.TaskID, Step: step, Wave: wave, Size: ChunkSize, Avoid: r.state.Avoid}
	var plan ChunkPlan
	if err := workflow.ExecuteActivity(planOptions(ctx), ActivityPlanChunks, request).Get(ctx, &plan); err != nil {
		return nil, fmt.Errorf("plan chunks: %w", err)
	}
	return plan.Chunks, nil
}

// continueIfLong starts a fresh run before history grows. It is called with no activity in flight.
func (r *releaseRun) continueIfLong(ctx workflow.Context) error {
	if !workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
		return nil
	}
	if err := allHandled(ctx); err != nil {
		return err
	}
	next, state := r.input, r.state
	state.Updates = latestUpdates(state.Updates)
	next.Carried = &state
	return workflow.NewContinueAsNewError(ctx, ReleaseWorkflowName, next)
}
