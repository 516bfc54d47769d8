package store_test

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var scheduleTests = map[string]func(*fixture){
	"a schedule is what was stored":         testSchedule,
	"schedules are listed with their fires": testSchedules,
	"a change settles what was due":         testChangeSettles,
	"fires are recorded once":               testFires,
	"what nobody heard of is missed":        testMissed,
	"what an earlier rollout kept away":     testSkipped,
	"only the latest fires are kept":        testFireRetention,
	"what a schedule deploys stays":         testScheduledStays,
	"a schedule of what goes":               testScheduleOfWhatGoes,
}

// schedule stores one that fires each minute, from the fixture's time on.
func (f *fixture) schedule(name string, change func(*release.Schedule)) release.Schedule {
	f.Helper()
	f.scheduled("p")
	s := release.Schedule{Name: name, ProjectID: "p", CreatedBy: "mei", Plan: release.Plan{
		Task: release.NewTask{Project: "p", Version: "1", Targets: release.Targets{Selector: "*"}},
		When: release.When{Cron: "* * * * *"},
	}.WithDefaults()}
	if change != nil {
		change(&s)
	}
	require.NoError(f, f.CreateSchedule(f.ctx(), &s))
	return s
}

// scheduled makes a project for schedules, and its version 1, unless it is there.
func (f *fixture) scheduled(name string) {
	f.Helper()
	if _, err := f.Project(f.ctx(), name); err != nil {
		f.project(name, "1")
	}
}

// fired is a fire's time in the fixture's hour, and its state.
func fired(fires []release.Fire) (list []string) {
	for _, f := range fires {
		list = append(list, fmt.Sprintf("%s %s", f.Due.Format("15:04:05"), f.State))
	}
	return list
}

func (f *fixture) fires(id string) []string {
	f.Helper()
	fires, _, err := f.Fires(f.ctx(), id, store.FireFilter{})
	require.NoError(f, err)
	return fired(fires)
}

// fire records that a task was made, and gives the task.
func (f *fixture) fire(s release.Schedule, due time.Time) release.Task {
	f.Helper()
	p, err := f.Project(f.ctx(), "p")
	require.NoError(f, err)
	task := release.Task{ProjectID: p.ID, Action: release.ActionUninstall, Strategy: release.Strategy{}.WithDefaults()}
	require.NoError(f, f.CreateTask(f.ctx(), &task, []string{"h000"}))
	require.NoError(f, f.RecordFire(f.ctx(), release.Fire{ScheduleID: s.ID, Due: due, State: release.FireStarted, TaskID: task.ID}))
	return task
}

func (f *fixture) finish(taskID string) {
	f.Helper()
	for _, status := range []release.Status{release.StatusRunning, release.StatusSucceeded} {
		require.NoError(f, f.SetProgress(f.ctx(), taskID, store.Progress{Status: status, Phase: release.PhaseDone}))
	}
}

func testSchedule(f *fixture) {
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	made := f.schedule("nightly", func(s *release.Schedule) {
		s.At, s.Cron, s.Timezone, s.Jitter, s.Paused, s.Note = &at, "", "Europe/Berlin", release.Duration(time.Minute), true, "wait"
	})
	require.Equal(f, release.DefaultCatchupWindow, made.CatchupWindow.Std())
	for _, ref := range []string{made.ID, "nightly"} {
		read, err := f.Schedule(f.ctx(), ref)
		require.NoError(f, err)
		require.Equal(f, made, read)
	}
	require.ErrorIs(f, f.CreateSchedule(f.ctx(), &release.Schedule{Name: "nightly", ProjectID: made.ProjectID}), release.ErrConflict)

	require.NoError(f, f.SetScheduleInEffect(f.ctx(), made.ID, 1))
	f.advance(time.Hour)
	changed, err := f.Schedule(f.ctx(), made.ID)
	require.NoError(f, err)
	require.True(f, changed.InEffect)
	changed.Note, changed.Name = "go on", "daily"
	require.NoError(f, f.UpdateSchedule(f.ctx(), &changed, 1))
	require.False(f, changed.InEffect)
	require.Equal(f, made.Since, changed.Since, "the times are the same")
	require.EqualValues(f, 2, changed.Revision)
	require.ErrorIs(f, f.UpdateSchedule(f.ctx(), &changed, 1), release.ErrConflict)
	changed.Paused = false
	require.NoError(f, f.UpdateSchedule(f.ctx(), &changed, 0))
	require.Equal(f, f.now().Truncate(time.Microsecond), changed.Since)

	require.NoError(f, f.DeleteSchedule(f.ctx(), made.ID))
	require.ErrorIs(f, f.DeleteSchedule(f.ctx(), made.ID), release.ErrNotFound)
	_, err = f.Schedule(f.ctx(), made.ID)
	require.ErrorIs(f, err, release.ErrNotFound)
	require.ErrorIs(f, f.UpdateSchedule(f.ctx(), &changed, 0), release.ErrNotFound)
	f.schedule("daily", nil) // the name is free
	all, err := f.StoredSchedules(f.ctx())
	require.NoError(f, err)
	require.Len(f, all, 2)
	require.True(f, all[0].Deleted)
	for _, s := range all {
		require.NoError(f, f.ForgetSchedule(f.ctx(), s.ID))
	}
	all, err = f.StoredSchedules(f.ctx())
	require.NoError(f, err)
	require.Len(f, all, 1, "one that was not deleted stays")
}

