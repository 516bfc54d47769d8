package api_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
)

func anonymous(t *testing.T, s *apitest.Server, method, path, kind, body string) *http.Request {
	t.Helper()
	r := s.Request(method, path, strings.NewReader(body))
	r.Header.Del("Authorization")
	r.Header.Set("Content-Type", kind)
	return r
}

const formType = "application/x-www-form-urlencoded"

// logIn gives the cookie of a login.
func logIn(t *testing.T, s *apitest.Server) *http.Cookie {
	t.Helper()
	res := open(t, anonymous(t, s, "POST", "/login", "application/json", `{"token":"`+s.Token+`"}`))
	defer res.Body.Close()
	require.Equal(t, 204, res.StatusCode)
	require.Len(t, res.Cookies(), 1)
	return res.Cookies()[0]
}

func TestLoginGivesACookieThatIsNotTheToken(t *testing.T) {
	s := apitest.Start(t)
	cookie := logIn(t, s)
	require.True(t, cookie.HttpOnly)
	require.Equal(t, http.SameSiteLaxMode, cookie.SameSite)
	require.False(t, cookie.Secure)
	require.NotContains(t, cookie.Value, s.Token)

	get := func(value string) int {
		r := anonymous(t, s, "GET", "/api/clients", formType, "")
		r.AddCookie(&http.Cookie{Name: cookie.Name, Value: value})
		status, _ := send(t, r)
		return status
	}
	require.Equal(t, 200, get(cookie.Value))
	payload, mac, _ := strings.Cut(cookie.Value, ".")
	for _, wrong := range []string{"", ".", payload, payload + ".", "." + mac, payload + "x." + mac, payload + "." + mac[1:], s.Token} {
		require.Equal(t, 401, get(wrong), wrong)
	}
}

func TestLoginEnds(t *testing.T) {
	now := time.Now()
	s := apitest.Start(t, func(c *api.Config) { c.Now = func() time.Time { return now } })
	cookie := logIn(t, s)
	get := func() int {
		r := anonymous(t, s, "GET", "/api/clients", formType, "")
		r.AddCookie(cookie)
		status, _ := send(t, r)
		return status
	}
	require.Equal(t, 200, get())
	now = now.Add(12*time.Hour + time.Second)
	require.Equal(t, 401, get())
}

func TestLoginSurvivesARestartWithItsKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "session.key")
	key, err := api.LoadSessionKey(file)
	require.NoError(t, err)
	again, err := api.LoadSessionKey(file)
	require.NoError(t, err)
	require.Equal(t, key, again)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.NoError(t, os.WriteFile(file, []byte("short"), 0o600))
	_, err = api.LoadSessionKey(file)
	require.ErrorContains(t, err, "damaged")

	s := apitest.Start(t, func(c *api.Config) { c.SessionKey = key })
	cookie := logIn(t, s)
	second, err := api.New(api.Config{Store: s.Store, Rollouts: s.Rollouts, Jobs: s.Jobs, Schedules: s.Schedules, Messages: s.Hub, Bus: s.Bus, Joins: joins{}, Artifacts: noArtifacts{}, SessionKey: key})
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), "GET", "/api/clients", nil)
	require.NoError(t, err)
	r.AddCookie(cookie)
	w := newRecorder()
	second.ServeHTTP(w, r)
	require.Equal(t, 200, w.Code)
}

func TestLoginPage(t *testing.T) {
	s := apitest.Start(t)
	res := open(t, anonymous(t, s, "GET", "/login?next="+url.QueryEscape(`/temporal/"><script>`), formType, ""))
	defer res.Body.Close()
	require.Equal(t, 200, res.StatusCode)
	policy := res.Header.Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'")
	require.NotContains(t, policy, "unsafe")
	_, text := send(t, anonymous(t, s, "GET", "/login?next="+url.QueryEscape(`/temporal/"><script>`), formType, ""))
	require.NotContains(t, text, "<script")

	status, text := send(t, anonymous(t, s, "POST", "/login", formType, "token=wrong&next=%2Ftemporal%2F"))
	require.Equal(t, 401, status)
	require.Contains(t, text, "not valid")
	require.Contains(t, text, `value="/temporal/"`)
}

func TestLoginLeadsToLocalPathsOnly(t *testing.T) {
	s := apitest.Start(t)
	for next, want := range map[string]string{
		"/temporal/a?b=c":                  "/temporal/a?b=c",
		"":                                 "/",
		"https://evil.example/":            "/",
		"//evil.example/":                  "/",
		`/\evil.example/`:                  "/",
		`\\evil.example/`:                  "/",
		"javascript:alert(1)":              "/",
		"/ok\r\nSet-Cookie: a=b":           "/",
		"temporal":                         "/",
		"http:/evil.example":               "/",
		"/\t/evil.example":                 "/",
		"/login?next=https://evil.example": "/login?next=https://evil.example", // and there the same holds
	} {
		res := open(t, anonymous(t, s, "POST", "/login", formType, url.Values{"token": {s.Token}, "next": {next}}.Encode()))
		res.Body.Close()
		require.Equal(t, 303, res.StatusCode, next)
		require.Equal(t, want, res.Header.Get("Location"), next)
	}
}

