package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/release"
)

// call makes a request with an If-Match, and gives the status, the body and the ETag.
func call(t *testing.T, s *apitest.Server, method, path, body, ifMatch string) (int, string, string) {
	t.Helper()
	r := s.Request(method, path, nil)
	if body != "" {
		r = s.Request(method, path, strings.NewReader(body))
	}
	if ifMatch != "" {
		r.Header.Set("If-Match", ifMatch)
	}
	res := open(t, r)
	defer res.Body.Close()
	var text strings.Builder
	buffer := make([]byte, 1<<16)
	for {
		n, err := res.Body.Read(buffer)
		text.Write(buffer[:n])
		if err != nil {
			break
		}
	}
	return res.StatusCode, text.String(), res.Header.Get("ETag")
}

func want(t *testing.T, s *apitest.Server, status int, method, path, body string) string {
	t.Helper()
	got, text := do(t, s, method, path, body)
	require.Equal(t, status, got, "%s %s: %s", method, path, text)
	return text
}

// Everything that is managed is read with its revision, and changed only by who has seen it.
func TestChangesGoByRevision(t *testing.T) {
	s := apitest.Start(t)
	s.AddVersion("shop", "0.9")
	v := read[release.Version](t, want(t, s, 201, "POST", "/api/release/projects/shop/versions", `{"version":"1.0","script":{"install":"one"}}`))
	want(t, s, 201, "POST", "/api/release/projects/shop/environments", `{"name":"prod","selector":"env=prod"}`)
	want(t, s, 201, "PUT", "/api/release/projects/shop/variables/A", `{"value":"1"}`)
	for path, bodies := range map[string][2]string{
		"/api/release/projects/shop":                   {`{"description":"new"}`, `{"name":"shop","description":"newer","script":{"work_dir":"/srv"}}`},
		"/api/release/versions/" + v.ID:                {`{"script":{"install":"two"}}`, `{"status":"active","script":{"install":"two"}}`},
		"/api/release/projects/shop/environments/prod": {`{"selector":"env=production"}`, `{"strategy":{"max_parallel":5}}`},
		"/api/release/projects/shop/variables/A":       {`{"value":"2"}`, `{"value":"2","description":"a"}`},
	} {
		status, before, tag := call(t, s, "GET", path, "", "")
		require.Equal(t, 200, status, before)
		require.Equal(t, `"1"`, tag)
		status, text, tag := call(t, s, "PUT", path+"?dry_run=true", bodies[0], `"1"`)
		require.Equal(t, 200, status, text)
		require.Equal(t, `"2"`, tag)
		_, text, _ = call(t, s, "GET", path, "", "")
		require.Equal(t, before, text, "a dry run keeps nothing")

		status, text, tag = call(t, s, "PUT", path, bodies[0], `"1"`)
		require.Equal(t, 200, status, text)
		require.Equal(t, `"2"`, tag)
		status, text, tag = call(t, s, "PUT", path, bodies[0], `W/"2"`)
		require.Equal(t, 200, status, text)
		require.Equal(t, `"2"`, tag, "nothing was changed")
		status, text, _ = call(t, s, "PUT", path, bodies[1], `"1"`)
		require.Equal(t, 412, status, text)
		require.Contains(t, read[problem](t, text).Detail, "it has revision 2, and the change was meant for 1; read it again and repeat the change")
		status, text, _ = call(t, s, "PUT", path, bodies[1], `"three"`)
		require.Equal(t, 422, status, text)
		status, text, tag = call(t, s, "PUT", path, bodies[1], "")
		require.Equal(t, 200, status, text)
		require.Equal(t, `"3"`, tag)
		status, text, _ = call(t, s, "DELETE", path, "", `"2"`)
		require.Equal(t, 412, status, text)
		status, text, _ = call(t, s, "DELETE", path+"?dry_run=true", "", `"3"`)
		require.Equal(t, 204, status, text)
	}
	for _, path := range []string{"/api/release/versions/" + v.ID, "/api/release/projects/shop/environments/prod", "/api/release/projects/shop/variables/A", "/api/release/projects/shop"} {
		status, text, _ := call(t, s, "DELETE", path, "", `"3"`)
		require.Equal(t, 204, status, text)
		want(t, s, 404, "GET", path, "")
	}
	want(t, s, 201, "POST", "/api/release/projects?dry_run=true", `{"name":"shop"}`)
	want(t, s, 201, "POST", "/api/release/projects", `{"name":"shop"}`)
	want(t, s, 409, "POST", "/api/release/projects?dry_run=true", `{"name":"shop"}`)
}

