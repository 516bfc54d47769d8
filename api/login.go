package api

import (
	"encoding/json"
	"errors"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/time/rate"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
)

const maxLoginBody = 4 << 10

func (s *server) loginPage(w http.ResponseWriter, r *http.Request) {
	s.pages.login(w, http.StatusOK, loginView{Next: localPath(r.URL.Query().Get("next"))})
}

// login takes a token as a form, from the login page, or as JSON, and gives a cookie for it.
func (s *server) login(w http.ResponseWriter, r *http.Request) {
	if err := s.crossOrigin.Check(r); err != nil {
		writeProblem(w, http.StatusForbidden, "this login came from another site's page")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxLoginBody)
	form := isForm(r)
	token, next, err := readLogin(r, form)
	if err != nil {
		writeProblem(w, http.StatusBadRequest, "want {\"token\": …} as JSON, or a form with the field token")
		return
	}
	fail := func(status int, message string) {
		if form {
			s.pages.login(w, status, loginView{Next: next, Problem: message})
			return
		}
		writeProblem(w, status, message)
	}
	if !s.logins.mayTry(r.RemoteAddr) {
		w.Header().Set("Retry-After", "10")
		fail(http.StatusTooManyRequests, "too many failed logins; wait a little")
		return
	}
	hash := auth.HashSecret(token)
	name, err := s.Store.TokenByHash(r.Context(), hash)
	switch {
	case errors.Is(err, release.ErrNotFound):
		s.logins.failed(r.RemoteAddr)
		s.Logger.WarnContext(r.Context(), "login refused", "remote", r.RemoteAddr)
		fail(http.StatusUnauthorized, "this token is not valid")
		return
	case err != nil:
		s.Logger.ErrorContext(r.Context(), "token not checked", "error", err)
		fail(http.StatusServiceUnavailable, "tokens cannot be checked at the moment")
		return
	}
	noteUser(r.Context(), name)
	http.SetCookie(w, s.sessions.cookie(hash, r.TLS != nil))
	if form {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *server) logout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, endCookie())
	if isForm(r) {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func isForm(r *http.Request) bool {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return kind == "application/x-www-form-urlencoded"
}

func readLogin(r *http.Request, form bool) (token, next string, err error) {
	if form {
		if err := r.ParseForm(); err != nil {
			return "", "", err
		}
		token, next = r.PostForm.Get("token"), r.PostForm.Get("next")
	} else {
		var body struct {
			Token string `json:"token"`
		}
		decoder := json.NewDecoder(r.Body)
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&body); err != nil {
			return "", "", err
		}
		token = body.Token
	}
	return strings.TrimSpace(token), localPath(next), nil
}

// localPath gives next if it is a path on this server, else "/": a login must not send anyone elsewhere.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" ||
		!strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\t\r\n") {
		return "/"
	}
	return next
}

// loginLimiter holds back whoever fails to log in again and again.
type loginLimiter struct {
	mu       sync.Mutex
	failures map[netip.Prefix]*rate.Limiter
}

const (
	loginBurst        = 10
	loginInterval     = 10 * time.Second
	maxLoginAddresses = 4096
)

func newLoginLimiter() *loginLimiter {
	return &loginLimiter{failures: map[netip.Prefix]*rate.Limiter{}}
}

func (l *loginLimiter) mayTry(remote string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.failures[network(remote)]
	return limiter == nil || limiter.Tokens() >= 1
}

func (l *loginLimiter) failed(remote string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := network(remote)
	limiter := l.failures[from]
	if limiter == nil {
		if len(l.failures) >= maxLoginAddresses {
			for other, idle := range l.failures {
				if idle.Tokens() >= loginBurst {
					delete(l.failures, other)
				}
			}
		}
		if len(l.failures) >= maxLoginAddresses {
			from = netip.Prefix{} // all further ones share a limit
			limiter = l.failures[from]
		}
		if limiter == nil {
			limiter = rate.NewLimiter(rate.Every(loginInterval), loginBurst)
			l.failures[from] = limiter
		}
	}
	limiter.Allow()
}

// network gives what is limited as one: an IPv4 address, an IPv6 /64.
func network(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits)
	return prefix
}

// describeLogin adds the login to the document. It answers forms too, which is why it is no ordinary operation.
func describeLogin(doc *huma.OpenAPI) {
	problem := &huma.Response{
		Description: "Error",
		Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: &huma.Schema{Ref: "#/components/schemas/ErrorModel"}}},
	}
	doc.AddOperation(&huma.Operation{
		OperationID: "login", Method: http.MethodPost, Path: "/login", Tags: []string{"login"}, Security: []map[string][]string{},
		Summary:     "Log in with a token",
		Description: "Gives a cookie that holds for 12 hours, or as long as the token. A form (token, next) is answered with a redirect.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{
			Type:       huma.TypeObject,
			Required:   []string{"token"},
			Properties: map[string]*huma.Schema{"token": {Type: huma.TypeString}},
		}}}},
		Responses: map[string]*huma.Response{"204": {Description: "Logged in"}, "default": problem},
	})
	doc.AddOperation(&huma.Operation{
		OperationID: "logout", Method: http.MethodPost, Path: "/logout", Tags: []string{"login"},
		Summary:   "Forget the login of a browser",
		Responses: map[string]*huma.Response{"204": {Description: "Logged out"}, "default": problem},
	})
}
