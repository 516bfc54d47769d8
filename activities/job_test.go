package activities

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/fleet"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
	"github.com/quicflow/quicflow/workflows"
)

// patience bounds every wait of these tests.
const patience = 2 * time.Minute

// field is a real hub on a real store, with simulated agents that hold sessions.
type field struct {
	t     testing.TB
	ca    *pki.CA
	store *store.Store
	hub   *hub.Hub
	fleet *fleet.Fleet
	acts  *Activities
	stop  chan struct{} // the worker's stop channel
	ids   []string
	addr  string

	results Results
	mu      sync.Mutex
	started map[string]int // by step id
}

func newField(t testing.TB, agents int, change ...func(*fleet.Config)) *field {
	t.Helper()
	ca, err := pki.LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	s, err := store.Open(t.Context(), store.Config{Driver: store.SQLite, DSN: filepath.Join(t.TempDir(), "quicflow.db"),
		OfflineGrace: time.Second, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	f := &field{t: t, ca: ca, store: s, stop: make(chan struct{}), started: map[string]int{}}
	f.hub, err = hub.New(hub.Config{
		Addr: "127.0.0.1:0", NodeID: "node", CA: ca, Registry: s, Sink: s, Enroller: s, MaxClients: agents + 10, OfflineGrace: time.Second,
		DrainTimeout: 200 * time.Millisecond, Logger: slog.New(slog.DiscardHandler), OnResults: f.results.Stored,
		MaxHandshakes: 4096, MaxAdmissions: 8192, MaxEnrolments: 1000,
	})
	require.NoError(t, err)
	require.NoError(t, f.hub.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, f.hub.Stop(ctx))
	})
	f.addr = f.hub.Addr().String()
	for i := range agents {
		f.ids = append(f.ids, fmt.Sprintf("sim-%06d", i))
	}
	f.acts, err = New(Config{Store: s, Hub: f.hub, Bus: bus.New(bus.Config{}), Results: &f.results, NodeID: "node", Logger: slog.New(slog.DiscardHandler),
		Limits: Limits{Answer: 10 * time.Second, Grace: 5 * time.Second, Return: 500 * time.Millisecond, Settle: 5 * time.Second},
		Jobs:   limits()})
	require.NoError(t, err)
	cfg := fleet.Config{Servers: []string{f.addr}, IDs: f.ids, Identities: f.join(f.ids), Concurrency: 64, ConnectTimeout: patience,
		Logger: slog.New(slog.DiscardHandler), OnStep: f.onStep}
	for _, c := range change {
		c(&cfg)
	}
	f.fleet, err = fleet.New(cfg)
	require.NoError(t, err)
	t.Cleanup(f.fleet.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, f.fleet.Connect(ctx))
	return f
}

func limits() job.Limits {
	return job.Limits{MaxConcurrency: 5000, TaskTimeout: release.Duration(time.Minute), JobTimeout: release.Duration(10 * time.Minute), Retries: 2}
}

func (f *field) onStep(_, stepID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started[stepID]++
}

// join enrols agents over the network.
func (f *field) join(ids []string) *fleet.Identities {
	token := auth.NewJoinToken(f.ca.Fingerprint())
	require.NoError(f.t, f.store.CreateJoinToken(f.t.Context(), store.JoinToken{ID: uuid.NewString(), Hash: token.Hash(), Pattern: "sim-*", Uses: len(ids),
		ExpiresAt: time.Now().Add(time.Hour)}))
	cache, err := fleet.OpenCache(filepath.Join(f.t.TempDir(), "test.identities"))
	require.NoError(f.t, err)
	defer func() { require.NoError(f.t, cache.Close()) }()
	require.NoError(f.t, fleet.Enrol(f.t.Context(), fleet.Enrolment{Server: f.addr, Token: token.String(), IDs: ids, Cache: cache}))
	return cache.Identities()
}