func testSchedules(f *fixture) {
	f.scheduled("q")
	b, a := f.schedule("b", nil), f.schedule("a", func(s *release.Schedule) { s.ProjectID = "q" })
	for i := range 12 {
		due := f.now().Truncate(time.Minute).Add(time.Duration(i) * time.Minute)
		require.NoError(f, f.RecordFire(f.ctx(), release.Fire{ScheduleID: b.ID, Due: due, State: release.FireMissed}))
	}
	failed := release.Fire{ScheduleID: a.ID, Due: f.now().Truncate(time.Minute), State: release.FireFailed, Reason: "no host"}
	require.NoError(f, f.RecordFire(f.ctx(), failed))
	all, total, err := f.Schedules(f.ctx(), store.ScheduleFilter{})
	require.NoError(f, err)
	require.Equal(f, 2, total)
	require.Equal(f, []string{"a", "b"}, []string{all[0].Name, all[1].Name})
	require.Equal(f, []string{"03:04:00 failed"}, fired(all[0].Last))
	require.Equal(f, "no host", all[0].Last[0].Reason)
	require.Empty(f, all[0].Missed)
	require.Len(f, all[1].Last, 10)
	require.Len(f, all[1].Missed, 10)
	require.Equal(f, "03:15:00 missed", fired(all[1].Missed)[0])
	some, total, err := f.Schedules(f.ctx(), store.ScheduleFilter{Project: "q", Limit: 1})
	require.NoError(f, err)
	require.Equal(f, 1, total)
	require.Equal(f, "a", some[0].Name)
}

func testChangeSettles(f *fixture) { // it is 03:04:05.678901
	s := f.schedule("s", nil)
	f.advance(2 * time.Minute)
	s.Paused = true
	require.NoError(f, f.UpdateSchedule(f.ctx(), &s, 0))
	require.Equal(f, []string{"03:06:00 skipped", "03:05:00 skipped"}, f.fires(s.ID))
	f.advance(time.Hour)
	missed, err := f.SettleFires(f.ctx(), s.ID)
	require.NoError(f, err)
	require.Zero(f, missed)
	s.Paused = false
	require.NoError(f, f.UpdateSchedule(f.ctx(), &s, 0))
	require.Len(f, f.fires(s.ID), 2, "nothing is due while it is paused")
	// The fire was on its way after all.
	f.fire(s, time.Date(2026, 1, 2, 3, 6, 0, 0, time.UTC))
	require.Equal(f, []string{"03:06:00 started", "03:05:00 skipped"}, f.fires(s.ID))
}

