// Package planning makes release tasks of what a person or a schedule asks for: it checks the request against what exists now,
// resolves the targets, and stores the task. Starting it is rollout's.
package planning

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// Store is what a Planner reads and writes.
type Store interface {
	Project(ctx context.Context, ref string) (release.Project, error)
	Version(ctx context.Context, projectRef, ref string) (release.Version, error)
	Environment(ctx context.Context, projectRef, ref string) (release.Environment, error)
	VariablesFor(ctx context.Context, scope store.Scope) ([]release.Variable, error)
	ResolveTargets(ctx context.Context, targets release.Targets) ([]string, error)
	PreviewTargets(ctx context.Context, targets release.Targets, sample int) (store.TargetPreview, error)
	CreateTask(ctx context.Context, task *release.Task, clientIDs []string) error
	Task(ctx context.Context, id string) (release.Task, error)
	Targets(ctx context.Context, taskID string, filter store.TargetFilter) ([]release.Target, int, error)
	Snapshot(ctx context.Context, id string) (release.Snapshot, error)
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
	o, err := p.Intend(ctx, in, false)
	if err != nil {
		return release.Task{}, err
	}
	task := o.Task
	if task.ID, err = newID(from.ID); err != nil {
		return release.Task{}, err
	}
	if task.Snapshot, err = o.snapshot(task.ID); err != nil {
		return release.Task{}, err
	}
	clients, err := p.Store.ResolveTargets(ctx, task.Targets)
	if err != nil {
		return release.Task{}, err
	}
	if err := p.CheckCapability(ctx, o.Project, clients); err != nil {
		return release.Task{}, err
	}
	task.CreatedBy = from.By
	if err := p.Store.CreateTask(ctx, &task, clients); err != nil {
		return release.Task{}, err
	}
	return task, nil
}

