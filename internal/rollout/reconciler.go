package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// ReconcileInterval is how often the store and Temporal are compared.
const ReconcileInterval = 10 * time.Second

// Reconcile starts, at once and then at every interval until ctx ends, the workflows that stored tasks lack, and marks
// the tasks whose workflow ended without them. It makes a task safe from the moment that it is stored.
func (r *Rollouts) Reconcile(ctx context.Context) {
	tick := time.NewTicker(ReconcileInterval)
	defer tick.Stop()
	for {
		if err := r.reconcileOnce(ctx); err != nil && ctx.Err() == nil {
			r.Logger.Warn("cannot compare tasks with their workflows, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *Rollouts) reconcileOnce(ctx context.Context) error {
	tasks, err := r.Store.UnfinishedTasks(ctx)
	if err != nil {
		return fmt.Errorf("read unfinished tasks: %w", err)
	}
	var errs []error
	for _, task := range tasks {
		if err := r.reconcileTask(ctx, task); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (r *Rollouts) reconcileTask(ctx context.Context, task release.Task) error {
	described, err := r.Client.DescribeWorkflowExecution(ctx, task.WorkflowID, "")
	var notFound *serviceerror.NotFound
	switch {
	case errors.As(err, &notFound) && task.Status == release.StatusStarting:
		r.Logger.Info("starting the workflow of a stored task", "task", task.ID, "project", task.Project)
		return r.Start(ctx, task)
	case errors.As(err, &notFound):
		return r.markGone(ctx, task, "Temporal does not know its workflow any more")
	case err != nil:
		return fmt.Errorf("describe workflow %s: %w", task.WorkflowID, err)
	}
	switch status := described.GetWorkflowExecutionInfo().GetStatus(); status {
	case enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED, enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW:
		return nil
	case enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED:
		// It wrote its last status before it completed; the list was read before that.
		current, err := r.Store.Task(ctx, task.ID)
		if err != nil || current.Status.Terminal() {
			return err
		}
		return r.markGone(ctx, task, "its workflow completed without it")
	default:
		return r.markGone(ctx, task, fmt.Sprintf("its workflow was ended from outside (%s)", status))
	}
}

func (r *Rollouts) markGone(ctx context.Context, task release.Task, why string) error {
	r.Logger.Warn("a task has no workflow any more", "task", task.ID, "reason", why)
	err := r.Store.SetProgress(ctx, task.ID, store.Progress{Status: release.StatusFailed, Phase: release.PhaseDone,
		Wave: task.Wave, Reason: why, At: time.Now()})
	if err != nil {
		return fmt.Errorf("mark task %s: %w", task.ID, err)
	}
	return nil
}