// job stores a job for all agents.
func (f *field) job(o job.Options, ids ...string) job.Job {
	f.t.Helper()
	if ids == nil {
		ids = f.ids
	}
	j := job.Job{Kind: job.KindBatch, Command: job.Command{Type: "ping"}, Options: o.WithDefaults(limits()), CreatedBy: "mei"}
	require.NoError(f.t, f.store.CreateJob(f.t.Context(), &j, ids))
	require.NoError(f.t, f.acts.RecordJob(f.t.Context(), workflows.JobProgressRequest{JobID: j.ID, Status: job.StatusRunning}))
	return j
}

func (f *field) plan(jobID string, size int) []workflows.Chunk {
	f.t.Helper()
	env := f.environment()
	value, err := env.ExecuteActivity(workflows.ActivityPlanJobChunks, workflows.JobChunksRequest{JobID: jobID, Size: size})
	require.NoError(f.t, err)
	var plan workflows.ChunkPlan
	require.NoError(f.t, value.Get(&plan))
	return plan.Chunks
}

func (f *field) environment() *testsuite.TestActivityEnvironment {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetTestTimeout(patience)
	env.SetWorkerStopChannel(f.stop)
	for name, do := range map[string]any{
		workflows.ActivityPlanJobChunks: f.acts.PlanJobChunks, workflows.ActivityDispatchJobChunk: f.acts.DispatchJobChunk,
		workflows.ActivityRetryJob: f.acts.RetryJob, workflows.ActivityAwaitJobHosts: f.acts.AwaitJobHosts,
	} {
		env.RegisterActivityWithOptions(do, activity.RegisterOptions{Name: name})
	}
	return env
}

func (f *field) dispatch(r workflows.JobDispatchRequest) (report workflows.DispatchReport, err error) {
	value, err := f.environment().ExecuteActivity(workflows.ActivityDispatchJobChunk, r)
	if err == nil {
		err = value.Get(&report)
	}
	return report, err
}

// round dispatches everything that is to be done now, several chunks at once, and gives the sum of the reports.
func (f *field) round(jobID string, size, parallel int) (sum workflows.DispatchReport) {
	f.t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	places := make(chan struct{}, workflows.MaxOpenJobChunks)
	for _, chunk := range f.plan(jobID, size) {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			report, err := f.dispatch(workflows.JobDispatchRequest{JobID: jobID, Chunk: chunk.Number, Parallel: parallel, Budget: -1})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				f.t.Errorf("chunk %d: %v", chunk.Number, err)
			}
			sum.Charged += report.Charged
			sum.Undecided += report.Undecided
		})
	}
	wg.Wait()
	return sum
}

func (f *field) counts(jobID string) job.Counts {
	f.t.Helper()
	j, err := f.store.Job(context.Background(), jobID)
	require.NoError(f.t, err)
	return j.Counts
}

func (f *field) target(jobID, clientID string) job.Target {
	f.t.Helper()
	target, err := f.store.JobTarget(context.Background(), jobID, clientID)
	require.NoError(f.t, err)
	return target
}

func TestJobRunsOnEachHostOnce(t *testing.T) {
	f := newField(t, 60)
	j := f.job(job.Options{})
	require.Equal(t, workflows.DispatchReport{}, f.round(j.ID, 20, 7))
	require.Equal(t, job.Counts{Total: 60, Succeeded: 60}, f.counts(j.ID))
	require.Empty(t, f.plan(j.ID, 20))
	require.Len(t, f.started, 60)
	for step, n := range f.started {
		require.Equal(t, 1, n, step)
	}
	require.Empty(t, f.acts.slots, "shared places are given up")
	require.Empty(t, f.results.tasks)
}

