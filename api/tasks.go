package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/planning"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// NewTask is a rollout to be made, or previewed.
type NewTask = release.NewTask

// TaskList is a page of tasks, the newest first.
type TaskList struct {
	Tasks []release.Task `json:"tasks"`
	Total int            `json:"total" doc:"How many match, on all pages"`
}

// TargetList is a page of a task's targets.
type TargetList struct {
	Targets []release.Target `json:"targets"`
	Total   int              `json:"total" doc:"How many match, on all pages"`
}

// TaskPath names a task.
type TaskPath struct {
	ID string `path:"task_id"`
}

type taskQuery struct {
	Project     string `query:"project" doc:"Id or name"`
	Environment string `query:"environment" doc:"Id or name"`
	Status      string `query:"status" enum:"starting,running,paused,aborting,rolling_back,succeeded,partial,failed,aborted,rolled_back"`
	Page
}

type targetQuery struct {
	TaskPath
	Wave   int    `query:"wave" default:"-1" minimum:"-1" doc:"0 is the canary; -1 is all"`
	State  string `query:"state" enum:"pending,running,succeeded,failed,unknown,offline,cancelled,skipped,rolled_back,rollback_failed"`
	Reason string `query:"reason" maxLength:"8000" doc:"Exactly this error, as GET …/failures has it"`
	Search string `query:"search" maxLength:"200" doc:"Part of a client id"`
	Page
}

func (s *server) registerTasks(api huma.API) {
	tags := []string{"tasks"}
	register(s, api, huma.Operation{
		OperationID: "create-task", Method: http.MethodPost, Path: "/api/release/tasks", Tags: tags, MaxBodyBytes: MaxTaskBody,
		Summary: "Roll a version out, or uninstall", Description: "The task is stored before this answers, and then starts by itself. " +
			"Who sends the same request with the same Idempotency-Key again gets the task that the first one made.",
		DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *struct {
		Key  string `header:"Idempotency-Key" maxLength:"200" doc:"Of the caller's own choice, such as a UUID: of one caller, one key makes one task. With another request it answers 409"`
		Body NewTask
	}) (*reply[release.Task], error) {
		task, err := s.createTask(ctx, in.Body, in.Key)
		if err != nil {
			return nil, err
		}
		return replyWith(task), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-tasks", Method: http.MethodGet, Path: "/api/release/tasks", Tags: tags, Summary: "List tasks, the newest first",
	}, func(ctx context.Context, in *taskQuery) (*reply[TaskList], error) {
		tasks, total, err := s.Store.Tasks(ctx, store.TaskFilter{
			Project: in.Project, Environment: in.Environment, Status: release.Status(in.Status), Limit: in.Limit, Offset: in.Offset,
		})
		if err != nil {
			return nil, err
		}
		return replyWith(TaskList{Tasks: list(tasks), Total: total}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-task", Method: http.MethodGet, Path: "/api/release/tasks/{task_id}", Tags: tags, Summary: "Get a task",
	}, func(ctx context.Context, in *TaskPath) (*reply[release.Task], error) {
		task, err := s.Store.Task(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return replyWith(task), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-targets", Method: http.MethodGet, Path: "/api/release/tasks/{task_id}/targets", Tags: tags,
		Summary: "List the targets of a task",
	}, func(ctx context.Context, in *targetQuery) (*reply[TargetList], error) {
		if _, err := s.Store.Task(ctx, in.ID); err != nil {
			return nil, err
		}
		filter := store.TargetFilter{State: release.TargetState(in.State), Search: in.Search, Limit: in.Limit, Offset: in.Offset}
		if in.Reason != "" {
			filter.Error = &in.Reason
		}
		if in.Wave >= 0 {
			filter.Wave = &in.Wave
		}
		targets, total, err := s.Store.Targets(ctx, in.ID, filter)
		if err != nil {
			return nil, err
		}
		return replyWith(TargetList{Targets: list(targets), Total: total}), nil
	})
}

// keyNamespace is that of the ids of tasks that were made with an idempotency key.
var keyNamespace = uuid.MustParse("6d2a4c0e-6f0b-4b3e-9a51-0c1f4f6f7a52")

func (s *server) createTask(ctx context.Context, in NewTask, key string) (release.Task, error) {
	from := planning.Origin{By: principal(ctx)}
	from.ID = keyID(keyNamespace, from.By, key)
	task, before, err := madeOnce(from.ID, func(id string) (release.Task, error) { return s.Store.Task(ctx, id) },
		func() (release.Task, error) { return s.planner().Create(ctx, in, from) })
	switch {
	case err != nil:
		return release.Task{}, err
	case before:
		return task, sameTask(task, in)
	}
	s.startTask(ctx, task)
	return task, nil
}

// sameTask is a conflict unless a task that was made with a key is what in asks for.
func sameTask(made release.Task, in NewTask) error {
	asked := in.Task()
	is := func(asked, id, name string) bool { return asked == id || asked == name }
	if !is(asked.Project, made.ProjectID, made.Project) || !is(asked.Version, made.VersionID, made.Version) || asked.Action != made.Action ||
		!is(in.Environment, made.EnvironmentID, made.Environment) ||
		// What was left out is as the environment had it then.
		!(len(in.Targets.Clients) == 0 && in.Targets.Selector == "") && !equalJSON(in.Targets, made.Targets) ||
		!equalJSON(in.Strategy.Or(made.Strategy).WithDefaults(), made.Strategy) || !equalJSON(in.Override, made.Override) {
		return release.Conflict("the Idempotency-Key was used for another request: it made task %s", made.ID)
	}
	return nil
}

// startTask has a stored task begin.
func (s *server) startTask(ctx context.Context, task release.Task) {
	failpoint.Here("api.task.committed")
	s.Bus.Notify(bus.Tasks)
	// From here on the task exists and will run: neither a client that left nor a Temporal that is away changes that.
	if err := s.Rollouts.Start(context.WithoutCancel(ctx), task); err != nil {
		s.Logger.WarnContext(ctx, "task not started yet; the reconciler will", "task", task.ID, "error", err)
	}
}

func (s *server) planner() planning.Planner { return planning.Planner{Store: s.Store} }
