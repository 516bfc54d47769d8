package api

import (
	"cmp"
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// NewEnvironment is an environment to be made.
type NewEnvironment struct {
	Name string `json:"name" doc:"Unique within its project; lower case letters, digits, dots and dashes"`
	EnvironmentDefaults
}

// EnvironmentContent replaces what an environment says.
type EnvironmentContent struct {
	Name string `json:"name,omitempty" doc:"Left out: it keeps its name. One that is in use has to"`
	EnvironmentDefaults
}

// EnvironmentDefaults are what tasks of an environment do by default.
type EnvironmentDefaults struct {
	Description string           `json:"description,omitempty" maxLength:"2000"`
	Selector    string           `json:"selector,omitempty" doc:"Hosts of a task in this environment that names none itself"`
	Strategy    release.Strategy `json:"strategy,omitempty" doc:"For what a task in this environment leaves out of its own"`
}

// EnvironmentList is a page of the environments of a project.
type EnvironmentList struct {
	Environments []release.Environment `json:"environments"`
	Total        int                   `json:"total" doc:"How many there are, on all pages"`
}

// EnvironmentPath names an environment.
type EnvironmentPath struct {
	ProjectPath
	Environment string `path:"environment" doc:"Id or name"`
}

func (s *server) registerEnvironments(api huma.API) {
	tags := []string{"environments"}
	const all, one = "/api/release/projects/{project}/environments", "/api/release/projects/{project}/environments/{environment}"
	register(s, api, huma.Operation{
		OperationID: "create-environment", Method: http.MethodPost, Path: all, Tags: tags, Summary: "Make an environment", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *struct {
		ProjectPath
		Trial
		Body NewEnvironment
	}) (*tagged[release.Environment], error) {
		project, err := s.Store.Project(ctx, in.Ref)
		if err != nil {
			return nil, err
		}
		e := release.Environment{ProjectID: project.ID, Name: in.Body.Name}
		in.Body.fill(&e)
		if err := e.Validate(); err != nil {
			return nil, err
		}
		if err := s.changed(in.Trial, s.Store.CreateEnvironment(ctx, &e, in.guard())); err != nil {
			return nil, err
		}
		return tag(e, e.Revision), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-environments", Method: http.MethodGet, Path: all, Tags: tags, Summary: "List the environments of a project, in the order of their names",
	}, func(ctx context.Context, in *struct {
		ProjectPath
		Page
	}) (*reply[EnvironmentList], error) {
		environments, total, err := s.Store.Environments(ctx, in.Ref, in.Limit, in.Offset)
		if err != nil {
			return nil, err
		}
		return replyWith(EnvironmentList{Environments: list(environments), Total: total}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-environment", Method: http.MethodGet, Path: one, Tags: tags, Summary: "Get an environment",
	}, func(ctx context.Context, in *EnvironmentPath) (*tagged[release.Environment], error) {
		e, err := s.Store.Environment(ctx, in.Ref, in.Environment)
		if err != nil {
			return nil, err
		}
		return tag(e, e.Revision), nil
	})
	registerChange(s, api, huma.Operation{
		OperationID: "update-environment", Method: http.MethodPut, Path: one, Tags: tags, Summary: "Replace what an environment says",
		Description: "What is left out is removed; its variables stay. What changes nothing leaves the revision.",
	}, func(ctx context.Context, in *struct {
		EnvironmentPath
		Guarded
		Body EnvironmentContent
	}, guard store.Guard) (*tagged[release.Environment], error) {
		e, err := s.Store.Environment(ctx, in.Ref, in.Environment)
		if err != nil {
			return nil, err
		}
		e.Name = cmp.Or(in.Body.Name, e.Name)
		in.Body.fill(&e)
		if err := e.Validate(); err != nil {
			return nil, err
		}
		e.Name = in.Body.Name // left out, it may have become another meanwhile
		if err := s.changed(in.Trial, s.Store.UpdateEnvironment(ctx, &e, guard)); err != nil {
			return nil, err
		}
		return tag(e, e.Revision), nil
	})
	registerChange(s, api, huma.Operation{
		OperationID: "delete-environment", Method: http.MethodDelete, Path: one, Tags: tags, Summary: "Delete an environment with its variables",
		Description: "Answers 409 while it is in use.",
	}, func(ctx context.Context, in *struct {
		EnvironmentPath
		Guarded
	}, guard store.Guard) (*struct{}, error) {
		e, err := s.Store.Environment(ctx, in.Ref, in.Environment)
		if err != nil {
			return nil, err
		}
		return nil, s.changed(in.Trial, s.Store.DeleteEnvironment(ctx, e.ProjectID, e.ID, guard))
	})
}

func (d EnvironmentDefaults) fill(e *release.Environment) {
	e.Description, e.Selector, e.Strategy = d.Description, d.Selector, d.Strategy
}

// VariableContent is what a variable is to be.
type VariableContent struct {
	Value       *string `json:"value,omitempty" doc:"Of a secret that there is already it may be left out: it keeps its value"`
	Secret      bool    `json:"secret,omitempty" doc:"Kept encrypted, and never given back"`
	Description string  `json:"description,omitempty" maxLength:"2000"`
}

// VariableList is all variables of a project, or of an environment.
type VariableList struct {
	Variables []release.Variable `json:"variables"`
}

// VariableScope says whose variables are meant.
type VariableScope struct {
	ProjectPath
	Environment string `query:"environment" doc:"Id or name of an environment whose variables are meant. Left out: the project's own"`
}

// VariablePath names a variable.
type VariablePath struct {
	VariableScope
	Name string `path:"variable"`
}

func (s *server) scope(ctx context.Context, in VariableScope) (store.Scope, error) {
	if in.Environment != "" {
		e, err := s.Store.Environment(ctx, in.Ref, in.Environment)
		return store.Scope{ProjectID: e.ProjectID, EnvironmentID: e.ID}, err
	}
	p, err := s.Store.Project(ctx, in.Ref)
	return store.Scope{ProjectID: p.ID}, err
}

// putVariable answers 201 for a new one.
type putVariable struct {
	Status int
	ETag   string `header:"ETag" doc:"Revision, for If-Match"`
	Body   release.Variable
}

func (s *server) registerVariables(api huma.API) {
	tags := []string{"variables"}
	const all, one = "/api/release/projects/{project}/variables", "/api/release/projects/{project}/variables/{variable}"
	register(s, api, huma.Operation{
		OperationID: "list-variables", Method: http.MethodGet, Path: all, Tags: tags,
		Summary: "List the variables of a project, or of one of its environments", Description: "In the order of their names; secrets without their values.",
	}, func(ctx context.Context, in *VariableScope) (*reply[VariableList], error) {
		of, err := s.scope(ctx, *in)
		if err != nil {
			return nil, err
		}
		variables, err := s.Store.Variables(ctx, of)
		if err != nil {
			return nil, err
		}
		return replyWith(VariableList{Variables: list(variables)}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-variable", Method: http.MethodGet, Path: one, Tags: tags, Summary: "Get a variable; a secret without its value",
	}, func(ctx context.Context, in *VariablePath) (*tagged[release.Variable], error) {
		of, err := s.scope(ctx, in.VariableScope)
		if err != nil {
			return nil, err
		}
		v, err := s.Store.Variable(ctx, of, in.Name)
		if err != nil {
			return nil, err
		}
		return tag(v, v.Revision), nil
	})
	registerChange(s, api, huma.Operation{
		OperationID: "put-variable", Method: http.MethodPut, Path: one, Tags: tags, Summary: "Make a variable, or change it",
		Description: "Answers 201 if it is new. What changes nothing leaves the revision. Tasks that were made already keep the value that they were made with, but for secrets.",
	}, func(ctx context.Context, in *struct {
		VariablePath
		Guarded
		Body VariableContent
	}, guard store.Guard) (*putVariable, error) {
		of, err := s.scope(ctx, in.VariableScope)
		if err != nil {
			return nil, err
		}
		v := release.Variable{Name: in.Name, Secret: in.Body.Secret, Description: in.Body.Description}
		keep := in.Body.Value == nil
		if !keep {
			v.Value = *in.Body.Value
		} else if !v.Secret {
			return nil, release.Invalid("value", "is missing")
		}
		if err := v.Validate(); err != nil {
			return nil, err
		}
		created, err := s.Store.PutVariable(ctx, of, &v, keep, guard)
		if err = s.changed(in.Trial, err); err != nil {
			return nil, err
		}
		out := &putVariable{http.StatusOK, etag(v.Revision), v}
		if created {
			out.Status = http.StatusCreated
		}
		return out, nil
	})
	registerChange(s, api, huma.Operation{
		OperationID: "delete-variable", Method: http.MethodDelete, Path: one, Tags: tags, Summary: "Delete a variable",
		Description: "Answers 409 for a secret that a configuration refers to which runs somewhere.",
	}, func(ctx context.Context, in *struct {
		VariablePath
		Guarded
	}, guard store.Guard) (*struct{}, error) {
		of, err := s.scope(ctx, in.VariableScope)
		if err != nil {
			return nil, err
		}
		return nil, s.changed(in.Trial, s.Store.DeleteVariable(ctx, of, in.Name, guard))
	})
}
