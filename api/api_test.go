package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/pgtest"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var postgres *pgtest.Server

func TestMain(m *testing.M) {
	os.Exit(pgtest.Main(m, &postgres, func() error { return goleak.Find() }))
}

// starter starts an API; see apitest.Start.
type starter func(t testing.TB, change ...func(*api.Config)) *apitest.Server

// onBoth runs a test on each database.
func onBoth(t *testing.T, test func(*testing.T, starter)) {
	t.Run("sqlite", func(t *testing.T) { test(t, apitest.Start) })
	t.Run("postgres", func(t *testing.T) {
		test(t, func(t testing.TB, change ...func(*api.Config)) *apitest.Server {
			return apitest.StartOn(t, store.Postgres, postgres.Database(t), change...)
		})
	})
}

// do makes a request with the token and gives the status and the body.
func do(t *testing.T, s *apitest.Server, method, path, body string) (int, string) {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	return send(t, s.Request(method, path, reader))
}

func send(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	res := open(t, r)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(text)
}

// open sends a request and does not follow redirects.
func open(t *testing.T, r *http.Request) *http.Response {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(r)
	require.NoError(t, err)
	return res
}

func read[T any](t *testing.T, text string) (v T) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &v), text)
	return v
}

type problem struct {
	Status int
	Detail string
	Errors []struct{ Location, Message string }
}

func TestCommittedDocumentIsCurrent(t *testing.T) {
	want, err := api.Spec().YAML()
	require.NoError(t, err)
	got, err := os.ReadFile("openapi.yaml")
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "openapi.yaml is stale: run go generate ./api ./internal/apiclient")
}

func TestServedDocumentHasTheOperations(t *testing.T) {
	s := apitest.Start(t)
	status, text := do(t, s, "GET", "/openapi.json", "")
	require.Equal(t, 200, status)
	doc := read[struct {
		OpenAPI string         `json:"openapi"`
		Paths   map[string]any `json:"paths"`
	}](t, text)
	require.Equal(t, "3.1.0", doc.OpenAPI)
	require.Len(t, doc.Paths, len(api.Spec().Paths))
}

func TestEveryRouteWantsAToken(t *testing.T) {
	s := apitest.Start(t, func(c *api.Config) { c.TemporalUIURL = "http://temporal.example" })
	open := map[string]bool{"/health": true, "/live": true, "/ready": true, "/login": true}
	type route struct{ method, path string }
	routes := []route{
		{"GET", "/openapi.json"}, {"GET", "/openapi.yaml"}, {"GET", "/"}, {"GET", "/temporal/"}, {"POST", "/temporal/api"},
		{"GET", "/nothing"}, {"PUT", "/api/clients"}, {"POST", "/logout"},
	}
	for path, item := range api.Spec().Paths {
		for method, op := range map[string]any{"GET": item.Get, "POST": item.Post, "PATCH": item.Patch, "DELETE": item.Delete, "PUT": item.Put} {
			if text, _ := json.Marshal(op); string(text) != "null" && !open[path] {
				routes = append(routes, route{method, strings.NewReplacer("{", "", "}", "").Replace(path)})
			}
		}
	}
	require.Greater(t, len(routes), 25)
	for _, r := range routes {
		for _, authorization := range []string{"", "Bearer ", "Bearer qfa_wrong", "Basic " + s.Token, s.Token} {
			req := s.Request(r.method, r.path, nil)
			req.Header.Del("Authorization")
			if authorization != "" {
				req.Header.Set("Authorization", authorization)
			}
			status, text := send(t, req)
			require.Equal(t, 401, status, "%s %s with %q", r.method, r.path, authorization)
			require.Contains(t, text, "token")
		}
	}
	require.Empty(t, s.Rollouts.Calls())
}