func TestWhatIsInUseStays(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(2, nil)
	v := s.AddVersion("shop", "1.0")
	task := s.AddTask(v, clients...)
	text := want(t, s, 409, "DELETE", "/api/release/projects/shop", "")
	require.Contains(t, text, "task "+task.ID+" has not ended")
	text = want(t, s, 409, "PUT", "/api/release/versions/"+v.ID, `{"script":{"install":"other"}}`)
	require.Contains(t, text, "make a new version")
	want(t, s, 200, "PATCH", "/api/release/versions/"+v.ID, `{"status":"deprecated"}`)
	want(t, s, 409, "DELETE", "/api/release/versions/"+v.ID, "")
	s.Finish(task.ID, clients[0], release.StepSucceeded, "", 0)
	s.Progress(task.ID, release.StatusFailed, release.PhaseDone)
	text = want(t, s, 409, "DELETE", "/api/release/versions/"+v.ID, "")
	require.Contains(t, text, "it runs on 2 hosts (client-1, client-2)", "of one it is not known")
	text = want(t, s, 409, "PUT", "/api/release/projects/shop", `{"name":"store"}`)
	require.Contains(t, text, "cannot get another name")
	text = want(t, s, 422, "PUT", "/api/release/projects/shop", `{"type":"git"}`)
	require.Contains(t, text, `"location":"body.type"`)
	for _, client := range clients {
		want(t, s, 204, "POST", "/api/clients/"+client+"/revoke", "")
	}
	want(t, s, 204, "DELETE", "/api/release/projects/shop", "")
}

func TestListsOfManagedThings(t *testing.T) {
	s := apitest.Start(t)
	for i := range 3 {
		for _, version := range []string{"1.0", "1.1"} {
			s.AddVersion(fmt.Sprintf("shop-%d", i), version)
		}
	}
	want(t, s, 201, "POST", "/api/release/projects", `{"name":"image","type":"container","container":{"image":"app"}}`)
	for path, contains := range map[string]string{
		"/api/release/projects?limit=1&offset=1":             `"total":4`,
		"/api/release/projects?search=SHOP&limit=1":          `"total":3`,
		"/api/release/projects?type=container":               `"total":1`,
		"/api/release/projects/shop-1/versions?name=1.1":     `"total":1`,
		"/api/release/projects/shop-1/versions?search=1.":    `"total":2`,
		"/api/release/projects/shop-1/versions?status=draft": `"total":0`,
		"/api/release/projects/shop-1/environments":          `"environments":[]`,
		"/api/release/projects/shop-1/variables":             `"variables":[]`,
	} {
		require.Contains(t, want(t, s, 200, "GET", path, ""), contains, path)
	}
	for _, of := range release.Types {
		rules := read[[]release.Rule](t, want(t, s, 200, "GET", "/api/release/rules?type="+string(of), ""))
		require.Equal(t, release.Rules(of), rules)
	}
	want(t, s, 422, "GET", "/api/release/rules", "")
	want(t, s, 404, "GET", "/api/release/configs/x", "")
	want(t, s, 404, "GET", "/api/release/projects/shop-1/variables?environment=x", "")
}

