package rollout

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/quicflow/quicflow/activities"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/fleet"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/workflows"
)

const patience = time.Minute

// field is a real hub with simulated agents, and the activities of jobs.
type field struct {
	ca      *pki.CA
	hub     *hub.Hub
	acts    *activities.Activities
	results activities.Results
	stopOwn func() // stops the worker of the hub's queue

	mu      sync.Mutex
	started map[string]int // by step id
}

func jobLimits() job.Limits {
	return job.Limits{MaxConcurrency: 5000, TaskTimeout: release.Duration(time.Hour), JobTimeout: release.Duration(time.Hour),
		RetryInterval: release.Duration(100 * time.Millisecond), Retries: 2}
}

func (w *world) startHub() {
	t := w.t
	var err error
	logger := slog.New(slog.DiscardHandler)
	w.started = map[string]int{}
	w.ca, err = pki.LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	w.hub, err = hub.New(hub.Config{Addr: "127.0.0.1:0", NodeID: "node", CA: w.ca, Registry: w.store, Sink: w.store, Enroller: w.store,
		MaxClients: 200_000, OfflineGrace: time.Second, DrainTimeout: 200 * time.Millisecond, Logger: logger, OnResults: w.results.Stored,
		MaxHandshakes: 4096, MaxAdmissions: 8192, MaxEnrolments: 1000})
	require.NoError(t, err)
	require.NoError(t, w.hub.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, w.hub.Stop(ctx))
	})
	w.acts, err = activities.New(activities.Config{Store: w.store, Hub: w.hub, Bus: bus.New(bus.Config{}), Results: &w.results, NodeID: "node",
		Logger: logger, Limits: activities.Limits{Return: time.Second, Settle: 5 * time.Second}, Jobs: jobLimits()})
	require.NoError(t, err)
	w.startOwn()
	t.Cleanup(func() { w.stopOwn() })
}

// startOwn takes work from the hub's queue.
func (w *world) startOwn() {
	own := worker.New(w.client, workflows.HubQueue("node"), worker.Options{DisableWorkflowWorker: true, WorkerStopTimeout: 5 * time.Second,
		MaxHeartbeatThrottleInterval: time.Second, DefaultHeartbeatThrottleInterval: time.Second})
	own.RegisterActivityWithOptions(w.acts.DispatchJobChunk, activity.RegisterOptions{Name: workflows.ActivityDispatchJobChunk})
	require.NoError(w.t, own.Start())
	w.stopOwn = sync.OnceFunc(own.Stop)
}

func (w *world) registerJobs(register func(name string, f any)) {
	register(workflows.ActivityLoadJob, w.acts.LoadJob)
	register(workflows.ActivityRecordJob, w.acts.RecordJob)
	register(workflows.ActivitySetJobHalt, w.acts.SetJobHalt)
	register(workflows.ActivityPlanJobChunks, w.acts.PlanJobChunks)
	register(workflows.ActivityCountJob, w.acts.CountJob)
	register(workflows.ActivityRetryJob, w.acts.RetryJob)
	register(workflows.ActivityAwaitJobHosts, w.acts.AwaitJobHosts)
}

// agents enrols agents, and connects them unless they are to stay away.
func (w *world) agents(t *testing.T, n int, change func(*fleet.Config)) (ids []string, connect func()) {
	name := "sim-" + uuid.NewString()[:8]
	for i := range n {
		ids = append(ids, fmt.Sprintf("%s-%06d", name, i))
	}
	token := auth.NewJoinToken(w.ca.Fingerprint())
	require.NoError(t, w.store.CreateJoinToken(t.Context(), store.JoinToken{ID: uuid.NewString(), Hash: token.Hash(), Pattern: "sim-*", Uses: n,
		ExpiresAt: time.Now().Add(time.Hour)}))
	cache, err := fleet.OpenCache(filepath.Join(t.TempDir(), "test.identities"))
	require.NoError(t, err)
	address := w.hub.Addr().String()
	require.NoError(t, fleet.Enrol(t.Context(), fleet.Enrolment{Server: address, Token: token.String(), IDs: ids, Cache: cache}))
	cfg := fleet.Config{Servers: []string{address}, IDs: ids, Identities: cache.Identities(), Concurrency: 64, ConnectTimeout: 2 * patience,
		Logger: slog.New(slog.DiscardHandler), OnStep: func(_, stepID string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.started[stepID]++
		}}
	require.NoError(t, cache.Close())
	if change != nil {
		change(&cfg)
	}
	return ids, func() {
		f, err := fleet.New(cfg)
		require.NoError(t, err)
		t.Cleanup(f.Close)
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		defer cancel()
		require.NoError(t, f.Connect(ctx))
	}
}

func (w *world) connected(t *testing.T, n int, takes time.Duration) []string {
	ids, connect := w.agents(t, n, func(c *fleet.Config) { c.ExecMin = takes })
	connect()
	return ids
}

