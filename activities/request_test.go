package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
	"github.com/quicflow/quicflow/workflows"
)

// configured makes the task of a world one that deploys a configuration with a secret, in an environment.
func (w *world) configured(hosts ...string) release.Snapshot {
	ctx := w.t.Context()
	v, err := w.store.Version(ctx, "p", "1")
	require.NoError(w.t, err)
	e := release.Environment{ProjectID: v.ProjectID, Name: "prod"}
	require.NoError(w.t, w.store.CreateEnvironment(ctx, &e))
	for _, x := range []struct{ name, own, prod string }{{"TOKEN", "hunter2-own", "hunter2-prod"}, {"OTHER", "hunter2-other", ""}} {
		put := func(of store.Scope, value string) {
			_, err := w.store.PutVariable(ctx, of, &release.Variable{Name: x.name, Value: value, Secret: true}, false, store.Guard{})
			require.NoError(w.t, err)
		}
		put(store.Scope{ProjectID: v.ProjectID}, x.own)
		if x.prod != "" {
			put(store.Scope{ProjectID: v.ProjectID, EnvironmentID: e.ID}, x.prod)
		}
	}
	config := release.Merged{Type: release.TypeScript, Spec: release.Spec{Script: &release.ScriptSpec{Install: "echo kept", Update: "echo kept", Rollback: "echo kept",
		Env: map[string]string{"T": "${TOKEN}"}}}}
	snapshot, err := release.NewSnapshot(config, v.ProjectID, v.ID, e.ID)
	require.NoError(w.t, err)
	w.task = release.Task{ProjectID: v.ProjectID, VersionID: v.ID, EnvironmentID: e.ID, Action: release.ActionDeploy,
		Strategy: release.Strategy{}.WithDefaults(), Snapshot: &snapshot}
	require.NoError(w.t, w.store.CreateTask(ctx, &w.task, hosts))
	return snapshot
}

// A step carries what its task was made with, and the secrets that this refers to, which are nowhere else.
func TestStepsCarryTheirConfiguration(t *testing.T) {
	var log bytes.Buffer
	var mu sync.Mutex
	logger := slog.New(slog.NewJSONHandler(&lockedWriter{mu: &mu, w: &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w := newWorld(t, 3, release.Strategy{})
	w.acts.log = logger
	hosts := []string{"host-000", "host-001", "host-002"}
	snapshot := w.configured(hosts...)
	// What the version says by now does not matter.
	project, err := w.store.Project(t.Context(), "p")
	require.NoError(t, err)
	project.Script = &release.ScriptSpec{WorkDir: "/elsewhere"}
	require.NoError(t, w.store.UpdateProject(t.Context(), &project, store.Guard{}))

	sent := map[string]*quicflowv1.DeployStep{}
	w.agent = func(clientID string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		mu.Lock()
		sent[clientID] = req.GetDeploy()
		mu.Unlock()
		w.finish(clientID, req.GetStepId(), release.StepSucceeded)
		return accepted(req), nil
	}
	report, err := w.dispatch(nil)
	require.NoError(t, err)
	require.Len(t, sent, 3)
	for _, deploy := range sent {
		require.Same(t, sent["host-000"], deploy, "one for all hosts")
	}
	deploy := sent["host-000"]
	require.Equal(t, snapshot.ID, deploy.GetConfigId())
	require.Equal(t, "prod", deploy.GetEnvironment())
	require.JSONEq(t, string(snapshot.Config), string(deploy.GetConfig()))
	require.Equal(t, map[string]string{"TOKEN": "hunter2-prod"}, deploy.GetSecrets(), "those that it refers to, and no other; the environment's go before")

	// Nothing of them is in what workflows get to see, nor in a log.
	text, err := json.Marshal(report)
	require.NoError(t, err)
	require.NotContains(t, string(text), "hunter2")
	plan, err := w.acts.LoadPlan(t.Context(), workflows.PlanRequest{TaskID: w.task.ID})
	require.NoError(t, err)
	text, err = json.Marshal(plan)
	require.NoError(t, err)
	require.NotContains(t, string(text), "hunter2")
	mu.Lock()
	defer mu.Unlock()
	require.NotContains(t, log.String(), "hunter2")
}

// A configuration is made once for a task, however many hosts there are.
func TestConfigurationsAreReadOnce(t *testing.T) {
	w := newWorld(t, 1, release.Strategy{})
	snapshot := w.configured("host-000")
	counting := &countingStore{Store: w.store}
	w.acts.store = counting
	r, err := w.acts.requestsOf(t.Context(), w.task.ID)
	require.NoError(t, err)
	for range 100 {
		_, longest, err := r.of(t.Context(), release.Step{Action: release.StepInstall, VersionID: w.task.VersionID, ConfigID: snapshot.ID})
		require.NoError(t, err)
		require.Zero(t, longest) // it has no timeout, as it was not merged
	}
	require.Equal(t, 1, counting.snapshots)
}

// One that is gone, or never was, is made of what the version says today; a secret that is gone is said.
func TestOldStepsHaveWhatTheirVersionSays(t *testing.T) {
	w := newWorld(t, 1, release.Strategy{})
	snapshot := w.configured("host-000")
	r, err := w.acts.requestsOf(t.Context(), w.task.ID)
	require.NoError(t, err)
	for _, id := range []string{"", "gone"} {
		request, _, err := r.of(t.Context(), release.Step{Action: release.StepUninstall, PreviousVersion: "1", ConfigID: id})
		require.ErrorIs(t, err, release.ErrInvalid, "it has no script for it")
		require.Nil(t, request)
		request, longest, err := r.of(t.Context(), release.Step{Action: release.StepUpdate, VersionID: w.task.VersionID, ConfigID: id})
		require.NoError(t, err)
		require.Equal(t, release.DefaultStepTimeout, longest)
		require.Contains(t, string(request.GetDeploy().GetConfig()), `"install":"true"`)
		require.Empty(t, request.GetDeploy().GetSecrets())
		require.NotEmpty(t, request.GetDeploy().GetConfigId())
	}
	prod := store.Scope{ProjectID: w.task.ProjectID, EnvironmentID: w.task.EnvironmentID}
	require.ErrorIs(t, w.store.DeleteVariable(t.Context(), prod, "TOKEN", store.Guard{}), release.ErrConflict, "an unfinished task refers to it")
	require.NoError(t, w.store.SetProgress(t.Context(), w.task.ID, store.Progress{Status: release.StatusFailed}))
	for _, of := range []store.Scope{{ProjectID: w.task.ProjectID}, prod} {
		require.NoError(t, w.store.DeleteVariable(t.Context(), of, "TOKEN", store.Guard{}))
	}
	_, _, err = r.of(t.Context(), release.Step{Action: release.StepInstall, VersionID: w.task.VersionID, ConfigID: snapshot.ID})
	require.ErrorIs(t, err, release.ErrInvalid)
	require.ErrorContains(t, err, "variable TOKEN, which the configuration refers to, does not exist any more")
}

type countingStore struct {
	Store
	snapshots int
}

func (s *countingStore) Snapshot(ctx context.Context, id string) (release.Snapshot, error) {
	s.snapshots++
	return s.Store.Snapshot(ctx, id)
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}
