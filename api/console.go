package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// UserSession is who is logged in, and at what.
type UserSession struct {
	User              string `json:"user" doc:"Name of the token"`
	Version           string `json:"version" doc:"Of the server"`
	TemporalURL       string `json:"temporal_url,omitempty" doc:"Where Temporal's UI is, without a slash at its end. Left out where there is none"`
	TemporalNamespace string `json:"temporal_namespace,omitempty"`
	AgentPort         int    `json:"agent_port,omitempty" doc:"UDP port at which agents connect"`
	BatchEnabled      bool   `json:"batch_enabled"`
}

func (s *server) registerSession(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "get-session", Method: http.MethodGet, Path: "/api/session", Tags: []string{"login"}, Summary: "Who is logged in",
	}, func(ctx context.Context, _ *struct{}) (*reply[UserSession], error) {
		session := UserSession{User: principal(ctx), Version: s.Version, TemporalNamespace: s.TemporalNamespace, AgentPort: s.AgentPort, BatchEnabled: !s.NoBatch}
		if s.TemporalUI != nil {
			session.TemporalURL = temporalPath
		} else if s.TemporalUIURL != "" {
			session.TemporalURL = strings.TrimRight(s.TemporalUIURL, "/")
		}
		return replyWith(session), nil
	})
}

// notConsole are the paths, with all below them, that the console has no page at.
var notConsole = []string{"/api", "/health", "/live", "/ready", "/metrics", "/logout", "/openapi", temporalPath}

// console answers with the console what a browser asks for beside the API. Its files are the same for everybody: what they
// show they ask the API for, which wants a login.
func (s *server) console(next http.Handler) http.Handler {
	if s.Console == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isConsole(r) {
			s.Console.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isConsole(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	for _, path := range notConsole {
		if rest, ok := strings.CutPrefix(r.URL.Path, path); ok && (rest == "" || rest[0] == '/' || rest[0] == '.' || rest[0] == '-') {
			return false
		}
	}
	return strings.HasPrefix(r.URL.Path, "/assets/") || r.URL.Path == "/favicon.svg" || strings.Contains(r.Header.Get("Accept"), "text/html")
}
