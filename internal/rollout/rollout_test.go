package rollout

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/internal/temporalserver"
	"github.com/quicflow/quicflow/workflows"
)

// world is a real Temporal and a real store. Its rollouts wait for a person after a canary that did nothing.
type world struct {
	*Rollouts
	t          *testing.T
	jobs       *Jobs
	schedules  *Schedules
	store      *store.Store
	client     client.Client
	stopWorker func()
	task       release.Task // the latest
	onFired    atomic.Pointer[func(workflows.FireReport)]
	onCount    atomic.Pointer[func(workflows.CountRequest) release.Counts] // in place of the answer that every host did it
	onHalt     atomic.Pointer[func(workflows.HaltRequest)]                 // before it is written
	field
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx := t.Context()
	logger := slog.New(slog.DiscardHandler)
	temporal, err := temporalserver.Start(ctx, temporalserver.Config{DataDir: t.TempDir(), Logger: logger,
		SearchAttributes: map[string]enumspb.IndexedValueType{
			workflows.AttributeProject.GetName(): enumspb.INDEXED_VALUE_TYPE_KEYWORD,
			workflows.AttributeVersion.GetName(): enumspb.INDEXED_VALUE_TYPE_KEYWORD,
			workflows.AttributeStatus.GetName():  enumspb.INDEXED_VALUE_TYPE_KEYWORD,
		}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, temporal.Stop(context.WithoutCancel(ctx))) })
	c, err := client.Dial(temporal.ClientOptions())
	require.NoError(t, err)
	t.Cleanup(c.Close)
	s, err := store.Open(ctx, store.Config{Driver: store.SQLite, DSN: filepath.Join(t.TempDir(), "test.db"), Logger: logger})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })

	w := &world{t: t, store: s, client: c}
	cfg := Config{Client: c, Store: s, SearchAttributes: true, UpdateTimeout: 5 * time.Second, Logger: logger}
	w.Rollouts, err = New(cfg)
	require.NoError(t, err)
	w.jobs, err = NewJobs(cfg)
	require.NoError(t, err)
	w.schedules, err = NewSchedules(cfg)
	require.NoError(t, err)
	w.startHub()
	w.startWorker()

	require.NoError(t, s.CreateJoinToken(ctx, store.JoinToken{ID: "j", Hash: "h", Uses: 1, ExpiresAt: time.Now().Add(time.Hour)}))
	require.NoError(t, s.RedeemJoinToken(ctx, auth.Redemption{TokenHash: "h", ClientID: "host", PublicKeyHash: "k", At: time.Now()}))
	p := release.Project{Name: "p", Type: release.TypeScript}
	require.NoError(t, s.CreateProject(ctx, &p))
	v := release.Version{ProjectID: p.ID, Project: "p", Name: "1", Status: release.VersionActive, Spec: release.Spec{Script: &release.ScriptSpec{Install: "true"}}}
	require.NoError(t, s.CreateVersion(ctx, &v))
	w.task = release.Task{ProjectID: p.ID, Project: "p", VersionID: v.ID, Version: "1", Action: release.ActionDeploy,
		Strategy: release.Strategy{Canary: &release.Canary{Percent: 100, Promote: release.PromoteManual}}.WithDefaults()}
	return w
}

