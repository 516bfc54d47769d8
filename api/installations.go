package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// InstallationList is a page of what the hosts run.
type InstallationList struct {
	Installations []release.Installation `json:"installations"`
	Total         int                    `json:"total" doc:"How many match, on all pages"`
}

type installationQuery struct {
	Project  string   `query:"project" doc:"Id or name"`
	ClientID string   `query:"client_id"`
	Clients  []string `query:"client_ids" maxItems:"1000" doc:"Any of these, with commas between them"`
	Page
}

func (s *server) registerInstallations(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "list-installations", Method: http.MethodGet, Path: "/api/release/installations", Tags: []string{"installations"},
		Summary: "What version of a project each host runs",
	}, func(ctx context.Context, in *installationQuery) (*reply[InstallationList], error) {
		installations, total, err := s.Store.Installations(ctx, store.InstallationFilter{
			Project: in.Project, ClientID: in.ClientID, Clients: in.Clients, Limit: in.Limit, Offset: in.Offset,
		})
		if err != nil {
			return nil, err
		}
		return replyWith(InstallationList{Installations: list(installations), Total: total}), nil
	})
}