// job stores a job, as the API does before it starts the workflow.
func (w *world) job(t *testing.T, o job.Options, ids []string) job.Job {
	j := job.Job{Kind: job.KindBatch, Command: job.Command{Type: "ping"}, Options: o.WithDefaults(jobLimits()), CreatedBy: "mei"}
	require.NoError(t, w.store.CreateJob(t.Context(), &j, ids))
	return j
}

func (w *world) begin(t *testing.T, o job.Options, ids []string) job.Job {
	j := w.job(t, o, ids)
	require.NoError(t, w.jobs.StartJob(t.Context(), j))
	return j
}

func (w *world) until(t *testing.T, id string, condition func(job.Job) bool) job.Job {
	t.Helper()
	var j job.Job
	require.Eventually(t, func() bool {
		var err error
		j, err = w.store.Job(t.Context(), id)
		return err == nil && condition(j)
	}, patience, 10*time.Millisecond, "last seen: %+v", &j)
	return j
}

func (w *world) end(t *testing.T, id string) job.Job {
	t.Helper()
	return w.until(t, id, func(j job.Job) bool { return j.Status.Terminal() })
}

// history gives the events of a job's workflow, and keeps them as batch-NAME.
func (w *world) history(t *testing.T, j job.Job, name string) []*historypb.HistoryEvent {
	t.Helper()
	if name != "" {
		name = "batch-" + name
	}
	return w.events(t, j.WorkflowID, name)
}

// events gives the events of a workflow's latest run, and keeps them for the replay tests where QUICFLOW_RECORD is set.
func (w *world) events(t *testing.T, workflowID, name string) []*historypb.HistoryEvent {
	t.Helper()
	require.NoError(t, w.client.GetWorkflow(t.Context(), workflowID, "").Get(t.Context(), nil))
	all := &historypb.History{}
	events := w.client.GetWorkflowHistory(t.Context(), workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		require.NoError(t, err)
		all.Events = append(all.Events, event)
	}
	if name != "" && os.Getenv("QUICFLOW_RECORD") != "" {
		text, err := protojson.Marshal(all)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join("..", "..", "workflows", "testdata", name+".json"), append(text, '\n'), 0o600))
	}
	return all.Events
}

func (w *world) ranOnce(t *testing.T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for step, n := range w.started {
		require.Equal(t, 1, n, step)
	}
}

