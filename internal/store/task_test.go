package store_test

import (
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var taskTests = map[string]func(*fixture){
	"a task is stored with its targets": func(f *fixture) {
		v := f.project("shop", "1.0")["1.0"]
		ids := make([]string, 1200) // more than a statement takes
		for i := range ids {
			ids[len(ids)-1-i] = fmt.Sprintf("h%04d", i)
		}
		task := release.Task{ProjectID: v.ProjectID, VersionID: v.ID, Action: release.ActionDeploy, CreatedBy: "me",
			Targets: release.Targets{Selector: "*"}, Override: release.Override{Env: map[string]string{"A": "1"}},
			Strategy: release.Strategy{Canary: &release.Canary{Percent: 10}, Waves: []float64{50}, MaxFailures: release.Limit{Count: 3}}}
		require.NoError(f, f.CreateTask(f.ctx(), &task, append(ids, ids[0])))
		require.Equal(f, release.StatusStarting, task.Status)
		require.Equal(f, release.WorkflowID("shop", task.ID), task.WorkflowID)
		require.Equal(f, []release.Wave{{Number: 0, Size: 120, Canary: true}, {Number: 1, Size: 480}, {Number: 2, Size: 600}}, task.Waves)
		require.Equal(f, release.Counts{Total: 1200, Pending: 1200}, task.Counts)
		got, err := f.Task(f.ctx(), task.ID)
		require.NoError(f, err)
		require.Empty(f, cmp.Diff(task, got))

		byWave, err := f.WaveCounts(f.ctx(), task.ID)
		require.NoError(f, err)
		require.Equal(f, map[int]release.Counts{0: {Total: 120, Pending: 120}, 1: {Total: 480, Pending: 480}, 2: {Total: 600, Pending: 600}}, byWave)
		one := 1
		targets, total, err := f.Targets(f.ctx(), task.ID, store.TargetFilter{Wave: &one, State: release.TargetPending, Limit: 2, Offset: 1})
		require.NoError(f, err)
		require.Equal(f, 480, total)
		require.Equal(f, "h0121", targets[0].ClientID)
		require.Equal(f, "h0122", targets[1].ClientID)
		head, err := f.LogHead(f.ctx(), task.ID)
		require.NoError(f, err)
		require.Zero(f, head)
	},
	"what a task names must exist": func(f *fixture) {
		v := f.project("shop", "1.0")["1.0"]
		other := f.project("other", "1.0")["1.0"]
		for _, task := range []release.Task{{ProjectID: "none"}, {ProjectID: v.ProjectID, VersionID: "none"}, {ProjectID: v.ProjectID, VersionID: other.ID}} {
			require.ErrorIs(f, f.CreateTask(f.ctx(), &task, []string{"h"}), release.ErrNotFound)
			require.Empty(f, task.ID)
		}
		require.ErrorIs(f, f.CreateTask(f.ctx(), &release.Task{ProjectID: v.ProjectID}, nil), release.ErrInvalid)
		_, total, err := f.Tasks(f.ctx(), store.TaskFilter{})
		require.NoError(f, err)
		require.Zero(f, total)
		_, err = f.Task(f.ctx(), "none")
		require.ErrorIs(f, err, release.ErrNotFound)
		_, err = f.LogHead(f.ctx(), "none")
		require.ErrorIs(f, err, release.ErrNotFound)
		require.ErrorIs(f, f.SetHalt(f.ctx(), "none", true), release.ErrNotFound)
		require.ErrorIs(f, f.SetProgress(f.ctx(), "none", store.Progress{}), release.ErrNotFound)
		_, err = f.PlanChunks(f.ctx(), "none", release.StepDeploy, 1, 10, "")
		require.ErrorIs(f, err, release.ErrNotFound)
		_, _, err = f.MarkDispatched(f.ctx(), "none", release.StepDeploy, []string{"h"})
		require.ErrorIs(f, err, release.ErrNotFound)
	},
	"tasks are listed": func(f *fixture) {
		v := f.project("shop", "1.0")["1.0"]
		w := f.project("other", "1.0")["1.0"]
		var made []release.Task
		for i := range 4 {
			f.advance(time.Second)
			if i == 2 {
				made = append(made, f.deploy("other", &w, "a"))
			} else {
				made = append(made, f.deploy("shop", &v, "a", "b"))
			}
		}
		require.NoError(f, f.SetProgress(f.ctx(), made[1].ID, store.Progress{Status: release.StatusFailed}))
		list := func(filter store.TaskFilter) (found string, total int) {
			tasks, total, err := f.Tasks(f.ctx(), filter)
			require.NoError(f, err)
			for _, task := range tasks {
				for i := range made {
					if made[i].ID == task.ID {
						found += fmt.Sprint(i)
						require.Equal(f, made[i].Counts.Total, task.Counts.Total)
					}
				}
			}
			return found, total
		}
		for filter, want := range map[store.TaskFilter]string{
			{}:                               "3210",
			{Project: "shop"}:                "310",
			{Project: w.ProjectID}:           "2",
			{Project: "none"}:                "",
			{Status: release.StatusStarting}: "320",
		} {
			found, total := list(filter)
			require.Equal(f, want, found)
			require.Equal(f, len(want), total)
		}
		found, total := list(store.TaskFilter{Limit: 2, Offset: 1})
		require.Equal(f, "21", found)
		require.Equal(f, 4, total)
		unfinished, err := f.UnfinishedTasks(f.ctx())
		require.NoError(f, err)
		require.Len(f, unfinished, 3)
		require.Equal(f, made[0].ID, unfinished[0].ID)
	},
	"what happened of late is found among many": func(f *fixture) {
		v := f.project("shop", "1.0")["1.0"]
		end := func(status release.Status) string {
			f.advance(time.Second)
			task := f.deploy("shop", &v, "a")
			if status != "" {
				f.end(task, status)
			}
			return task.ID
		}
		ids := func(tasks []release.Task) (ids []string) {
			for _, t := range tasks {
				require.Equal(f, 1, t.Counts.Total)
				ids = append(ids, t.ID)
			}
			return ids
		}
		end(release.StatusFailed) // long ago
		f.advance(time.Hour)
		after := f.now()
		failed := []string{end(release.StatusFailed), end(release.StatusPartial)}
		succeeded := []string{end(release.StatusSucceeded), end(release.StatusSucceeded), end(release.StatusSucceeded)}
		active := []string{end(""), end(""), end("")}
		recent, err := f.RecentTasks(f.ctx(), after, 2)
		require.NoError(f, err)
		require.Equal(f, active[:2], ids(recent.Active))
		require.Equal(f, 3, recent.ActiveTotal)
		require.Equal(f, []string{failed[1], failed[0]}, ids(recent.Failed))
		require.Equal(f, []string{succeeded[2], succeeded[1]}, ids(recent.Succeeded))
		recent, err = f.RecentTasks(f.ctx(), f.now().Add(time.Second), 2)
		require.NoError(f, err)
		require.Equal(f, store.RecentTasks{Active: recent.Active, ActiveTotal: 3, Failed: []release.Task{}, Succeeded: []release.Task{}}, recent)
	},
	"progress follows the transitions": func(f *fixture) {
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, "h000", "h001")
		f.dispatch(task, release.StepDeploy, "h000")
		soak := f.now().Add(time.Hour)
		require.NoError(f, f.SetProgress(f.ctx(), task.ID, store.Progress{
			Status: release.StatusRunning, Phase: release.PhaseSoak, Wave: 1, Reason: "so", SoakUntil: &soak, At: f.now()}))
		got, err := f.Task(f.ctx(), task.ID)
		require.NoError(f, err)
		task.Status, task.Phase, task.Wave, task.Reason, task.SoakUntil, task.UpdatedAt = release.StatusRunning, release.PhaseSoak, 1, "so", &soak, f.now()
		task.Counts = release.Counts{Total: 2, Pending: 1, Running: 1}
		require.Empty(f, cmp.Diff(task, got))

		for _, status := range []release.Status{release.StatusStarting, release.StatusAborted, release.StatusRolledBack, "odd"} {
			require.ErrorIs(f, f.SetProgress(f.ctx(), task.ID, store.Progress{Status: status}), release.ErrConflict)
		}
		require.NoError(f, f.SetProgress(f.ctx(), task.ID, store.Progress{Status: release.StatusFailed, Phase: release.PhaseDone}))
		ended := f.now()
		f.advance(time.Minute)
		require.NoError(f, f.SetProgress(f.ctx(), task.ID, store.Progress{Status: release.StatusFailed, Phase: release.PhaseDone}), "said twice")
		require.ErrorIs(f, f.SetProgress(f.ctx(), task.ID, store.Progress{Status: release.StatusRunning}), release.ErrConflict)
		got, err = f.Task(f.ctx(), task.ID)
		require.NoError(f, err)
		require.Equal(f, ended, *got.FinishedAt)
		require.Nil(f, got.SoakUntil)
		require.Equal(f, "h000 unknown, h001 skipped", f.states(task))
		marked, halted, err := f.MarkDispatched(f.ctx(), task.ID, release.StepDeploy, []string{"h000", "h001"})
		require.NoError(f, err)
		require.True(f, halted, "an ended task dispatches nothing")
		require.Empty(f, marked)
	},
	"a host at work when its task ends is unknown until it answers": func(f *fixture) {
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, "h000", "h001")
		deploy := f.dispatch(task, release.StepDeploy, "h000", "h001")
		f.report(deploy["h001"], release.StepSucceeded)
		rollback := f.dispatch(task, release.StepRollback, "h001")
		require.NoError(f, f.SetProgress(f.ctx(), task.ID, store.Progress{Status: release.StatusFailed, Phase: release.PhaseDone}))
		require.Equal(f, "h000 unknown, h001 rollback_failed", f.states(task))
		require.Contains(f, f.target(task, "h000").Error, "the task ended before")
		f.report(deploy["h000"], release.StepSucceeded)
		f.report(rollback["h001"], release.StepSucceeded)
		require.Equal(f, "h000 succeeded, h001 rolled_back", f.states(task))
	},
	"everything is there after a restart": func(f *fixture) {
		f.join(2)
		f.connect("node", "h000", "h001")
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, "h000", "h001")
		step := f.dispatch(task, release.StepDeploy, "h000")["h000"]
		f.log(step, 0, 5, "hello")
		f.report(step, release.StepSucceeded)
		require.NoError(f, f.PutToken(f.ctx(), "id", "admin", "hash"))

		require.NoError(f, f.Close())
		f.open()
		require.NoError(f, f.Ping(f.ctx()))
		require.Equal(f, "h000 succeeded, h001 pending", f.states(task))
		require.Equal(f, "1.0 installed", f.runs("shop", "h000"))
		records, err := f.Logs(f.ctx(), task.ID, 0, store.LogFilter{}, 0)
		require.NoError(f, err)
		require.Len(f, records, 1)
		f.requireStatus("h000", release.ClientOnline)
		require.EqualValues(f, 2, f.connect("node", "h000")["h000"])
		name, err := f.TokenByHash(f.ctx(), "hash")
		require.NoError(f, err)
		require.Equal(f, "admin", name)
		require.Equal(f, []string{"h001"}, keys(f.plan(task, release.StepDeploy)))
	},
}