func TestHealthIsOpen(t *testing.T) {
	broken := false
	s := apitest.Start(t, func(c *api.Config) {
		c.Checks = map[string]api.Check{"store": func(context.Context) error {
			if broken {
				return os.ErrClosed
			}
			return nil
		}}
	})
	get := func(path string) (int, string) {
		r := s.Request("GET", path, nil)
		r.Header.Del("Authorization")
		return send(t, r)
	}
	status, text := get("/ready")
	require.Equal(t, 200, status)
	require.JSONEq(t, `{"status":"ok","version":"test","checks":{"store":"ok"}}`, text)
	broken = true
	status, _ = get("/ready")
	require.Equal(t, 503, status)
	status, text = get("/health")
	require.Equal(t, 200, status)
	require.JSONEq(t, `{"status":"degraded","version":"test","checks":{"store":"failing"}}`, text)
	status, _ = get("/live")
	require.Equal(t, 204, status)
}

func TestFromProjectToTask(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(5, map[string]string{"env": "prod"})
	status, text := do(t, s, "POST", "/api/release/projects", `{"name":"hello","script":{"env":{"PORT":"80"}}}`)
	require.Equal(t, 201, status, text)
	status, text = do(t, s, "POST", "/api/release/projects/hello/versions", `{"version":"1.0","script":{"install":"true"}}`)
	require.Equal(t, 201, status, text)
	v := read[release.Version](t, text)
	require.Equal(t, release.VersionDraft, v.Status)
	status, text = do(t, s, "PATCH", "/api/release/versions/"+v.ID, `{"status":"active"}`)
	require.Equal(t, 200, status, text)

	status, text = do(t, s, "POST", "/api/release/tasks",
		`{"project":"hello","version":"1.0","targets":{"selector":"env=prod"},"strategy":{"canary":{"percent":20,"soak":"10s"},"max_failures":"10%"}}`)
	require.Equal(t, 201, status, text)
	task := read[release.Task](t, text)
	require.Equal(t, release.StatusStarting, task.Status)
	require.Equal(t, apitest.Admin, task.CreatedBy)
	require.Equal(t, release.WorkflowID("hello", task.ID), task.WorkflowID)
	require.Equal(t, []release.Wave{{Number: 0, Size: 1, Canary: true}, {Number: 1, Size: 4}}, task.Waves)
	require.Equal(t, []string{"start " + task.ID}, s.Rollouts.Calls())

	status, text = do(t, s, "GET", "/api/release/tasks/"+task.ID+"/targets?wave=0", "")
	require.Equal(t, 200, status, text)
	require.Equal(t, 1, read[api.TargetList](t, text).Total)
	for path, want := range map[string]string{
		"/api/release/projects":                    `"name":"hello"`,
		"/api/release/projects/hello":              `"PORT":"80"`,
		"/api/release/projects/hello/versions":     `"version":"1.0"`,
		"/api/release/versions/" + v.ID:            `"status":"active"`,
		"/api/release/tasks?project=hello":         task.ID,
		"/api/release/tasks?status=paused":         `"total":0`,
		"/api/release/tasks/" + task.ID:            `"max_failures":"10%"`,
		"/api/release/installations?project=hello": `"total":0`,
		"/api/clients?status=online&limit=2":       `"total":5`,
		"/api/clients?label=env%3Dtest":            `"clients":[]`,
		"/api/clients/client-3":                    `"hostname":"host-client-3"`,
	} {
		status, text := do(t, s, "GET", path, "")
		require.Equal(t, 200, status, "%s: %s", path, text)
		require.Contains(t, text, want, path)
	}
}

