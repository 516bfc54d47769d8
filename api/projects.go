package api

import (
	"cmp"
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// NewProject is a project to be made.
type NewProject struct {
	Name        string       `json:"name" doc:"Unique, DNS-like: lower case letters, digits, dots and dashes"`
	Description string       `json:"description,omitempty" maxLength:"2000"`
	Type        release.Type `json:"type,omitempty" enum:"script,container,git,kubernetes," doc:"Defaults to that of the part that is given, else script"`
	release.Spec
}

// ProjectContent replaces what a project says.
type ProjectContent struct {
	Name        string       `json:"name,omitempty" doc:"Left out: it keeps its name. One that is in use has to"`
	Description string       `json:"description,omitempty" maxLength:"2000"`
	Type        release.Type `json:"type,omitempty" enum:"script,container,git,kubernetes," doc:"Cannot be changed"`
	release.Spec
}

// ProjectList is a page of projects.
type ProjectList struct {
	Projects []release.Project `json:"projects"`
	Total    int               `json:"total" doc:"How many match, on all pages"`
}

// ProjectPath names a project.
type ProjectPath struct {
	Ref string `path:"project" doc:"Id or name"`
}

type projectQuery struct {
	Search string `query:"search" doc:"A part of the name"`
	Type   string `query:"type" enum:"script,container,git,kubernetes"`
	Page
}

func (s *server) registerProjects(api huma.API) {
	tags := []string{"projects"}
	register(s, api, huma.Operation{
		OperationID: "create-project", Method: http.MethodPost, Path: "/api/release/projects", Tags: tags,
		Summary: "Make a project", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *struct {
		Trial
		Body NewProject
	}) (*tagged[release.Project], error) {
		p := release.Project{Name: in.Body.Name, Description: in.Body.Description, Type: cmp.Or(in.Body.Type, in.Body.Spec.Type(), release.TypeScript), Spec: in.Body.Spec}
		if err := checkProject(&p); err != nil {
			return nil, err
		}
		if err := s.changed(in.Trial, s.Store.CreateProject(ctx, &p, in.guard())); err != nil {
			return nil, err
		}
		return tag(p, p.Revision), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-projects", Method: http.MethodGet, Path: "/api/release/projects", Tags: tags, Summary: "List projects, in the order of their names",
	}, func(ctx context.Context, in *projectQuery) (*reply[ProjectList], error) {
		projects, total, err := s.Store.Projects(ctx, store.ProjectFilter{Search: in.Search, Type: release.Type(in.Type), Limit: in.Limit, Offset: in.Offset})
		if err != nil {
			return nil, err
		}
		return replyWith(ProjectList{Projects: list(projects), Total: total}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-project", Method: http.MethodGet, Path: "/api/release/projects/{project}", Tags: tags, Summary: "Get a project",
	}, func(ctx context.Context, in *ProjectPath) (*tagged[release.Project], error) {
		p, err := s.Store.Project(ctx, in.Ref)
		if err != nil {
			return nil, err
		}
		return tag(p, p.Revision), nil
	})
	registerChange(s, api, huma.Operation{
		OperationID: "update-project", Method: http.MethodPut, Path: "/api/release/projects/{project}", Tags: tags, Summary: "Replace what a project says",
		Description: "What is left out is removed. What changes nothing leaves the revision.",
	}, func(ctx context.Context, in *struct {
		ProjectPath
		Guarded
		Body ProjectContent
	}, guard store.Guard) (*tagged[release.Project], error) {
		p, err := s.Store.Project(ctx, in.Ref)
		if err != nil {
			return nil, err
		}
		if in.Body.Type != "" && in.Body.Type != p.Type {
			return nil, release.Invalid("type", "a %s project stays one; make another project", p.Type)
		}
		p.Name, p.Description, p.Spec = cmp.Or(in.Body.Name, p.Name), in.Body.Description, in.Body.Spec
		if err := checkProject(&p); err != nil {
			return nil, err
		}
		p.Name = in.Body.Name // left out, it may have become another meanwhile
		if err := s.changed(in.Trial, s.Store.UpdateProject(ctx, &p, guard)); err != nil {
			return nil, err
		}
		return tag(p, p.Revision), nil
	})
	registerChange(s, api, huma.Operation{
		OperationID: "delete-project", Method: http.MethodDelete, Path: "/api/release/projects/{project}", Tags: tags,
		Summary: "Delete a project with its versions, environments and variables", Description: "Answers 409 while it is in use. The history of its tasks stays; its name is free again.",
	}, func(ctx context.Context, in *struct {
		ProjectPath
		Guarded
	}, guard store.Guard) (*struct{}, error) {
		p, err := s.Store.Project(ctx, in.Ref)
		if err != nil {
			return nil, err
		}
		return nil, s.changed(in.Trial, s.Store.DeleteProject(ctx, p.ID, guard))
	})
	register(s, api, huma.Operation{
		OperationID: "list-rules", Method: http.MethodGet, Path: "/api/release/rules", Tags: tags,
		Summary: "The fields of a deployment type, and the rules by which layers become one", Description: "In the order of the fields.",
	}, func(_ context.Context, in *struct {
		Type string `query:"type" required:"true" enum:"script,container,git,kubernetes"`
	}) (*reply[[]release.Rule], error) {
		return replyWith(release.Rules(release.Type(in.Type))), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-config", Method: http.MethodGet, Path: "/api/release/configs/{config_id}", Tags: []string{"tasks"},
		Summary: "A configuration as a task deployed it", Description: "Merged, with its variables in it, but secrets, and what only a host knows, as ${NAME}.",
	}, func(ctx context.Context, in *struct {
		ID string `path:"config_id"`
	}) (*reply[release.Snapshot], error) {
		c, err := s.Store.Snapshot(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		c.Secrets = list(c.Secrets)
		return replyWith(c), nil
	})
}

// changed tells readers that projects, versions, environments or variables are not what they were; err is passed on.
func (s *server) changed(t Trial, err error) error {
	if err == nil && !t.DryRun {
		s.Bus.Notify(bus.Projects)
	}
	return err
}

func checkProject(p *release.Project) error {
	if err := p.Validate(); err != nil {
		return err
	}
	return checkYAML(p.Kubernetes)
}
