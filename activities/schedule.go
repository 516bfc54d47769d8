package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/heartbeat"
	"github.com/quicflow/quicflow/internal/planning"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/schedule"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/workflows"
)

// ScheduleStore is what the activities of schedules need of the store. All methods are safe for concurrent use.
type ScheduleStore interface {
	planning.Store
	Schedule(ctx context.Context, ref string) (release.Schedule, error)
	Fire(ctx context.Context, scheduleID string, due time.Time) (release.Fire, error)
	RecordFire(ctx context.Context, f release.Fire) error
}

var _ ScheduleStore = (*store.Store)(nil)

// fireNamespace is that of the ids of scheduled tasks.
var fireNamespace = uuid.MustParse("0d5ac1f5-6f0e-4b67-9d4e-6a8f5c8f1f3b")

// fireTaskID gives the id of the task of a fire, the same however often it is made.
func fireTaskID(scheduleID string, due time.Time) string {
	return uuid.NewSHA1(fireNamespace, []byte(scheduleID+"@"+due.UTC().Format(time.RFC3339))).String()
}

// FireSchedule makes the task of a fire. It may be repeated: a fire has one task. What the store says of the schedule counts, not
// what Temporal knew of it when it fired.
func (a *Activities) FireSchedule(ctx context.Context, req workflows.FireRequest) (workflows.FireReport, error) {
	defer heartbeat.Keep(ctx)()
	s, err := a.store.Schedule(ctx, req.ScheduleID)
	if errors.Is(err, release.ErrNotFound) {
		return workflows.FireReport{}, nil // deleted meanwhile
	}
	if err != nil {
		return workflows.FireReport{}, fmt.Errorf("read schedule: %w", err)
	}
	fire, err := a.store.Fire(ctx, s.ID, req.Due)
	switch {
	case errors.Is(err, release.ErrNotFound):
		fire = release.Fire{ScheduleID: s.ID, Due: req.Due}
	case err != nil:
		return workflows.FireReport{}, fmt.Errorf("read fire: %w", err)
	case fire.State == release.FireFailed:
		return workflows.FireReport{}, nil
	}
	task, err := a.store.Task(ctx, fireTaskID(s.ID, req.Due))
	if errors.Is(err, release.ErrNotFound) {
		if fire.State != release.FireRequested {
			if fire.State, fire.Reason, err = a.leaveOut(s, req); err != nil {
				return workflows.FireReport{}, err
			}
			if fire.State != "" {
				return workflows.FireReport{}, a.recordFire(ctx, s, fire)
			}
		}
		task, err = a.makeTask(ctx, s, fire)
	}
	if code := release.CodeOf(err); err != nil && code != "" && code != release.CodeUnavailable {
		fire.State, fire.Reason, fire.TaskID = release.FireFailed, err.Error(), ""
		return workflows.FireReport{}, a.recordFire(ctx, s, fire)
	}
	if err != nil {
		return workflows.FireReport{}, fmt.Errorf("make task: %w", err)
	}
	failpoint.Here("schedule.task.committed")
	fire.State, fire.Reason, fire.TaskID = release.FireStarted, "", task.ID
	if err := a.recordFire(ctx, s, fire); err != nil {
		return workflows.FireReport{}, err
	}
	failpoint.Here("schedule.fire.recorded")
	return workflows.FireReport{TaskID: task.ID, WorkflowID: task.WorkflowID, Project: task.Project, Version: task.Version,
		Summary: fmt.Sprintf("%s %s of %s to %d hosts, by schedule %s", task.Action, task.Version, task.Project, task.Counts.Total, s.Name)}, nil
}

// leaveOut says why nobody wants a fire any more, or gives an empty state.
func (a *Activities) leaveOut(s release.Schedule, req workflows.FireRequest) (release.FireState, string, error) {
	spec, err := schedule.Parse(s.When)
	if err != nil {
		return "", "", fmt.Errorf("read the times of schedule %s: %w", s.ID, err)
	}
	byTime := spec.Fires(req.Due)
	switch {
	case s.Paused:
		return release.FireSkipped, "the schedule had been paused", nil
	case !req.Since.Equal(s.Since) && !req.Due.Before(s.Since) && !byTime:
		return release.FireSkipped, "the schedule had been changed", nil
	// Temporal fired in time, and no server was there.
	case byTime && a.now().Sub(req.StartedAt) > s.CatchupWindow.Std():
		return release.FireMissed, fmt.Sprintf("no server was there at its time, nor within %s after it", s.CatchupWindow), nil
	}
	return "", "", nil
}

// makeTask makes the task of a fire from the schedule's template.
func (a *Activities) makeTask(ctx context.Context, s release.Schedule, fire release.Fire) (release.Task, error) {
	template := s.Task
	template.Project = s.ProjectID // which stays when the project gets another name
	id := fireTaskID(s.ID, fire.Due)
	by := "schedule " + s.Name
	if fire.By != "" {
		by = fire.By
	}
	task, err := planning.Planner{Store: a.store}.Create(ctx, template, planning.Origin{ID: id, By: by})
	if errors.Is(err, release.ErrConflict) { // it may have been made at this very moment
		if there, findErr := a.store.Task(ctx, id); findErr == nil {
			return there, nil
		}
	}
	return task, err
}

func (a *Activities) recordFire(ctx context.Context, s release.Schedule, fire release.Fire) error {
	if err := a.store.RecordFire(ctx, fire); err != nil {
		return fmt.Errorf("record fire: %w", err)
	}
	a.bus.Notify(bus.Schedules)
	if fire.State == release.FireStarted {
		a.bus.Notify(bus.Tasks)
	}
	if fire.State != release.FireStarted {
		a.log.WarnContext(ctx, "a schedule made no task", "schedule", s.Name, "due", fire.Due, "state", string(fire.State), "reason", fire.Reason)
	}
	return nil
}

// AwaitTask waits for the end of a task's workflow.
func (a *Activities) AwaitTask(ctx context.Context, req workflows.AwaitRequest) error {
	defer heartbeat.Keep(ctx)()
	err := activity.GetClient(ctx).GetWorkflow(ctx, req.WorkflowID, "").Get(ctx, nil)
	var ended *temporal.WorkflowExecutionError
	var gone *serviceerror.NotFound
	if errors.As(err, &ended) || errors.As(err, &gone) {
		return nil // how it ended is in the store
	}
	return err
}
