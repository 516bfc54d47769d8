package store_test

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var jobResultTests = map[string]func(*fixture){
	"a command whose result is not JSON has failed": func(f *fixture) {
		j := f.job("h000")
		f.mark(j, "h000")
		r := f.result(j, "h000", 0, release.StepSucceeded)
		r.ExitCode, r.Result = 0, []byte("{")
		changed, err := f.RecordResults(f.ctx(), []release.StepResult{r})
		require.NoError(f, err)
		require.Equal(f, release.StepFailed, changed[0].State)
		target, err := f.JobTarget(f.ctx(), j.ID, "h000")
		require.NoError(f, err)
		require.Equal(f, job.StateFailed, target.State)
		require.Equal(f, "its result is not JSON", target.Error)
		require.Nil(f, target.ExitCode)
		require.Empty(f, target.Result)
	},
	"a result of a command is stored": func(f *fixture) {
		j := f.job("h000", "h001", "h002", "h003", "h004", "h005")
		f.mark(j, "h000", "h001", "h002", "h003", "h004", "h005")
		f.advance(time.Minute)
		began, ended := f.now().Truncate(time.Microsecond), f.now().Add(time.Second).Truncate(time.Microsecond)
		result := func(id string, r release.StepResult) release.StepResult {
			r.StepID, r.ClientID, r.StartedAt, r.FinishedAt = release.StepID(j.ID, job.StepCommand, id, 0), id, began, ended
			return r
		}
		changed, err := f.RecordResults(f.ctx(), []release.StepResult{
			result("h000", release.StepResult{State: release.StepFailed, ExitCode: 7, Error: "exit\x00 \xff", StdoutTail: []byte{0, 255}, StdoutBytes: 9000, LogEnd: 9}),
			result("h001", release.StepResult{State: release.StepSucceeded, Result: []byte(`{"a": "\u0000"}`), StderrTail: []byte("e")}),
			result("h002", release.StepResult{State: release.StepFailed, ExitCode: -1, TimedOut: true, ResultInLog: true}),
			result("h003", release.StepResult{State: release.StepFailed, ExitCode: -1, NotStarted: true, Result: []byte("not JSON")}),
			result("h004", release.StepResult{State: release.StepRefused, ExitCode: -1}),
			result("h005", release.StepResult{State: release.StepCancelled, ExitCode: 130}),
		})
		require.NoError(f, err)
		require.Len(f, changed, 6)
		require.Equal(f, release.Step{ID: release.StepID(j.ID, job.StepCommand, "h000", 0), TaskID: j.ID, Name: job.StepCommand, ClientID: "h000", State: release.StepFailed}, changed[0])
		zero, seven, much := 0, 7, 130
		want := []job.Target{
			{State: job.StateFailed, ExitCode: &seven, Error: "exit\uFFFD \uFFFD", Stdout: []byte{0, 255}, StdoutBytes: 9000},
			{State: job.StateSucceeded, ExitCode: &zero, Result: json.RawMessage(`{"a": "\u0000"}`), Stderr: []byte("e"), StderrBytes: 1},
			{State: job.StateTimeout, ResultInLog: true},
			{State: job.StateRefused, Hopeless: true},
			{State: job.StateRefused},
			{State: job.StateCancelled, ExitCode: &much},
		}
		for i := range want {
			want[i].JobID, want[i].ClientID, want[i].StartedAt, want[i].FinishedAt = j.ID, fmt.Sprintf("h%03d", i), &began, &ended
			want[i].Decided = int64(i + 1)
		}
		targets, _, err := f.JobTargets(f.ctx(), j.ID, store.JobTargetFilter{})
		require.NoError(f, err)
		require.Empty(f, cmp.Diff(want, targets))
		f.counted(j.ID)
		require.Equal(f, map[job.State]int{job.StateFailed: 1, job.StateSucceeded: 1, job.StateTimeout: 1, job.StateRefused: 2, job.StateCancelled: 1}, f.CommandOutcomes())
		require.Empty(f, f.StepOutcomes())

		targets, total, err := f.JobTargets(f.ctx(), j.ID, store.JobTargetFilter{FinishedAfter: began, State: job.StateRefused})
		require.NoError(f, err)
		require.Equal(f, 2, total)
		require.Len(f, targets, 2)

		require.Equal(f, 1, f.retry(j, store.JobRetry{Max: 5}), "what its agent found wrong is wrong next time, too")
		require.Equal(f, "h004", f.inState(j, job.StatePending))
	},
	"the first final result of a try wins": func(f *fixture) {
		j := f.job("h000", "h001", "h002")
		f.mark(j, "h000", "h001")
		require.Len(f, f.tell(j, "h000", 0, release.StepUnknown), 1)
		require.Equal(f, "h000", f.inState(j, job.StateUnknown))
		require.Empty(f, f.tell(j, "h000", 0, release.StepUnknown), "nothing new")
		require.Len(f, f.tell(j, "h000", 0, release.StepFailed), 1)
		require.Empty(f, f.tell(j, "h000", 0, release.StepSucceeded))
		require.Empty(f, f.tell(j, "h000", 0, release.StepUnknown))
		require.Equal(f, "h000", f.inState(j, job.StateFailed))

		// In one batch, too.
		var batch []release.StepResult
		for _, state := range []release.StepState{release.StepUnknown, release.StepSucceeded, release.StepFailed, release.StepDispatched} {
			batch = append(batch, f.result(j, "h001", 0, state))
		}
		changed, err := f.RecordResults(f.ctx(), batch)
		require.NoError(f, err)
		require.Len(f, changed, 1)
		require.Equal(f, "h001", f.inState(j, job.StateSucceeded))

		// Another try has an epoch of its own; what comes late from the one before is passed over, and what cannot be, too.
		require.Equal(f, 1, f.retry(j, store.JobRetry{Max: 2, OnFailure: true}))
		target, err := f.JobTarget(f.ctx(), j.ID, "h000")
		require.NoError(f, err)
		require.Equal(f, job.Target{JobID: j.ID, ClientID: "h000", State: job.StatePending, Epoch: 1}, target, "nothing is left of the first try")
		require.Empty(f, f.tell(j, "h000", 0, release.StepSucceeded))
		f.mark(j, "h000")
		require.Empty(f, f.tell(j, "h000", 0, release.StepSucceeded))
		require.Empty(f, f.tell(j, "h000", 2, release.StepSucceeded))
		require.Equal(f, "h000 running, h001 succeeded, h002 pending", f.jobStates(j.ID))
		require.Equal(f, 1, f.tell(j, "h000", 1, release.StepFailed)[0].Epoch)
		require.Equal(f, 1, f.retry(j, store.JobRetry{Max: 2, OnFailure: true}))
		f.mark(j, "h000")
		f.tell(j, "h000", 2, release.StepFailed)
		require.Zero(f, f.retry(j, store.JobRetry{Max: 2, OnFailure: true}), "that was the last try")
		require.Equal(f, "h000 failed, h001 succeeded, h002 pending", f.jobStates(j.ID))

		// A result of what was never marked is taken: its agent has it from a dispatch that was taken for undone.
		require.Len(f, f.tell(j, "h002", 0, release.StepSucceeded), 1)
		require.Equal(f, "h000 failed, h001 succeeded, h002 succeeded", f.jobStates(j.ID))
	},
	"foreign and odd results of commands are passed over": func(f *fixture) {
		j := f.job("h000", "h001")
		f.mark(j, "h000")
		foreign := f.result(j, "h000", 0, release.StepSucceeded)
		foreign.ClientID = "h001"
		changed, err := f.RecordResults(f.ctx(), []release.StepResult{foreign,
			f.result(j, "stranger", 0, release.StepSucceeded), f.result(job.Job{ID: "none"}, "h000", 0, release.StepSucceeded),
			f.result(j, "h000", -1, release.StepSucceeded), f.result(j, "h000", 0, release.StepPending)})
		require.NoError(f, err)
		require.Empty(f, changed)
		require.Equal(f, "h000 running, h001 pending", f.jobStates(j.ID))
	},
	"refused is cancelled in a job that was stopped": func(f *fixture) {
		j := f.job("h000", "h001", "h002")
		f.mark(j, "h000", "h001", "h002")
		require.NoError(f, f.SetJobHalt(f.ctx(), j.ID, true))
		require.NoError(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusPaused}))
		f.tell(j, "h000", 0, release.StepRefused)
		require.NoError(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusCancelling}))
		f.tell(j, "h001", 0, release.StepRefused)
		require.Equal(f, "h000 refused, h001 cancelled, h002 running", f.jobStates(j.ID), "nobody stopped it that was only paused")
	},
	"conclusions about targets": func(f *fixture) {
		ids := hosts(7)
		j := f.job(ids...)
		f.mark(j, ids[:6]...)
		f.tell(j, "h000", 0, release.StepSucceeded)
		f.tell(j, "h001", 0, release.StepUnknown)
		var all []store.JobConclusion
		for i, state := range []job.State{"offline", "offline", "offline", "unknown", "refused", "cancelled", "offline"} {
			all = append(all, store.JobConclusion{ClientID: ids[i], State: state, Error: "so\x00", At: f.now()})
		}
		all = append(all, store.JobConclusion{ClientID: "stranger", State: job.StateOffline})
		require.NoError(f, f.ConcludeJobTargets(f.ctx(), j.ID, all))
		decided := "h000 succeeded, h001 unknown, h002 offline, h003 unknown, h004 refused, h005 cancelled, h006 offline"
		require.Equal(f, decided, f.jobStates(j.ID))
		target, err := f.JobTarget(f.ctx(), j.ID, "h003")
		require.NoError(f, err)
		require.Equal(f, "so\uFFFD", target.Error)
		require.Nil(f, target.ExitCode)
		for i := range all {
			all[i].State = job.StateUnknown
		}
		require.NoError(f, f.ConcludeJobTargets(f.ctx(), j.ID, all), "they are decided")
		require.Equal(f, decided, f.jobStates(j.ID))
		require.Error(f, f.ConcludeJobTargets(f.ctx(), j.ID, []store.JobConclusion{{ClientID: "h000", State: job.StateSucceeded}}))

		// The agent knows better, whatever was concluded.
		for _, id := range []string{"h002", "h003", "h004", "h005"} {
			require.Len(f, f.tell(j, id, 0, release.StepSucceeded), 1)
		}
		require.Equal(f, "h000 succeeded, h001 unknown, h002 succeeded, h003 succeeded, h004 succeeded, h005 succeeded, h006 offline", f.jobStates(j.ID))

		// Verdicts on an earlier try come too late.
		require.Equal(f, 1, f.retry(j, store.JobRetry{Max: 1}))
		require.NoError(f, f.ConcludeJobTargets(f.ctx(), j.ID, all))
		require.Equal(f, "h006", f.inState(j, job.StatePending))
		require.NoError(f, f.ConcludeJobTargets(f.ctx(), j.ID, []store.JobConclusion{{ClientID: "h006", Epoch: 1, State: job.StateRefused, Hopeless: true}}))
		require.Equal(f, "h006", f.inState(j, job.StateRefused))
		require.Zero(f, f.retry(j, store.JobRetry{Max: 9, OnFailure: true}))
	},
	"a journal that was replaced makes commands unknown": func(f *fixture) {
		ids := f.join(3)
		f.connect("n", ids...)
		j, ended := f.job(ids...), f.job(ids...)
		f.mark(j, "h000", "h001")
		f.mark(ended, "h000")
		f.tell(ended, "h000", 0, release.StepSucceeded)
		f.connect("n", "h000")
		require.Equal(f, "h000 running, h001 running, h002 pending", f.jobStates(j.ID))
		_, err := f.ConnectClients(f.ctx(), []release.ClientSession{{ClientID: "h000", NodeID: "n", JournalID: "new", Generation: 1, At: f.now()},
			{ClientID: "h002", NodeID: "n", JournalID: "new", Generation: 1, At: f.now()}})
		require.NoError(f, err)
		require.Equal(f, "h000 unknown, h001 running, h002 pending", f.jobStates(j.ID))
		require.Equal(f, "h000 succeeded, h001 pending, h002 pending", f.jobStates(ended.ID))
		target, err := f.JobTarget(f.ctx(), j.ID, "h000")
		require.NoError(f, err)
		require.Contains(f, target.Error, "journal")
	},
	"jobs and tasks in one batch": func(f *fixture) {
		ids := f.join(2)
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, ids...)
		steps := f.dispatch(task, release.StepDeploy, ids...)
		one, two := f.job("h000", "h001"), f.job("h001")
		f.mark(one, "h000", "h001")
		f.mark(two, "h001")
		changed, err := f.RecordResults(f.ctx(), []release.StepResult{f.result(two, "h001", 0, release.StepSucceeded),
			{StepID: steps["h000"].ID, ClientID: "h000", State: release.StepSucceeded, ExitCode: -1}, f.result(one, "h000", 0, release.StepFailed),
			f.result(one, "h001", 0, release.StepSucceeded)})
		require.NoError(f, err)
		require.Len(f, changed, 4)
		require.Equal(f, "h000 succeeded, h001 running", f.states(task))
		require.Equal(f, "h000 failed, h001 succeeded", f.jobStates(one.ID))
		require.Equal(f, "h001 succeeded", f.jobStates(two.ID))
	},
	"more hosts of a job than a statement takes": func(f *fixture) {
		ids := hosts(f.many() * 2)
		j := f.job(ids...)
		f.mark(j, ids...)
		var batch []release.StepResult
		for _, id := range ids[1:] {
			batch = append(batch, f.result(j, id, 0, release.StepUnknown))
		}
		changed, err := f.RecordResults(f.ctx(), batch)
		require.NoError(f, err)
		require.Len(f, changed, len(ids)-1)
		for i := range batch {
			batch[i].State = release.StepFailed
		}
		changed, err = f.RecordResults(f.ctx(), batch)
		require.NoError(f, err)
		require.Len(f, changed, len(ids)-1)
		require.Equal(f, "h000", f.inState(j, job.StateRunning))
		f.counted(j.ID)
		require.Equal(f, len(ids)-1, f.retry(j, store.JobRetry{Max: 1, OnFailure: true}))
		f.counted(j.ID)

		// Many jobs in one batch.
		batch = nil
		for range f.many() {
			one := f.job("h000")
			f.mark(one, "h000")
			batch = append(batch, f.result(one, "h000", 0, release.StepSucceeded))
		}
		changed, err = f.RecordResults(f.ctx(), batch)
		require.NoError(f, err)
		require.Len(f, changed, len(batch))
		_, total, err := f.Commands(f.ctx(), store.CommandFilter{ClientID: "h000", Status: "completed"})
		require.NoError(f, err)
		require.Equal(f, len(batch), total)
	},
	"the logs of commands": func(f *fixture) {
		j := f.job("h000", "h001")
		other := f.job("h000")
		f.mark(j, "h000", "h001")
		step := func(j job.Job, id string, epoch int) release.Step {
			return release.Step{ID: release.StepID(j.ID, job.StepCommand, id, epoch), ClientID: id}
		}
		require.EqualValues(f, 5, f.log(step(j, "h000", 0), 0, 5, "a"))
		require.EqualValues(f, 5, f.log(step(j, "h000", 0), 0, 5, "a"), "sent again")
		require.EqualValues(f, 3, f.log(step(other, "h000", 0), 0, 3, "b"))
		for _, unknown := range []release.Step{step(j, "stranger", 0), step(job.Job{ID: "none"}, "h000", 0), step(j, "h000", 1), step(j, "h000", -1)} {
			require.EqualValues(f, 9, f.log(unknown, 0, 9, "x"), "so that its agent forgets it")
		}
		foreign := step(j, "h001", 0)
		foreign.ClientID = "h000"
		acks, err := f.AppendLogs(f.ctx(), []release.LogRecord{{StepID: foreign.ID, ClientID: foreign.ClientID, Next: 9, Data: []byte("x")}})
		require.NoError(f, err)
		require.Empty(f, acks)
		records, err := f.Logs(f.ctx(), j.ID, 0, store.LogFilter{}, 0)
		require.NoError(f, err)
		require.Len(f, records, 1)
		require.Equal(f, "h000", records[0].ClientID)
		head, err := f.LogHead(f.ctx(), j.ID)
		require.NoError(f, err)
		require.EqualValues(f, 1, head)

		complete := func() (bool, []string) {
			complete, missing, err := f.LogsComplete(f.ctx(), j.ID)
			require.NoError(f, err)
			return complete, missing
		}
		for _, id := range []string{"h000", "h001"} {
			r := f.result(j, id, 0, release.StepFailed)
			r.LogEnd = 7
			_, err := f.RecordResults(f.ctx(), []release.StepResult{r})
			require.NoError(f, err)
		}
		done, missing := complete()
		require.False(f, done)
		require.Equal(f, []string{"h000", "h001"}, missing)
		f.log(step(j, "h000", 0), 5, 7, "c")
		_, missing = complete()
		require.Equal(f, []string{"h001"}, missing)
		f.retry(j, store.JobRetry{Max: 1, OnFailure: true})
		done, _ = complete()
		require.True(f, done, "no one waits for the log of an earlier try")
		f.log(step(j, "h001", 0), 0, 7, "late")
		f.log(step(j, "h001", 1), 0, 1, "early")
		head, err = f.LogHead(f.ctx(), j.ID)
		require.NoError(f, err)
		require.EqualValues(f, 4, head)
	},
}
