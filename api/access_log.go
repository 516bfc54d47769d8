package api

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/go-chi/chi/v5/middleware"
)

type accessKey struct{}

// access is what later handlers add to a request's line in the log.
type access struct{ user string }

func noteUser(ctx context.Context, name string) {
	if a, ok := ctx.Value(accessKey{}).(*access); ok {
		a.user = name
	}
}

// logRequests writes one line a request: no query, header or body, which may hold secrets. It also keeps a panic from
// taking more than its own request with it.
func (s *server) logRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := s.Now()
		answer := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		noted := &access{}
		defer func() {
			if cause := recover(); cause != nil {
				if cause == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so, too
					panic(cause)
				}
				s.Logger.Error("request panicked", "path", r.URL.Path, "panic", cause, "stack", string(debug.Stack()))
				if answer.Status() == 0 {
					writeProblem(answer, http.StatusInternalServerError, "something went wrong in the server; its log says what")
				}
			}
			level := slog.LevelInfo
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				level = slog.LevelDebug
			}
			s.Logger.Log(r.Context(), level, "request", "method", r.Method, "path", r.URL.Path, "status", answer.Status(),
				"bytes", answer.BytesWritten(), "duration", s.Now().Sub(began), "user", noted.user, "remote", r.RemoteAddr)
		}()
		next.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), accessKey{}, noted)))
	})
}