func TestBrowserIsSentToTheLogin(t *testing.T) {
	s := apitest.Start(t, func(c *api.Config) { c.TemporalUIURL = "https://temporal.example/" })
	page := func(path string, cookie *http.Cookie) (int, string) {
		r := anonymous(t, s, "GET", path, "", "")
		r.Header.Set("Accept", "text/html,*/*")
		if cookie != nil {
			r.AddCookie(cookie)
		}
		res := open(t, r)
		defer res.Body.Close()
		return res.StatusCode, res.Header.Get("Location")
	}
	for _, path := range []string{"/", "/temporal/", "/temporal/namespaces?x=1"} {
		status, to := page(path, nil)
		require.Equal(t, 303, status)
		require.Equal(t, "/login?next="+url.QueryEscape(path), to)
	}
	cookie := logIn(t, s)
	status, to := page("/temporal/", cookie)
	require.Equal(t, 302, status)
	require.Equal(t, "https://temporal.example/", to)
	status, _ = page("/", cookie)
	require.Equal(t, 200, status)
}

func TestTemporalUIGetsNoCredentials(t *testing.T) {
	var seen *http.Request
	s := apitest.Start(t, func(c *api.Config) {
		c.TemporalUI = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Clone(context.Background()) })
	})
	r := anonymous(t, s, "GET", "/temporal/x", "", "")
	r.AddCookie(logIn(t, s))
	r.AddCookie(&http.Cookie{Name: "other", Value: "1"})
	status, _ := send(t, r)
	require.Equal(t, 200, status)
	require.Equal(t, "other=1", seen.Header.Get("Cookie"))
	status, _ = send(t, s.Request("GET", "/temporal", nil))
	require.Equal(t, 200, status)
	require.Empty(t, seen.Header.Get("Authorization"))
}

func TestOtherSitesCannotUseALogin(t *testing.T) {
	s := apitest.Start(t)
	cookie := logIn(t, s)
	post := func(change func(*http.Request)) int {
		r := anonymous(t, s, "POST", "/api/agent-tokens", "application/json", "{}")
		r.AddCookie(cookie)
		change(r)
		status, _ := send(t, r)
		return status
	}
	require.Equal(t, 403, post(func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }))
	require.Equal(t, 403, post(func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }))
	require.Equal(t, 403, post(func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }))
	require.Equal(t, 403, post(func(r *http.Request) { r.Header.Set("Origin", "null") }))
	require.Equal(t, 201, post(func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") }))
	require.Equal(t, 201, post(func(r *http.Request) { r.Header.Set("Origin", s.URL) }))
	require.Equal(t, 201, post(func(r *http.Request) { // a token is no cookie: no browser adds it by itself
		r.Header.Set("Origin", "https://elsewhere.example")
		r.Header.Set("Authorization", "Bearer "+s.Token)
	}))

	r := anonymous(t, s, "POST", "/login", "application/json", `{"token":"`+s.Token+`"}`)
	r.Header.Set("Origin", "https://evil.example")
	status, _ := send(t, r)
	require.Equal(t, 403, status)
}

func TestFailedLoginsAreLimited(t *testing.T) {
	s := apitest.Start(t)
	try := func(token string) int {
		status, _ := send(t, anonymous(t, s, "POST", "/login", "application/json", `{"token":"`+token+`"}`))
		return status
	}
	for range 20 {
		require.Equal(t, 204, try(s.Token), "those that succeed are not counted")
	}
	for range 10 {
		require.Equal(t, 401, try("guess"))
	}
	require.Equal(t, 429, try("guess"))
	require.Equal(t, 429, try(s.Token))
	status, _ := do(t, s, "GET", "/api/clients", "")
	require.Equal(t, 200, status)
}

func TestLogout(t *testing.T) {
	s := apitest.Start(t)
	r := anonymous(t, s, "POST", "/logout", formType, "")
	r.AddCookie(logIn(t, s))
	res := open(t, r)
	defer res.Body.Close()
	require.Equal(t, 303, res.StatusCode)
	require.Equal(t, -1, res.Cookies()[0].MaxAge)
}

func TestLoginRefusesOtherBodies(t *testing.T) {
	s := apitest.Start(t)
	for _, body := range []string{"", "{", `{"token":5}`, `{"password":"x"}`, `{"token":"` + strings.Repeat("x", 8<<10) + `"}`} {
		status, _ := send(t, anonymous(t, s, "POST", "/login", "application/json", body))
		require.Equal(t, 400, status, body[:min(len(body), 40)])
	}
}
