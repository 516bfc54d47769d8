package activities

import (
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/workflows"
)

// scheduled stores a schedule that fires each minute, and gives a fire of it.
func (w *world) scheduled(t *testing.T, change func(*release.Schedule)) (release.Schedule, workflows.FireRequest) {
	s := release.Schedule{Name: "s", ProjectID: w.task.ProjectID, Plan: release.Plan{When: release.When{Cron: "* * * * *"},
		Task: release.NewTask{Project: "an old name", Version: "1", Targets: release.Targets{Selector: "*"}}}.WithDefaults()}
	if change != nil {
		change(&s)
	}
	require.NoError(t, w.store.CreateSchedule(t.Context(), &s))
	due := s.Since.Truncate(time.Minute).Add(time.Minute)
	return s, workflows.FireRequest{ScheduleID: s.ID, Due: due, Since: s.Since, StartedAt: time.Now()}
}

func (w *world) fired(t *testing.T, r workflows.FireRequest) (workflows.FireReport, release.Fire) {
	t.Helper()
	report, err := w.acts.FireSchedule(t.Context(), r)
	require.NoError(t, err)
	fire, err := w.store.Fire(t.Context(), r.ScheduleID, r.Due)
	require.NoError(t, err)
	return report, fire
}

func TestFireMakesOneTask(t *testing.T) {
	w := newWorld(t, 2, release.Strategy{})
	s, request := w.scheduled(t, nil)
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = w.acts.FireSchedule(t.Context(), request) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	report, fire := w.fired(t, request)
	require.Equal(t, release.FireStarted, fire.State, fire.Reason)
	task, err := w.store.Task(t.Context(), fire.TaskID)
	require.NoError(t, err)
	require.Equal(t, workflows.FireReport{TaskID: task.ID, WorkflowID: task.WorkflowID, Project: "p", Version: "1",
		Summary: "deploy 1 of p to 2 hosts, by schedule s"}, report)
	require.Equal(t, "schedule s", task.CreatedBy)
	_, total, err := w.store.Tasks(t.Context(), store.TaskFilter{})
	require.NoError(t, err)
	require.Equal(t, 2, total, "and the one of the world")

	// Even when the schedule has been paused or deleted since, and is asked for the same fire.
	s.Paused = true
	require.NoError(t, w.store.UpdateSchedule(t.Context(), &s, 0))
	again, _ := w.fired(t, request)
	require.Equal(t, report, again)
	require.NoError(t, w.store.DeleteSchedule(t.Context(), s.ID))
	none, err := w.acts.FireSchedule(t.Context(), request)
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestFireThatCannotBeCarriedOut(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*release.Schedule)
		harm   string // to the database: what a schedule deploys cannot be deleted, but could once
		reason string
	}{
		"no such project": {nil, `UPDATE schedules SET project_id = 'gone'`, `project: project "gone" does not exist`},
		"no such version": {nil, `UPDATE schedules SET task = REPLACE(task, '"version":"1"', '"version":"9"')`, `version: version "9" does not exist`},
		"no host":         {func(s *release.Schedule) { s.Task.Targets.Selector = "env=nowhere" }, "", "targets: "},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, release.Strategy{})
			_, request := w.scheduled(t, c.change)
			if c.harm != "" {
				db, err := sql.Open("sqlite", w.file)
				require.NoError(t, err)
				_, err = db.ExecContext(t.Context(), c.harm)
				require.NoError(t, errors.Join(err, db.Close()))
			}
			report, fire := w.fired(t, request)
			require.Empty(t, report)
			require.Equal(t, release.FireFailed, fire.State)
			require.Contains(t, fire.Reason, c.reason)
			report, _ = w.fired(t, request)
			require.Empty(t, report)
		})
	}
}

func TestFireThatNobodyWantsAnyMore(t *testing.T) {
	w := newWorld(t, 1, release.Strategy{})
	s, request := w.scheduled(t, nil)

	late := request
	late.StartedAt = time.Now().Add(-11 * time.Minute) // no server was there
	report, fire := w.fired(t, late)
	require.Empty(t, report)
	require.Equal(t, release.FireMissed, fire.State)
	require.Contains(t, fire.Reason, "nor within 10m0s")

	s.Cron = "30 0 1 1 *"
	require.NoError(t, w.store.UpdateSchedule(t.Context(), &s, 0))
	changed := request
	changed.Due = s.Since.Truncate(time.Minute).Add(5 * time.Minute)
	report, fire = w.fired(t, changed)
	require.Empty(t, report)
	require.Equal(t, release.FireSkipped, fire.State)
	require.Equal(t, "the schedule had been changed", fire.Reason)

	s.Paused = true
	require.NoError(t, w.store.UpdateSchedule(t.Context(), &s, 0))
	paused := request
	paused.Since, paused.Due = s.Since, changed.Due.Add(time.Minute)
	report, fire = w.fired(t, paused)
	require.Empty(t, report)
	require.Equal(t, "the schedule had been paused", fire.Reason)

	// A person's wish counts, however late and paused.
	wish := release.Fire{ScheduleID: s.ID, Due: paused.Due.Add(time.Second), By: "mei"}
	require.NoError(t, w.store.RequestFire(t.Context(), wish))
	late.Due = wish.Due
	report, fire = w.fired(t, late)
	require.Equal(t, release.FireStarted, fire.State)
	require.NotEmpty(t, report.TaskID)
	task, err := w.store.Task(t.Context(), fire.TaskID)
	require.NoError(t, err)
	require.Equal(t, "mei", task.CreatedBy)
}
