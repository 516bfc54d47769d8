package rollout

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/schedule"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/workflows"
)

func (w *world) registerSchedules(register func(name string, f any)) {
	register(workflows.ActivityFireSchedule, func(ctx context.Context, r workflows.FireRequest) (workflows.FireReport, error) {
		report, err := w.acts.FireSchedule(ctx, r)
		if hook := w.onFired.Load(); hook != nil && err == nil {
			(*hook)(report)
		}
		return report, err
	})
	register(workflows.ActivityAwaitTask, w.acts.AwaitTask)
}

// schedule stores one, as the API does before Temporal is told. Its tasks wait for promotion.
func (w *world) schedule(t *testing.T, when release.When, change func(*release.Schedule)) release.Schedule {
	t.Helper()
	s := release.Schedule{Name: "s-" + uuid.NewString()[:8], ProjectID: w.task.ProjectID, CreatedBy: "mei", Plan: release.Plan{When: when,
		Task: release.NewTask{Project: "p", Version: "1", Targets: release.Targets{Clients: []string{"host"}}, Strategy: w.task.Strategy}}.WithDefaults()}
	if change != nil {
		change(&s)
	}
	require.NoError(t, s.Validate())
	require.NoError(t, w.store.CreateSchedule(t.Context(), &s))
	return s
}

func once(in time.Duration) release.When {
	at := time.Now().Add(in).Truncate(time.Second)
	return release.When{At: &at}
}

var never = release.When{Cron: "0 0 1 1 *"} // unless triggered

// fireOf waits until the latest fire of a schedule satisfies a condition.
func (w *world) fireOf(t *testing.T, s release.Schedule, condition func(release.Fire) bool) release.Fire {
	t.Helper()
	var fires []release.Fire
	require.Eventually(t, func() bool {
		var err error
		fires, _, err = w.store.Fires(t.Context(), s.ID, store.FireFilter{})
		return err == nil && len(fires) > 0 && condition(fires[0])
	}, patience, 20*time.Millisecond, "last seen: %+v", &fires)
	return fires[0]
}

func started(f release.Fire) bool { return f.State == release.FireStarted }

// finishTask brings a task that waits for promotion to its end, and waits for that of the workflow that a schedule started.
func (w *world) finishTask(t *testing.T, s release.Schedule, f release.Fire) {
	t.Helper()
	w.reach(f.TaskID, waiting)
	require.NoError(t, w.Promote(t.Context(), f.TaskID, "mei", ""))
	w.reach(f.TaskID, func(t release.Task) bool { return t.Status == release.StatusSucceeded })
	require.NoError(t, w.client.GetWorkflow(t.Context(), fireWorkflow(s, f), "").Get(t.Context(), nil))
}

func fireWorkflow(s release.Schedule, f release.Fire) string {
	return "schedule/" + s.Name + "/" + s.ID + "-" + f.Due.Format(time.RFC3339)
}

func (w *world) describe(t *testing.T, s release.Schedule) *client.ScheduleDescription {
	t.Helper()
	there, err := w.client.ScheduleClient().GetHandle(t.Context(), temporalID(s.ID)).Describe(t.Context())
	require.NoError(t, err)
	return there
}

func (w *world) reread(t *testing.T, s release.Schedule) release.Schedule {
	t.Helper()
	s, err := w.store.Schedule(t.Context(), s.ID)
	require.NoError(t, err)
	return s
}