func TestJobHostsThatAreOffline(t *testing.T) {
	f := newField(t, 3)
	away := []string{"sim-away-1", "sim-away-2"}
	f.join(away)
	j := f.job(job.Options{WaitOffline: release.Duration(time.Minute)}, append(away, f.ids...)...)
	require.Eventually(t, func() bool { return f.hub.Presence(away[0]).Status == release.ClientOffline }, patience, 10*time.Millisecond)
	require.Equal(t, 2, f.round(j.ID, 1000, 10).Charged)
	require.Equal(t, job.Counts{Total: 5, Succeeded: 3, Offline: 2}, f.counts(j.ID))
	require.Equal(t, whyOffline, f.target(j.ID, away[0]).Error)

	env := f.environment()
	_, err := env.ExecuteActivity(workflows.ActivityRetryJob, workflows.JobRetryRequest{JobID: j.ID, WaitOffline: true})
	require.NoError(t, err)
	standing, err := f.acts.CountJob(t.Context(), workflows.JobRequest{JobID: j.ID})
	require.NoError(t, err)
	require.Equal(t, workflows.JobStanding{Counts: job.Counts{Total: 5, Succeeded: 3, Pending: 2}, Waiting: 2}, standing)
	require.Empty(t, f.plan(j.ID, 1000), "no one's turn while they are waited for")

	_, err = f.store.ConnectClients(t.Context(), []release.ClientSession{{ClientID: away[1], NodeID: "node", JournalID: "j", Generation: 1, At: time.Now()}})
	require.NoError(t, err)
	await := func(until time.Time) (answer workflows.JobHostsAnswer) {
		value, err := env.ExecuteActivity(workflows.ActivityAwaitJobHosts, workflows.JobHostsRequest{JobID: j.ID, Until: until})
		require.NoError(t, err)
		require.NoError(t, value.Get(&answer))
		return answer
	}
	require.Equal(t, workflows.JobHostsAnswer{Back: 1}, await(time.Now().Add(time.Hour)))
	require.Len(t, f.plan(j.ID, 1000), 1)
	require.Equal(t, workflows.JobHostsAnswer{Over: true}, await(time.Now()))
	require.Equal(t, job.StateOffline, f.target(j.ID, away[0]).State)
	require.Equal(t, job.StatePending, f.target(j.ID, away[1]).State)
}

// An agent that is full is tried for a while, and then refused: another epoch may come.
func TestJobOfAnAgentThatIsFull(t *testing.T) {
	w := newWorld(t, 2, release.Strategy{})
	code := quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED
	w.agent = func(string, *quicflowv1.StepRequest) (*quicflowv1.Response, error) { return failure(code), nil }
	d := w.dispatchJob(t, "host-000")
	require.Equal(t, job.StateRefused, d.State)
	require.Equal(t, "not started: scripted", d.Error)
	answer, _, err := w.acts.store.RetryJob(t.Context(), d.JobID, store.JobRetry{Max: 2})
	require.NoError(t, err)
	require.Zero(t, answer, "another try would end the same")
}

// dispatchJob has a host run a job, and gives what came of it.
func (w *world) dispatchJob(t *testing.T, clientID string) job.Target {
	j := job.Job{Kind: job.KindCommand, Command: job.Command{Type: "ping"}, Options: job.Options{}.WithDefaults(limits())}
	require.NoError(t, w.store.CreateJob(t.Context(), &j, []string{clientID}))
	f := &field{t: t, store: w.store, acts: w.acts, stop: w.stop}
	f.round(j.ID, 1000, 10)
	return f.target(j.ID, clientID)
}

func TestJobWhoseHubIsStopping(t *testing.T) {
	f := newField(t, 4, func(c *fleet.Config) { c.ExecMin = 2 * time.Second })
	j := f.job(job.Options{})
	chunks := f.plan(j.ID, 1000)
	require.Len(t, chunks, 1)
	var watch sync.WaitGroup
	watch.Go(func() {
		assert.Eventually(t, func() bool { return f.counts(j.ID).Running == 4 }, patience, time.Millisecond)
		close(f.stop)
	})
	defer watch.Wait()
	_, err := f.dispatch(workflows.JobDispatchRequest{JobID: j.ID, Chunk: chunks[0].Number, Parallel: 10, Budget: -1})
	var application *temporal.ApplicationError
	require.ErrorAs(t, err, &application)
	require.Equal(t, workflows.ErrTypeDraining, application.Type())
	f.stop = make(chan struct{})
	// The next run asks with the same ids, and runs nothing twice.
	require.Equal(t, workflows.DispatchReport{}, f.round(j.ID, 1000, 10))
	require.Equal(t, job.Counts{Total: 4, Succeeded: 4}, f.counts(j.ID))
	for step, n := range f.started {
		require.Equal(t, 1, n, step)
	}
}

