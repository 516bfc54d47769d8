package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// ClientList is a page of agents.
type ClientList struct {
	Clients []release.Client `json:"clients"`
	Total   int              `json:"total" doc:"How many match, on all pages"`
}

// ClientPath names an agent.
type ClientPath struct {
	ID string `path:"client_id"`
}

type clientQuery struct {
	Status   string `query:"status" enum:"online,reconnecting,offline"`
	Label    string `query:"label" doc:"key=value, or key for any value" example:"env=prod"`
	Search   string `query:"search" maxLength:"200" doc:"Part of an id or a host name"`
	Selector string `query:"selector" maxLength:"8000" doc:"As tasks and commands take it; agents that were revoked are not picked" example:"env=prod,os=linux,!maintenance"`
	Page
}

func (s *server) registerClients(api huma.API) {
	tags := []string{"clients"}
	register(s, api, huma.Operation{
		OperationID: "list-clients", Method: http.MethodGet, Path: "/api/clients", Tags: tags, Summary: "List agents",
	}, func(ctx context.Context, in *clientQuery) (*reply[ClientList], error) {
		clients, total, err := s.Store.Clients(ctx, store.ClientFilter{
			Status: release.ClientStatus(in.Status), Label: in.Label, Search: in.Search, Selector: in.Selector,
			Limit: in.Limit, Offset: in.Offset,
		})
		if err != nil {
			return nil, err
		}
		return replyWith(ClientList{Clients: list(clients), Total: total}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-client", Method: http.MethodGet, Path: "/api/clients/{client_id}", Tags: tags, Summary: "Get an agent, with the facts of its host",
	}, func(ctx context.Context, in *ClientPath) (*reply[release.Client], error) {
		client, err := s.Store.ClientByID(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return replyWith(client), nil
	})
	register(s, api, huma.Operation{
		OperationID: "revoke-client", Method: http.MethodPost, Path: "/api/clients/{client_id}/revoke", Tags: tags,
		Summary: "Revoke an agent's certificates", Description: "It joins again only with a token that may replace it.",
		DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *ClientPath) (*struct{}, error) {
		if _, err := s.Store.ClientByID(ctx, in.ID); err != nil {
			return nil, err
		}
		if err := s.Store.RevokeClient(ctx, in.ID); err != nil {
			return nil, err
		}
		s.Logger.InfoContext(ctx, "client revoked", "client", in.ID, "by", principal(ctx))
		s.Revoked(in.ID)
		s.Bus.Notify(bus.Clients)
		return nil, nil
	})
}