// startWorker carries out workflows for real; of the activities, only what writes progress and decides the canary host.
func (w *world) startWorker() {
	taker := worker.New(w.client, workflows.TaskQueue, worker.Options{WorkerStopTimeout: time.Second})
	workflows.Register(taker)
	register := func(name string, f any) {
		taker.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
	register(workflows.ActivityLoadPlan, func(ctx context.Context, r workflows.PlanRequest) (workflows.Plan, error) {
		task, err := w.store.Task(ctx, r.TaskID)
		return workflows.Plan{Strategy: task.Strategy.WithDefaults(), Waves: task.Waves, Total: task.Counts.Total}, err
	})
	register(workflows.ActivityRecord, func(ctx context.Context, r workflows.ProgressRequest) error {
		return w.store.SetProgress(ctx, r.TaskID, store.Progress{Status: r.Status, Phase: r.Phase, Wave: r.Wave, Reason: r.Reason, At: r.At})
	})
	register(workflows.ActivitySetHalt, func(ctx context.Context, r workflows.HaltRequest) error {
		if do := w.onHalt.Load(); do != nil {
			(*do)(r)
		}
		return w.store.SetHalt(ctx, r.TaskID, r.Halted)
	})
	register(workflows.ActivityCountTargets, func(_ context.Context, r workflows.CountRequest) (workflows.TargetCounts, error) {
		done := release.Counts{Total: 1, Succeeded: 1}
		if do := w.onCount.Load(); do != nil {
			done = (*do)(r)
		}
		return workflows.TargetCounts{All: done, ByWave: map[int]release.Counts{0: done}}, nil
	})
	w.registerJobs(register)
	w.registerSchedules(register)
	require.NoError(w.t, taker.Start())
	w.stopWorker = sync.OnceFunc(taker.Stop)
	w.t.Cleanup(w.stopWorker)
}

// commit stores a new task, as the API does before it starts the workflow.
func (w *world) commit() release.Task {
	w.t.Helper()
	task := w.task
	task.ID = uuid.NewString()
	task.WorkflowID = release.WorkflowID(task.Project, task.ID)
	require.NoError(w.t, w.store.CreateTask(w.t.Context(), &task, []string{"host"}))
	return task
}

func (w *world) reach(id string, condition func(release.Task) bool) release.Task {
	w.t.Helper()
	var task release.Task
	require.Eventually(w.t, func() bool {
		var err error
		task, err = w.store.Task(w.t.Context(), id)
		return err == nil && condition(task)
	}, 20*time.Second, 20*time.Millisecond, "last seen: %+v", &task)
	return task
}

func waiting(t release.Task) bool { return t.Phase == release.PhasePromotion }

// One Temporal for all, as a process holds only one.
func TestRollouts(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()

	t.Run("a stored task is started by the reconciler, and only once", func(t *testing.T) {
		task := w.commit()
		require.NoError(t, w.reconcileOnce(ctx))
		require.NoError(t, w.Start(ctx, task))
		require.NoError(t, w.reconcileOnce(ctx))
		w.reach(task.ID, waiting)
		require.NoError(t, w.Promote(ctx, task.ID, "mei", ""))
		w.reach(task.ID, func(t release.Task) bool { return t.Status == release.StatusSucceeded })
		require.ErrorIs(t, w.Promote(ctx, task.ID, "mei", ""), release.ErrConflict)
		require.NoError(t, w.Start(ctx, task), "starting what has ended does nothing")
	})

	t.Run("what does not fit is a conflict", func(t *testing.T) {
		task := w.commit()
		require.ErrorIs(t, w.Pause(ctx, task.ID, "mei", ""), release.ErrUnavailable, "it has no workflow yet")
		require.ErrorIs(t, w.Pause(ctx, "nothing", "mei", ""), release.ErrNotFound)
		require.NoError(t, w.Start(ctx, task))
		w.reach(task.ID, waiting)
		require.NoError(t, w.Pause(ctx, task.ID, "mei", "lunch"))
		paused, err := w.store.Task(ctx, task.ID)
		require.NoError(t, err)
		require.Equal(t, release.StatusPaused, paused.Status)
		require.ErrorIs(t, w.Promote(ctx, task.ID, "mei", ""), release.ErrConflict)
		require.ErrorContains(t, w.Pause(ctx, task.ID, "mei", ""), "paused already")
		require.NoError(t, w.Abort(ctx, task.ID, "mei", "enough"))
		ended := w.reach(task.ID, func(t release.Task) bool { return t.Status.Terminal() })
		require.Equal(t, release.StatusAborted, ended.Status)
		require.Equal(t, "aborted by mei: enough", ended.Reason)
	})

	t.Run("a task whose workflow was ended from outside fails", func(t *testing.T) {
		task := w.commit()
		require.NoError(t, w.Start(ctx, task))
		w.reach(task.ID, waiting)
		require.NoError(t, w.client.TerminateWorkflow(ctx, task.WorkflowID, "", "by hand"))
		require.NoError(t, w.reconcileOnce(ctx))
		gone, err := w.store.Task(ctx, task.ID)
		require.NoError(t, err)
		require.Equal(t, release.StatusFailed, gone.Status)
		require.Contains(t, gone.Reason, "ended from outside (Terminated)")
	})

	t.Run("one that gives up while it is resumed stays fenced", func(t *testing.T) { testResumedTooLate(t, w) })

	t.Run("schedules", func(t *testing.T) { testSchedules(t, w) })

	t.Run("jobs", func(t *testing.T) { testJobs(t, w) })

	t.Run("no answer without a worker", func(t *testing.T) {
		task := w.commit()
		require.NoError(t, w.Start(ctx, task))
		w.reach(task.ID, waiting)
		w.stopWorker()
		w.UpdateTimeout = 300 * time.Millisecond
		require.ErrorIs(t, w.Pause(ctx, task.ID, "mei", ""), release.ErrUnavailable)
		described, err := w.client.DescribeWorkflowExecution(ctx, task.WorkflowID, "")
		require.NoError(t, err)
		require.Equal(t, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, described.GetWorkflowExecutionInfo().GetStatus())
	})
}

// testResumedTooLate has a person resume a rollout, whose fence is being lowered, when it finds its failure budget spent.
func testResumedTooLate(t *testing.T, w *world) {
	counting, counted, lowering, lowered := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	count := func(workflows.CountRequest) release.Counts {
		close(counting)
		<-counted
		return release.Counts{Total: 1, Failed: 1}
	}
	halt := func(r workflows.HaltRequest) {
		if !r.Halted {
			close(lowering)
			<-lowered
		}
	}
	w.onCount.Store(&count)
	w.onHalt.Store(&halt)
	defer w.onCount.Store(nil)
	defer w.onHalt.Store(nil)

	task := w.commit()
	require.NoError(t, w.Start(t.Context(), task))
	<-counting
	require.NoError(t, w.Pause(t.Context(), task.ID, "mei", ""))
	resumed := make(chan error, 1)
	go func() { resumed <- w.Resume(t.Context(), task.ID, "mei", "") }()
	<-lowering
	close(counted)
	require.Eventually(t, func() bool {
		var state workflows.ReleaseState
		answer, err := w.client.QueryWorkflow(t.Context(), task.WorkflowID, "", workflows.QueryState)
		return err == nil && answer.Get(&state) == nil && state.Failing
	}, 20*time.Second, 20*time.Millisecond)
	close(lowered)

	ended := w.reach(task.ID, func(t release.Task) bool { return t.Status.Terminal() })
	require.Equal(t, release.StatusFailed, ended.Status)
	require.NoError(t, <-resumed)

	var writing []int64 // the fence, by the event that had it written
	writes := 0
	for _, event := range w.events(t, task.WorkflowID, "resumed-too-late") {
		if event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName() == workflows.ActivitySetHalt {
			require.Empty(t, writing, "a second writer while one is at it")
			writing = append(writing, event.GetEventId())
			writes++
		}
		writing = slices.DeleteFunc(writing, func(id int64) bool {
			return id == event.GetActivityTaskCompletedEventAttributes().GetScheduledEventId()
		})
	}
	require.Equal(t, 3, writes, "raised, lowered and raised again")
}