func TestCancelledJobAsksItsHostsToStop(t *testing.T) {
	f := newField(t, 4, func(c *fleet.Config) { c.ExecMin = time.Hour })
	j := f.job(job.Options{})
	chunk := f.plan(j.ID, 2)[0]
	_, _, err := f.store.MarkJobChunk(t.Context(), j.ID, chunk.Number, f.ids[:1])
	require.NoError(t, err)
	response, err := f.hub.Request(t.Context(), f.ids[0], &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: &quicflowv1.StepRequest{
		StepId: release.StepID(j.ID, job.StepCommand, f.ids[0], 0), TaskId: j.ID, NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli(),
		Spec: &quicflowv1.StepRequest_Command{Command: &quicflowv1.CommandStep{Type: "sleep"}}}}})
	require.NoError(t, err)
	require.Equal(t, quicflowv1.StepState_STEP_STATE_ACCEPTED, response.GetStep().GetState())

	report, err := f.dispatch(workflows.JobDispatchRequest{JobID: j.ID, Chunk: chunk.Number, Parallel: 10, Cancel: true})
	require.NoError(t, err)
	require.Equal(t, 1, report.Undecided)
	require.Equal(t, job.Counts{Total: 4, Pending: 3, Cancelled: 1}, f.counts(j.ID))
}

// A dispatch that a newer plan has replaced starts nothing: its hosts may be at a later epoch by now.
func TestOldChunkStartsNothing(t *testing.T) {
	f := newField(t, 3)
	j := f.job(job.Options{})
	old := f.plan(j.ID, 1000)[0]
	targets, err := f.store.JobSteps(t.Context(), j.ID, old.Number)
	require.NoError(t, err)
	require.Len(t, targets, 3)
	f.plan(j.ID, 1000)
	marked, halted, err := f.store.MarkJobChunk(t.Context(), j.ID, old.Number, f.ids)
	require.NoError(t, err)
	require.True(t, halted)
	require.Empty(t, marked)
	report, err := f.dispatch(workflows.JobDispatchRequest{JobID: j.ID, Chunk: old.Number, Parallel: 10, Budget: -1})
	require.NoError(t, err)
	require.Zero(t, report)
	require.Empty(t, f.started)
}

func TestHaltedJobStartsNothing(t *testing.T) {
	f := newField(t, 5)
	j := f.job(job.Options{})
	chunk := f.plan(j.ID, 1000)[0]
	require.NoError(t, f.acts.SetJobHalt(t.Context(), workflows.JobHaltRequest{JobID: j.ID, Halted: true}))
	report, err := f.dispatch(workflows.JobDispatchRequest{JobID: j.ID, Chunk: chunk.Number, Parallel: 2, Budget: -1})
	require.NoError(t, err)
	require.Equal(t, 5, report.Undecided)
	require.Empty(t, f.started)
	require.Empty(t, f.plan(j.ID, 1000), "of a halted job only what runs is planned")
}

func TestJobStopsAtItsBudget(t *testing.T) {
	f := newField(t, 20, func(c *fleet.Config) { c.FailureRate = 1 })
	j := f.job(job.Options{})
	chunk := f.plan(j.ID, 1000)[0]
	report, err := f.dispatch(workflows.JobDispatchRequest{JobID: j.ID, Chunk: chunk.Number, Parallel: 1, Budget: 2})
	require.NoError(t, err)
	require.Equal(t, workflows.DispatchReport{Charged: 3, Undecided: 17}, report)
	require.Equal(t, job.Counts{Total: 20, Failed: 3, Pending: 17}, f.counts(j.ID))
}
