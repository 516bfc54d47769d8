package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/release"
)

// NewProject is a project to be made.
type NewProject struct {
	Name        string       `json:"name" doc:"Unique, DNS-like: lower case letters, digits, dots and dashes"`
	Description string       `json:"description,omitempty" maxLength:"2000"`
	Type        release.Type `json:"type,omitempty" enum:"script,container,git,kubernetes" default:"script"`
	release.Spec
}

// ProjectList is all projects.
type ProjectList struct {
	Projects []release.Project `json:"projects"`
}

// ProjectPath names a project.
type ProjectPath struct {
	Ref string `path:"project" doc:"Id or name"`
}

func (s *server) registerProjects(api huma.API) {
	tags := []string{"projects"}
	register(s, api, huma.Operation{
		OperationID: "create-project", Method: http.MethodPost, Path: "/api/release/projects", Tags: tags,
		Summary: "Make a project", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *struct{ Body NewProject }) (*reply[release.Project], error) {
		p := release.Project{Name: in.Body.Name, Description: in.Body.Description, Type: in.Body.Type, Spec: in.Body.Spec}
		if err := p.Validate(); err != nil {
			return nil, err
		}
		if err := s.Store.CreateProject(ctx, &p); err != nil {
			return nil, err
		}
		return replyWith(p), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-projects", Method: http.MethodGet, Path: "/api/release/projects", Tags: tags, Summary: "List projects",
	}, func(ctx context.Context, _ *struct{}) (*reply[ProjectList], error) {
		projects, err := s.Store.Projects(ctx)
		if err != nil {
			return nil, err
		}
		return replyWith(ProjectList{Projects: list(projects)}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-project", Method: http.MethodGet, Path: "/api/release/projects/{project}", Tags: tags, Summary: "Get a project",
	}, func(ctx context.Context, in *ProjectPath) (*reply[release.Project], error) {
		p, err := s.Store.Project(ctx, in.Ref)
		if err != nil {
			return nil, err
		}
		return replyWith(p), nil
	})
}