// What is shown of a schedule before it exists is what Temporal will do.
func testPreview(t *testing.T, w *world) {
	ctx := t.Context()
	for _, zone := range []string{"UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Shanghai", "Africa/Casablanca"} {
		expressions := []string{"* * * * *", "*/20 * * * *", "30 2 * * *", "0 9 * * mon-fri", "15 1,2 * * 0", "0 0 13 * 5", "0 0 */10 * 1", "0 12 29 2 *",
			"59 23 31 * *", "0 0 1-7 * 2", "@hourly", "@weekly", "@yearly", "@every 90m"}
		location, err := time.LoadLocation(zone)
		require.NoError(t, err)
		change := time.Now().In(location)
		for range 3 { // all quarters of the hours about the next changes of the clock
			if _, change = change.ZoneBounds(); change.IsZero() {
				break
			}
			day := change.Add(-time.Minute)
			for _, hours := range []string{"0-1", "1-2", "2-3"} {
				expressions = append(expressions, fmt.Sprintf("*/15 %s %d %d *", hours, day.Day(), day.Month()))
			}
		}
		for _, cron := range expressions {
			s := w.schedule(t, release.When{Cron: cron, Timezone: zone}, func(s *release.Schedule) { s.Paused = true })
			require.NoError(t, w.schedules.Apply(ctx, s.ID))
			there := w.describe(t, s)
			spec, err := schedule.Parse(s.When)
			require.NoError(t, err)
			var got, want []string
			for _, at := range there.Info.NextActionTimes {
				want = append(want, at.UTC().Format(time.RFC3339))
			}
			for _, at := range spec.Upcoming(there.Info.CreatedAt, 10) {
				got = append(got, at.Format(time.RFC3339))
			}
			require.Len(t, want, 10)
			require.Equal(t, want, got, "%s in %s", cron, zone)
			require.NoError(t, w.store.DeleteSchedule(ctx, s.ID))
			require.NoError(t, w.schedules.Apply(ctx, s.ID))
		}
	}
}

