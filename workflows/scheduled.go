package workflows

import (
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/quicflow/quicflow/internal/release"
)

// ScheduledReleaseWorkflowName is the type under which ScheduledReleaseWorkflow is registered.
const ScheduledReleaseWorkflowName = "ScheduledReleaseWorkflow"

// Names of the activities of schedules.
const (
	ActivityFireSchedule = "FireSchedule"
	ActivityAwaitTask    = "AwaitTask"
)

// attributeDue is set by Temporal on what its schedules start: when that was due, without jitter.
var attributeDue = temporal.NewSearchAttributeKeyTime("TemporalScheduledStartTime")

// ScheduledInput starts a ScheduledReleaseWorkflow. It is all that Temporal keeps of a schedule's task.
type ScheduledInput struct {
	ScheduleID       string
	Since            time.Time // when the times that Temporal has of the schedule came into effect
	SearchAttributes bool      // whether the cluster knows ours
}

// FireRequest asks FireSchedule to make the task of a fire, once.
type FireRequest struct {
	ScheduleID string
	Due        time.Time
	Since      time.Time
	StartedAt  time.Time // when Temporal fired
}

// FireReport is FireSchedule's answer.
type FireReport struct {
	TaskID     string // empty if no task was to be made, or none could be
	WorkflowID string
	Project    string
	Version    string
	Summary    string
}

// AwaitRequest asks AwaitTask to wait for the end of a task's workflow.
type AwaitRequest struct {
	WorkflowID string
}

// ScheduledReleaseWorkflow is one fire of a schedule: it makes the task and lasts as long as its rollout, which is what Temporal's
// overlap policy goes by. The rollout goes on without it.
func ScheduledReleaseWorkflow(ctx workflow.Context, input ScheduledInput) error {
	info := workflow.GetInfo(ctx)
	due, ok := workflow.GetTypedSearchAttributes(ctx).GetTime(attributeDue)
	if !ok {
		due = info.WorkflowStartTime // of one that was started by hand
	}
	request := FireRequest{ScheduleID: input.ScheduleID, Due: due.UTC().Truncate(time.Second), Since: input.Since, StartedAt: info.WorkflowStartTime}
	var fired FireReport
	if err := workflow.ExecuteActivity(planOptions(ctx), ActivityFireSchedule, request).Get(ctx, &fired); err != nil {
		return fmt.Errorf("fire schedule: %w", err)
	}
	if fired.TaskID == "" {
		return nil
	}
	// Apart, so that to cancel this does not cancel the rollout: only its own updates steer that.
	apart, _ := workflow.NewDisconnectedContext(ctx)
	options := workflow.ChildWorkflowOptions{
		WorkflowID: fired.WorkflowID, TaskQueue: TaskQueue, StaticSummary: fired.Summary,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_ABANDON,
	}
	if input.SearchAttributes {
		options.TypedSearchAttributes = temporal.NewSearchAttributes(AttributeProject.ValueSet(fired.Project),
			AttributeVersion.ValueSet(fired.Version), AttributeStatus.ValueSet(string(release.StatusStarting)))
	}
	rollout := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(apart, options), ReleaseWorkflowName,
		ReleaseInput{TaskID: fired.TaskID, Project: fired.Project, Version: fired.Version, SearchAttributes: input.SearchAttributes})
	err := rollout.GetChildWorkflowExecution().Get(ctx, nil)
	var there *temporal.ChildWorkflowExecutionAlreadyStartedError
	switch {
	case errors.As(err, &there): // the reconciler was quicker
		if err := workflow.ExecuteActivity(awaitTaskOptions(ctx), ActivityAwaitTask, AwaitRequest{WorkflowID: fired.WorkflowID}).Get(ctx, nil); err != nil {
			return fmt.Errorf("wait for rollout: %w", err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("start rollout: %w", err)
	}
	_ = rollout.Get(ctx, nil) // how it ended is in the store
	return nil
}

// awaitTaskOptions are for AwaitTask, which lasts as long as a rollout, on whichever server lives.
func awaitTaskOptions(ctx workflow.Context) workflow.Context {
	options := workflow.GetActivityOptions(planOptions(ctx))
	options.StartToCloseTimeout = 365 * 24 * time.Hour
	options.HeartbeatTimeout = 10 * time.Second
	return workflow.WithActivityOptions(ctx, options)
}
