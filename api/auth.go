package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
)

// Public paths; every other one wants a token or a login.
var public = map[string]bool{"/health": true, "/live": true, "/ready": true, "/login": true}

type principalKey struct{}

// principal gives the name of the token that a request came with.
func principal(ctx context.Context) string {
	name, _ := ctx.Value(principalKey{}).(string)
	return name
}

// authenticate lets through who has a token or a login, and who wants what is public.
func (s *server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if public[r.URL.Path] {
			next.ServeHTTP(w, r)
			return
		}
		name, byCookie, err := s.identify(r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		if byCookie {
			if err := s.crossOrigin.Check(r); err != nil {
				writeProblem(w, http.StatusForbidden, "this request came from another site's page")
				return
			}
		}
		noteUser(r.Context(), name)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), principalKey{}, name)))
	})
}

func (s *server) identify(r *http.Request) (name string, byCookie bool, err error) {
	hash := ""
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		hash = auth.HashSecret(strings.TrimSpace(token))
	} else if hash, byCookie = s.sessions.tokenHash(r); !byCookie {
		return "", false, release.ErrUnauthorized
	}
	name, err = s.Store.TokenByHash(r.Context(), hash)
	if errors.Is(err, release.ErrNotFound) {
		return "", byCookie, release.ErrUnauthorized
	}
	return name, byCookie, err
}

func (s *server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case !errors.Is(err, release.ErrUnauthorized):
		s.Logger.ErrorContext(r.Context(), "token not checked", "error", err)
		w.Header().Set("Retry-After", retryAfterSeconds)
		writeProblem(w, http.StatusServiceUnavailable, "tokens cannot be checked at the moment")
	case wantsPage(r):
		http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
	default:
		w.Header().Set("WWW-Authenticate", `Bearer realm="QuicFlow"`)
		writeProblem(w, http.StatusUnauthorized, "send a valid API token as Authorization: Bearer, or log in at /login")
	}
}

// wantsPage says whether a person with a browser is at the other end.
func wantsPage(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html")
}

func secureHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		if !strings.HasPrefix(r.URL.Path, temporalPath) {
			h.Set("Cache-Control", "no-store")
		}
		next.ServeHTTP(w, r)
	})
}
