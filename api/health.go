package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

const checkTimeout = 5 * time.Second

// ServerHealth is how the server is.
type ServerHealth struct {
	Status  string            `json:"status" enum:"ok,degraded" doc:"degraded if a check fails"`
	Version string            `json:"version"`
	Checks  map[string]string `json:"checks" doc:"ok or failing by name; the server's log says why"`
}

type readiness struct {
	Status int
	Body   ServerHealth
}

func (s *server) registerHealth(api huma.API) {
	open := []map[string][]string{} // no login
	register(s, api, huma.Operation{
		OperationID: "health", Method: http.MethodGet, Path: "/health", Tags: []string{"health"}, Security: open,
		Summary: "How the server is", Description: "Answers 200 as long as the server can answer.",
	}, func(ctx context.Context, _ *struct{}) (*reply[ServerHealth], error) {
		return replyWith(s.check(ctx)), nil
	})
	register(s, api, huma.Operation{
		OperationID: "live", Method: http.MethodGet, Path: "/live", Tags: []string{"health"}, Security: open,
		Summary: "Whether the process runs", DefaultStatus: http.StatusNoContent,
	}, func(context.Context, *struct{}) (*struct{}, error) { return nil, nil })
	register(s, api, huma.Operation{
		OperationID: "ready", Method: http.MethodGet, Path: "/ready", Tags: []string{"health"}, Security: open,
		Summary: "Whether the server can do its work", Description: "Answers 503 while a check fails.",
	}, func(ctx context.Context, _ *struct{}) (*readiness, error) {
		health := s.check(ctx)
		if health.Status != "ok" {
			return &readiness{Status: http.StatusServiceUnavailable, Body: health}, nil
		}
		return &readiness{Status: http.StatusOK, Body: health}, nil
	})
}

func (s *server) check(ctx context.Context) ServerHealth {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	health := ServerHealth{Status: "ok", Version: s.Version, Checks: map[string]string{}}
	for name, check := range s.Checks {
		health.Checks[name] = "ok"
		if err := check(ctx); err != nil {
			s.Logger.WarnContext(ctx, "check failed", "check", name, "error", err)
			health.Checks[name] = "failing"
			health.Status = "degraded"
		}
	}
	return health
}