func testSchedules(t *testing.T, w *world) {
	ctx := t.Context()

	t.Run("the preview is what Temporal will do", func(t *testing.T) { testPreview(t, w) })

	t.Run("at its time it makes a task, which it waits for", func(t *testing.T) {
		s := w.schedule(t, once(2*time.Second), nil)
		require.NoError(t, w.schedules.Apply(ctx, s.ID))
		s = w.reread(t, s)
		require.True(t, s.InEffect)
		next, err := w.schedules.Next(ctx, s)
		require.NoError(t, err)
		require.Len(t, next, 1)
		require.True(t, next[0].Equal(*s.At))
		fire := w.fireOf(t, s, started)
		require.True(t, fire.Due.Equal(*s.At))
		require.True(t, fire.Running())
		task := w.reach(fire.TaskID, waiting)
		require.Equal(t, "schedule "+s.Name, task.CreatedBy)
		require.Len(t, w.describe(t, s).Info.RunningWorkflows, 1)
		w.finishTask(t, s, fire)
		require.LessOrEqual(t, len(w.events(t, fireWorkflow(s, fire), "scheduled")), 20)
		next, err = w.schedules.Next(ctx, s)
		require.NoError(t, err)
		require.Empty(t, next)
	})

	t.Run("one that was stored is made by the reconciler, which catches up with what was due meanwhile", func(t *testing.T) {
		_, before, err := w.store.Tasks(ctx, store.TaskFilter{})
		require.NoError(t, err)
		s := w.schedule(t, once(2*time.Second), nil)
		require.Eventually(t, func() bool { return time.Now().After(*s.At) }, patience, 10*time.Millisecond)
		require.NoError(t, w.schedules.reconcileOnce(ctx))
		fire := w.fireOf(t, s, started)
		require.True(t, fire.Due.Equal(*s.At))
		require.NoError(t, w.schedules.reconcileOnce(ctx))
		w.finishTask(t, s, fire)
		require.NoError(t, w.schedules.reconcileOnce(ctx))
		_, total, err := w.store.Tasks(ctx, store.TaskFilter{})
		require.NoError(t, err)
		require.Equal(t, before+1, total)
	})

	t.Run("a rollout that the reconciler of tasks started first is waited for, too", func(t *testing.T) {
		begin := func(report workflows.FireReport) {
			task, err := w.store.Task(ctx, report.TaskID)
			require.NoError(t, err)
			require.NoError(t, w.Start(ctx, task))
		}
		w.onFired.Store(&begin)
		defer w.onFired.Store(nil)
		s := w.schedule(t, once(2*time.Second), nil)
		require.NoError(t, w.schedules.Apply(ctx, s.ID))
		fire := w.fireOf(t, s, started)
		w.reach(fire.TaskID, waiting)
		require.Len(t, w.describe(t, s).Info.RunningWorkflows, 1)
		w.finishTask(t, s, fire)
		w.events(t, fireWorkflow(s, fire), "scheduled-rollout-was-there")
	})

	t.Run("what differs is put right", func(t *testing.T) {
		s := w.schedule(t, never, func(s *release.Schedule) { s.Jitter = release.Duration(time.Minute) })
		require.NoError(t, w.schedules.reconcileOnce(ctx))
		want, err := w.schedules.wanted(s)
		require.NoError(t, err)
		made := w.describe(t, s)
		require.True(t, want.equals(made))
		w.schedules.compared = time.Time{}
		require.NoError(t, w.schedules.reconcileOnce(ctx))
		require.Zero(t, w.describe(t, s).Info.LastUpdateAt.Unix(), "one that is right is left alone")

		for name, change := range map[string]func(*release.Schedule){
			"cron":     func(s *release.Schedule) { s.Cron = "0 1 1 1 *" },
			"timezone": func(s *release.Schedule) { s.Timezone = "Asia/Tokyo" },
			"overlap":  func(s *release.Schedule) { s.Overlap = release.OverlapAllow },
			"window":   func(s *release.Schedule) { s.CatchupWindow = release.Duration(time.Hour) },
			"jitter":   func(s *release.Schedule) { s.Jitter = 0 },
			"paused":   func(s *release.Schedule) { s.Paused = !s.Paused },
			"note":     func(s *release.Schedule) { s.Note = "hello" },
			"every":    func(s *release.Schedule) { s.Cron = "@every 2h" },
		} {
			s = w.reread(t, s)
			change(&s)
			require.NoError(t, w.store.UpdateSchedule(ctx, &s, 0))
			want, err := w.schedules.wanted(s)
			require.NoError(t, err)
			require.False(t, want.equals(w.describe(t, s)), name)
			require.NoError(t, w.schedules.reconcileOnce(ctx))
			require.True(t, want.equals(w.describe(t, s)), name)
			require.True(t, w.reread(t, s).InEffect)
		}

		handle := w.client.ScheduleClient().GetHandle(ctx, temporalID(s.ID))
		s = w.reread(t, s)
		if s.Paused {
			require.NoError(t, handle.Unpause(ctx, client.ScheduleUnpauseOptions{}))
		} else {
			require.NoError(t, handle.Pause(ctx, client.SchedulePauseOptions{}))
		}
		require.Eventually(t, func() bool {
			there, err := handle.Describe(ctx)
			return w.schedules.reconcileOnce(ctx) == nil && err == nil && there.Schedule.State.Paused == s.Paused
		}, patience, 100*time.Millisecond)

		require.NoError(t, handle.Delete(ctx))
		require.Eventually(t, func() bool {
			_, err := handle.Describe(ctx)
			if err != nil {
				_ = w.schedules.reconcileOnce(ctx) // tried again
			}
			return err == nil
		}, patience, 100*time.Millisecond)

		_, err = w.client.ScheduleClient().Create(ctx, client.ScheduleOptions{ID: temporalID("stranger"), Spec: *want.schedule.Spec, Action: want.schedule.Action})
		require.NoError(t, err)
		require.NoError(t, w.store.DeleteSchedule(ctx, s.ID))
		require.Eventually(t, func() bool {
			if w.schedules.reconcileOnce(ctx) != nil {
				return false
			}
			there, err := w.schedules.list(ctx)
			_, mine := there[s.ID]
			_, stranger := there["stranger"]
			return err == nil && !mine && !stranger
		}, patience, 100*time.Millisecond)
		all, err := w.store.StoredSchedules(ctx)
		require.NoError(t, err)
		for _, left := range all {
			require.NotEqual(t, s.ID, left.ID)
		}
	})

	t.Run("a trigger fires, as the overlap policy says", func(t *testing.T) {
		s := w.schedule(t, never, func(s *release.Schedule) { s.Paused = true })
		require.NoError(t, w.schedules.Apply(ctx, s.ID))
		_, err := w.schedules.Trigger(ctx, s, "mei")
		require.NoError(t, err)
		fire := w.fireOf(t, s, started)
		require.Equal(t, "mei", fire.By)
		require.Equal(t, "mei", w.reach(fire.TaskID, waiting).CreatedBy)
		_, err = w.schedules.Trigger(ctx, s, "mei")
		require.ErrorIs(t, err, release.ErrConflict)
		require.ErrorContains(t, err, fire.TaskID)

		s.Overlap = release.OverlapAllow
		require.NoError(t, w.store.UpdateSchedule(ctx, &s, 0))
		require.NoError(t, w.schedules.Apply(ctx, s.ID))
		_, err = w.schedules.Trigger(ctx, s, "ada")
		require.NoError(t, err)
		second := w.fireOf(t, s, func(f release.Fire) bool { return started(f) && f.By == "ada" })

		s = w.reread(t, s)
		s.Overlap = release.OverlapBufferOne
		require.NoError(t, w.store.UpdateSchedule(ctx, &s, 0))
		require.NoError(t, w.schedules.Apply(ctx, s.ID))
		third, err := w.schedules.Trigger(ctx, s, "eve")
		require.NoError(t, err)
		handle := w.client.ScheduleClient().GetHandle(ctx, temporalID(s.ID))
		require.Eventually(t, func() bool {
			there, err := handle.Describe(ctx)
			return err == nil && there.Info.NumActions == 2
		}, patience, 20*time.Millisecond)
		third, err = w.store.Fire(ctx, s.ID, third.Due)
		require.NoError(t, err)
		require.Equal(t, release.FireRequested, third.State, "it waits")
		w.finishTask(t, s, second)
		w.finishTask(t, s, fire)
		third = w.fireOf(t, s, func(f release.Fire) bool { return started(f) && f.By == "eve" })
		w.finishTask(t, s, third)
	})

	t.Run("a trigger that Temporal did not get is sent again", func(t *testing.T) {
		s := w.schedule(t, never, nil) // which Temporal does not know
		fire := release.Fire{ScheduleID: s.ID, Due: time.Now().Truncate(time.Second), By: "mei"}
		require.NoError(t, w.store.RequestFire(ctx, fire))
		require.NoError(t, w.schedules.resend(ctx, map[string]release.Schedule{s.ID: s}))
		fire.At = time.Now()
		require.Equal(t, release.FireRequested, w.fireOf(t, s, func(release.Fire) bool { return true }).State, "it may be on its way")
		for range 3 {
			require.NoError(t, w.schedules.send(ctx, s, fire))
		}
		fire = w.fireOf(t, s, started)
		w.finishTask(t, s, fire)
		_, total, err := w.store.Fires(ctx, s.ID, store.FireFilter{})
		require.NoError(t, err)
		require.Equal(t, 1, total)
	})

	t.Run("one whose task cannot be made fails at that fire, and goes on", func(t *testing.T) {
		v := release.Version{ProjectID: w.task.ProjectID, Project: "p", Name: "2", Status: release.VersionActive,
			Spec: release.Spec{Script: &release.ScriptSpec{Install: "true"}}}
		require.NoError(t, w.store.CreateVersion(ctx, &v))
		s := w.schedule(t, never, func(s *release.Schedule) { s.Task.Version = "2" })
		require.NoError(t, w.schedules.Apply(ctx, s.ID))
		_, err := w.store.SetVersionStatus(ctx, v.ID, release.VersionDeprecated)
		require.NoError(t, err)
		_, err = w.schedules.Trigger(ctx, s, "mei")
		require.NoError(t, err)
		fire := w.fireOf(t, s, func(f release.Fire) bool { return f.State == release.FireFailed })
		require.Contains(t, fire.Reason, "deprecated")
		require.NoError(t, w.client.GetWorkflow(ctx, fireWorkflow(s, fire), "").Get(ctx, nil))
		w.events(t, fireWorkflow(s, fire), "scheduled-failed")
		_, err = w.store.SetVersionStatus(ctx, v.ID, release.VersionActive)
		require.NoError(t, err)
		_, err = w.schedules.Trigger(ctx, s, "mei")
		require.NoError(t, err)
		w.finishTask(t, s, w.fireOf(t, s, started))
	})

	t.Run("Temporal is told to skip what the store has paused", func(t *testing.T) {
		s := w.schedule(t, once(2*time.Second), nil)
		require.NoError(t, w.schedules.Apply(ctx, s.ID))
		s = w.reread(t, s)
		s.Paused = true
		require.NoError(t, w.store.UpdateSchedule(ctx, &s, 0)) // and the server dies before it tells Temporal
		fire := w.fireOf(t, s, func(f release.Fire) bool { return f.State == release.FireSkipped })
		require.Equal(t, "the schedule had been paused", fire.Reason)
	})
}
