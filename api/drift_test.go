package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// hostOf is an executor of a real agent that finds on its host what the test says.
type hostOf struct {
	running release.Running
	now     *atomic.Pointer[release.Running] // instead
	logs    func(ctx context.Context, what *quicflowv1.DescribeProject, options executor.LogOptions, out io.Writer) error
}

func (hostOf) Run(context.Context, *quicflowv1.StepRequest, *spool.Writer) *quicflowv1.StepResult {
	return nil
}

func (h hostOf) Describe(_ context.Context, what *quicflowv1.DescribeProject) release.Running {
	found := h.running
	if h.now != nil {
		found = *h.now.Load()
	}
	found.Project, found.Type = what.Project, release.Type(what.Deploy.GetType())
	return found
}

func (h hostOf) Logs(ctx context.Context, what *quicflowv1.DescribeProject, options executor.LogOptions, out io.Writer) error {
	return h.logs(ctx, what, options, out)
}

func TestDrift(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(1, nil) // client-1 is known, and not connected
	hosts := map[string]release.Running{
		"ok":      {State: release.RunOK, Version: "1.0"},
		"other":   {State: release.RunOK, Version: "0.9"},
		"gone":    {State: release.RunMissing, Reason: "there is no container of it"},
		"unknown": {State: release.RunUnknown, Reason: "Docker does not answer"},
	}
	ids := []string{"ok", "other", "gone", "unknown"}
	s.StartAgentsWith(nil, func(id string) agent.Executor { return hostOf{running: hosts[id]} }, ids...)
	v1 := s.AddVersion("hello", "1.0")
	task := s.AddTask(v1, append(ids, "client-1")...)
	for _, id := range append(ids, "client-1") {
		s.Finish(task.ID, id, release.StepSucceeded, "", 0)
	}
	check := func(body string) api.DriftReport {
		t.Helper()
		status, text := do(t, s, "POST", "/api/release/drift", body)
		require.Equal(t, 200, status, text)
		return read[api.DriftReport](t, text)
	}
	report := check(`{}`)
	require.Equal(t, 4, report.Checked)
	require.Equal(t, 1, report.Unreachable)
	require.Equal(t, 2, report.Drifted)
	require.Equal(t, map[release.Drift]int{"none": 1, "version": 1, "missing": 1, "unknown": 1}, report.Counts)
	byHost := map[string]api.HostDrift{}
	for _, h := range report.Hosts {
		byHost[h.ClientID] = h
	}
	require.Len(t, byHost, 4, "the one without a drift is left out")
	require.Equal(t, "0.9 runs, 1.0 was deployed", byHost["other"].Reason)
	require.Equal(t, "there is no container of it", byHost["gone"].Reason)
	require.Equal(t, release.TypeScript, byHost["gone"].Running.Type)
	require.False(t, byHost["client-1"].Reached)
	require.Contains(t, byHost["client-1"].Reason, "not connected")
	require.Equal(t, "1.0", byHost["client-1"].Version)

	report = check(`{"project":"hello","targets":{"clients":["ok"]},"all":true}`)
	require.Equal(t, []int{1, 0, 1}, []int{report.Checked, report.Drifted, len(report.Hosts)})
	status, text := do(t, s, "POST", "/api/release/drift", `{"project":"none"}`)
	require.Equal(t, 422, status, text)
}

