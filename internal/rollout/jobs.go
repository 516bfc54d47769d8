package rollout

import (
	"context"
	"fmt"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/workflows"
)

// Jobs starts and steers the workflows of jobs. All methods are safe for concurrent use.
type Jobs struct{ Config }

// NewJobs checks a Config and fills its defaults.
func NewJobs(c Config) (*Jobs, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Jobs{c}, nil
}

// StartJob starts the workflow of a stored job. Starting one that was started before does nothing.
func (j *Jobs) StartJob(ctx context.Context, stored job.Job) error {
	options := client.StartWorkflowOptions{
		ID:            stored.WorkflowID,
		StaticSummary: fmt.Sprintf("%s on %d hosts", stored.Command.Type, stored.Counts.Total),
	}
	if j.SearchAttributes {
		options.TypedSearchAttributes = temporal.NewSearchAttributes(workflows.AttributeStatus.ValueSet(string(job.StatusRunning)))
	}
	return j.startWorkflow(ctx, options, workflows.BatchJobWorkflowName,
		workflows.BatchInput{JobID: stored.ID, SearchAttributes: j.SearchAttributes})
}

// PauseJob lets nothing new start; what runs goes on to its end. The job's time stands still meanwhile.
func (j *Jobs) PauseJob(ctx context.Context, jobID, by, reason string) error {
	return j.update(ctx, jobID, workflows.UpdatePause, by, reason)
}

// ResumeJob lets a paused job go on.
func (j *Jobs) ResumeJob(ctx context.Context, jobID, by, reason string) error {
	return j.update(ctx, jobID, workflows.UpdateResume, by, reason)
}

// CancelJob lets nothing new start, and stops what runs.
func (j *Jobs) CancelJob(ctx context.Context, jobID, by, reason string) error {
	return j.update(ctx, jobID, workflows.UpdateCancel, by, reason)
}

// update sends a decision to a job's workflow and waits for its answer. Errors: release.ErrNotFound, release.ErrConflict where
// it does not fit, release.ErrUnavailable where no answer came.
func (j *Jobs) update(ctx context.Context, jobID, name, by, reason string) error {
	stored, err := j.Store.Job(ctx, jobID)
	if err != nil {
		return err
	}
	if stored.Status.Terminal() {
		return release.Conflict("cannot %s: the job has ended (%s)", name, stored.Status)
	}
	return j.updateWorkflow(ctx, subject{noun: "job", id: stored.ID, workflowID: stored.WorkflowID, starting: stored.Status == job.StatusStarting}, name, by, reason)
}