func TestWhomTargetsPick(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(25, map[string]string{"env": "prod"})
	require.NoError(t, s.Store.StoreFacts(t.Context(), []release.ClientFacts{{ClientID: "client-3", Hash: 1, JSON: []byte(`{"memory_mb": 16, "os": {"kernel": "6.1"}}`)}}))
	status, text := do(t, s, "POST", "/api/targets/preview", `{"selector":"env=prod,id=client-1*"}`)
	require.Equal(t, 200, status, text)
	p := read[api.TargetPreview](t, text)
	require.Len(t, p.Clients, 11)
	p.Clients = nil
	require.Equal(t, api.TargetPreview{Total: 11, Online: 11, Unknown: []string{}}, p)
	status, text = do(t, s, "POST", "/api/targets/preview", `{"selector":"*"}`)
	require.Equal(t, 200, status, text)
	p = read[api.TargetPreview](t, text)
	require.Equal(t, 25, p.Total)
	require.Len(t, p.Clients, 20)
	status, text = do(t, s, "POST", "/api/targets/preview", `{"clients":["client-3","ghost","client-4"],"selector":"memory_mb>8"}`)
	require.Equal(t, 200, status, text)
	p = read[api.TargetPreview](t, text)
	require.Equal(t, "client-3", p.Clients[0].ID)
	require.Equal(t, []string{"ghost"}, p.Unknown)
	require.Equal(t, 1, p.Total)

	for path, want := range map[string]string{
		"/api/clients/client-3":                                   `"kernel":"6.1"`,
		"/api/clients?selector=facts.os.kernel%3D6.*":             `"total":1`,
		"/api/clients?selector=env%3Dprod&limit=2&offset=24":      `"total":25`,
		"/api/clients?selector=status%3Doffline&label=env%3Dprod": `"clients":[]`,
	} {
		status, text := do(t, s, "GET", path, "")
		require.Equal(t, 200, status, "%s: %s", path, text)
		require.Contains(t, text, want, path)
	}
	status, text = do(t, s, "GET", "/api/clients?selector=a+b", "")
	require.Equal(t, 422, status, text)
	require.Contains(t, text, `"location":"query.selector"`)
	require.Contains(t, text, `\"a b\" is none of`)
}

func TestTaskIsCreatedThoughItsWorkflowCannotStart(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(1, nil)
	s.AddVersion("hello", "1.0")
	s.Rollouts.Answer(release.Unavailable(io.EOF, "no Temporal"))
	status, text := do(t, s, "POST", "/api/release/tasks", `{"project":"hello","version":"1.0","targets":{"selector":"*"},"strategy":{"max_failures":3}}`)
	require.Equal(t, 201, status, text)
	unfinished, err := s.Store.UnfinishedTasks(t.Context())
	require.NoError(t, err)
	require.Len(t, unfinished, 1)
	require.Equal(t, release.Limit{Count: 3}, unfinished[0].Strategy.MaxFailures)
}

func TestControl(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(1, nil)
	task := s.AddTask(s.AddVersion("hello", "1.0"), clients...)
	base := "/api/release/tasks/" + task.ID
	for _, name := range []string{"promote", "pause", "resume", "abort", "rollback"} {
		status, text := do(t, s, "POST", base+"/"+name, `{"reason":"because"}`)
		require.Equal(t, 200, status, text)
		require.Equal(t, task.ID, read[release.Task](t, text).ID)
		status, text = do(t, s, "POST", base+"/"+name, "")
		require.Equal(t, 200, status, text)
		calls := s.Rollouts.Calls()
		require.Equal(t, []string{name + " " + task.ID + " admin because", name + " " + task.ID + " admin "}, calls[len(calls)-2:])
	}
	before := len(s.Rollouts.Calls())
	status, _ := do(t, s, "POST", "/api/release/tasks/nope/pause", "")
	require.Equal(t, 404, status)
	require.Len(t, s.Rollouts.Calls(), before)

	s.Rollouts.Answer(release.Conflict("the task has ended"))
	status, text := do(t, s, "POST", base+"/promote", "")
	require.Equal(t, 409, status)
	require.Equal(t, "the task has ended", read[problem](t, text).Detail)

	s.Rollouts.Answer(release.Unavailable(io.EOF, "no worker"))
	res := open(t, s.Request("POST", base+"/promote", nil))
	res.Body.Close()
	require.Equal(t, 503, res.StatusCode)
	require.Equal(t, "5", res.Header.Get("Retry-After"))

	s.Rollouts.Answer(io.ErrClosedPipe)
	status, text = do(t, s, "POST", base+"/promote", "")
	require.Equal(t, 500, status)
	require.NotContains(t, text, "closed pipe")
}