func TestWrongManagedThings(t *testing.T) {
	s := apitest.Start(t)
	s.AddVersion("shop", "1.0")
	want(t, s, 201, "POST", "/api/release/projects", `{"name":"site","type":"git","git":{"repository":"https://example.com/x.git"}}`)
	const (
		projects, environments = "/api/release/projects", "/api/release/projects/shop/environments"
		variable               = "/api/release/projects/shop/variables/"
	)
	for _, c := range []struct{ method, path, body, location string }{
		{"POST", projects, `{"name":"x","type":"container","container":{"image":"a:1"}}`, "body.container.image"},
		{"POST", projects, `{"name":"x","type":"container","container":{"image":"a","ports":[{"container":1},{"container":2,"host_ip":"x"}]}}`, "body.container.ports[1].host_ip"},
		{"POST", projects, `{"name":"x","type":"container","script":{}}`, "body.script"},
		{"PUT", projects + "/shop", `{"script":{"install":"x"}}`, "body.script.install"},
		{"POST", projects + "/site/versions", `{"version":"1","git":{}}`, "body.git.ref"},
		{"POST", projects + "/site/versions", `{"version":"1","git":{"ref":"main","repository":"x"}}`, "body.git.repository"},
		{"POST", environments, `{"name":"P rod"}`, "body.name"},
		{"POST", environments, `{"name":"prod","selector":"=x"}`, "body.selector"},
		{"POST", environments, `{"name":"prod","strategy":{"waves":[50,25]}}`, "body.strategy.waves"},
		{"POST", environments, `{"name":"prod","variables":{}}`, "body.variables"},
		{"PUT", variable + "A-B", `{"value":"x"}`, "body.name"},
		{"PUT", variable + "QUICFLOW_X", `{"value":"x"}`, "body.name"},
		{"PUT", variable + "A", `{}`, "body.value"},
		{"PUT", variable + "A", `{"secret":true}`, "body.value"},
		{"PUT", variable + "A", `{"value":"` + strings.Repeat("x", release.MaxVariableBytes+1) + `"}`, "body.value"},
		{"POST", "/api/release/tasks", `{"project":"shop","version":"1.0","environment":"x","targets":{"selector":"*"}}`, "body.environment"},
		{"POST", "/api/release/tasks", `{"project":"none","version":"1.0","environment":"x","targets":{"selector":"*"}}`, "body.project"},
	} {
		text := want(t, s, 422, c.method, c.path, c.body)
		require.Equal(t, c.location, read[problem](t, text).Errors[0].Location, "%s %.100s: %s", c.path, c.body, text)
	}
	want(t, s, 404, "PUT", projects+"/none", `{}`)
	want(t, s, 404, "PUT", environments+"/none", `{}`)
	want(t, s, 404, "PUT", variable+"A?environment=none", `{"value":"x"}`)
	want(t, s, 404, "DELETE", variable+"A", "")
}

// used gives the variables that a value of a preview takes something from.
func used(p api.Preview, path string) []release.VariableUse {
	for _, v := range p.Values {
		if v.Path == path {
			return v.Variables
		}
	}
	return nil
}

