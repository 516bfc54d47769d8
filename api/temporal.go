package api

import (
	"net/http"
	"slices"

	"github.com/go-chi/chi/v5"
)

const temporalPath = "/temporal"

// mountTemporal puts Temporal's UI behind the login.
func (s *server) mountTemporal(router chi.Router) {
	var handler http.Handler
	switch {
	case s.TemporalUI != nil:
		handler = withoutCredentials(s.TemporalUI)
	case s.TemporalUIURL != "":
		handler = http.RedirectHandler(s.TemporalUIURL, http.StatusFound)
	default:
		return
	}
	router.Handle(temporalPath, handler)
	router.Handle(temporalPath+"/*", handler)
}

// withoutCredentials keeps our token and session from the UI, which has its own way to identify itself to Temporal.
func withoutCredentials(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.Header.Del("Authorization")
		cookies := slices.DeleteFunc(r.Cookies(), func(c *http.Cookie) bool { return c.Name == sessionCookie })
		r.Header.Del("Cookie")
		for _, c := range cookies {
			r.AddCookie(c)
		}
		next.ServeHTTP(w, r)
	})
}
