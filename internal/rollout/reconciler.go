package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// ReconcileInterval is how often the store and Temporal are compared.
const ReconcileInterval = 10 * time.Second

// Reconcile starts, at once and then at every interval until ctx ends, the workflows that stored tasks lack, and marks
// the tasks whose workflow ended without them. It makes a task safe from the moment that it is stored.
func (r *Rollouts) Reconcile(ctx context.Context) { r.reconcile(ctx, "tasks", r.reconcileOnce) }

// Reconcile does for jobs what Rollouts.Reconcile does for tasks.
func (j *Jobs) Reconcile(ctx context.Context) { j.reconcile(ctx, "jobs", j.reconcileOnce) }

func (c *Config) reconcile(ctx context.Context, what string, once func(context.Context) error) {
	tick := time.NewTicker(ReconcileInterval)
	defer tick.Stop()
	for {
		if err := once(ctx); err != nil && ctx.Err() == nil {
			c.Logger.Warn("cannot compare what is stored with its workflows, trying again", "what", what, "error", err)
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
		errs = append(errs, r.compare(ctx, task.WorkflowID, record{
			starting: task.Status == release.StatusStarting,
			start:    func() error { return r.Start(ctx, task) },
			ended: func() (bool, error) {
				current, err := r.Store.Task(ctx, task.ID)
				return current.Status.Terminal(), err
			},
			fail: func(why string) error {
				return r.Store.SetProgress(ctx, task.ID, store.Progress{Status: release.StatusFailed, Phase: release.PhaseDone,
					Wave: task.Wave, Reason: why, At: time.Now()})
			},
		}))
	}
	return errors.Join(errs...)
}

func (j *Jobs) reconcileOnce(ctx context.Context) error {
	jobs, err := j.Store.UnfinishedJobs(ctx)
	if err != nil {
		return fmt.Errorf("read unfinished jobs: %w", err)
	}
	var errs []error
	for _, stored := range jobs {
		errs = append(errs, j.compare(ctx, stored.WorkflowID, record{
			starting: stored.Status == job.StatusStarting,
			start:    func() error { return j.StartJob(ctx, stored) },
			ended: func() (bool, error) {
				current, err := j.Store.Job(ctx, stored.ID)
				return current.Status.Terminal(), err
			},
			fail: func(why string) error {
				return j.Store.SetJobProgress(ctx, stored.ID, store.JobProgress{Status: job.StatusFailed, Reason: why, At: time.Now()})
			},
		}))
	}
	return errors.Join(errs...)
}

// record is what is stored of a workflow.
type record struct {
	starting bool // it may not have a workflow yet
	start    func() error
	ended    func() (bool, error) // as it is stored now
	fail     func(why string) error
}

// compare starts a workflow that is missing, and marks a record whose workflow is gone.
func (c *Config) compare(ctx context.Context, workflowID string, r record) error {
	described, err := c.Client.DescribeWorkflowExecution(ctx, workflowID, "")
	var notFound *serviceerror.NotFound
	switch {
	case errors.As(err, &notFound) && r.starting:
		c.Logger.Info("starting a workflow that is missing", "workflow", workflowID)
		return r.start()
	case errors.As(err, &notFound):
		return c.markGone(workflowID, r, "Temporal does not know its workflow any more")
	case err != nil:
		return fmt.Errorf("describe workflow %s: %w", workflowID, err)
	}
	switch status := described.GetWorkflowExecutionInfo().GetStatus(); status {
	case enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED, enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW:
		return nil
	case enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED:
		// It wrote its last status before it completed; the list was read before that.
		if ended, err := r.ended(); err != nil || ended {
			return err
		}
		return c.markGone(workflowID, r, "its workflow completed without it")
	default:
		return c.markGone(workflowID, r, fmt.Sprintf("its workflow was ended from outside (%s)", status))
	}
}

func (c *Config) markGone(workflowID string, r record, why string) error {
	c.Logger.Warn("what is stored has no workflow any more", "workflow", workflowID, "reason", why)
	if err := r.fail(why); err != nil {
		return fmt.Errorf("mark what %s was for: %w", workflowID, err)
	}
	return nil
}
