package activities

import (
	"context"
	"fmt"
	"sync"

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
	config release.ScriptConfig
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

// of makes the request for a step, without the time after which it must not start.
func (r *requests) of(ctx context.Context, step release.Step) (*quicflowv1.StepRequest, error) {
	// An uninstall runs the script of the version that it removes; everything else that of the version it brings.
	ref := step.VersionID
	if step.Action == release.StepUninstall {
		ref = step.PreviousVersion
	}
	version, err := r.version(ctx, ref)
	if err != nil {
		return nil, err
	}
	script, err := version.config.Script(step.Action)
	if err != nil {
		return nil, err
	}
	request := &quicflowv1.StepRequest{
		StepId: step.ID, TaskId: step.TaskID, Action: string(step.Action), Project: r.project.Name,
		Version: version.name, PreviousVersion: step.PreviousVersion,
	}
	config := version.config
	spec := &quicflowv1.ScriptStep{
		Interpreter: config.Interpreter, WorkDir: config.WorkDir, Env: config.Env,
		TimeoutMs: config.Timeout.Std().Milliseconds(), Script: script,
	}
	if step.Action == release.StepUninstall {
		request.Version = ""
	} else {
		spec.PreScript, spec.PostScript = config.PreScript, config.PostScript
		spec.Health = healthCheck(config.Health)
	}
	request.Spec = &quicflowv1.StepRequest_Script{Script: spec}
	return request, nil
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
	v := mergedVersion{version.Name, release.MergeScript(r.project.Script, version.Script, r.task.Override)}
	r.merged[ref] = v
	return v, nil
}

func healthCheck(h *release.Health) *quicflowv1.HealthCheck {
	if h == nil {
		return nil
	}
	check := &quicflowv1.HealthCheck{
		IntervalMs: h.Interval.Std().Milliseconds(), TimeoutMs: h.Timeout.Std().Milliseconds(),
		Retries: uint32(h.Retries), StartPeriodMs: h.StartPeriod.Std().Milliseconds(),
	}
	switch {
	case h.HTTP != "":
		check.Probe = &quicflowv1.HealthCheck_Http{Http: h.HTTP}
	case h.TCP != "":
		check.Probe = &quicflowv1.HealthCheck_Tcp{Tcp: h.TCP}
	default:
		check.Probe = &quicflowv1.HealthCheck_Exec{Exec: h.Exec}
	}
	return check
}
