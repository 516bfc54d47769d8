package activities

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// requests makes the step requests of one task. It is safe for concurrent use.
type requests struct {
	store   Store
	task    release.Task
	project release.Project

	mu     sync.Mutex
	merged map[string]mergedVersion // by the version's id or name
}

type mergedVersion struct {
	name   string
	config release.Merged
	deploy *quicflowv1.DeployStep // one for all steps
}

func (a *Activities) requestsOf(ctx context.Context, taskID string) (*requests, error) {
	task, err := a.store.Task(ctx, taskID)
	if err != nil {
		return nil, fmt.Errorf("read task: %w", err)
	}
	project, err := a.store.Project(ctx, task.ProjectID)
	if err != nil {
		return nil, fmt.Errorf("read project: %w", err)
	}
	return &requests{store: a.store, task: task, project: project, merged: map[string]mergedVersion{}}, nil
}

// of makes the request for a step, without the time after which it must not start, and says how long the step may take once started.
func (r *requests) of(ctx context.Context, step release.Step) (*quicflowv1.StepRequest, time.Duration, error) {
	// An uninstall is that of the version that it removes; everything else that of the version it brings.
	ref := step.VersionID
	if step.Action == release.StepUninstall {
		ref = step.PreviousVersion
	}
	version, err := r.version(ctx, ref)
	if err != nil {
		return nil, 0, err
	}
	if version.config.Script != nil {
		if _, err := version.config.Script.Script(step.Action); err != nil {
			return nil, 0, err
		}
	}
	request := &quicflowv1.StepRequest{
		StepId: step.ID, TaskId: step.TaskID, Action: string(step.Action), Project: r.project.Name,
		Version: version.name, PreviousVersion: step.PreviousVersion,
		Spec: &quicflowv1.StepRequest_Deploy{Deploy: version.deploy},
	}
	if step.Action == release.StepUninstall {
		request.Version = ""
	}
	return request, version.config.Longest(step.Action), nil
}

func (r *requests) version(ctx context.Context, ref string) (mergedVersion, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.merged[ref]; ok {
		return v, nil
	}
	version, err := r.store.Version(ctx, r.project.ID, ref)
	if err != nil {
		return mergedVersion{}, fmt.Errorf("read version: %w", err)
	}
	config := release.Merge(r.project, version, r.task.Override)
	text, err := config.JSON()
	if err != nil {
		return mergedVersion{}, err
	}
	v := mergedVersion{version.Name, config, &quicflowv1.DeployStep{Type: string(config.Type), Config: text}}
	r.merged[ref] = v
	return v, nil
}
