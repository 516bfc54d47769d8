package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/quicflow/quicflow/internal/release"
)

// The updates of a ReleaseWorkflow, beside UpdatePause and UpdateResume.
const (
	UpdatePromote  = "promote"
	UpdateAbort    = "abort"
	UpdateRollback = "rollback"
)

// handleUpdates registers the handlers. One that has answered has also raised the fence: after an answered pause,
// abort or rollback nothing new starts.
func (r *releaseRun) handleUpdates(ctx workflow.Context) error {
	err := handleUpdates(ctx, r.updates, &r.state.Updates, []update{
		{UpdatePromote, r.mayPromote, r.promote},
		{UpdatePause, r.mayPause, r.pause},
		{UpdateResume, r.mayResume, r.resume},
		{UpdateAbort, r.mayAbort, r.endWith(release.StatusAborting, "aborted")},
		{UpdateRollback, r.mayRollBack, r.endWith(release.StatusRollingBack, "rolled back")},
	})
	if err != nil {
		return err
	}
	return workflow.SetQueryHandler(ctx, QueryState, func() (ReleaseState, error) { return r.state, nil })
}

// mayAct holds for every update: the rollout has not ended and is not about to.
func (r *releaseRun) mayAct(verb string) error {
	if r.state.Status.Terminal() {
		return conflict("cannot %s: the rollout has ended (%s)", verb, r.state.Status)
	}
	if r.state.Ending == release.StatusRollingBack {
		return conflict("cannot %s: the rollout is being rolled back", verb)
	}
	return nil
}

func (r *releaseRun) mayPromote() error {
	if err := r.mayAct("promote"); err != nil {
		return err
	}
	switch {
	case r.state.Ending != "":
		return conflict("cannot promote: the rollout is being aborted")
	case r.state.Status == release.StatusPaused:
		return conflict("cannot promote: the rollout is paused; resume it first")
	case r.state.Phase != release.PhaseSoak && r.state.Phase != release.PhasePromotion:
		return conflict("cannot promote: the rollout is in its %s phase; only a canary that soaks or waits is promoted", r.state.Phase)
	case r.state.Promoted:
		return conflict("cannot promote: it was promoted already")
	}
	return nil
}

func (r *releaseRun) mayPause() error {
	if err := r.mayAct("pause"); err != nil {
		return err
	}
	if r.state.Ending != "" {
		return conflict("cannot pause: the rollout is being aborted")
	}
	if r.state.Status == release.StatusPaused {
		return conflict("cannot pause: the rollout is paused already")
	}
	return nil
}

func (r *releaseRun) mayResume() error {
	if err := r.mayAct("resume"); err != nil {
		return err
	}
	if r.state.Status != release.StatusPaused {
		return conflict("cannot resume: the rollout is not paused but %s", r.state.Status)
	}
	return nil
}

func (r *releaseRun) mayAbort() error {
	if err := r.mayAct("abort"); err != nil {
		return err
	}
	if r.state.Ending == release.StatusAborting {
		return conflict("cannot abort: the rollout is being aborted already")
	}
	return nil
}

func (r *releaseRun) mayRollBack() error { return r.mayAct("roll back") }

func (r *releaseRun) promote(ctx workflow.Context, _ Decision) error {
	r.state.Promoted = true
	return nil
}

func (r *releaseRun) pause(ctx workflow.Context, d Decision) error {
	r.state.Status, r.state.Reason = release.StatusPaused, d.text("paused")
	if err := r.halt(ctx, true); err != nil {
		return err
	}
	return r.record(ctx)
}

func (r *releaseRun) resume(ctx workflow.Context, _ Decision) error {
	// The fence first: the main loop goes on as soon as the status says so.
	if err := r.halt(ctx, false); err != nil {
		return err
	}
	if err := r.mayResume(); err != nil { // it ended by itself, meanwhile, and its fence is up
		return err
	}
	r.state.Status, r.state.Reason = release.StatusRunning, ""
	return r.record(ctx)
}

func (r *releaseRun) endWith(ending release.Status, did string) func(workflow.Context, Decision) error {
	return func(ctx workflow.Context, d Decision) error {
		r.state.Ending, r.state.Status, r.state.Reason = ending, ending, d.text(did)
		if err := r.halt(ctx, true); err != nil {
			return err
		}
		if r.stopDispatch != nil {
			r.stopDispatch()
		}
		return r.record(ctx)
	}
}
