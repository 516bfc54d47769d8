package store_test

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var gridTests = map[string]func(*fixture){
	"targets are shown in short": func(f *fixture) {
		ids := f.join(5)
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, ids...)
		steps := f.dispatch(task, release.StepDeploy, ids[:4]...)
		f.report(steps[ids[0]], release.StepSucceeded)
		f.advance(time.Minute)
		f.report(steps[ids[1]], release.StepFailed)
		f.report(steps[ids[2]], release.StepFailed)
		grid, err := f.TargetGrid(f.ctx(), task.ID, f.now().Add(-time.Second))
		require.NoError(f, err)
		require.Equal(f, store.TargetGrid{Finished: 2, States: []release.TargetState{
			release.TargetSucceeded, release.TargetFailed, release.TargetFailed, release.TargetRunning, release.TargetPending}}, grid)

		groups, total, err := f.TaskFailures(f.ctx(), task.ID, 10)
		require.NoError(f, err)
		require.Equal(f, 1, total)
		require.Len(f, groups, 1)
		require.Equal(f, 2, groups[0].Hosts)
		require.Equal(f, ids[1], groups[0].First)
		found, total, err := f.Targets(f.ctx(), task.ID, store.TargetFilter{Error: &groups[0].Reason, Limit: 1})
		require.NoError(f, err)
		require.Equal(f, 2, total)
		require.Equal(f, ids[1], found[0].ClientID)
		_, total, err = f.Targets(f.ctx(), task.ID, store.TargetFilter{Search: "H00"})
		require.NoError(f, err)
		require.Equal(f, 5, total)
		_, total, err = f.Targets(f.ctx(), task.ID, store.TargetFilter{Search: "_00"})
		require.NoError(f, err)
		require.Zero(f, total)

		installed, total, err := f.Installations(f.ctx(), store.InstallationFilter{Clients: []string{ids[0], ids[4]}})
		require.NoError(f, err)
		require.Equal(f, 1, total)
		require.Equal(f, ids[0], installed[0].ClientID)
		whole := make([]string, 70_000, 70_001) // more than a statement may have parameters
		for i := range whole {
			whole[i] = fmt.Sprintf("x%05d", i)
		}
		installed, total, err = f.Installations(f.ctx(), store.InstallationFilter{Clients: append(whole, ids[0])})
		require.NoError(f, err)
		require.Equal(f, 1, total)
		require.Equal(f, ids[0], installed[0].ClientID)
	},
	"failures of jobs are grouped": func(f *fixture) {
		ids := f.join(4)
		j := f.job(ids...)
		f.mark(j, ids...)
		f.tell(j, ids[0], 0, release.StepSucceeded)
		f.tell(j, ids[1], 0, release.StepFailed)
		f.tell(j, ids[3], 0, release.StepFailed)
		groups, total, err := f.JobFailures(f.ctx(), j.ID, 10)
		require.NoError(f, err)
		require.Equal(f, 1, total)
		require.Equal(f, []store.FailureGroup{{State: "failed", Reason: "failed", Hosts: 2, First: ids[1]}}, groups)
		_, _, err = f.JobFailures(f.ctx(), "none", 10)
		require.ErrorIs(f, err, release.ErrNotFound)
	},
	"a client has a history": func(f *fixture) {
		ids := f.join(2)
		versions := f.project("shop", "1.0", "2.0")
		one, two := versions["1.0"], versions["2.0"]
		f.release("shop", &one, ids...)
		f.advance(time.Second)
		second := f.release("shop", &two, ids[0])
		tasks, err := f.ClientTasks(f.ctx(), ids[0], 10)
		require.NoError(f, err)
		require.Len(f, tasks, 2)
		require.Equal(f, second.ID, tasks[0].TaskID)
		require.Equal(f, "2.0", tasks[0].Version)
		require.Equal(f, release.TargetSucceeded, tasks[0].State)
		require.NotNil(f, tasks[0].FinishedAt)
		tasks, err = f.ClientTasks(f.ctx(), ids[1], 1)
		require.NoError(f, err)
		require.Len(f, tasks, 1)
		require.Equal(f, "1.0", tasks[0].Version)
	},
}