// A preview goes by what the agents reported last.
func TestPreviewAfterDrift(t *testing.T) {
	s := apitest.Start(t)
	hosts := map[string]*atomic.Pointer[release.Running]{}
	ids := []string{"fine", "gone", "old", "stopped", "strange"}
	for _, id := range ids {
		hosts[id] = new(atomic.Pointer[release.Running])
	}
	s.StartAgentsWith(nil, func(id string) agent.Executor { return hostOf{now: hosts[id]} }, ids...)
	s.AddVersion("hello", "1.0")
	s.AddVersion("hello", "2.0")
	s.AddVersion("hello", "3.0")
	deploy := func(version, selector string, ids ...string) string {
		task := read[release.Task](t, want(t, s, 201, "POST", "/api/release/tasks", fmt.Sprintf(`{"project":"hello","version":%q,"targets":{"selector":%q}}`, version, selector)))
		s.Dispatch(task, ids...)
		for _, id := range ids {
			s.Finish(task.ID, id, release.StepSucceeded, "", 0)
		}
		s.Progress(task.ID, release.StatusSucceeded, release.PhaseDone)
		return task.ConfigID
	}
	preview := func() (groups []api.PreviewGroup) {
		p := read[api.Preview](t, want(t, s, 200, "POST", "/api/release/preview", `{"project":"hello","version":"3.0","targets":{"selector":"*"}}`))
		for _, g := range p.Groups {
			require.Equal(t, "update", g.Action)
			g.Action = ""
			groups = append(groups, g)
		}
		return groups
	}
	from := func(version string) []release.Change {
		return []release.Change{{Path: "env.V", Before: version, After: "3.0"}, {Path: "install", Before: "install " + version, After: "install 3.0"},
			{Path: "rollback", Before: "install " + version, After: "install 3.0"}, {Path: "update", Before: "install " + version, After: "install 3.0"}}
	}
	one := deploy("1.0", "*", ids...)
	two := deploy("2.0", "*", ids...)
	require.Equal(t, []api.PreviewGroup{{From: "2.0", State: "installed", Targets: 5, Sample: ids, Changes: from("2.0")}}, preview())

	hosts["fine"].Store(&release.Running{State: release.RunOK, Version: "2.0", ConfigID: two})
	hosts["gone"].Store(&release.Running{State: release.RunMissing, Reason: "there is nothing"})
	hosts["old"].Store(&release.Running{State: release.RunOK, Version: "1.0", ConfigID: one})
	hosts["stopped"].Store(&release.Running{State: release.RunStopped, Version: "2.0", ConfigID: two})
	hosts["strange"].Store(&release.Running{State: release.RunOK, Version: "2.0", ConfigID: "of another server"})
	want(t, s, 200, "POST", "/api/release/drift", `{}`)
	group := func(id string, drift release.Drift, found string, changes []release.Change) api.PreviewGroup {
		return api.PreviewGroup{From: "2.0", State: "installed", Drift: drift, Found: found, Targets: 1, Sample: []string{id}, Changes: changes}
	}
	require.Equal(t, []api.PreviewGroup{
		group("fine", "", "", from("2.0")),
		group("gone", release.DriftMissing, "", from("2.0")),
		group("stopped", release.DriftStopped, "", from("2.0")),
		group("old", release.DriftVersion, "1.0", from("1.0")),
		group("strange", release.DriftVersion, "", from("2.0")),
	}, preview())

	// What cannot be found out leaves what was known; a new deployment knows better.
	for _, id := range ids {
		hosts[id].Store(&release.Running{State: release.RunUnknown, Reason: "the disk cannot be read"})
	}
	want(t, s, 200, "POST", "/api/release/drift", `{}`)
	require.Len(t, preview(), 5)
	deploy("2.0", "*", ids...)
	require.Equal(t, []api.PreviewGroup{{From: "2.0", State: "installed", Targets: 5, Sample: ids, Changes: from("2.0")}}, preview())
}

// What went wrong at its first installation has neither a version nor a configuration, and is still that of its own project.
func TestDriftOfFirstInstallationsThatFailed(t *testing.T) {
	s := apitest.Start(t)
	s.StartAgentsWith(nil, func(string) agent.Executor { return hostOf{running: release.Running{State: release.RunMissing}} }, "web-1")
	project := release.Project{Name: "shop", Type: release.TypeContainer, Spec: release.Spec{Container: &release.ContainerSpec{Image: "shop"}}}
	require.NoError(t, s.Store.CreateProject(t.Context(), &project))
	shop := release.Version{ProjectID: project.ID, Name: "1.0", Status: release.VersionActive, Spec: release.Spec{Container: &release.ContainerSpec{ImageTag: "1"}}}
	require.NoError(t, s.Store.CreateVersion(t.Context(), &shop))
	for _, version := range []release.Version{s.AddVersion("hello", "1.0"), shop} {
		s.Finish(s.AddTask(version, "web-1").ID, "web-1", release.StepFailed, "no", 0)
	}
	report := read[api.DriftReport](t, want(t, s, 200, "POST", "/api/release/drift", `{"all":true}`))
	found := map[string]release.Type{}
	for _, h := range report.Hosts {
		found[h.Project] = h.Running.Type
	}
	require.Equal(t, map[string]release.Type{"hello": release.TypeScript, "shop": release.TypeContainer}, found)
}

