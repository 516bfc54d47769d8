package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/release"
)

// targetSample is how many of the agents that are picked a preview names.
const targetSample = 20

// TargetPreview is whom targets pick.
type TargetPreview struct {
	Total        int              `json:"total"`
	Online       int              `json:"online"`
	Reconnecting int              `json:"reconnecting" doc:"Lost less than session.offline_grace ago"`
	Offline      int              `json:"offline"`
	Clients      []release.Client `json:"clients" doc:"The first 20 of them"`
	Unknown      []string         `json:"unknown" doc:"Listed, but no agent is known by that id, or it was revoked"`
}

func (s *server) registerTargetPreview(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "preview-targets", Method: http.MethodPost, Path: "/api/targets/preview", Tags: []string{"clients"}, MaxBodyBytes: MaxTaskBody,
		Summary: "Show whom a selector or a list picks", Description: "Given both, an agent must be listed and match the selector.",
	}, func(ctx context.Context, in *struct{ Body release.Targets }) (*reply[TargetPreview], error) {
		found, err := s.Store.PreviewTargets(ctx, in.Body, targetSample)
		if err != nil {
			return nil, atTargets(err)
		}
		return replyWith(TargetPreview{
			Total: found.Total, Online: found.Online, Reconnecting: found.Reconnecting, Offline: found.Offline,
			Clients: list(found.Clients), Unknown: list(found.Unknown),
		}), nil
	})
}

// atTargets gives an error of targets where they are the whole body.
func atTargets(err error) error {
	var known *release.Error
	if !errors.As(err, &known) {
		return err
	}
	if known.Field == "targets" {
		return release.ErrorAt("selector", err)
	}
	return release.ErrorAt(strings.TrimPrefix(known.Field, "targets."), err)
}