func TestAgentToken(t *testing.T) {
	s := apitest.Start(t)
	status, text := do(t, s, "POST", "/api/agent-tokens", `{}`)
	require.Equal(t, 201, status, text)
	token := read[api.AgentToken](t, text)
	require.Regexp(t, `^qfj1\.AQID`, token.Token)
	require.Equal(t, 1, token.Uses)
	status, text = do(t, s, "POST", "/api/agent-tokens", `{"uses":10,"ttl":"24h","id":"web-*","replace":true}`)
	require.Equal(t, 201, status, text)
	for body, field := range map[string]string{
		`{"uses":0}`: "uses", `{"ttl":"1000h"}`: "ttl", `{"ttl":"-1h"}`: "ttl", `{"id":"["}`: "id", `{"use":1}`: "use",
	} {
		status, text = do(t, s, "POST", "/api/agent-tokens", body)
		require.Equal(t, 422, status, body)
		require.Equal(t, "body."+field, read[problem](t, text).Errors[0].Location)
	}
}

func TestRevokeClient(t *testing.T) {
	var revoked []string
	s := apitest.Start(t, func(c *api.Config) { c.Revoked = func(id string) { revoked = append(revoked, id) } })
	s.AddClients(1, nil)
	status, _ := do(t, s, "POST", "/api/clients/client-1/revoke", "")
	require.Equal(t, 204, status)
	require.Equal(t, []string{"client-1"}, revoked)
	status, _ = do(t, s, "POST", "/api/clients/nobody/revoke", "")
	require.Equal(t, 404, status)
}

func TestPreview(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(3, nil)
	v1 := s.AddVersion("hello", "1.0")
	s.AddVersion("hello", "2.0")
	task := s.AddTask(v1, clients[:2]...)
	s.Finish(task.ID, clients[0], release.StepSucceeded, "", 0)
	s.Finish(task.ID, clients[1], release.StepSucceeded, "", 0)

	status, text := do(t, s, "POST", "/api/release/preview",
		`{"project":"hello","version":"2.0","targets":{"selector":"*"},"strategy":{"canary":{"percent":1}},"override":{"env":{"X":"y"}}}`)
	require.Equal(t, 200, status, text)
	p := read[api.Preview](t, text)
	require.Equal(t, "install 2.0", p.Config.Script.Install)
	require.Equal(t, release.LayerTask, p.Config.Provenance["env.X"])
	require.Equal(t, release.LayerVersion, p.Config.Provenance["env.V"])
	require.Equal(t, 3, p.Total)
	require.Equal(t, []api.PreviewWave{
		{Wave: release.Wave{Size: 1, Canary: true}, Sample: clients[:1]}, {Wave: release.Wave{Number: 1, Size: 2}, Sample: clients[1:]},
	}, p.Waves)
	require.Len(t, p.Groups, 2)
	require.Equal(t, "update", p.Groups[0].Action)
	require.Equal(t, "1.0", p.Groups[0].From)
	require.Equal(t, 2, p.Groups[0].Targets)
	require.Contains(t, p.Groups[0].Changes, release.Change{Path: "env.V", Before: "1.0", After: "2.0"})
	require.Equal(t, api.PreviewGroup{Action: "install", Targets: 1, Sample: []string{"client-3"}, Changes: []release.Change{}}, p.Groups[1])

	status, text = do(t, s, "POST", "/api/release/preview", `{"project":"hello","version":"2.0"}`)
	require.Equal(t, 200, status, text)
	require.Zero(t, read[api.Preview](t, text).Total)
	require.Empty(t, s.Rollouts.Calls())
	_, total, err := s.Store.Tasks(t.Context(), noTaskFilter)
	require.NoError(t, err)
	require.Equal(t, 1, total)
}

