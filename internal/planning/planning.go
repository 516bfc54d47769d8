// Package planning makes release tasks of what a person or a schedule asks for: it checks the request against what exists now,
// resolves the targets, and stores the task. Starting it is rollout's.
package planning

import (
	"context"
	"errors"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// Store is what a Planner reads and writes.
type Store interface {
	Project(ctx context.Context, ref string) (release.Project, error)
	Version(ctx context.Context, projectRef, ref string) (release.Version, error)
	ResolveTargets(ctx context.Context, targets release.Targets) ([]string, error)
	CreateTask(ctx context.Context, task *release.Task, clientIDs []string) error
}

var _ Store = (*store.Store)(nil)

// Planner makes tasks. It is safe for concurrent use if its Store is.
type Planner struct {
	Store Store // required
}

// Origin says where a task comes from.
type Origin struct {
	ID string // of the task; defaults to a new one. A task that exists already is release.ErrConflict
	By string // who asked for it
}

// Create stores the task that in asks for, in status starting. Errors of type *release.Error name the field of in.
func (p Planner) Create(ctx context.Context, in release.NewTask, from Origin) (release.Task, error) {
	task, err := p.Plan(ctx, in)
	if err != nil {
		return release.Task{}, err
	}
	clients, err := p.Store.ResolveTargets(ctx, task.Targets)
	if err != nil {
		return release.Task{}, err
	}
	task.ID, task.CreatedBy = from.ID, from.By
	if err := p.Store.CreateTask(ctx, &task, clients); err != nil {
		return release.Task{}, err
	}
	return task, nil
}

// Plan checks all of what in asks for but whether its targets pick a host, and gives the task that Create would store.
func (p Planner) Plan(ctx context.Context, in release.NewTask) (release.Task, error) {
	task := in.Task()
	if err := task.Validate(); err != nil {
		return release.Task{}, err
	}
	project, version, err := p.Resolve(ctx, in)
	if err != nil {
		return release.Task{}, err
	}
	if err := task.ValidateFor(project.Type); err != nil {
		return release.Task{}, err
	}
	if task.Action == release.ActionDeploy {
		if err := version.Deployable(); err != nil {
			return release.Task{}, err
		}
	}
	task.ProjectID, task.Project = project.ID, project.Name
	task.VersionID, task.Version = version.ID, version.Name
	return task, nil
}

// Resolve finds what in names; what does not exist is a wrong field of it. A task that uninstalls has no version.
func (p Planner) Resolve(ctx context.Context, in release.NewTask) (project release.Project, version release.Version, err error) {
	project, err = p.Store.Project(ctx, in.Project)
	if err != nil {
		return project, version, asInvalid("project", err)
	}
	if in.Action == release.ActionUninstall {
		return project, version, nil
	}
	version, err = p.Store.Version(ctx, project.ID, in.Version)
	return project, version, asInvalid("version", err)
}

// asInvalid turns "does not exist" into what is wrong with a field.
func asInvalid(field string, err error) error {
	var known *release.Error
	if errors.As(err, &known) && known.Code == release.CodeNotFound {
		return release.Invalid(field, "%s", known.Message)
	}
	return err
}