func testFires(f *fixture) {
	s := f.schedule("s", nil)
	due := f.now().Truncate(time.Second)
	_, err := f.Fire(f.ctx(), s.ID, due)
	require.ErrorIs(f, err, release.ErrNotFound)
	require.NoError(f, f.RequestFire(f.ctx(), release.Fire{ScheduleID: s.ID, Due: due, By: "mei"}))
	require.ErrorIs(f, f.RequestFire(f.ctx(), release.Fire{ScheduleID: s.ID, Due: due, By: "ada"}), release.ErrConflict)
	requested, err := f.RequestedFires(f.ctx())
	require.NoError(f, err)
	require.Len(f, requested, 1)

	task := f.fire(s, due)
	running, err := f.RunningFires(f.ctx(), s.ID)
	require.NoError(f, err)
	require.Len(f, running, 1)
	require.Equal(f, "mei", running[0].By)
	require.Equal(f, task.ID, running[0].TaskID)
	require.True(f, running[0].Running())
	for _, state := range []release.FireState{release.FireFailed, release.FireMissed, release.FireSkipped} {
		require.NoError(f, f.RecordFire(f.ctx(), release.Fire{ScheduleID: s.ID, Due: due, State: state}))
	}
	f.finish(task.ID)
	fire, err := f.Fire(f.ctx(), s.ID, due)
	require.NoError(f, err)
	require.Equal(f, release.FireStarted, fire.State, "it stays")
	require.Equal(f, release.StatusSucceeded, fire.TaskStatus)
	require.NotNil(f, fire.Ended)
	running, err = f.RunningFires(f.ctx(), s.ID)
	require.NoError(f, err)
	require.Empty(f, running)
}

func testMissed(f *fixture) { // it is 03:04:05
	s := f.schedule("s", func(s *release.Schedule) { s.CatchupWindow = release.Duration(2 * time.Minute) })
	settle := func() int {
		missed, err := f.SettleFires(f.ctx(), s.ID)
		require.NoError(f, err)
		return missed
	}
	f.advance(3 * time.Minute) // 03:07:05: that of 03:05 has ten seconds of grace left
	require.Zero(f, settle())
	f.advance(9 * time.Second)
	require.Zero(f, settle())
	f.advance(time.Second)
	require.Equal(f, 1, settle())
	require.Zero(f, settle())
	require.Equal(f, []string{"03:05:00 missed"}, f.fires(s.ID))
	f.finish(f.fire(s, time.Date(2026, 1, 2, 3, 6, 0, 0, time.UTC)).ID)
	f.advance(3 * time.Minute)
	require.Equal(f, 1, settle())
	require.Equal(f, []string{"03:08:00 missed", "03:07:00 skipped", "03:06:00 started", "03:05:00 missed"}, f.fires(s.ID))
}

func testSkipped(f *fixture) { // it is 03:04:05
	for _, overlap := range release.Overlaps {
		start := f.now()
		s := f.schedule(string(overlap[:4]), func(s *release.Schedule) { s.Overlap = overlap })
		settle := func() []string {
			_, err := f.SettleFires(f.ctx(), s.ID)
			require.NoError(f, err)
			fires, _, err := f.Fires(f.ctx(), s.ID, store.FireFilter{State: release.FireSkipped})
			require.NoError(f, err)
			return fired(fires)
		}
		first := start.Truncate(time.Minute).Add(time.Minute)
		f.advance(time.Minute)
		task := f.fire(s, first)
		f.advance(2 * time.Minute) // two more were due
		two := []string{first.Add(2*time.Minute).Format("15:04:05") + " skipped", first.Add(time.Minute).Format("15:04:05") + " skipped"}
		switch overlap {
		case release.OverlapSkip:
			require.Equal(f, two[1:], settle(), "the second had 5 s only")
		case release.OverlapBufferOne:
			require.Empty(f, settle(), "one of them waits")
			f.finish(task.ID)
			require.Empty(f, settle(), "it may just be starting")
			f.fire(s, first.Add(time.Minute))
			f.advance(store.FireGrace)
			require.Equal(f, two[:1], settle())
		case release.OverlapAllow:
			require.Empty(f, settle())
		}
	}
}

func testFireRetention(f *fixture) {
	s := f.schedule("s", nil)
	start := f.now().Truncate(time.Second)
	for i := range release.MaxFires + 3 {
		if i > 3 && i < release.MaxFires {
			require.NoError(f, f.RequestFire(f.ctx(), release.Fire{ScheduleID: s.ID, Due: start.Add(time.Duration(i) * time.Second)}))
			continue
		}
		require.NoError(f, f.RecordFire(f.ctx(), release.Fire{ScheduleID: s.ID, Due: start.Add(time.Duration(i) * time.Second), State: release.FireMissed}))
	}
	_, total, err := f.Fires(f.ctx(), s.ID, store.FireFilter{Limit: 1})
	require.NoError(f, err)
	require.Equal(f, release.MaxFires, total)
	_, err = f.Fire(f.ctx(), s.ID, start.Add(2*time.Second))
	require.ErrorIs(f, err, release.ErrNotFound)
}

