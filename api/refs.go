package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// refsAnswer is how long an agent may take to ask the repository.
const refsAnswer = 40 * time.Second

// RefList is what a repository has.
type RefList struct {
	Repository string           `json:"repository"`
	ClientID   string           `json:"client_id" doc:"The agent that looked"`
	Refs       []release.GitRef `json:"refs" doc:"The default branch first, then the other branches, then the tags, of each kind the highest version first"`
	Truncated  bool             `json:"truncated" doc:"There are more"`
}

type refsQuery struct {
	ProjectPath
	Environment string `query:"environment" doc:"Whose variables count"`
	ClientID    string `query:"client_id" doc:"The agent that shall look. Defaults to one that is connected and can do git deployments"`
}

func (s *server) registerRefs(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "list-refs", Method: http.MethodGet, Path: "/api/release/projects/{project}/refs", Tags: []string{"versions"},
		Summary: "List the branches and tags of a git project's repository", Description: "An agent asks the repository, as hosts reach it and servers may not.",
	}, func(ctx context.Context, in *refsQuery) (*reply[RefList], error) {
		found, err := s.refs(ctx, in)
		if err != nil {
			return nil, err
		}
		return replyWith(found), nil
	})
}

func (s *server) refs(ctx context.Context, in *refsQuery) (RefList, error) {
	project, err := s.Store.Project(ctx, in.Ref)
	if err != nil {
		return RefList{}, err
	}
	if project.Type != release.TypeGit {
		return RefList{}, release.Invalid("project", "%s is a %s project; only git projects have a repository", project.Name, project.Type)
	}
	var environment release.Environment
	if in.Environment != "" {
		if environment, err = s.Store.Environment(ctx, project.ID, in.Environment); err != nil {
			return RefList{}, release.AsInvalid("environment", err)
		}
	}
	deploy, repository, err := s.repositoryOf(ctx, project, environment)
	if err != nil {
		return RefList{}, err
	}
	client := in.ClientID
	if client == "" {
		if client, err = s.anyAgent(ctx, project.Type); err != nil {
			return RefList{}, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, refsAnswer)
	defer cancel()
	response, err := s.Messages.Request(ctx, client, &quicflowv1.Request{Body: &quicflowv1.Request_ListRefs{ListRefs: deploy}})
	if outcome, why := judge(response, err); outcome != MessageAnswered {
		return RefList{}, release.Unavailable(err, "agent %s: %s", client, why)
	}
	list := RefList{Repository: repository, ClientID: client, Refs: []release.GitRef{}, Truncated: response.GetRefs().GetTruncated()}
	for _, r := range response.GetRefs().GetRefs() {
		list.Refs = append(list.Refs, release.GitRef{Name: r.Name, Kind: r.Kind, Commit: r.Commit, Default: r.Default})
	}
	return list, nil
}

// repositoryOf gives what an agent needs to reach the repository. The secrets in it are kept by nobody.
func (s *server) repositoryOf(ctx context.Context, project release.Project, environment release.Environment) (deploy *quicflowv1.DeployStep, repository string, err error) {
	scope := store.Scope{ProjectID: project.ID, EnvironmentID: environment.ID}
	variables, err := s.Store.VariablesFor(ctx, scope)
	if err != nil {
		return nil, "", err
	}
	merged := release.Merge(project, release.Version{}, release.Override{})
	merged.Git = &release.GitSpec{Repository: merged.Git.Repository, Auth: merged.Git.Auth, User: merged.Git.User}
	merged, err = merged.Expand(release.Variables(release.BuiltIns{Project: project.Name, Environment: environment.Name}, variables), false)
	if err != nil {
		return nil, "", err
	}
	snapshot, err := release.NewSnapshot(merged, project.ID, "", environment.ID)
	if err != nil {
		return nil, "", err
	}
	secrets, err := s.Store.SecretValues(ctx, scope, snapshot.Secrets)
	if err != nil {
		return nil, "", err
	}
	return &quicflowv1.DeployStep{Type: string(project.Type), Config: snapshot.Config, Environment: environment.Name, Secrets: secrets}, merged.Git.Repository, nil
}

// anyAgent gives one that is connected to this server and can do a type.
func (s *server) anyAgent(ctx context.Context, t release.Type) (string, error) {
	connected := s.Messages.Clients()
	if len(connected) > 0 {
		able, err := s.Store.PreviewTargets(ctx, release.Targets{Clients: connected, Selector: "facts.capabilities in (" + release.Capability(t) + ")"}, 1)
		if err != nil {
			return "", err
		}
		if len(able.Clients) > 0 {
			return able.Clients[0].ID, nil
		}
	}
	return "", release.Unavailable(nil, "no agent that can do %s deployments is connected to this server", t)
}