func testJobs(t *testing.T, w *world) {
	ctx := t.Context()

	t.Run("one that was stored is started, and only once", func(t *testing.T) {
		ids := w.connected(t, 30, 0)
		j := w.job(t, job.Options{}, ids)
		require.ErrorIs(t, w.jobs.PauseJob(ctx, j.ID, "mei", ""), release.ErrUnavailable, "it has no workflow yet")
		require.ErrorIs(t, w.jobs.PauseJob(ctx, "nothing", "mei", ""), release.ErrNotFound)
		require.NoError(t, w.jobs.reconcileOnce(ctx))
		require.NoError(t, w.jobs.StartJob(ctx, j))
		require.NoError(t, w.jobs.reconcileOnce(ctx))
		j = w.end(t, j.ID)
		require.Equal(t, job.StatusCompleted, j.Status, j.Reason)
		require.Equal(t, 30, j.Counts.Succeeded)
		require.ErrorIs(t, w.jobs.CancelJob(ctx, j.ID, "mei", ""), release.ErrConflict)
		require.Less(t, len(w.history(t, j, "completed")), 60)
		w.ranOnce(t)
	})

	t.Run("a paused one starts nothing until it is resumed", func(t *testing.T) {
		ids := w.connected(t, 20, 300*time.Millisecond)
		j := w.begin(t, job.Options{Concurrency: 4}, ids)
		w.until(t, j.ID, func(j job.Job) bool { return j.Counts.Succeeded > 0 })
		require.NoError(t, w.jobs.PauseJob(ctx, j.ID, "mei", "lunch"))
		paused := w.until(t, j.ID, func(j job.Job) bool { return j.Counts.Running == 0 })
		require.Equal(t, job.StatusPaused, paused.Status)
		require.Equal(t, "paused by mei: lunch", paused.Reason)
		require.Positive(t, paused.Counts.Pending)
		require.ErrorIs(t, w.jobs.PauseJob(ctx, j.ID, "mei", ""), release.ErrConflict)
		require.NoError(t, w.jobs.ResumeJob(ctx, j.ID, "mei", ""))
		j = w.end(t, j.ID)
		require.Equal(t, job.Counts{Total: 20, Succeeded: 20}, j.Counts)
		w.history(t, j, "paused-resumed")
		w.ranOnce(t)
	})

	t.Run("a cancelled one stops what runs", func(t *testing.T) {
		ids := w.connected(t, 20, time.Hour)
		j := w.begin(t, job.Options{Concurrency: 4}, ids)
		w.until(t, j.ID, func(j job.Job) bool { return j.Counts.Running == 4 })
		require.NoError(t, w.jobs.CancelJob(ctx, j.ID, "mei", "enough"))
		j = w.end(t, j.ID)
		require.Equal(t, job.StatusCancelled, j.Status)
		require.Equal(t, "cancelled by mei: enough", j.Reason)
		require.Equal(t, job.Counts{Total: 20, Cancelled: 4, Skipped: 16}, j.Counts)
		w.history(t, j, "cancelled")
	})

	t.Run("one whose time is over stops what runs", func(t *testing.T) {
		ids := w.connected(t, 6, time.Hour)
		j := w.begin(t, job.Options{Concurrency: 3, JobTimeout: release.Duration(2 * time.Second)}, ids)
		j = w.end(t, j.ID)
		require.Equal(t, job.StatusTimeout, j.Status)
		require.Equal(t, job.Counts{Total: 6, Cancelled: 3, Skipped: 3}, j.Counts)
		w.history(t, j, "timeout")
	})

	t.Run("hosts that are offline are tried again, or waited for", func(t *testing.T) {
		away, connect := w.agents(t, 2, nil)
		require.Eventually(t, func() bool { return w.hub.Presence(away[0]).Status == release.ClientOffline }, patience, 10*time.Millisecond)
		ids := append(w.connected(t, 3, 0), away...)
		j := w.end(t, w.begin(t, job.Options{}, ids).ID)
		require.Equal(t, job.Counts{Total: 5, Succeeded: 3, Offline: 2}, j.Counts)
		require.Equal(t, job.StatusPartial, j.Status)
		target, err := w.store.JobTarget(ctx, j.ID, away[0])
		require.NoError(t, err)
		require.Equal(t, 2, target.Epoch)
		w.history(t, j, "retried")

		waiting := w.begin(t, job.Options{WaitOffline: release.Duration(time.Minute)}, ids)
		w.until(t, waiting.ID, func(j job.Job) bool { return j.Counts.Succeeded == 3 && j.Counts.Pending == 2 })
		connect()
		j = w.end(t, waiting.ID)
		require.Equal(t, job.Counts{Total: 5, Succeeded: 5}, j.Counts)
		w.history(t, j, "waited")
	})

	t.Run("a hub that stops leaves its hosts to the next plan", func(t *testing.T) {
		ids := w.connected(t, 10, 3*time.Second)
		j := w.begin(t, job.Options{Concurrency: 5}, ids)
		w.until(t, j.ID, func(j job.Job) bool { return j.Counts.Running == 5 })
		w.stopOwn()
		w.startOwn()
		j = w.end(t, j.ID)
		require.Equal(t, job.Counts{Total: 10, Succeeded: 10}, j.Counts)
		w.history(t, j, "hub-stopped")
		w.ranOnce(t)
	})

	t.Run("one with too many failures ends", func(t *testing.T) {
		ids, connect := w.agents(t, 30, func(c *fleet.Config) { c.FailureRate = 1 })
		connect()
		j := w.end(t, w.begin(t, job.Options{Concurrency: 1, MaxFailures: &release.Limit{Count: 2}}, ids).ID)
		require.Equal(t, job.StatusFailed, j.Status)
		require.Equal(t, job.Counts{Total: 30, Failed: 3, Skipped: 27}, j.Counts)
		w.history(t, j, "max-failures")
	})

	t.Run("one whose workflow was ended from outside fails", func(t *testing.T) {
		ids := w.connected(t, 1, time.Hour)
		j := w.begin(t, job.Options{}, ids)
		w.until(t, j.ID, func(j job.Job) bool { return j.Counts.Running == 1 })
		require.NoError(t, w.client.TerminateWorkflow(ctx, j.WorkflowID, "", "by hand"))
		require.NoError(t, w.jobs.reconcileOnce(ctx))
		j, err := w.store.Job(ctx, j.ID)
		require.NoError(t, err)
		require.Equal(t, job.StatusFailed, j.Status)
		require.Contains(t, j.Reason, "ended from outside (Terminated)")
		require.Equal(t, 1, j.Counts.Unknown)
	})

	t.Run("a large one is quick, and its history short", func(t *testing.T) {
		n, err := strconv.Atoi(os.Getenv("QUICFLOW_BENCH_AGENTS"))
		if err != nil {
			n = 300
		}
		ids := w.connected(t, n, 0)
		for range 3 {
			w.started = map[string]int{}
			start := time.Now()
			j := w.begin(t, job.Options{}, ids)
			require.NoError(t, w.client.GetWorkflow(ctx, j.WorkflowID, "").Get(ctx, nil))
			took := time.Since(start)
			j = w.end(t, j.ID)
			require.Equal(t, job.Counts{Total: n, Succeeded: n}, j.Counts)
			events := len(w.history(t, j, ""))
			t.Logf("%d hosts in %s, %.0f/s; %d events", n, took.Round(time.Millisecond), float64(n)/took.Seconds(), events)
			require.Less(t, events, 5000)
		}
	})
}
