package fleet_test

import (
	"context"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/fleet"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// plan makes a task for clients that were connected, and gives the ids of its steps.
func (b *server) plan(clients []string) (taskID string, steps map[string]string) {
	b.t.Helper()
	ctx := b.t.Context()
	require.NoError(b.t, b.store.CreateProject(ctx, &release.Project{Name: "shop", Type: release.TypeScript}))
	version := release.Version{Project: "shop", Name: "1.0", Status: release.VersionActive, Spec: release.Spec{Script: &release.ScriptSpec{Install: "true"}}}
	require.NoError(b.t, b.store.CreateVersion(ctx, &version))
	task := release.Task{ProjectID: version.ProjectID, VersionID: version.ID, Action: release.ActionDeploy, Targets: release.Targets{Clients: clients}}
	require.NoError(b.t, b.store.CreateTask(ctx, &task, clients))
	chunks, err := b.store.PlanChunks(ctx, task.ID, release.StepDeploy, 1, 1000, "default")
	require.NoError(b.t, err)
	require.Len(b.t, chunks, 1)
	planned, err := b.store.ChunkSteps(ctx, task.ID, release.StepDeploy, chunks[0].Chunk)
	require.NoError(b.t, err)
	_, _, err = b.store.MarkDispatched(ctx, task.ID, release.StepDeploy, clients)
	require.NoError(b.t, err)
	steps = map[string]string{}
	for _, s := range planned {
		steps[s.ClientID] = s.ID
	}
	require.Len(b.t, steps, len(clients))
	return task.ID, steps
}

func (b *server) ask(clientID string, request *quicflowv1.Request) *quicflowv1.Response {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	answer, err := b.hub.Request(ctx, clientID, request)
	require.NoError(b.t, err)
	return answer
}

func stepRequest(id string) *quicflowv1.Request {
	return &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: &quicflowv1.StepRequest{
		StepId: id, TaskId: strings.Split(id, "/")[0], Action: "install", Project: "shop", Version: "1.0",
		NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli(),
		Spec:           &quicflowv1.StepRequest_Deploy{Deploy: &quicflowv1.DeployStep{Type: "script", Config: []byte(`{"install":"true"}`)}},
	}}}
}

func cancelRequest(id string) *quicflowv1.Request {
	return &quicflowv1.Request{Body: &quicflowv1.Request_CancelStep{CancelStep: &quicflowv1.CancelStep{StepId: id, Reason: "test"}}}
}

// states counts the targets of a task by their state.
func (b *server) states(taskID string) map[release.TargetState]int {
	b.t.Helper()
	targets, _, err := b.store.Targets(b.t.Context(), taskID, store.TargetFilter{})
	require.NoError(b.t, err)
	n := map[release.TargetState]int{}
	for _, target := range targets {
		n[target.State]++
	}
	return n
}

// runs counts how often each step was started.
type runs struct {
	mu sync.Mutex
	n  map[string]int
}

func (r *runs) add(_, stepID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n[stepID]++
}

func (r *runs) all() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.n)
}

// Steps that run while the hub goes away run on, are not run again when they are asked for again, and report.
func TestStepsRunOnceAcrossAReconnect(t *testing.T) {
	const n = 40
	b := startServer(t)
	started := &runs{n: map[string]int{}}
	f := b.fleet(n, func(c *fleet.Config) {
		c.ExecMin, c.ExecMax, c.OnStep = 500*time.Millisecond, 2*time.Second, started.add
	})
	require.NoError(t, b.connect(f))
	task, steps := b.plan(ids(n))
	want := map[string]int{}
	for client, id := range steps {
		require.Equal(t, quicflowv1.StepState_STEP_STATE_ACCEPTED, b.ask(client, stepRequest(id)).GetStep().GetState())
		want[id] = 1
	}
	b.stop()
	eventually(t, "all sessions end", func() bool { return f.Snapshot().Accepted == 0 })
	b.start()
	eventually(t, "all are back", func() bool { return f.Snapshot().Accepted == n })
	for client, id := range steps {
		require.NotZero(t, b.ask(client, stepRequest(id)).GetStep().GetState())
	}
	eventually(t, "all results are stored", func() bool { return b.states(task)[release.TargetSucceeded] == n })
	require.Equal(t, want, started.all())
	for client, id := range steps {
		answer := b.ask(client, stepRequest(id)).GetStep()
		require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, answer.GetResult().GetOutcome())
	}
	require.Equal(t, want, started.all())
	require.EqualValues(t, n, f.Snapshot().Steps)
}

func TestFailuresAreReported(t *testing.T) {
	b := startServer(t)
	f := b.fleet(10, func(c *fleet.Config) { c.FailureRate = 1 })
	require.NoError(t, b.connect(f))
	task, steps := b.plan(ids(10))
	for client, id := range steps {
		b.ask(client, stepRequest(id))
	}
	eventually(t, "all results are stored", func() bool { return b.states(task)[release.TargetFailed] == 10 })
}

func TestWhatAnAgentRefuses(t *testing.T) {
	b := startServer(t)
	started := &runs{n: map[string]int{}}
	f := b.fleet(2, func(c *fleet.Config) { c.ExecMin, c.OnStep = time.Hour, started.add })
	require.NoError(t, b.connect(f))
	id := func(name string) string { return release.StepID(name, release.StepDeploy, "sim-000", 1) }
	code := func(r *quicflowv1.Request) quicflowv1.FailureCode { return b.ask("sim-000", r).GetFailure().GetCode() }

	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_INVALID, code(stepRequest("rubbish")))
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_INVALID, code(stepRequest(release.StepID("t", release.StepDeploy, "sim-001", 1))))
	none := stepRequest(id("a"))
	none.GetStep().Spec = nil
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, code(none))
	forever := stepRequest(id("a"))
	forever.GetStep().NotAfterUnixMs = 0
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_INVALID, code(forever))
	unknown := &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: "dance"}}}
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, code(unknown))
	sleep := &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: "sleep", Payload: []byte("long")}}}
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_INVALID, code(sleep))

	late := stepRequest(id("late"))
	late.GetStep().NotAfterUnixMs = time.Now().Add(-time.Second).UnixMilli()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, b.ask("sim-000", late).GetStep().GetResult().GetOutcome())
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, b.ask("sim-000", cancelRequest(id("never"))).GetStep().GetResult().GetOutcome())
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, b.ask("sim-000", stepRequest(id("never"))).GetStep().GetResult().GetOutcome())
	require.Empty(t, started.all())

	require.Equal(t, quicflowv1.StepState_STEP_STATE_ACCEPTED, b.ask("sim-000", stepRequest(id("runs"))).GetStep().GetState())
	require.Equal(t, quicflowv1.Outcome_OUTCOME_CANCELLED, b.ask("sim-000", cancelRequest(id("runs"))).GetStep().GetResult().GetOutcome())
	for i := range 16 {
		require.NotNil(t, b.ask("sim-000", stepRequest(id(string(rune('a'+i))))).GetStep())
	}
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, code(stepRequest(id("more"))))
	require.Empty(t, f.Snapshot().Dropped)
}
