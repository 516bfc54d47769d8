package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

const (
	rateWindow  = time.Minute
	maxFailures = 100 // groups in an answer
)

// targetLetters are the states of a TargetGrid, whose description says the same.
var targetLetters = map[release.TargetState]byte{
	release.TargetPending: 'p', release.TargetRunning: 'r', release.TargetSucceeded: 's', release.TargetFailed: 'f', release.TargetUnknown: 'u',
	release.TargetOffline: 'o', release.TargetCancelled: 'c', release.TargetSkipped: 'k', release.TargetRolledBack: 'b', release.TargetRollbackFailed: 'x',
}

// TargetGrid is where every host of a task stands.
type TargetGrid struct {
	States string         `json:"states" doc:"A letter for each target, in the order of GET …/targets, wave after wave: p pending, r running, s succeeded, f failed, u unknown, o offline, c cancelled, k skipped, b rolled back, x rollback failed"`
	Waves  []release.Wave `json:"waves"`
	Rate   float64        `json:"rate" doc:"Hosts that finished, per second, over the last minute or since the task was made"`
}

// FailureGroup is hosts that did not do it for one and the same reason.
type FailureGroup struct {
	State  string `json:"state"`
	Reason string `json:"reason" doc:"One line, as each of these hosts gave it"`
	Hosts  int    `json:"hosts"`
	First  string `json:"first" doc:"The first of them by its id"`
}

// FailureList is the failures of a task or job, the most frequent first.
type FailureList struct {
	Groups []FailureGroup `json:"groups" doc:"At most 100"`
	Total  int            `json:"total" doc:"How many groups there are"`
}

// ClientTask is what a host did for a task.
type ClientTask struct {
	TaskID     string              `json:"task_id"`
	Project    string              `json:"project"`
	Version    string              `json:"version,omitempty"`
	Action     release.Action      `json:"action" enum:"deploy,uninstall"`
	State      release.TargetState `json:"state" enum:"pending,running,succeeded,failed,unknown,offline,cancelled,skipped,rolled_back,rollback_failed"`
	Error      string              `json:"error,omitempty" doc:"One line: why it did not succeed"`
	CreatedAt  time.Time           `json:"created_at" doc:"Of the task"`
	StartedAt  *time.Time          `json:"started_at,omitempty"`
	FinishedAt *time.Time          `json:"finished_at,omitempty"`
}

// ClientTaskList is what a host did for tasks, the newest first.
type ClientTaskList struct {
	Tasks []ClientTask `json:"tasks"`
}

func (s *server) registerTargetGrid(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "get-target-grid", Method: http.MethodGet, Path: "/api/release/tasks/{task_id}/grid", Tags: []string{"tasks"},
		Summary: "Where every host of a task stands, in short",
	}, func(ctx context.Context, in *TaskPath) (*reply[TargetGrid], error) {
		task, err := s.Store.Task(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		now := s.Now()
		found, err := s.Store.TargetGrid(ctx, in.ID, now.Add(-rateWindow))
		if err != nil {
			return nil, err
		}
		states := make([]byte, len(found.States))
		for i, state := range found.States {
			states[i] = targetLetters[state]
		}
		grid := TargetGrid{States: string(states), Waves: list(task.Waves)}
		if window := min(rateWindow, now.Sub(task.CreatedAt)); window > 0 {
			grid.Rate = float64(found.Finished) / max(window, time.Second).Seconds()
		}
		return replyWith(grid), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-task-failures", Method: http.MethodGet, Path: "/api/release/tasks/{task_id}/failures", Tags: []string{"tasks"},
		Summary: "Why hosts of a task did not succeed, grouped by reason",
	}, func(ctx context.Context, in *TaskPath) (*reply[FailureList], error) {
		if _, err := s.Store.Task(ctx, in.ID); err != nil {
			return nil, err
		}
		return failureList(s.Store.TaskFailures(ctx, in.ID, maxFailures))
	})
	register(s, api, huma.Operation{
		OperationID: "list-job-failures", Method: http.MethodGet, Path: "/api/batch/jobs/{job_id}/failures", Tags: []string{"batch"},
		Summary: "Why hosts of a job did not succeed, grouped by reason",
	}, func(ctx context.Context, in *JobPath) (*reply[FailureList], error) {
		return failureList(s.Store.JobFailures(ctx, in.ID, maxFailures))
	})
	register(s, api, huma.Operation{
		OperationID: "list-client-tasks", Method: http.MethodGet, Path: "/api/clients/{client_id}/tasks", Tags: []string{"clients"},
		Summary: "What an agent did for tasks, the newest first", Description: "Looks through the latest 1000 tasks.",
	}, func(ctx context.Context, in *struct {
		ClientPath
		Limit int `query:"limit" default:"50" minimum:"1" maximum:"200" doc:"How many at most"`
	}) (*reply[ClientTaskList], error) {
		if _, err := s.Store.ClientByID(ctx, in.ID); err != nil {
			return nil, err
		}
		found, err := s.Store.ClientTasks(ctx, in.ID, in.Limit)
		if err != nil {
			return nil, err
		}
		tasks := make([]ClientTask, len(found))
		for i, t := range found {
			tasks[i] = ClientTask(t)
		}
		return replyWith(ClientTaskList{Tasks: tasks}), nil
	})
}

func failureList(found []store.FailureGroup, total int, err error) (*reply[FailureList], error) {
	if err != nil {
		return nil, err
	}
	groups := make([]FailureGroup, len(found))
	for i, g := range found {
		groups[i] = FailureGroup(g)
	}
	return replyWith(FailureList{Groups: groups, Total: total}), nil
}