func testScheduledStays(f *fixture) {
	e := release.Environment{Name: "prod"}
	f.scheduled("p")
	p, err := f.Project(f.ctx(), "p")
	require.NoError(f, err)
	v, err := f.Version(f.ctx(), "p", "1")
	require.NoError(f, err)
	e.ProjectID = p.ID
	require.NoError(f, f.CreateEnvironment(f.ctx(), &e))
	for _, names := range [][2]string{{"1", "prod"}, {v.ID, e.ID}} {
		s := f.schedule("nightly", func(s *release.Schedule) { s.Task.Version, s.Task.Environment = names[0], names[1] })
		require.Equal(f, []string{p.ID, "p"}, []string{s.ProjectID, s.Project})
		for what, err := range map[string]error{
			"project p":             f.DeleteProject(f.ctx(), p.ID, store.Guard{}),
			"version 1 of p":        f.DeleteVersion(f.ctx(), v.ID, store.Guard{}),
			"environment prod of p": f.DeleteEnvironment(f.ctx(), p.ID, e.ID, store.Guard{}),
		} {
			require.ErrorIs(f, err, release.ErrConflict, what)
			require.ErrorContains(f, err, what+" is in use: schedule nightly deploys it")
		}
		renamed := release.Environment{ID: e.ID, ProjectID: p.ID, Name: "live"}
		require.ErrorIs(f, f.UpdateEnvironment(f.ctx(), &renamed, store.Guard{}), release.ErrConflict)
		next := v
		next.Name = "one"
		err := f.UpdateVersion(f.ctx(), &next, store.Guard{})
		if names[0] == v.ID { // whatever it is called
			require.NoError(f, err)
			require.NoError(f, f.UpdateVersion(f.ctx(), &v, store.Guard{}))
		} else {
			require.ErrorIs(f, err, release.ErrConflict)
			require.ErrorContains(f, err, "schedule nightly deploys it; so it cannot get another name")
		}
		next = v
		next.Spec.Script = &release.ScriptSpec{Install: "echo " + names[0]}
		require.NoError(f, f.UpdateVersion(f.ctx(), &next, store.Guard{}), "what it says may change")
		require.NoError(f, f.DeleteSchedule(f.ctx(), s.ID))
	}
	require.NoError(f, f.DeleteVersion(f.ctx(), v.ID, store.Guard{}))
	require.NoError(f, f.DeleteEnvironment(f.ctx(), p.ID, e.ID, store.Guard{}))
	require.NoError(f, f.DeleteProject(f.ctx(), p.ID, store.Guard{}))
}

func testScheduleOfWhatGoes(f *fixture) {
	f.scheduled("p")
	s := f.schedule("kept", nil)
	for what, change := range map[string]func(*release.Schedule){
		"project":     func(s *release.Schedule) { s.ProjectID = "gone" },
		"version":     func(s *release.Schedule) { s.Task.Version = "9" },
		"environment": func(s *release.Schedule) { s.Task.Environment = "gone" },
	} {
		next := s
		change(&next)
		require.ErrorIs(f, f.UpdateSchedule(f.ctx(), &next, 0), release.ErrNotFound, what)
		next.ID, next.Name = "", "new"
		require.ErrorIs(f, f.CreateSchedule(f.ctx(), &next), release.ErrNotFound, what)
	}
	for i := range 20 { // made while what it deploys is deleted: one of both wins
		name := fmt.Sprintf("q%d", i)
		f.scheduled(name)
		p, err := f.Project(f.ctx(), name)
		require.NoError(f, err)
		v, err := f.Version(f.ctx(), name, "1")
		require.NoError(f, err)
		errs := together(2, func(n int) error {
			switch {
			case n == 0:
				s := release.Schedule{Name: name, ProjectID: p.ID, Plan: release.Plan{Task: release.NewTask{Project: name, Version: "1"}, When: release.When{Cron: "* * * * *"}}.WithDefaults()}
				return f.CreateSchedule(f.ctx(), &s)
			case i%2 == 0:
				return f.DeleteProject(f.ctx(), p.ID, store.Guard{})
			}
			return f.DeleteVersion(f.ctx(), v.ID, store.Guard{})
		})
		if errs[0] == nil {
			require.ErrorIs(f, errs[1], release.ErrConflict)
		} else {
			require.ErrorIs(f, errs[0], release.ErrNotFound)
			require.NoError(f, errs[1])
		}
	}
}