// Who is in which wave is what the task then does.
func TestPreviewSaysWhoIsInWhichWave(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(30, nil)
	s.AddVersion("hello", "1.0")
	const task = `{"project":"hello","version":"1.0","targets":{"selector":"*"},"strategy":{"canary":{"percent":10},"waves":[20]}}`
	p := read[api.Preview](t, want(t, s, 200, "POST", "/api/release/preview", task))
	made := read[release.Task](t, want(t, s, 201, "POST", "/api/release/tasks", task))
	require.Len(t, p.Waves, 3)
	for i, wave := range p.Waves {
		require.Equal(t, made.Waves[i], wave.Wave)
		text := want(t, s, 200, "GET", fmt.Sprintf("/api/release/tasks/%s/targets?wave=%d", made.ID, wave.Number), "")
		var ids []string
		for _, target := range read[api.TargetList](t, text).Targets {
			ids = append(ids, target.ClientID)
		}
		require.Equal(t, ids[:min(20, len(ids))], wave.Sample)
		if len(ids) > 20 {
			require.Equal(t, ids[len(ids)-1], wave.Last)
		} else {
			require.Empty(t, wave.Last)
		}
	}
}

// A second click, or a reload, starts nothing twice.
func TestIdempotencyKey(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(2, nil)
	v := s.AddVersion("hello", "1.0")
	post := func(key, body string) (int, string) {
		r := s.Request("POST", "/api/release/tasks", strings.NewReader(body))
		r.Header.Set("Idempotency-Key", key)
		return send(t, r)
	}
	const task = `{"project":"hello","version":"1.0","targets":{"selector":"*"},"strategy":{"canary":{"percent":50},"max_failures":"1"},"override":{"env":{"A":"b"}}}`
	status, text := post("one", task)
	require.Equal(t, 201, status, text)
	first := read[release.Task](t, text)
	// What has changed since does not matter: it was taken then.
	want(t, s, 200, "PATCH", "/api/release/versions/"+v.ID, `{"status":"deprecated"}`)
	status, text = post("one", task)
	require.Equal(t, 201, status, text)
	require.Equal(t, first.ID, read[release.Task](t, text).ID)
	want(t, s, 200, "PATCH", "/api/release/versions/"+v.ID, `{"status":"active"}`)
	for _, other := range []string{
		`{"project":"hello","version":"1.0","targets":{"selector":"*"},"strategy":{"canary":{"percent":50},"max_failures":"1"}}`,
		`{"project":"hello","version":"1.0","targets":{"selector":"id=client-1"},"strategy":{"canary":{"percent":50},"max_failures":"1"},"override":{"env":{"A":"b"}}}`,
		`{"project":"hello","version":"1.0","targets":{"selector":"*"},"strategy":{"canary":{"percent":40},"max_failures":"1"},"override":{"env":{"A":"b"}}}`,
		`{"project":"hello","action":"uninstall","targets":{"selector":"*"}}`,
	} {
		status, text = post("one", other)
		require.Equal(t, 409, status, text)
		require.Contains(t, text, first.ID)
	}
	status, text = post("two", task)
	require.Equal(t, 201, status, text)
	require.NotEqual(t, first.ID, read[release.Task](t, text).ID)

	// At the very same moment, too.
	answers := make(chan string)
	for range 8 {
		go func() {
			status, text := post("three", task)
			answers <- fmt.Sprint(status, " ", text)
		}()
	}
	ids := map[string]bool{}
	for range 8 {
		status, text, _ := strings.Cut(<-answers, " ")
		require.Equal(t, "201", status, text)
		ids[read[release.Task](t, text).ID] = true
	}
	require.Len(t, ids, 1)
	_, total, err := s.Store.Tasks(t.Context(), noTaskFilter)
	require.NoError(t, err)
	require.Equal(t, 3, total)
}
