// Package planning makes release tasks of what a person or a schedule asks for: it checks the request against what exists now,
// resolves the targets, and stores the task. Starting it is rollout's.
package planning

import (
	"context"
	"fmt"
	"strings"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// Store is what a Planner reads and writes.
type Store interface {
	Project(ctx context.Context, ref string) (release.Project, error)
	Version(ctx context.Context, projectRef, ref string) (release.Version, error)
	ResolveTargets(ctx context.Context, targets release.Targets) ([]string, error)
	PreviewTargets(ctx context.Context, targets release.Targets, sample int) (store.TargetPreview, error)
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
	task, project, err := p.plan(ctx, in)
	if err != nil {
		return release.Task{}, err
	}
	clients, err := p.Store.ResolveTargets(ctx, task.Targets)
	if err != nil {
		return release.Task{}, err
	}
	if err := p.checkCapability(ctx, project.Type, clients); err != nil {
		return release.Task{}, err
	}
	task.ID, task.CreatedBy = from.ID, from.By
	if err := p.Store.CreateTask(ctx, &task, clients); err != nil {
		return release.Task{}, err
	}
	return task, nil
}

// incapableShown is how many hosts a refusal names.
const incapableShown = 5

// checkCapability refuses a task of which some targets cannot do its type, as their agents say in their facts. Scripts are what every
// agent can run.
func (p Planner) checkCapability(ctx context.Context, project release.Type, clients []string) error {
	if project == release.TypeScript {
		return nil
	}
	unable, err := p.Store.PreviewTargets(ctx, release.Targets{
		Clients: clients, Selector: "facts.capabilities notin (" + release.Capability(project) + ")",
	}, incapableShown)
	if err != nil || unable.Total == 0 {
		return err
	}
	names := make([]string, len(unable.Clients))
	for i, c := range unable.Clients {
		names[i] = c.ID
	}
	text := strings.Join(names, ", ")
	if more := unable.Total - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return release.Invalid("targets", "%d of %d hosts cannot deploy %s projects: %s; their agents do not report %s, see quic-client facts there",
		unable.Total, len(clients), project, text, release.Capability(project))
}

// Plan checks all of what in asks for but whether its targets pick a host, and gives the task that Create would store.
func (p Planner) Plan(ctx context.Context, in release.NewTask) (release.Task, error) {
	task, _, err := p.plan(ctx, in)
	return task, err
}

func (p Planner) plan(ctx context.Context, in release.NewTask) (task release.Task, project release.Project, err error) {
	task = in.Task()
	if err := task.Validate(); err != nil {
		return task, project, err
	}
	project, version, err := p.Resolve(ctx, in)
	if err != nil {
		return task, project, err
	}
	if err := task.ValidateFor(project.Type); err != nil {
		return task, project, err
	}
	if task.Action == release.ActionDeploy {
		if err := version.Deployable(); err != nil {
			return task, project, err
		}
	}
	task.ProjectID, task.Project = project.ID, project.Name
	task.VersionID, task.Version = version.ID, version.Name
	return task, project, nil
}

// Resolve finds what in names; what does not exist is a wrong field of it. A task that uninstalls has no version.
func (p Planner) Resolve(ctx context.Context, in release.NewTask) (project release.Project, version release.Version, err error) {
	project, err = p.Store.Project(ctx, in.Project)
	if err != nil {
		return project, version, release.AsInvalid("project", err)
	}
	if in.Action == release.ActionUninstall {
		return project, version, nil
	}
	version, err = p.Store.Version(ctx, project.ID, in.Version)
	return project, version, release.AsInvalid("version", err)
}
