package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/quicflow/quicflow/internal/job"
)

// UpdateCancel is the update of a BatchJobWorkflow beside UpdatePause and UpdateResume.
const UpdateCancel = "cancel"

// handleUpdates registers the handlers. One that has answered has also raised the fence: after an answered pause or cancel
// nothing new starts.
func (b *batchRun) handleUpdates(ctx workflow.Context) error {
	err := handleUpdates(ctx, b.updates, &b.state.Updates, []update{
		{UpdatePause, b.mayPause, b.pause},
		{UpdateResume, b.mayResume, b.resume},
		{UpdateCancel, b.mayCancel, b.cancel},
	})
	if err != nil {
		return err
	}
	return workflow.SetQueryHandler(ctx, QueryState, func() (BatchState, error) { return b.state, nil })
}

// mayAct holds for every update: the job has not ended and is not about to.
func (b *batchRun) mayAct(verb string) error {
	switch {
	case b.state.Status.Terminal():
		return conflict("cannot %s: the job has ended (%s)", verb, b.state.Status)
	case b.state.Ending == job.StatusTimeout:
		return conflict("cannot %s: the job's time is over", verb)
	case b.state.Ending != "":
		return conflict("cannot %s: the job is being cancelled", verb)
	}
	return nil
}

func (b *batchRun) mayPause() error {
	if err := b.mayAct("pause"); err != nil {
		return err
	}
	if b.state.Status == job.StatusPaused {
		return conflict("cannot pause: the job is paused already")
	}
	return nil
}

func (b *batchRun) mayResume() error {
	if err := b.mayAct("resume"); err != nil {
		return err
	}
	if b.state.Status != job.StatusPaused {
		return conflict("cannot resume: the job is not paused but %s", b.state.Status)
	}
	return nil
}

func (b *batchRun) mayCancel() error { return b.mayAct("cancel") }

func (b *batchRun) pause(ctx workflow.Context, d Decision) error {
	b.state.Status, b.state.Reason, b.state.PausedAt = job.StatusPaused, d.text("paused"), workflow.Now(ctx)
	if err := b.halt(ctx, true); err != nil {
		return err
	}
	return b.record(ctx)
}

func (b *batchRun) resume(ctx workflow.Context, _ Decision) error {
	// The fence first: the main loop goes on as soon as the status says so.
	if err := b.halt(ctx, false); err != nil {
		return err
	}
	if err := b.mayResume(); err != nil { // it ended by itself, meanwhile, and its fence is up
		return err
	}
	b.state.Deadline = b.state.Deadline.Add(workflow.Now(ctx).Sub(b.state.PausedAt))
	b.state.Status, b.state.Reason, b.state.PausedAt = job.StatusRunning, "", time.Time{}
	return b.record(ctx)
}

func (b *batchRun) cancel(ctx workflow.Context, d Decision) error {
	b.state.Ending, b.state.Status, b.state.Reason = job.StatusCancelled, job.StatusCancelling, d.text("cancelled")
	if err := b.halt(ctx, true); err != nil {
		return err
	}
	if b.stopWork != nil {
		b.stopWork()
	}
	return b.record(ctx)
}
