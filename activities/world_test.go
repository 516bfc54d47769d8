package activities

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
	"github.com/quicflow/quicflow/workflows"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a real store and bus, with agents that do what a test scripts.
type world struct {
	t       *testing.T
	store   *store.Store
	file    string // of the store
	bus     *bus.Bus
	results Results
	task    release.Task
	acts    *Activities
	stop    chan struct{} // the worker's stop channel

	mu       sync.Mutex
	presence map[string]hub.Presence
	watchers map[string][]chan struct{}
	requests []string // step ids, in the order sent
	cancels  []string
	atWork   int
	most     int
	// agent answers a step request; the default runs it with success. It is called without the lock.
	agent func(clientID string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error)
	// beforeSend, if set, is called between the mark in the store and the sending, without the lock.
	beforeSend func(clientID string)
	// onCancel answers a request to stop a step; the default says that it was stopped.
	onCancel func(stepID string) (*quicflowv1.Response, error)
}

func newWorld(t *testing.T, hosts int, strategy release.Strategy) *world {
	ctx := t.Context()
	file := filepath.Join(t.TempDir(), "test.db")
	s, err := store.Open(ctx, store.Config{Driver: store.SQLite, DSN: file,
		SecretKey: bytes.Repeat([]byte("k"), store.SecretKeySize)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	w := &world{t: t, store: s, file: file, bus: bus.New(bus.Config{Coalesce: time.Millisecond}), stop: make(chan struct{}),
		presence: map[string]hub.Presence{}, watchers: map[string][]chan struct{}{}}
	w.agent = func(clientID string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		w.finish(clientID, req.GetStepId(), release.StepSucceeded)
		return accepted(req), nil
	}
	w.onCancel = func(stepID string) (*quicflowv1.Response, error) {
		return finished(stepID, quicflowv1.Outcome_OUTCOME_CANCELLED), nil
	}
	var ids []string
	require.NoError(t, s.CreateJoinToken(ctx, store.JoinToken{ID: "j", Hash: "h", Uses: hosts, ExpiresAt: time.Now().Add(time.Hour)}))
	for i := range hosts {
		id := fmt.Sprintf("host-%03d", i)
		require.NoError(t, s.RedeemJoinToken(ctx, auth.Redemption{TokenHash: "h", ClientID: id, PublicKeyHash: id, At: time.Now()}))
		ids = append(ids, id)
		w.presence[id] = hub.Presence{Status: release.ClientOnline}
	}
	p := release.Project{Name: "p", Type: release.TypeScript}
	require.NoError(t, s.CreateProject(ctx, &p))
	v := release.Version{ProjectID: p.ID, Project: "p", Name: "1", Status: release.VersionActive, Spec: release.Spec{Script: &release.ScriptSpec{Install: "true"}}}
	require.NoError(t, s.CreateVersion(ctx, &v))
	w.task = release.Task{ID: "task", ProjectID: p.ID, Project: "p", VersionID: v.ID, Version: "1", Action: release.ActionDeploy,
		Strategy: strategy.WithDefaults(), WorkflowID: "w"}
	require.NoError(t, s.CreateTask(ctx, &w.task, ids))
	w.acts, err = New(Config{Store: s, Hub: w, Bus: w.bus, Results: &w.results, NodeID: "node", Logger: slog.New(slog.DiscardHandler),
		Limits: Limits{Answer: time.Second, Grace: time.Second, Return: 50 * time.Millisecond, Settle: time.Second}})
	require.NoError(t, err)
	return w
}

// dispatch plans the first wave and runs each of its chunks once.
func (w *world) dispatch(change func(*workflows.DispatchRequest)) (report workflows.DispatchReport, err error) {
	plan, err := w.acts.PlanChunks(w.t.Context(), workflows.ChunksRequest{TaskID: w.task.ID, Step: release.StepDeploy, Wave: 1, Size: 500})
	require.NoError(w.t, err)
	require.LessOrEqual(w.t, len(plan.Chunks), 1)
	if len(plan.Chunks) == 0 {
		return report, nil
	}
	request := workflows.DispatchRequest{TaskID: w.task.ID, Step: release.StepDeploy, Chunk: plan.Chunks[0].Number, Parallel: 100, Budget: -1}
	if change != nil {
		change(&request)
	}
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerStopChannel(w.stop)
	env.RegisterActivityWithOptions(w.acts.DispatchChunk, activity.RegisterOptions{Name: workflows.ActivityDispatchChunk})
	value, err := env.ExecuteActivity(workflows.ActivityDispatchChunk, request)
	if err == nil {
		require.NoError(w.t, value.Get(&report))
	}
	return report, err
}

func (w *world) counts() release.Counts {
	counts, err := w.acts.CountTargets(context.Background(), workflows.CountRequest{TaskID: w.task.ID})
	require.NoError(w.t, err)
	return counts.All
}

// finish stores a step's outcome, as the hub does when the agent reports it.
func (w *world) finish(clientID, stepID string, state release.StepState) {
	changed, err := w.store.RecordResults(context.Background(), []release.StepResult{{StepID: stepID, ClientID: clientID, State: state, FinishedAt: time.Now()}})
	require.NoError(w.t, err)
	w.results.Stored(changed)
}

func (w *world) setPresence(clientID string, p hub.Presence) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.presence[clientID] = p
	for _, c := range w.watchers[clientID] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (w *world) Presence(clientID string) hub.Presence {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.presence[clientID]
}

func (w *world) WatchClient(clientID string) (<-chan struct{}, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := make(chan struct{}, 1)
	w.watchers[clientID] = append(w.watchers[clientID], c)
	return c, func() {}
}

func (w *world) Request(_ context.Context, clientID string, req *quicflowv1.Request) (*quicflowv1.Response, error) {
	w.mu.Lock()
	if c := req.GetCancelStep(); c != nil {
		w.cancels = append(w.cancels, c.GetStepId())
		w.mu.Unlock()
		return w.answer(clientID)(w.onCancel(c.GetStepId()))
	}
	w.requests = append(w.requests, req.GetStep().GetStepId())
	w.atWork++
	w.most = max(w.most, w.atWork)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.atWork--
	}()
	return w.answer(clientID)(w.agent(clientID, req.GetStep()))
}

// answer stores the result that an answer carries, as the hub does.
func (w *world) answer(clientID string) func(*quicflowv1.Response, error) (*quicflowv1.Response, error) {
	return func(response *quicflowv1.Response, err error) (*quicflowv1.Response, error) {
		if result, ok := hub.StepResult(clientID, response.GetStep().GetResult()); ok {
			w.finish(clientID, result.StepID, result.State)
		}
		return response, err
	}
}

func (w *world) AwaitTurn(context.Context) (hub.Turn, error) { return hub.Turn{}, nil }

// RequestIn refuses a session that is over, as the hub does.
func (w *world) RequestIn(ctx context.Context, clientID string, epoch int64, req *quicflowv1.Request) (*quicflowv1.Response, error) {
	if w.beforeSend != nil {
		w.beforeSend(clientID)
	}
	if w.Presence(clientID).Session != epoch {
		return nil, hub.ErrNotConnected
	}
	return w.Request(ctx, clientID, req)
}

func accepted(req *quicflowv1.StepRequest) *quicflowv1.Response {
	return &quicflowv1.Response{Body: &quicflowv1.Response_Step{Step: &quicflowv1.StepStatus{
		StepId: req.GetStepId(), State: quicflowv1.StepState_STEP_STATE_ACCEPTED}}}
}

func finished(stepID string, outcome quicflowv1.Outcome) *quicflowv1.Response {
	return &quicflowv1.Response{Body: &quicflowv1.Response_Step{Step: &quicflowv1.StepStatus{
		StepId: stepID, State: quicflowv1.StepState_STEP_STATE_FINISHED,
		Result: &quicflowv1.StepResult{StepId: stepID, Outcome: outcome}}}}
}

func failure(code quicflowv1.FailureCode) *quicflowv1.Response {
	return &quicflowv1.Response{Body: &quicflowv1.Response_Failure{Failure: &quicflowv1.Failure{Code: code, Message: "scripted"}}}
}
