package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// requests makes the step requests of one task. It is safe for concurrent use.
type requests struct {
	store   Store
	task    release.Task
	project release.Project

	mu      sync.Mutex
	configs map[string]deployment // by the configuration's id, or the version's id or name
}

// deployment is what all steps with one configuration have in common. It is made once, as there may be very many of them.
type deployment struct {
	version string
	config  release.Merged
	deploy  *quicflowv1.DeployStep
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
	return &requests{store: a.store, task: task, project: project, configs: map[string]deployment{}}, nil
}

// of makes the request for a step, without the time after which it must not start, and says how long the step may take once started.
func (r *requests) of(ctx context.Context, step release.Step) (*quicflowv1.StepRequest, time.Duration, error) {
	d, err := r.deployment(ctx, step)
	if err != nil {
		return nil, 0, err
	}
	if d.config.Script != nil {
		if _, err := d.config.Script.Script(step.Action); err != nil {
			return nil, 0, err
		}
	}
	request := &quicflowv1.StepRequest{
		StepId: step.ID, TaskId: step.TaskID, Action: string(step.Action), Project: r.project.Name,
		Version: d.version, PreviousVersion: step.PreviousVersion,
		Spec: &quicflowv1.StepRequest_Deploy{Deploy: d.deploy},
	}
	if step.Action == release.StepUninstall {
		request.Version = ""
	}
	return request, d.config.Longest(step.Action), nil
}

func (r *requests) deployment(ctx context.Context, step release.Step) (deployment, error) {
	// An uninstall is that of the version that it removes; everything else that of the version it brings.
	ref := step.VersionID
	if step.Action == release.StepUninstall {
		ref = step.PreviousVersion
	}
	key := cmp.Or(step.ConfigID, "version "+ref)
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, ok := r.configs[key]; ok {
		return d, nil
	}
	snapshot, err := r.snapshot(ctx, step.ConfigID, ref)
	if err != nil {
		return deployment{}, err
	}
	d := deployment{version: snapshot.Version}
	if d.config, err = snapshot.Merged(); err != nil {
		return d, err
	}
	// Read now, and kept by nobody: they are in this request alone, and in the memory of the agent for as long as the step runs.
	secrets, err := r.store.SecretValues(ctx, store.Scope{ProjectID: snapshot.ProjectID, EnvironmentID: snapshot.EnvironmentID}, snapshot.Secrets)
	if err != nil {
		return d, err
	}
	d.deploy = &quicflowv1.DeployStep{Type: string(snapshot.Type), Config: snapshot.Config, ConfigId: snapshot.ID, Environment: snapshot.Environment, Secrets: secrets}
	r.configs[key] = d
	return d, nil
}

// snapshot gives the configuration of a step. What was deployed before configurations were kept, or so long ago that it is gone, is
// what its version says today.
func (r *requests) snapshot(ctx context.Context, id, versionRef string) (release.Snapshot, error) {
	if id != "" {
		s, err := r.store.Snapshot(ctx, id)
		if !errors.Is(err, release.ErrNotFound) {
			return s, err
		}
	}
	version, err := r.store.Version(ctx, r.project.ID, versionRef)
	if err != nil {
		return release.Snapshot{}, fmt.Errorf("read version: %w", err)
	}
	variables, err := r.store.VariablesFor(ctx, store.Scope{ProjectID: r.project.ID, EnvironmentID: r.task.EnvironmentID})
	if err != nil {
		return release.Snapshot{}, err
	}
	merged := release.Merge(r.project, version, r.task.Override)
	expanded, err := merged.Expand(release.Variables(release.BuiltIns{Release: r.task.ID, Project: r.project.Name, Version: version.Name,
		Environment: r.task.Environment}, variables), false)
	if err != nil {
		return release.Snapshot{}, err
	}
	s, err := release.NewSnapshot(expanded, r.project.ID, version.ID, r.task.EnvironmentID)
	s.Project, s.Version, s.Environment = r.project.Name, version.Name, r.task.Environment
	return s, err
}