// newID gives the id that is wanted of a new task, or else one of its own. It is there before the configuration, which may refer to it.
func newID(wanted string) (string, error) {
	if wanted != "" {
		return wanted, nil
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return id.String(), nil
}

// Retry stores a task that does what an ended one left undone: the same configuration, on the hosts where it did not succeed, but for
// those that it returned to what they ran before. There is no canary: what is tried again was tried. release.ErrConflict where the
// task has not ended, nothing is left to do, or a host cannot do it any more.
func (p Planner) Retry(ctx context.Context, taskID, by string) (release.Task, error) {
	was, err := p.Store.Task(ctx, taskID)
	if err != nil {
		return release.Task{}, err
	}
	if !was.Status.Terminal() {
		return release.Task{}, release.Conflict("cannot retry: the rollout has not ended (%s)", was.Status)
	}
	var clients []string
	for _, state := range []release.TargetState{
		release.TargetFailed, release.TargetUnknown, release.TargetOffline, release.TargetCancelled, release.TargetSkipped, release.TargetRollbackFailed,
	} {
		targets, _, err := p.Store.Targets(ctx, taskID, store.TargetFilter{State: state})
		if err != nil {
			return release.Task{}, err
		}
		for _, t := range targets {
			clients = append(clients, t.ClientID)
		}
	}
	if len(clients) == 0 {
		return release.Task{}, release.Conflict("cannot retry: no host is left on which it did not succeed")
	}
	slices.Sort(clients)
	project, err := p.Store.Project(ctx, was.ProjectID)
	if err != nil {
		return release.Task{}, err
	}
	if err := p.CheckCapability(ctx, project, clients); err != nil {
		if known, ok := errors.AsType[*release.Error](err); ok {
			err = release.Conflict("cannot retry: %s", known.Message) // who retries names no targets
		}
		return release.Task{}, err
	}
	id, err := newID("")
	if err != nil {
		return release.Task{}, err
	}
	task := release.Task{
		ID:        id,
		ProjectID: was.ProjectID, Project: was.Project, VersionID: was.VersionID, Version: was.Version, EnvironmentID: was.EnvironmentID, Environment: was.Environment,
		Action: was.Action, Targets: release.Targets{Clients: clients}, Strategy: was.Strategy, Override: was.Override, CreatedBy: by,
	}
	task.Strategy.Canary, task.Strategy.Waves = nil, nil
	task.Strategy = task.Strategy.WithDefaults()
	if was.Action == release.ActionDeploy {
		if err := p.again(ctx, &task, was.ConfigID); err != nil {
			return release.Task{}, err
		}
	}
	if err := p.Store.CreateTask(ctx, &task, clients); err != nil {
		return release.Task{}, err
	}
	return task, nil
}

// again gives a task the configuration that another one had, where it is still kept, and otherwise that of today.
func (p Planner) again(ctx context.Context, task *release.Task, configID string) error {
	version, err := p.Store.Version(ctx, task.ProjectID, task.VersionID)
	if err != nil {
		return err
	}
	if err := version.Deployable(); err != nil {
		return err
	}
	if configID != "" {
		snapshot, err := p.Store.Snapshot(ctx, configID)
		if !errors.Is(err, release.ErrNotFound) {
			task.Snapshot = &snapshot
			return err
		}
	}
	o, err := p.Intend(ctx, release.NewTask{
		Project: task.ProjectID, Version: task.VersionID, Environment: task.EnvironmentID, Action: task.Action,
		Targets: task.Targets, Strategy: task.Strategy, Override: task.Override,
	}, false)
	if err != nil {
		return err
	}
	task.Snapshot, err = o.snapshot(task.ID)
	return err
}

// incapableShown is how many hosts a refusal names.
const incapableShown = 5

// CheckCapability refuses a task of which some targets cannot do its type, as their agents say in their facts. Of one that has not said
// yet what it can do, as right after it joined, nobody knows: it refuses the step itself, if it has to. Scripts are what every agent can run.
// Of a cluster that the project names no agent says anything: it has tried the one that it finds by itself.
func (p Planner) CheckCapability(ctx context.Context, project release.Project, clients []string) error {
	if k := project.Kubernetes; project.Type == release.TypeScript || k != nil && k.Kubeconfig+k.Context != "" {
		return nil
	}
	unable, err := p.Store.PreviewTargets(ctx, release.Targets{
		Clients: clients, Selector: "facts.capabilities,facts.capabilities notin (" + release.Capability(project.Type) + ")",
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
		unable.Total, len(clients), project.Type, text, release.Capability(project.Type))
}

// Plan checks all of what in asks for but whether its targets pick a host, and gives the task that Create would store.
func (p Planner) Plan(ctx context.Context, in release.NewTask) (release.Task, error) {
	o, err := p.Intend(ctx, in, false)
	if err != nil {
		return release.Task{}, err
	}
	_, err = o.snapshot("")
	return o.Task, err
}

// Intent is a task as it is asked for, with all that its names stand for.
type Intent struct {
	Task        release.Task
	Project     release.Project
	Version     release.Version     // zero if the task uninstalls
	Environment release.Environment // zero without one

	variables []release.Variable
}

// Intend finds what in names; what does not exist is a wrong field of it. With anywhere, targets may be left out.
func (p Planner) Intend(ctx context.Context, in release.NewTask, anywhere bool) (o Intent, err error) {
	if in.Environment != "" {
		o.Environment, err = p.Store.Environment(ctx, in.Project, in.Environment)
		if err != nil {
			field := "environment"
			if _, missing := p.Store.Project(ctx, in.Project); missing != nil {
				field = "project"
			}
			return o, release.AsInvalid(field, err)
		}
		if len(in.Targets.Clients) == 0 && in.Targets.Selector == "" {
			in.Targets.Selector = o.Environment.Selector
		}
		in.Strategy = in.Strategy.Or(o.Environment.Strategy)
	}
	o.Task = in.Task()
	checked := o.Task
	if anywhere && len(in.Targets.Clients) == 0 && in.Targets.Selector == "" {
		checked.Targets.Selector = "*"
	}
	if err := checked.Validate(); err != nil {
		return o, err
	}
	if o.Project, err = p.Store.Project(ctx, in.Project); err != nil {
		return o, release.AsInvalid("project", err)
	}
	if o.Task.Action == release.ActionDeploy {
		if o.Version, err = p.Store.Version(ctx, o.Project.ID, in.Version); err != nil {
			return o, release.AsInvalid("version", err)
		}
		if o.variables, err = p.Store.VariablesFor(ctx, store.Scope{ProjectID: o.Project.ID, EnvironmentID: o.Environment.ID}); err != nil {
			return o, err
		}
	}
	if err := o.Task.ValidateFor(o.Project.Type); err != nil {
		return o, err
	}
	o.Task.ProjectID, o.Task.Project = o.Project.ID, o.Project.Name
	o.Task.VersionID, o.Task.Version = o.Version.ID, o.Version.Name
	o.Task.EnvironmentID, o.Task.Environment = o.Environment.ID, o.Environment.Name
	return o, nil
}

// Lookup gives the variables of a version that is deployed by this task. The id of a task that is not made yet is empty.
func (o *Intent) Lookup(taskID, version string) release.Lookup {
	return release.Variables(release.BuiltIns{Release: taskID, Project: o.Project.Name, Version: version, Environment: o.Environment.Name}, o.variables)
}

// VariableUses gives the variables that the values of what the task deploys refer to, by the paths of the values.
func (o *Intent) VariableUses() map[string][]release.VariableUse {
	merged := release.Merge(o.Project, o.Version, o.Task.Override)
	return merged.VariableUses(o.variables)
}

// Config gives what the task deploys: merged, expanded and checked.
func (o *Intent) Config(taskID string) (release.Merged, error) {
	merged := release.Merge(o.Project, o.Version, o.Task.Override)
	expanded, err := merged.Expand(o.Lookup(taskID, o.Version.Name), false)
	if err != nil {
		return merged, err
	}
	return expanded, expanded.Validate()
}

// snapshot gives what a task is to keep of its configuration; nil if it uninstalls.
func (o *Intent) snapshot(taskID string) (*release.Snapshot, error) {
	if o.Task.Action != release.ActionDeploy {
		return nil, nil
	}
	if err := o.Version.Deployable(); err != nil {
		return nil, err
	}
	config, err := o.Config(taskID)
	if err != nil {
		return nil, err
	}
	snapshot, err := release.NewSnapshot(config, o.Project.ID, o.Version.ID, o.Environment.ID)
	return &snapshot, err
}