// The whole way of a variable: from the project to what runs, and nowhere else if it is secret.
func TestVariablesInATask(t *testing.T) {
	s := apitest.Start(t)
	s.CanDeploy(s.AddClients(2, map[string]string{"env": "prod"})...)
	const project = "/api/release/projects/shop"
	want(t, s, 201, "POST", "/api/release/projects", `{"name":"shop","type":"container","container":{"image":"${REGISTRY}/shop","name":"${QUICFLOW_PROJECT}-${QUICFLOW_ENVIRONMENT}",
		"registry":{"username":"ci","password":"${TOKEN}"},"labels":{"task":"${QUICFLOW_RELEASE}","host":"${QUICFLOW_TARGET}"}}}`)
	v := read[release.Version](t, want(t, s, 201, "POST", project+"/versions", `{"version":"1.0","status":"active","container":{"image_tag":"${QUICFLOW_VERSION}"}}`))
	want(t, s, 201, "POST", project+"/environments", `{"name":"prod","selector":"env=prod","strategy":{"max_parallel":7,"canary":{"percent":50}}}`)
	task := `{"project":"shop","version":"1.0","environment":"prod"}`
	text := want(t, s, 422, "POST", "/api/release/tasks", task)
	require.Regexp(t, `container.(image|registry.password): there is no variable (REGISTRY|TOKEN)`, read[problem](t, text).Detail)
	preview := read[api.Preview](t, want(t, s, 200, "POST", "/api/release/preview", task))
	require.Len(t, preview.Warnings, 1)
	require.Contains(t, preview.Warnings[0], "there is no variable")
	require.Len(t, preview.Problems, 1)
	require.Contains(t, []string{"image", "registry.password"}, preview.Problems[0].Path)
	require.Equal(t, []release.VariableUse{{Name: "REGISTRY", From: release.OfNobody}}, used(preview, "image"))

	want(t, s, 201, "PUT", project+"/variables/REGISTRY", `{"value":"registry.example.com"}`)
	want(t, s, 201, "PUT", project+"/variables/REGISTRY?environment=prod", `{"value":"registry.prod"}`)
	text = want(t, s, 201, "PUT", project+"/variables/TOKEN", `{"value":"hunter2","secret":true}`)
	require.NotContains(t, text, "hunter2")
	for _, path := range []string{project + "/variables", project + "/variables/TOKEN", project + "/variables?environment=prod", project} {
		require.NotContains(t, want(t, s, 200, "GET", path, ""), "hunter2")
	}

	text = want(t, s, 200, "POST", "/api/release/preview", task)
	require.NotContains(t, text, "hunter2")
	preview = read[api.Preview](t, text)
	require.Empty(t, preview.Warnings)
	require.Empty(t, preview.Problems)
	require.Equal(t, []release.VariableUse{{Name: "REGISTRY", From: release.OfEnvironment}}, used(preview, "image"))
	require.Equal(t, []release.VariableUse{{Name: "TOKEN", From: release.OfProject, Secret: true}}, used(preview, "registry.password"))
	require.Equal(t, []release.VariableUse{{Name: "QUICFLOW_PROJECT", From: release.OfQuicFlow}, {Name: "QUICFLOW_ENVIRONMENT", From: release.OfQuicFlow}}, used(preview, "name"))
	require.Equal(t, []release.VariableUse{{Name: "QUICFLOW_TARGET", From: release.OfHost}}, used(preview, "labels.host"))
	require.Empty(t, used(preview, "stop_timeout"))
	require.Equal(t, "prod", preview.Environment)
	require.Equal(t, 2, preview.Total, "the hosts of the environment")
	require.Equal(t, release.Wave{Size: 1, Canary: true}, preview.Waves[0].Wave)
	require.Equal(t, []string{"client-1"}, preview.Waves[0].Sample)
	for _, want := range []release.ConfigValue{
		{Path: "image", Value: "registry.prod/shop", Layer: release.LayerProject},
		{Path: "registry.password", Value: "${TOKEN}", Layer: release.LayerProject},
		{Path: "image_tag", Value: "1.0", Layer: release.LayerVersion},
		{Path: "stop_timeout", Value: "10s", Layer: release.LayerDefault},
	} {
		require.True(t, slices.ContainsFunc(preview.Values, func(v api.PreviewValue) bool { return v.ConfigValue == want }), want)
	}

	text = want(t, s, 201, "POST", "/api/release/tasks", task)
	require.NotContains(t, text, "hunter2")
	made := read[release.Task](t, text)
	require.Equal(t, "prod", made.Environment)
	require.Equal(t, 7, made.Strategy.MaxParallel)
	text = want(t, s, 200, "GET", "/api/release/configs/"+made.ConfigID, "")
	require.NotContains(t, text, "hunter2")
	config := read[release.Snapshot](t, text)
	require.Equal(t, []string{"TOKEN"}, config.Secrets)
	merged, err := config.Merged()
	require.NoError(t, err)
	require.Equal(t, "shop-prod", merged.Container.Name)
	require.Equal(t, map[string]string{"task": made.ID, "host": "${QUICFLOW_TARGET}"}, merged.Container.Labels)

	// What runs there is what is compared with, whatever the project says by now.
	s.Dispatch(made, "client-1", "client-2")
	s.Finish(made.ID, "client-1", release.StepSucceeded, "", 0)
	s.Finish(made.ID, "client-2", release.StepSucceeded, "", 0)
	s.Progress(made.ID, release.StatusSucceeded, release.PhaseDone)
	want(t, s, 200, "PUT", project+"/variables/REGISTRY?environment=prod", `{"value":"registry.new"}`)
	preview = read[api.Preview](t, want(t, s, 200, "POST", "/api/release/preview", task))
	require.Equal(t, []api.PreviewGroup{{Action: "update", From: "1.0", State: "installed", Targets: 2, Sample: []string{"client-1", "client-2"}, Changes: []release.Change{
		{Path: "image", Before: "registry.prod/shop", After: "registry.new/shop"},
		{Path: "labels.task", Before: made.ID, After: "${QUICFLOW_RELEASE}"},
	}}}, preview.Groups)
	installed := read[api.InstallationList](t, want(t, s, 200, "GET", "/api/release/installations", ""))
	require.Equal(t, made.ConfigID, installed.Installations[0].ConfigID)
	require.Contains(t, want(t, s, 409, "DELETE", project+"/variables/TOKEN", ""), "version 1.0")
	want(t, s, 409, "DELETE", "/api/release/versions/"+v.ID, "")

	// An uninstall picks the environment's hosts, too.
	made = read[release.Task](t, want(t, s, 201, "POST", "/api/release/tasks", `{"project":"shop","action":"uninstall","environment":"prod"}`))
	require.Equal(t, 2, made.Counts.Total)
	require.Empty(t, made.ConfigID)
}

