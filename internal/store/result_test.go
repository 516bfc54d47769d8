package store_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var resultTests = map[string]func(*fixture){
	"a result is stored": func(f *fixture) {
		f.join(1)
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, "h000")
		step := f.dispatch(task, release.StepDeploy, "h000")["h000"]
		started := f.now()
		f.advance(time.Minute)
		recorded, err := f.RecordResults(f.ctx(), []release.StepResult{{StepID: step.ID, ClientID: "h000", State: release.StepFailed, ExitCode: 7,
			Error: "exit\x00 \xff", StdoutTail: []byte{0, 255}, StderrTail: nil, StartedAt: f.now(), FinishedAt: f.now(), LogEnd: 9}})
		require.NoError(f, err)
		step.State = release.StepFailed
		require.Equal(f, []release.Step{step}, recorded)
		seven, finished := 7, f.now()
		require.Equal(f, release.Target{TaskID: task.ID, ClientID: "h000", Wave: 1, State: release.TargetFailed, Error: "exit\uFFFD \uFFFD",
			ExitCode: &seven, StartedAt: &started, FinishedAt: &finished}, f.target(task, "h000"))
		complete, missing, err := f.LogsComplete(f.ctx(), task.ID)
		require.NoError(f, err)
		require.False(f, complete)
		require.Equal(f, []string{"h000"}, missing)
		f.log(step, 0, 9, "said late")
		complete, missing, err = f.LogsComplete(f.ctx(), task.ID)
		require.NoError(f, err)
		require.True(f, complete)
		require.Empty(f, missing)
	},
	"the first final result wins": func(f *fixture) {
		f.join(2)
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, "h000", "h001")
		steps := f.dispatch(task, release.StepDeploy, "h000", "h001")
		require.Len(f, f.report(steps["h000"], release.StepUnknown), 1)
		require.Equal(f, release.TargetUnknown, f.target(task, "h000").State)
		require.Len(f, f.report(steps["h000"], release.StepFailed), 1)
		require.Empty(f, f.report(steps["h000"], release.StepSucceeded))
		require.Empty(f, f.report(steps["h000"], release.StepUnknown))
		require.Equal(f, release.TargetFailed, f.target(task, "h000").State)

		// In one batch, too.
		var batch []release.StepResult
		for _, state := range []release.StepState{release.StepUnknown, release.StepSucceeded, release.StepFailed} {
			batch = append(batch, release.StepResult{StepID: steps["h001"].ID, ClientID: "h001", State: state, FinishedAt: f.now()})
		}
		recorded, err := f.RecordResults(f.ctx(), batch)
		require.NoError(f, err)
		require.Len(f, recorded, 1)
		require.Equal(f, release.TargetSucceeded, f.target(task, "h001").State)
	},
	"one of many hubs records": func(f *fixture) {
		ids := f.join(30)
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, ids...)
		steps := f.dispatch(task, release.StepDeploy, ids...)
		var mu sync.Mutex
		wins := map[string]int{}
		errs := together(6, func(i int) error {
			var batch []release.StepResult
			for _, id := range ids {
				state := []release.StepState{release.StepSucceeded, release.StepFailed}[i%2]
				batch = append(batch, release.StepResult{StepID: steps[id].ID, ClientID: id, State: state, FinishedAt: f.now()})
			}
			if i > 2 {
				slices.Reverse(batch)
			}
			recorded, err := f.RecordResults(f.ctx(), batch)
			mu.Lock()
			defer mu.Unlock()
			for _, step := range recorded {
				wins[step.ClientID]++
			}
			return err
		})
		require.NoError(f, errors.Join(errs...))
		for _, id := range ids {
			require.Equal(f, 1, wins[id])
		}
	},
	"foreign and odd results are passed over": func(f *fixture) {
		f.join(2)
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, "h000", "h001")
		step := f.dispatch(task, release.StepDeploy, "h000")["h000"]
		recorded, err := f.RecordResults(f.ctx(), []release.StepResult{
			{StepID: step.ID, ClientID: "h001", State: release.StepSucceeded},
			{StepID: "odd", ClientID: "h000", State: release.StepSucceeded},
			{StepID: release.StepID("none", release.StepDeploy, "h000", 0), ClientID: "h000", State: release.StepSucceeded},
			{StepID: step.ID, ClientID: "h000", State: release.StepPending},
		})
		require.NoError(f, err)
		require.Empty(f, recorded)
		require.Equal(f, "h000 running, h001 pending", f.states(task))
	},
	"refused is cancelled in a task that was stopped": func(f *fixture) {
		f.join(2)
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, "h000", "h001")
		steps := f.dispatch(task, release.StepDeploy, "h000", "h001")
		f.report(steps["h000"], release.StepRefused)
		require.NoError(f, f.SetHalt(f.ctx(), task.ID, true))
		f.report(steps["h001"], release.StepRefused)
		require.Equal(f, "h000 failed, h001 cancelled", f.states(task))
		require.Equal(f, "nothing", f.runs("shop", "h000"))
	},
	"refused is failed in a task that is only paused": func(f *fixture) {
		f.join(1)
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, "h000")
		step := f.dispatch(task, release.StepDeploy, "h000")["h000"]
		require.NoError(f, f.SetHalt(f.ctx(), task.ID, true))
		require.NoError(f, f.SetProgress(f.ctx(), task.ID, store.Progress{Status: release.StatusPaused, Phase: release.PhaseWave}))
		f.report(step, release.StepRefused)
		require.Equal(f, "h000 failed", f.states(task), "nobody stopped it, so it counts against the budget")
	},
	"a late result changes no newer fact": func(f *fixture) {
		f.join(1)
		versions := f.project("shop", "1.0", "2.0", "3.0")
		v1, v2, v3 := versions["1.0"], versions["2.0"], versions["3.0"]
		f.release("shop", &v1, "h000")
		task := f.deploy("shop", &v2, "h000")
		step := f.dispatch(task, release.StepDeploy, "h000")["h000"]
		require.NoError(f, f.ConcludeSteps(f.ctx(), []store.Conclusion{{StepID: step.ID, Target: release.TargetUnknown}}))
		f.report(f.dispatch(task, release.StepRollback, "h000")["h000"], release.StepSucceeded)
		require.Equal(f, release.TargetRolledBack, f.target(task, "h000").State)
		f.release("shop", &v3, "h000")
		f.report(step, release.StepSucceeded)
		require.Equal(f, release.TargetRolledBack, f.target(task, "h000").State)
		require.Equal(f, "3.0 installed", f.runs("shop", "h000"))
	},
	"both steps of a host in one batch": func(f *fixture) {
		f.join(1)
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, "h000")
		step := f.dispatch(task, release.StepDeploy, "h000")["h000"]
		back := f.dispatch(task, release.StepRollback, "h000")["h000"]
		recorded, err := f.RecordResults(f.ctx(), []release.StepResult{
			{StepID: back.ID, ClientID: "h000", State: release.StepSucceeded, FinishedAt: f.now()},
			{StepID: step.ID, ClientID: "h000", State: release.StepFailed, Error: "so", FinishedAt: f.now()}})
		require.NoError(f, err)
		require.Len(f, recorded, 2)
		target := f.target(task, "h000")
		require.Equal(f, release.TargetRolledBack, target.State)
		require.Equal(f, "so", target.Error)
		require.Equal(f, "nothing", f.runs("shop", "h000"))
	},
	"more hosts than a statement takes": func(f *fixture) {
		ids := make([]string, f.many())
		for i := range ids {
			ids[i] = fmt.Sprintf("h%04d", i)
		}
		versions := f.project("shop", "1.0", "2.0")
		v1, v2 := versions["1.0"], versions["2.0"]
		for _, v := range []release.Version{v1, v2} {
			task := f.deploy("shop", &v, ids...)
			steps := f.dispatch(task, release.StepDeploy, ids...)
			var batch []release.StepResult
			for _, id := range ids {
				batch = append(batch, release.StepResult{StepID: steps[id].ID, ClientID: id, State: release.StepSucceeded, FinishedAt: f.now()})
			}
			recorded, err := f.RecordResults(f.ctx(), batch)
			require.NoError(f, err)
			require.Len(f, recorded, len(ids))
			got, err := f.Task(f.ctx(), task.ID)
			require.NoError(f, err)
			require.Equal(f, release.Counts{Total: len(ids), Succeeded: len(ids)}, got.Counts)
		}
		task := f.deploy("shop", nil, ids...)
		steps := f.dispatch(task, release.StepDeploy, ids...)
		var all []store.Conclusion
		for _, id := range ids {
			require.Equal(f, "2.0", steps[id].PreviousVersion)
			all = append(all, store.Conclusion{StepID: steps[id].ID, Target: release.TargetUnknown})
		}
		require.NoError(f, f.ConcludeSteps(f.ctx(), all))
		back := f.dispatch(task, release.StepRollback, ids...)
		require.Equal(f, v2.ID, back[ids[len(ids)-1]].VersionID)
		_, total, err := f.Installations(f.ctx(), store.InstallationFilter{Project: "shop", Limit: 1})
		require.NoError(f, err)
		require.Equal(f, len(ids), total)
	},
	"since when, and what its agent said": func(f *fixture) {
		id := f.join(1)[0]
		f.connect("node", id)
		versions := f.project("shop", "1.0", "2.0")
		v1, v2 := versions["1.0"], versions["2.0"]
		of := func() release.Installation {
			list, _, err := f.Installations(f.ctx(), store.InstallationFilter{Project: "shop"})
			require.NoError(f, err)
			require.Len(f, list, 1)
			return list[0]
		}
		task := f.deploy("shop", &v1, id)
		steps := f.dispatch(task, release.StepDeploy, id)
		installed := f.now()
		_, err := f.RecordResults(f.ctx(), []release.StepResult{{StepID: steps[id].ID, ClientID: id, State: release.StepSucceeded, FinishedAt: installed,
			Result: []byte(`{"project":"shop","type":"script","state":"ok","version":"1.0","details":{"path":"/srv/1.0"}}`)}})
		require.NoError(f, err)
		i := of()
		require.Equal(f, installed, *i.InstalledAt)
		require.Equal(f, task.ID, i.InstalledBy)
		require.Equal(f, "/srv/1.0", i.Running.Details["path"])

		f.advance(time.Hour)
		failed := f.deploy("shop", &v2, id)
		f.report(f.dispatch(failed, release.StepDeploy, id)[id], release.StepFailed)
		i = of()
		require.Equal(f, "1.0 failed 2.0", i.Version+" "+string(i.State)+" "+i.Attempted)
		require.Equal(f, failed.ID, i.TaskID)
		require.Equal(f, installed, *i.InstalledAt, "since when it runs is not when another one failed")
		require.Equal(f, task.ID, i.InstalledBy)
		require.Equal(f, "/srv/1.0", i.Running.Details["path"])

		// Someone looked.
		i.Running = &release.Running{Project: "shop", Type: release.TypeScript, State: release.RunMissing, Reason: "it is gone"}
		require.NoError(f, f.RecordRunning(f.ctx(), []release.Installation{i}))
		require.Equal(f, i, of(), "and nothing else is changed")
		old := i
		f.advance(time.Hour)
		second := f.release("shop", &v2, id)
		i = of()
		require.Equal(f, second.ID, i.InstalledBy)
		require.True(f, i.InstalledAt.After(installed))
		require.Nil(f, i.Running, "its agent said nothing")
		require.NoError(f, f.RecordRunning(f.ctx(), []release.Installation{old}))
		require.Equal(f, i, of(), "what was found before the last step is of no use")
	},
	"everyone writes at once": func(f *fixture) {
		ids := f.join(60)
		f.connect("node", ids...)
		v := f.project("shop", "1.0", "2.0")["2.0"]
		var tasks []release.Task
		for range 3 {
			tasks = append(tasks, f.deploy("shop", &v, ids...))
			f.plan(tasks[len(tasks)-1], release.StepDeploy)
		}
		shuffled := slices.Clone(ids)
		slices.Reverse(shuffled)
		errs := together(27, func(i int) error {
			task, mine := tasks[i%3], ids
			if i%2 == 0 {
				mine = shuffled
			}
			switch i / 3 {
			case 0, 1:
				_, _, err := f.MarkDispatched(f.ctx(), task.ID, release.StepDeploy, mine)
				return err
			case 2:
				_, err := f.PlanChunks(f.ctx(), task.ID, release.StepDeploy, 1, 7, "node")
				return err
			case 3:
				var sessions []release.ClientSession
				for _, id := range mine {
					sessions = append(sessions, release.ClientSession{ClientID: id, NodeID: "node", JournalID: fmt.Sprint("new ", i)})
				}
				_, err := f.ConnectClients(f.ctx(), sessions)
				return err
			case 4, 5:
				var batch []release.StepResult
				for k, id := range mine {
					batch = append(batch, release.StepResult{StepID: release.StepID(tasks[(i+k)%3].ID, release.StepDeploy, id, 0), ClientID: id,
						State: release.StepSucceeded, FinishedAt: f.now()})
				}
				_, err := f.RecordResults(f.ctx(), batch)
				return err
			case 6:
				var all []store.Conclusion
				for _, id := range mine {
					all = append(all, store.Conclusion{StepID: release.StepID(task.ID, release.StepDeploy, id, 0), Target: release.TargetUnknown})
				}
				return f.ConcludeSteps(f.ctx(), all)
			case 7:
				there, _, err := f.Installations(f.ctx(), store.InstallationFilter{})
				if err != nil {
					return err
				}
				if i%2 == 0 {
					slices.Reverse(there)
				}
				return f.RecordRunning(f.ctx(), there)
			default:
				return f.SetProgress(f.ctx(), task.ID, store.Progress{Status: release.StatusFailed})
			}
		})
		require.NoError(f, errors.Join(errs...), "no deadlock")
	},
}
