// Package rollout starts and steers the workflows of release tasks and of jobs: it is the way from the API to Temporal.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/workflows"
)

// Store is what Rollouts and Jobs need of the store.
type Store interface {
	Task(ctx context.Context, id string) (release.Task, error)
	UnfinishedTasks(ctx context.Context) ([]release.Task, error)
	SetProgress(ctx context.Context, taskID string, p store.Progress) error

	Job(ctx context.Context, id string) (job.Job, error)
	UnfinishedJobs(ctx context.Context) ([]job.Job, error)
	SetJobProgress(ctx context.Context, jobID string, p store.JobProgress) error

	ScheduleStore
}

var _ Store = (*store.Store)(nil)

// Config holds what New and NewJobs need.
type Config struct {
	Client           client.Client // required
	Store            Store         // required
	Namespace        string        // of Client. Defaults to "default"
	SearchAttributes bool          // whether the namespace knows our search attributes
	UpdateTimeout    time.Duration // how long a workflow may take to answer an update. Defaults to 10s
	Logger           *slog.Logger  // Defaults to slog.Default()
}

// Rollouts starts and steers release workflows. All methods are safe for concurrent use.
type Rollouts struct{ Config }

func (c Config) withDefaults() (Config, error) {
	if c.Client == nil || c.Store == nil {
		return c, errors.New("rollout: Client and Store are required")
	}
	if c.Namespace == "" {
		c.Namespace = client.DefaultNamespace
	}
	if c.UpdateTimeout == 0 {
		c.UpdateTimeout = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// New checks a Config and fills its defaults.
func New(c Config) (*Rollouts, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Rollouts{c}, nil
}

// Start starts the workflow of a stored task. Starting one that was started before does nothing.
func (r *Rollouts) Start(ctx context.Context, task release.Task) error {
	var attributes []temporal.SearchAttributeUpdate
	if r.SearchAttributes {
		attributes = []temporal.SearchAttributeUpdate{
			workflows.AttributeProject.ValueSet(task.Project),
			workflows.AttributeVersion.ValueSet(task.Version),
			workflows.AttributeStatus.ValueSet(string(release.StatusStarting)),
		}
	}
	return r.startWorkflow(ctx, client.StartWorkflowOptions{
		ID:                    task.WorkflowID,
		StaticSummary:         fmt.Sprintf("%s %s of %s to %d hosts", task.Action, task.Version, task.Project, task.Counts.Total),
		TypedSearchAttributes: temporal.NewSearchAttributes(attributes...),
	}, workflows.ReleaseWorkflowName,
		workflows.ReleaseInput{TaskID: task.ID, Project: task.Project, Version: task.Version, SearchAttributes: r.SearchAttributes})
}

// startWorkflow starts a workflow, unless there was ever one of its id.
func (c *Config) startWorkflow(ctx context.Context, options client.StartWorkflowOptions, name string, input any) error {
	options.TaskQueue = workflows.TaskQueue
	options.WorkflowIDReusePolicy = enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
	_, err := c.Client.ExecuteWorkflow(ctx, options, name, input)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if err != nil && !errors.As(err, &started) {
		return fmt.Errorf("start workflow %s: %w", options.ID, err)
	}
	return nil
}

// Promote ends the soak of a canary, or the wait for a person.
func (r *Rollouts) Promote(ctx context.Context, taskID, by, reason string) error {
	return r.update(ctx, taskID, workflows.UpdatePromote, by, reason)
}

// Pause lets nothing new start; what runs goes on to its end.
func (r *Rollouts) Pause(ctx context.Context, taskID, by, reason string) error {
	return r.update(ctx, taskID, workflows.UpdatePause, by, reason)
}

// Resume lets a paused task go on.
func (r *Rollouts) Resume(ctx context.Context, taskID, by, reason string) error {
	return r.update(ctx, taskID, workflows.UpdateResume, by, reason)
}

// Abort lets nothing new start, and stops what runs.
func (r *Rollouts) Abort(ctx context.Context, taskID, by, reason string) error {
	return r.update(ctx, taskID, workflows.UpdateAbort, by, reason)
}

// Rollback stops what runs and returns every touched host to what it ran before.
func (r *Rollouts) Rollback(ctx context.Context, taskID, by, reason string) error {
	return r.update(ctx, taskID, workflows.UpdateRollback, by, reason)
}

// update sends a decision to a task's workflow and waits for its answer. Errors: release.ErrNotFound,
// release.ErrConflict where it does not fit, release.ErrUnavailable where no answer came.
func (r *Rollouts) update(ctx context.Context, taskID, name, by, reason string) error {
	task, err := r.Store.Task(ctx, taskID)
	if err != nil {
		return err
	}
	if task.Status.Terminal() {
		return release.Conflict("cannot %s: the rollout has ended (%s)", name, task.Status)
	}
	return r.updateWorkflow(ctx, subject{noun: "rollout", id: task.ID, workflowID: task.WorkflowID, starting: task.Status == release.StatusStarting}, name, by, reason)
}

// subject is what a decision is about.
type subject struct {
	noun       string // in messages
	id         string
	workflowID string
	starting   bool // its workflow may not be there yet
}

// updateWorkflow sends a decision to a workflow and waits for its answer.
func (c *Config) updateWorkflow(ctx context.Context, s subject, name, by, reason string) error {
	answerCtx, cancel := context.WithTimeout(ctx, c.UpdateTimeout)
	defer cancel()
	handle, err := c.Client.UpdateWorkflow(answerCtx, client.UpdateWorkflowOptions{
		UpdateID: uuid.NewString(), WorkflowID: s.workflowID, UpdateName: name,
		Args:         []any{workflows.Decision{By: by, Reason: reason}},
		WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = handle.Get(answerCtx, nil)
	}
	var application *temporal.ApplicationError
	var notFound *serviceerror.NotFound
	switch {
	case err == nil:
		return nil
	case errors.As(err, &application) && application.Type() == workflows.ErrTypeConflict:
		return release.Conflict("%s", application.Message())
	case errors.As(err, &notFound) && s.starting:
		return release.Unavailable(err, "the %s is about to start; try to %s it again in a moment", s.noun, name)
	case errors.As(err, &notFound):
		return release.Conflict("cannot %s: the %s has ended", name, s.noun)
	}
	c.Logger.Error("a workflow did not answer", "workflow", s.workflowID, "id", s.id, "update", name, "error", err)
	return release.Unavailable(err, "the %s did not answer in time; look at it before you %s it again", s.noun, name)
}