// Groups are those to which the same happens, whichever task brought what they run.
func TestPreviewJoinsGroups(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(9, nil)
	s.CanDeploy(clients...)
	want(t, s, 201, "POST", "/api/release/projects", `{"name":"shop","type":"git","git":{"repository":"https://example.com/x.git","ref":"main"}}`)
	want(t, s, 201, "POST", "/api/release/projects/shop/versions", `{"version":"1","status":"active","git":{}}`)
	for i, client := range clients[:6] {
		depth := 1 + i%2
		task := read[release.Task](t, want(t, s, 201, "POST", "/api/release/tasks", fmt.Sprintf(
			`{"project":"shop","version":"1","targets":{"clients":[%q]},"override":{"env":{"N":"%d"},"timeout":"%dm"}}`, client, depth, depth)))
		s.Dispatch(task, client)
		s.Finish(task.ID, client, release.StepSucceeded, "", 0)
		s.Progress(task.ID, release.StatusSucceeded, release.PhaseDone)
	}
	p := read[api.Preview](t, want(t, s, 200, "POST", "/api/release/preview", `{"project":"shop","version":"1","targets":{"selector":"*"},"override":{"env":{"N":"2"}}}`))
	require.Equal(t, []int{3, 3, 3}, []int{p.Groups[0].Targets, p.Groups[1].Targets, p.Groups[2].Targets})
	total := map[string]int{}
	for _, g := range p.Groups {
		total[fmt.Sprint(g.Action, g.Changes)] += g.Targets
	}
	require.Len(t, total, 3, "%v", p.Groups)
	for _, changes := range []string{"update[{env.N 1 2} {timeout 1m0s 10m0s}]", "update[{timeout 2m0s 10m0s}]", "install[]"} {
		require.Equal(t, 3, total[changes], changes)
	}
}

// What would be refused is told before.
func TestPreviewTellsWhoCannotDeploy(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(3, nil)
	s.CanDeploy(clients[:2]...)
	s.CanOnlyDeploy([]release.Type{release.TypeScript}, clients[2])
	want(t, s, 201, "POST", "/api/release/projects", `{"name":"shop","type":"git","git":{"repository":"https://example.com/x.git","ref":"main"}}`)
	want(t, s, 201, "POST", "/api/release/projects/shop/versions", `{"version":"1","status":"active","git":{}}`)
	const task = `{"project":"shop","version":"1","targets":{"selector":"*"}}`
	p := read[api.Preview](t, want(t, s, 200, "POST", "/api/release/preview", task))
	require.Len(t, p.Warnings, 1)
	require.Contains(t, p.Warnings[0], "1 of 3 hosts cannot deploy git projects: "+clients[2])
	require.Contains(t, want(t, s, 422, "POST", "/api/release/tasks", task), p.Warnings[0])
}

// All four types have a preview.
func TestPreviewOfEachType(t *testing.T) {
	s := apitest.Start(t)
	for of, bodies := range map[release.Type][3]string{
		release.TypeScript:     {`{"work_dir":"/srv"}`, `{"install":"true","limits":{"memory":"64m"}}`, "limits.memory"},
		release.TypeContainer:  {`{"image":"app","ports":[{"container":80,"host":8080}]}`, `{"image_tag":"1"}`, "ports[0].host"},
		release.TypeGit:        {`{"repository":"https://example.com/x.git"}`, `{"ref":"v1"}`, "keep_releases"},
		release.TypeKubernetes: {`{"image":"app","replicas":2}`, `{"image_tag":"1","resources":{"limits":{"cpu":"1"}}}`, "resources.limits.cpu"},
	} {
		name := "of-" + string(of)
		want(t, s, 201, "POST", "/api/release/projects", fmt.Sprintf(`{"name":%q,"type":%q,%q:%s}`, name, of, of, bodies[0]))
		want(t, s, 201, "POST", "/api/release/projects/"+name+"/versions", fmt.Sprintf(`{"version":"1","status":"active",%q:%s}`, of, bodies[1]))
		p := read[api.Preview](t, want(t, s, 200, "POST", "/api/release/preview", fmt.Sprintf(`{"project":%q,"version":"1"}`, name)))
		require.Empty(t, p.Warnings)
		paths := map[string]bool{}
		for _, value := range p.Values {
			paths[value.Path] = true
			require.NotEmpty(t, value.Layer)
		}
		require.True(t, paths[bodies[2]], "%v", p.Values)
		require.True(t, paths["timeout"])
	}
}

