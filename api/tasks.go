package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// NewTask is a rollout to be made, or previewed.
type NewTask struct {
	Project     string           `json:"project" doc:"Id or name"`
	Version     string           `json:"version,omitempty" doc:"Id or name; left out when the task uninstalls"`
	Action      release.Action   `json:"action,omitempty" enum:"deploy,uninstall" default:"deploy"`
	Environment string           `json:"environment,omitempty" doc:"Id or name; its variables count, and what targets and strategy leave out comes from it"`
	Targets     release.Targets  `json:"targets,omitempty" doc:"Never empty for a task, unless its environment has a selector; there is no silent \"all\""`
	Strategy    release.Strategy `json:"strategy,omitempty"`
	Override    release.Override `json:"override,omitempty" doc:"The task's own layer of the configuration"`
}

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
	Wave  int    `query:"wave" default:"-1" minimum:"-1" doc:"0 is the canary; -1 is all"`
	State string `query:"state" enum:"pending,running,succeeded,failed,unknown,offline,cancelled,skipped,rolled_back,rollback_failed"`
	Page
}

func (s *server) registerTasks(api huma.API) {
	tags := []string{"tasks"}
	register(s, api, huma.Operation{
		OperationID: "create-task", Method: http.MethodPost, Path: "/api/release/tasks", Tags: tags, MaxBodyBytes: MaxTaskBody,
		Summary: "Roll a version out, or uninstall", Description: "The task is stored before this answers, and then starts by itself.",
		DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *struct{ Body NewTask }) (*reply[release.Task], error) {
		task, err := s.createTask(ctx, in.Body)
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
		filter := store.TargetFilter{State: release.TargetState(in.State), Limit: in.Limit, Offset: in.Offset}
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

func (s *server) createTask(ctx context.Context, in NewTask) (release.Task, error) {
	o, err := s.intent(ctx, in, false)
	if err != nil {
		return release.Task{}, err
	}
	task := o.task
	if task.Action == release.ActionDeploy {
		if err := o.version.Deployable(); err != nil {
			return release.Task{}, err
		}
		id, err := uuid.NewV7()
		if err != nil {
			return release.Task{}, fmt.Errorf("make an id: %w", err)
		}
		task.ID = id.String() // which its configuration may refer to
		config, err := o.config(task.ID)
		if err != nil {
			return release.Task{}, err
		}
		snapshot, err := release.NewSnapshot(config, o.project.ID, o.version.ID, o.environment.ID)
		if err != nil {
			return release.Task{}, err
		}
		task.Snapshot = &snapshot
	}
	clients, err := s.Store.ResolveTargets(ctx, task.Targets)
	if err != nil {
		return release.Task{}, err
	}
	task.CreatedBy = principal(ctx)
	if err := s.Store.CreateTask(ctx, &task, clients); err != nil {
		return release.Task{}, err
	}
	failpoint.Here("api.task.committed")
	// From here on the task exists and will run: neither a client that left nor a Temporal that is away changes that.
	if err := s.Rollouts.Start(context.WithoutCancel(ctx), task); err != nil {
		s.Logger.WarnContext(ctx, "task not started yet; the reconciler will", "task", task.ID, "error", err)
	}
	return task, nil
}

// intent is a task as it is asked for, with all that its names stand for.
type intent struct {
	task        release.Task
	project     release.Project
	version     release.Version     // zero if the task uninstalls
	environment release.Environment // zero without one
	variables   []release.Variable
}

// intent finds what the body names; what does not exist is a wrong field of the body. With anywhere, targets may be left out.
func (s *server) intent(ctx context.Context, in NewTask, anywhere bool) (o intent, err error) {
	if in.Environment != "" {
		o.environment, err = s.Store.Environment(ctx, in.Project, in.Environment)
		if err != nil {
			field := "environment"
			if _, missing := s.Store.Project(ctx, in.Project); missing != nil {
				field = "project"
			}
			return o, asInvalid(field, err)
		}
		if len(in.Targets.Clients) == 0 && in.Targets.Selector == "" {
			in.Targets.Selector = o.environment.Selector
		}
		in.Strategy = in.Strategy.Or(o.environment.Strategy)
	}
	o.task = in.task()
	checked := o.task
	if anywhere && len(in.Targets.Clients) == 0 && in.Targets.Selector == "" {
		checked.Targets.Selector = "*"
	}
	if err := checked.Validate(); err != nil {
		return o, err
	}
	if o.project, err = s.Store.Project(ctx, in.Project); err != nil {
		return o, asInvalid("project", err)
	}
	if o.task.Action == release.ActionDeploy {
		if o.version, err = s.Store.Version(ctx, o.project.ID, in.Version); err != nil {
			return o, asInvalid("version", err)
		}
		if o.variables, err = s.Store.VariablesFor(ctx, store.Scope{ProjectID: o.project.ID, EnvironmentID: o.environment.ID}); err != nil {
			return o, err
		}
	}
	if err := o.task.ValidateFor(o.project.Type); err != nil {
		return o, err
	}
	o.task.ProjectID, o.task.Project = o.project.ID, o.project.Name
	o.task.VersionID, o.task.Version = o.version.ID, o.version.Name
	o.task.EnvironmentID, o.task.Environment = o.environment.ID, o.environment.Name
	return o, nil
}

// lookup gives the variables of a version that is deployed by this task. The id of a task that is not made yet is empty.
func (o *intent) lookup(taskID, version string) release.Lookup {
	return release.Variables(release.BuiltIns{Release: taskID, Project: o.project.Name, Version: version, Environment: o.environment.Name}, o.variables)
}

// config gives what the task deploys: merged, expanded and checked.
func (o *intent) config(taskID string) (release.Merged, error) {
	merged := release.Merge(o.project, o.version, o.task.Override)
	expanded, err := merged.Expand(o.lookup(taskID, o.version.Name), false)
	if err != nil {
		return merged, err
	}
	return expanded, expanded.Validate()
}

func (in NewTask) task() release.Task {
	return release.Task{
		Project: in.Project, Version: in.Version, Action: in.Action,
		Targets: in.Targets, Strategy: in.Strategy.WithDefaults(), Override: in.Override,
	}
}

// asInvalid turns "does not exist" into what is wrong with a field.
func asInvalid(field string, err error) error {
	var known *release.Error
	if errors.As(err, &known) && known.Code == release.CodeNotFound {
		return release.Invalid(field, "%s", known.Message)
	}
	return err
}
