package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/release"
)

// Intervention is what a person may say when steering a task.
type Intervention struct {
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"Kept with the task"`
}

// reason is empty where nothing was said.
func (i *Intervention) reason() string {
	if i == nil {
		return ""
	}
	return i.Reason
}

type interventionInput struct {
	TaskPath
	Body *Intervention
}

func (s *server) registerTaskControl(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "retry-task", Method: http.MethodPost, Path: "/api/release/tasks/{task_id}/retry", Tags: []string{"tasks"}, DefaultStatus: http.StatusCreated,
		Summary: "Do again what an ended task left undone",
		Description: "Makes a task of the same configuration for the hosts where it failed, was stopped or not begun, or of which nothing is known; those that were rolled back are left as they are. " +
			"Answers with the new task; 409 if the other has not ended, or nothing is left to do.",
	}, func(ctx context.Context, in *TaskPath) (*reply[release.Task], error) {
		task, err := s.planner().Retry(ctx, in.ID, principal(ctx))
		if err != nil {
			return nil, err
		}
		s.startTask(ctx, task)
		return replyWith(task), nil
	})
	for _, control := range []struct {
		name, summary string
		do            func(r Rollouts, ctx context.Context, taskID, by, reason string) error
	}{
		{"promote", "Go on from the canary to the waves", Rollouts.Promote},
		{"pause", "Start nothing new until the task is resumed", Rollouts.Pause},
		{"resume", "Go on with a paused task", Rollouts.Resume},
		{"abort", "Stop the task: start nothing new, stop what runs", Rollouts.Abort},
		{"rollback", "Return the touched hosts to what they ran before", Rollouts.Rollback},
	} {
		register(s, api, huma.Operation{
			OperationID: control.name + "-task", Method: http.MethodPost, Path: "/api/release/tasks/{task_id}/" + control.name,
			Tags: []string{"tasks"}, Summary: control.summary,
			Description: "Answers 409 if the task is in no state for it, 503 if it could not be asked within 10 s.",
		}, func(ctx context.Context, in *interventionInput) (*reply[release.Task], error) {
			if _, err := s.Store.Task(ctx, in.ID); err != nil {
				return nil, err
			}
			if err := control.do(s.Rollouts, ctx, in.ID, principal(ctx), in.Body.reason()); err != nil {
				return nil, err
			}
			task, err := s.Store.Task(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return replyWith(task), nil
		})
	}
}
