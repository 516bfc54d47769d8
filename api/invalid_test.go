package api_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var noTaskFilter = store.TaskFilter{Limit: 100}

// Every bad input names its field, stores nothing and starts nothing.
func TestBadInput(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(2, nil)
	s.AddVersion("hello", "1.0")
	draft := release.Version{ProjectID: s.AddVersion("other", "1.0").ProjectID, Name: "2.0", Status: release.VersionDraft,
		Spec: release.Spec{Script: &release.ScriptSpec{Install: "true"}}}
	require.NoError(t, s.Store.CreateVersion(t.Context(), &draft))

	const (
		projects = "/api/release/projects"
		versions = "/api/release/projects/hello/versions"
		tasks    = "/api/release/tasks"
	)
	task := func(more string) string {
		return `{"project":"hello","version":"1.0","targets":{"selector":"*"}` + more + `}`
	}
	for _, c := range []struct {
		path, body string
		status     int
		location   string
	}{
		{projects, `{"name":"x","scrip":{}}`, 422, "body.scrip"},
		{projects, `{"name":"x","script":{"envs":{}}}`, 422, "body.script.envs"},
		{projects, `{"name":"x","script":{"timeout":"soon"}}`, 422, "body.script.timeout"},
		{projects, `{"name":"x","script":{"health":{}}}`, 422, "body.script.health"},
		{projects, `{"name":"x","script":{"env":{"A-B":"1"}}}`, 422, "body.script.env"},
		{projects, `{"name":"X y"}`, 422, "body.name"},
		{projects, `{}`, 422, "body.name"},
		{projects, `{"name":"x","type":"magic"}`, 422, "body.type"},
		{projects, `{"name":`, 400, "body"},
		{projects, `{"name":"x"} trailing`, 400, "body"},
		{projects, ``, 400, ""},
		{projects, `{"name":"hello"}`, 409, ""},
		{versions, `{"version":"3","script":{}}`, 422, "body.script.install"},
		{versions, `{"version":"3","script":{"install":""}}`, 422, "body.script.install"},
		{versions, `{"version":"3"}`, 422, "body.script.install"},
		{versions, `{"version":"","script":{"install":"x"}}`, 422, "body.version"},
		{versions, `{"version":"3","status":"shipped","script":{"install":"x"}}`, 422, "body.status"},
		{versions, `{"version":"3","script":{"install":"x","env":{"QUICFLOW_X":"1"}}}`, 422, "body.script.env.QUICFLOW_X"},
		{versions, `{"version":"3","script":{"install":"x","env":{"PORT":80}}}`, 422, "body.script.env.PORT"},
		{versions, `{"version":"1.0","script":{"install":"x"}}`, 409, ""},
		{projects + "/nope/versions", `{"version":"3","script":{"install":"x"}}`, 404, ""},
		{tasks, `{"project":"nope","version":"1.0","targets":{"selector":"*"}}`, 422, "body.project"},
		{tasks, `{"project":"hello","version":"9","targets":{"selector":"*"}}`, 422, "body.version"},
		{tasks, `{"project":"other","version":"2.0","targets":{"selector":"*"}}`, 422, "body.version"},
		{tasks, `{"project":"hello","targets":{"selector":"*"}}`, 422, "body.version"},
		{tasks, `{"project":"hello","version":"1.0"}`, 422, "body.targets"},
		{tasks, `{"project":"hello","version":"1.0","targets":{}}`, 422, "body.targets"},
		{tasks, `{"project":"hello","version":"1.0","targets":{"clients":[]}}`, 422, "body.targets"},
		{tasks, `{"project":"hello","version":"1.0","targets":{"selector":"env=none"}}`, 422, "body.targets"},
		{tasks, `{"project":"hello","version":"1.0","targets":{"selector":"=x"}}`, 422, "body.targets.selector"},
		{tasks, `{"project":"hello","version":"1.0","targets":{"clients":["client-1","ghost"]}}`, 422, "body.targets.clients"},
		{tasks, `{"project":"hello","action":"uninstall","version":"1.0","targets":{"selector":"*"}}`, 422, "body.version"},
		{tasks, `{"project":"hello","action":"explode","version":"1.0","targets":{"selector":"*"}}`, 422, "body.action"},
		{"/api/targets/preview", `{}`, 422, "body.selector"},
		{"/api/targets/preview", `{"selector":"=x"}`, 422, "body.selector"},
		{"/api/targets/preview", `{"selector":"*","labels":{}}`, 422, "body.labels"},
		{tasks, task(`,"strategy":{"canary":{"percent":101}}`), 422, "body.strategy.canary.percent"},
		{tasks, task(`,"strategy":{"canary":{"percent":-1}}`), 422, "body.strategy.canary.percent"},
		{tasks, task(`,"strategy":{"canary":{"percent":10,"soak":"-5s"}}`), 422, "body.strategy.canary.soak"},
		{tasks, task(`,"strategy":{"canary":{"percent":10,"soak":"9000h"}}`), 422, "body.strategy.canary.soak"},
		{tasks, task(`,"strategy":{"canary":{"percent":10,"promote":"maybe"}}`), 422, "body.strategy.canary.promote"},
		{tasks, task(`,"strategy":{"canary":{}}`), 422, "body.strategy.canary.percent"},
		{tasks, task(`,"strategy":{"max_failures":"110%"}`), 422, "body.strategy.max_failures"},
		{tasks, task(`,"strategy":{"max_failures":-1}`), 422, "body.strategy.max_failures"},
		{tasks, task(`,"strategy":{"max_failures":"few"}`), 422, "body.strategy.max_failures"},
		{tasks, task(`,"strategy":{"waves":[50,25]}`), 422, "body.strategy.waves"},
		{tasks, task(`,"strategy":{"max_parallel":-2}`), 422, "body.strategy.max_parallel"},
		{tasks, task(`,"strategy":{"canry":{"percent":10}}`), 422, "body.strategy.canry"},
		{tasks, task(`,"override":{"env":{"1A":"x"}}`), 422, "body.override.env"},
		{tasks, task(`,"override":{"pre_script":"x"}`), 422, "body.override.pre_script"},
		{tasks, task(`,"dry_run":true`), 422, "body.dry_run"},
		{tasks, `[1,2]`, 422, "body"},
		{tasks, `{"project":"` + strings.Repeat("x", api.MaxTaskBody) + `"}`, 413, ""},
		{projects, `{"name":"` + strings.Repeat("x", api.MaxBody) + `"}`, 413, ""},
	} {
		status, text := do(t, s, "POST", c.path, c.body)
		name := c.path + " " + c.body[:min(len(c.body), 120)]
		require.Equal(t, c.status, status, "%s: %s", name, text)
		p := read[problem](t, text)
		require.Equal(t, c.status, p.Status, name)
		require.NotEmpty(t, p.Detail, name)
		if c.location != "" {
			require.NotEmpty(t, p.Errors, name)
			require.Equal(t, c.location, p.Errors[0].Location, "%s: %s", name, text)
			require.NotEmpty(t, p.Errors[0].Message, name)
		}
	}
	for path, location := range map[string]string{
		"/api/clients?status=asleep":           "query.status",
		"/api/clients?limit=0":                 "query.limit",
		"/api/clients?limt=5":                  "query.limt",
		"/api/release/tasks?offset=-1":         "query.offset",
		"/api/release/tasks/x/logs?after=soon": "query.after",
	} {
		status, text := do(t, s, "GET", path, "")
		require.Equal(t, 422, status, text)
		require.Equal(t, location, read[problem](t, text).Errors[0].Location)
	}
	for _, path := range []string{"/api/clients/x", "/api/release/projects/x", "/api/release/versions/x", "/api/release/tasks/x",
		"/api/release/tasks/x/targets", "/api/release/tasks/x/logs", "/api/release/projects/x/versions", "/api/nothing"} {
		status, text := do(t, s, "GET", path, "")
		require.Equal(t, 404, status, path)
		require.NotEmpty(t, read[problem](t, text).Detail)
	}

	_, total, err := s.Store.Tasks(t.Context(), noTaskFilter)
	require.NoError(t, err)
	require.Zero(t, total)
	stored, _, err := s.Store.Projects(t.Context(), store.ProjectFilter{})
	require.NoError(t, err)
	require.Len(t, stored, 2)
	made, _, err := s.Store.Versions(t.Context(), "hello", store.VersionFilter{})
	require.NoError(t, err)
	require.Len(t, made, 1)
	require.Empty(t, s.Rollouts.Calls())
}

// What came in may hold secrets, and is not sent back.
func TestProblemsDoNotEcho(t *testing.T) {
	s := apitest.Start(t)
	for _, body := range []string{
		`{"name":"x","script":{"env":{"PASSWORD":"hunter2"}},"unknown":1}`,
		`{"script":{"env":{"PASSWORD":"hunter2"}}}`,
		`{"name":"x","script":{"env":{"PASSWORD":"hunter2"}}`,
	} {
		_, text := do(t, s, "POST", "/api/release/projects", body)
		require.NotContains(t, text, "hunter2")
	}
}

func TestListOfValuesEndsWithOne(t *testing.T) {
	s := apitest.Start(t)
	status, body := do(t, s, "POST", "/api/release/tasks", `{"project":"x","version":"1","targets":{"selector":"*"},"strategy":{"on_failure":"panic"}}`)
	require.Equal(t, 422, status)
	require.Contains(t, body, `strategy.on_failure: expected value to be one of \"stop, rollback\"`)
}