// What is tried again has the configuration of the task that it goes on with, and no host more than that left undone.
func TestRetryTask(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(5, nil)
	want(t, s, 201, "POST", "/api/release/projects", `{"name":"shop","type":"script","script":{"env":{"A":"${X}"}}}`)
	want(t, s, 201, "PUT", "/api/release/projects/shop/variables/X", `{"value":"then"}`)
	want(t, s, 201, "POST", "/api/release/projects/shop/versions", `{"version":"1","status":"active","script":{"install":"true"}}`)
	task := read[release.Task](t, want(t, s, 201, "POST", "/api/release/tasks",
		`{"project":"shop","version":"1","targets":{"selector":"*"},"strategy":{"canary":{"percent":20,"promote":"manual"},"max_parallel":7}}`))
	s.Dispatch(task, clients...)
	path := "/api/release/tasks/" + task.ID + "/retry"
	require.Contains(t, want(t, s, 409, "POST", path, ""), "has not ended")
	for i, state := range []release.StepState{release.StepSucceeded, release.StepFailed, release.StepUnknown, release.StepSucceeded} {
		s.Finish(task.ID, clients[i], state, "x", 1)
	}
	s.Progress(task.ID, release.StatusFailed, release.PhaseDone)
	want(t, s, 200, "PUT", "/api/release/projects/shop/variables/X", `{"value":"now"}`)

	again := read[release.Task](t, want(t, s, 201, "POST", path, ""))
	require.NotEqual(t, task.ID, again.ID)
	require.Equal(t, []string{clients[1], clients[2], clients[4]}, again.Targets.Clients)
	require.Equal(t, task.ConfigID, again.ConfigID, "the configuration of then")
	require.Equal(t, 3, again.Counts.Total)
	require.Nil(t, again.Strategy.Canary)
	require.Equal(t, 7, again.Strategy.MaxParallel)
	require.Equal(t, release.StatusStarting, again.Status)
	require.Contains(t, s.Rollouts.Calls(), "start "+again.ID)

	s.Dispatch(again, again.Targets.Clients...)
	for _, client := range again.Targets.Clients {
		s.Finish(again.ID, client, release.StepSucceeded, "", 0)
	}
	s.Progress(again.ID, release.StatusSucceeded, release.PhaseDone)
	require.Contains(t, want(t, s, 409, "POST", "/api/release/tasks/"+again.ID+"/retry", ""), "no host is left")
	want(t, s, 404, "POST", "/api/release/tasks/none/retry", "")
}

// A configuration that is not kept any more is made again, for the new task.
func TestRetryTaskWithoutItsConfiguration(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(1, nil)
	want(t, s, 201, "POST", "/api/release/projects", `{"name":"shop","type":"script","script":{"env":{"A":"${QUICFLOW_RELEASE}"}}}`)
	want(t, s, 201, "POST", "/api/release/projects/shop/versions", `{"version":"1","status":"active","script":{"install":"true"}}`)
	task := read[release.Task](t, want(t, s, 201, "POST", "/api/release/tasks", `{"project":"shop","version":"1","targets":{"selector":"*"}}`))
	s.Progress(task.ID, release.StatusFailed, release.PhaseDone)
	removed, err := s.Store.RemoveConfigs(t.Context(), time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, 1, removed)

	again := read[release.Task](t, want(t, s, 201, "POST", "/api/release/tasks/"+task.ID+"/retry", ""))
	snapshot, err := s.Store.Snapshot(t.Context(), again.ConfigID)
	require.NoError(t, err)
	config, err := snapshot.Merged()
	require.NoError(t, err)
	require.Equal(t, again.ID, config.Script.Env["A"])
}