func TestContainerLogs(t *testing.T) {
	s := apitest.Start(t)
	left := make(chan struct{})
	s.StartAgentsWith(nil, func(string) agent.Executor {
		return hostOf{logs: func(ctx context.Context, what *quicflowv1.DescribeProject, options executor.LogOptions, out io.Writer) error {
			_, _ = io.WriteString(out, what.Project+" of "+what.Deploy.Type+"\n")
			if options.Follow {
				<-ctx.Done()
				close(left)
				return nil
			}
			if options.Tail == 3 {
				return errors.New("the container has gone")
			}
			return nil
		}}
	}, "web-1")
	project := release.Project{Name: "shop", Type: release.TypeContainer, Spec: release.Spec{Container: &release.ContainerSpec{Image: "shop"}}}
	require.NoError(t, s.Store.CreateProject(t.Context(), &project))
	version := release.Version{ProjectID: project.ID, Name: "1.0", Status: release.VersionActive, Spec: release.Spec{Container: &release.ContainerSpec{ImageTag: "1"}}}
	require.NoError(t, s.Store.CreateVersion(t.Context(), &version))
	task := s.AddTask(version, "web-1")
	path := "/api/release/tasks/" + task.ID + "/targets/web-1/container-logs"

	status, text := do(t, s, "GET", path, "")
	require.Equal(t, 200, status)
	require.Equal(t, "shop of container\n", text)
	status, text = do(t, s, "GET", path+"?tail=3&since=10m", "")
	require.Equal(t, 200, status, "output came before")
	require.Equal(t, "shop of container\nquicflow: the container has gone\n", text)
	for query, want := range map[string]int{"?since=yesterday": 422, "?tail=-2": 422} {
		status, text := do(t, s, "GET", path+query, "")
		require.Equal(t, want, status, text)
	}
	status, text = do(t, s, "GET", "/api/release/tasks/"+task.ID+"/targets/nobody/container-logs", "")
	require.Equal(t, 503, status, text)
	require.Contains(t, text, "not connected")
	hello := s.AddTask(s.AddVersion("hello", "1.0"), "web-1")
	status, text = do(t, s, "GET", "/api/release/tasks/"+hello.ID+"/targets/web-1/container-logs", "")
	require.Equal(t, 422, status, text)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answer := open(t, s.Request("GET", path+"?follow=true", nil).WithContext(ctx))
	first := make([]byte, len("shop of container\n"))
	_, err := io.ReadFull(answer.Body, first)
	require.NoError(t, err)
	require.Equal(t, "shop of container\n", string(first))
	require.NoError(t, answer.Body.Close())
	select {
	case <-left:
	case <-ctx.Done():
		require.Fail(t, "the agent goes on reading for nobody")
	}
}

func TestHostsThatCannotDoATypeAreRefused(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(8, nil)
	project := release.Project{Name: "shop", Type: release.TypeContainer, Spec: release.Spec{Container: &release.ContainerSpec{Image: "shop"}}}
	require.NoError(t, s.Store.CreateProject(t.Context(), &project))
	version := release.Version{ProjectID: project.ID, Name: "1.0", Status: release.VersionActive, Spec: release.Spec{Container: &release.ContainerSpec{ImageTag: "1"}}}
	require.NoError(t, s.Store.CreateVersion(t.Context(), &version))
	s.CanDeploy("client-1")
	s.CanOnlyDeploy([]release.Type{release.TypeScript}, clients[1:7]...) // and client-8 has not said what it can do
	const task = `{"project":"shop","version":"1.0","targets":{"clients":[%s]}}`
	able := read[release.Task](t, want(t, s, 201, "POST", "/api/release/tasks", fmt.Sprintf(task, `"client-1"`)))
	want(t, s, 201, "POST", "/api/release/tasks", fmt.Sprintf(task, `"client-8"`))
	status, text := do(t, s, "POST", "/api/release/tasks", `{"project":"shop","version":"1.0","targets":{"selector":"*"}}`)
	require.Equal(t, 422, status, text)
	require.Contains(t, text, "6 of 8 hosts cannot deploy container projects: client-2, client-3, client-4, client-5, client-6 and 1 more; their agents do not report deploy.container")
	_, total, err := s.Store.Tasks(t.Context(), store.TaskFilter{})
	require.NoError(t, err)
	require.Equal(t, 2, total, "nothing was stored of the other")

	s.Progress(able.ID, release.StatusFailed, release.PhaseDone)
	s.CanOnlyDeploy([]release.Type{release.TypeScript}, "client-1") // not any more
	text = want(t, s, 409, "POST", "/api/release/tasks/"+able.ID+"/retry", "")
	require.Contains(t, text, "cannot retry: 1 of 1 hosts cannot deploy container projects: client-1")
	s.CanDeploy("client-1")
	want(t, s, 201, "POST", "/api/release/tasks/"+able.ID+"/retry", "")
}

// An agent has tried the cluster that it finds by itself, and no other.
func TestAClusterThatTheProjectNamesNeedsNoCapability(t *testing.T) {
	s := apitest.Start(t)
	s.CanOnlyDeploy([]release.Type{release.TypeScript}, s.AddClients(1, nil)...)
	for name, c := range map[string]struct {
		spec   release.KubernetesSpec
		status int
	}{
		"found":   {release.KubernetesSpec{Image: "shop"}, 422},
		"named":   {release.KubernetesSpec{Image: "shop", Kubeconfig: "/etc/prod.kubeconfig"}, 201},
		"context": {release.KubernetesSpec{Image: "shop", Context: "prod"}, 201},
	} {
		project := release.Project{Name: name, Type: release.TypeKubernetes, Spec: release.Spec{Kubernetes: &c.spec}}
		require.NoError(t, s.Store.CreateProject(t.Context(), &project))
		version := release.Version{ProjectID: project.ID, Name: "1.0", Status: release.VersionActive, Spec: release.Spec{Kubernetes: &release.KubernetesSpec{ImageTag: "1"}}}
		require.NoError(t, s.Store.CreateVersion(t.Context(), &version))
		status, text := do(t, s, "POST", "/api/release/tasks", fmt.Sprintf(`{"project":%q,"version":"1.0","targets":{"clients":["client-1"]}}`, name))
		require.Equal(t, c.status, status, "%s: %s", name, text)
	}
}
