package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var jobTests = map[string]func(*fixture){
	"a job is stored with its targets": func(f *fixture) {
		ids := make([]string, 1200) // more than COPY is used from, and than a statement takes
		for i := range ids {
			ids[len(ids)-1-i] = fmt.Sprintf("h%04d", i)
		}
		retries := 2
		j := job.Job{Kind: job.KindBatch, Command: job.Command{Type: job.ExecShell, Payload: json.RawMessage(`{"command": "échо <&>"}`)},
			Targets: release.Targets{Clients: ids, Selector: "env=prod"}, CreatedBy: "me",
			Options: job.Options{Concurrency: 3, Retries: &retries, MaxFailures: &release.Limit{Percent: 5, IsShare: true}, TaskTimeout: release.Duration(time.Minute)}}
		require.NoError(f, f.CreateJob(f.ctx(), &j, append(ids, ids[0])))
		require.Equal(f, job.StatusStarting, j.Status)
		require.Equal(f, job.WorkflowID(j.ID), j.WorkflowID)
		require.Equal(f, f.now().Truncate(time.Microsecond), j.CreatedAt)
		require.Equal(f, job.Counts{Total: 1200, Pending: 1200}, j.Counts)
		got, err := f.Job(f.ctx(), j.ID)
		require.NoError(f, err)
		require.Empty(f, cmp.Diff(j, got))
		jobs, total, err := f.Jobs(f.ctx(), store.JobFilter{})
		require.NoError(f, err)
		require.Equal(f, 1, total)
		j.Targets.Clients = nil
		require.Empty(f, cmp.Diff([]job.Job{j}, jobs))

		targets, total, err := f.JobTargets(f.ctx(), j.ID, store.JobTargetFilter{State: job.StatePending, Limit: 2, Offset: 7})
		require.NoError(f, err)
		require.Equal(f, 1200, total)
		require.Equal(f, []job.Target{{JobID: j.ID, ClientID: "h0007", State: job.StatePending}, {JobID: j.ID, ClientID: "h0008", State: job.StatePending}}, targets)
		targets, total, err = f.JobTargets(f.ctx(), j.ID, store.JobTargetFilter{ClientIDs: []string{"h0011", "none", "h0003"}})
		require.NoError(f, err)
		require.Equal(f, 2, total)
		require.Equal(f, "h0003", targets[0].ClientID)
		for _, nothing := range []store.JobTargetFilter{{State: job.StateFailed}, {State: "odd"}, {ClientIDs: []string{}}, {FinishedAfter: f.now()}} {
			targets, total, err = f.JobTargets(f.ctx(), j.ID, nothing)
			require.NoError(f, err)
			require.Zero(f, total)
			require.Empty(f, targets)
		}
		target, err := f.JobTarget(f.ctx(), j.ID, "h0003")
		require.NoError(f, err)
		require.Equal(f, job.CommandID(j.ID, "h0003"), target.ID())
		head, err := f.LogHead(f.ctx(), j.ID)
		require.NoError(f, err)
		require.Zero(f, head)
	},
	"what a job must have": func(f *fixture) {
		require.ErrorIs(f, f.CreateJob(f.ctx(), &job.Job{}, nil), release.ErrInvalid)
		many := make([]string, job.MaxTargets+1)
		for i := range many {
			many[i] = fmt.Sprint(i)
		}
		require.ErrorIs(f, f.CreateJob(f.ctx(), &job.Job{}, many), release.ErrInvalid)
		j := f.job("h000")
		require.ErrorIs(f, f.CreateJob(f.ctx(), &job.Job{ID: j.ID}, []string{"h000", "h001"}), release.ErrConflict)
		require.Equal(f, "h000 pending", f.jobStates(j.ID))

		var errs []error
		add := func(err error) { errs = append(errs, err) }
		_, err := f.Job(f.ctx(), "none")
		add(err)
		_, _, err = f.JobTargets(f.ctx(), "none", store.JobTargetFilter{})
		add(err)
		_, err = f.JobTarget(f.ctx(), "none", "h000")
		add(err)
		_, err = f.JobTarget(f.ctx(), j.ID, "none")
		add(err)
		_, _, err = f.FinishedTargets(f.ctx(), "none", 0, 0)
		add(err)
		add(f.SetJobProgress(f.ctx(), "none", store.JobProgress{Status: job.StatusFailed}))
		add(f.SetJobHalt(f.ctx(), "none", true))
		_, err = f.PlanJobChunks(f.ctx(), "none", 1, "")
		add(err)
		_, _, err = f.MarkJobDispatched(f.ctx(), "none", []string{"h000"})
		add(err)
		add(f.ConcludeJobTargets(f.ctx(), "none", nil))
		_, err = f.RetryJob(f.ctx(), "none", store.JobRetry{})
		add(err)
		_, _, err = f.AwaitingJobTargets(f.ctx(), "none")
		add(err)
		_, err = f.WakeJobTargets(f.ctx(), "none")
		add(err)
		_, err = f.GiveUpJobTargets(f.ctx(), "none", f.now())
		add(err)
		for i, err := range errs {
			require.ErrorIs(f, err, release.ErrNotFound, i)
		}
		_, err = f.PlanJobChunks(f.ctx(), j.ID, 0, "")
		require.Error(f, err)
		chunk, err := f.JobChunk(f.ctx(), "none", 1)
		require.NoError(f, err)
		require.Empty(f, chunk)
	},
	"jobs are listed": func(f *fixture) {
		var made []job.Job
		for i := range 4 {
			f.advance(time.Second)
			j := job.Job{Kind: []job.Kind{job.KindBatch, job.KindCommand, job.KindMulti, job.KindStream}[i], Command: job.Command{Type: "ping"}}
			require.NoError(f, f.CreateJob(f.ctx(), &j, []string{"a", "b"}))
			made = append(made, j)
		}
		require.NoError(f, f.SetJobProgress(f.ctx(), made[1].ID, store.JobProgress{Status: job.StatusFailed}))
		for _, c := range []struct {
			filter store.JobFilter
			want   string
			total  int
		}{
			{store.JobFilter{}, "3210", 4},
			{store.JobFilter{Kinds: []job.Kind{job.KindCommand, job.KindStream}}, "31", 2},
			{store.JobFilter{Status: job.StatusStarting}, "320", 3},
			{store.JobFilter{Kinds: []job.Kind{job.KindCommand}, Status: job.StatusStarting}, "", 0},
			{store.JobFilter{Limit: 2, Offset: 1}, "21", 4},
		} {
			jobs, total, err := f.Jobs(f.ctx(), c.filter)
			require.NoError(f, err)
			found := ""
			for _, j := range jobs {
				found += fmt.Sprint(slices.IndexFunc(made, func(m job.Job) bool { return m.ID == j.ID }))
			}
			require.Equal(f, c.want, found)
			require.Equal(f, c.total, total)
		}
		unfinished, err := f.UnfinishedJobs(f.ctx())
		require.NoError(f, err)
		require.Len(f, unfinished, 3)
		require.Equal(f, made[0].ID, unfinished[0].ID)
	},
	"the progress of a job follows the transitions": func(f *fixture) {
		f.join(5)
		j := f.job("h000", "h001", "h002", "h003")
		f.mark(j, "h000", "h001", "h003")
		f.tell(j, "h000", 0, release.StepSucceeded)
		require.NoError(f, f.ConcludeJobTargets(f.ctx(), j.ID, []store.JobConclusion{{ClientID: "h003", State: job.StateOffline}}))
		f.retry(j, store.JobRetry{Offline: true})
		require.NoError(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusRunning, Reason: "so", At: f.now()}))
		got, err := f.Job(f.ctx(), j.ID)
		require.NoError(f, err)
		require.Equal(f, job.StatusRunning, got.Status)
		require.Equal(f, "so", got.Reason)
		require.Equal(f, f.now().Truncate(time.Microsecond), got.UpdatedAt)
		require.Nil(f, got.FinishedAt)
		require.Equal(f, job.Counts{Total: 4, Pending: 2, Running: 1, Succeeded: 1}, got.Counts)
		for _, status := range []job.Status{job.StatusStarting, job.StatusCancelled, "odd"} {
			require.ErrorIs(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: status}), release.ErrConflict)
		}
		plans, err := f.PlanJobChunks(f.ctx(), j.ID, 10, "n")
		require.NoError(f, err)

		f.advance(time.Minute)
		require.NoError(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusTimeout}))
		ended := f.now().Truncate(time.Microsecond)
		require.Equal(f, "h000 succeeded, h001 unknown, h002 skipped, h003 offline", f.jobStates(j.ID))
		target, err := f.JobTarget(f.ctx(), j.ID, "h001")
		require.NoError(f, err)
		require.Contains(f, target.Error, "the job ended before")
		require.Equal(f, ended, *target.FinishedAt)
		target, err = f.JobTarget(f.ctx(), j.ID, "h003")
		require.NoError(f, err)
		require.NotEmpty(f, target.Error)
		require.False(f, target.WaitsForSession)
		finished, _, err := f.FinishedTargets(f.ctx(), j.ID, 0, 0)
		require.NoError(f, err)
		require.Len(f, finished, 4)
		chunk, err := f.JobChunk(f.ctx(), j.ID, plans[0].Chunk)
		require.NoError(f, err)
		require.Empty(f, chunk)

		f.advance(time.Minute)
		require.NoError(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusTimeout}), "said twice")
		require.ErrorIs(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusRunning}), release.ErrConflict)
		got, err = f.Job(f.ctx(), j.ID)
		require.NoError(f, err)
		require.Equal(f, ended, *got.FinishedAt)
		marked, halted, err := f.MarkJobDispatched(f.ctx(), j.ID, []string{"h000", "h001", "h002"})
		require.NoError(f, err)
		require.True(f, halted, "an ended job dispatches nothing")
		require.Empty(f, marked)
		require.Zero(f, f.retry(j, store.JobRetry{Max: 9, OnFailure: true, Offline: true}), "nor does it try again")

		// The agents' late word is taken.
		require.Len(f, f.tell(j, "h001", 0, release.StepSucceeded), 1)
		require.Len(f, f.tell(j, "h003", 0, release.StepRefused), 1)
		require.Empty(f, f.tell(j, "h003", 0, release.StepSucceeded))
		require.Equal(f, "h000 succeeded, h001 succeeded, h002 skipped, h003 cancelled", f.jobStates(j.ID))
	},
	"targets are marked once": func(f *fixture) {
		f.join(1)
		j := f.job("h000", "h001", "h002", "h003", "h004", "h005")
		f.mark(j, "h000", "h001", "h003")
		started := f.now()
		f.tell(j, "h000", 0, release.StepSucceeded)
		require.NoError(f, f.ConcludeJobTargets(f.ctx(), j.ID, []store.JobConclusion{{ClientID: "h003", State: job.StateOffline}, {ClientID: "h004", State: job.StateRefused}}))
		f.retry(j, store.JobRetry{Max: 1, Offline: true, After: f.now().Add(time.Hour)})
		f.advance(time.Minute)
		all := []string{"h003", "h002", "h001", "h000", "h000", "stranger", "h004"}
		marked, halted, err := f.MarkJobDispatched(f.ctx(), j.ID, all)
		require.NoError(f, err)
		require.False(f, halted)
		require.Equal(f, []string{"h001", "h002"}, marked, "not what is decided or has to wait")
		for id, at := range map[string]time.Time{"h001": started, "h002": f.now()} {
			target, err := f.JobTarget(f.ctx(), j.ID, id)
			require.NoError(f, err)
			require.Equal(f, at.Truncate(time.Microsecond), *target.StartedAt)
		}
		require.Equal(f, "h000 succeeded, h001 running, h002 running, h003 pending, h004 pending, h005 pending", f.jobStates(j.ID))
		f.advance(time.Hour)
		marked, _, err = f.MarkJobDispatched(f.ctx(), j.ID, all)
		require.NoError(f, err)
		require.Equal(f, []string{"h001", "h002", "h004"}, marked)
		marked, _, err = f.MarkJobDispatched(f.ctx(), j.ID, nil)
		require.NoError(f, err)
		require.Empty(f, marked)
	},
	"the halt fence of a job": func(f *fixture) {
		ids := hosts(40)
		j := f.job(ids...)
		var raised atomic.Bool
		errs := together(len(ids)+1, func(i int) error {
			if i == len(ids) {
				err := f.SetJobHalt(f.ctx(), j.ID, true)
				raised.Store(true)
				return err
			}
			late := raised.Load()
			marked, halted, err := f.MarkJobDispatched(f.ctx(), j.ID, ids[i:i+1])
			if err == nil && (late && !halted || halted == (len(marked) > 0)) {
				err = fmt.Errorf("%s: marked %v, halted %v, after the fence %v", ids[i], marked, halted, late)
			}
			return err
		})
		require.NoError(f, errors.Join(errs...))
		running, _, err := f.JobTargets(f.ctx(), j.ID, store.JobTargetFilter{State: job.StateRunning})
		require.NoError(f, err)
		marked, halted, err := f.MarkJobDispatched(f.ctx(), j.ID, ids)
		require.NoError(f, err)
		require.True(f, halted)
		require.Len(f, marked, len(running), "what was dispatched already is not held back")
		require.NoError(f, f.SetJobHalt(f.ctx(), j.ID, false))
		f.mark(j, ids...)
	},
	"chunks of a job are of one node and of limited size": func(f *fixture) {
		ids := f.join(10)
		f.connect("a", ids[0:3]...)
		f.connect("b", ids[3:8]...) // the last two never had a session
		j := f.job(append(ids, "h010", "h011", "h012")...)
		require.NoError(f, f.ConcludeJobTargets(f.ctx(), j.ID, []store.JobConclusion{{ClientID: "h010", State: job.StateOffline}, {ClientID: "h011", State: job.StateRefused},
			{ClientID: "h012", State: job.StateUnknown}}))
		f.retry(j, store.JobRetry{Max: 1, Offline: true, After: f.now().Add(time.Hour)})
		plans, err := f.PlanJobChunks(f.ctx(), j.ID, 2, "c")
		require.NoError(f, err)
		require.Equal(f, []store.ChunkPlan{{1, "a", 2}, {2, "a", 1}, {3, "b", 2}, {4, "b", 2}, {5, "b", 1}, {6, "c", 2}}, plans)
		chunk, err := f.JobChunk(f.ctx(), j.ID, 4)
		require.NoError(f, err)
		require.Equal(f, []job.Target{{JobID: j.ID, ClientID: "h005", State: job.StatePending}, {JobID: j.ID, ClientID: "h006", State: job.StatePending}}, chunk)

		// Planned again are those that are open, the running ones, too.
		f.mark(j, "h003", "h004", "h005")
		f.tell(j, "h005", 0, release.StepFailed)
		chunk, err = f.JobChunk(f.ctx(), j.ID, 4)
		require.NoError(f, err)
		require.Equal(f, job.StateFailed, chunk[0].State)
		f.connect("a", "h004")
		plans, err = f.PlanJobChunks(f.ctx(), j.ID, 100, "c")
		require.NoError(f, err)
		require.Equal(f, []store.ChunkPlan{{7, "a", 4}, {8, "b", 3}, {9, "c", 2}}, plans)
		chunk, err = f.JobChunk(f.ctx(), j.ID, 7)
		require.NoError(f, err)
		require.Equal(f, job.StateRunning, chunk[3].State)
		chunk, err = f.JobChunk(f.ctx(), j.ID, 2)
		require.NoError(f, err)
		require.Empty(f, chunk, "a dispatch of the old plan finds nothing")
		f.advance(time.Hour)
		plans, err = f.PlanJobChunks(f.ctx(), j.ID, 100, "c")
		require.NoError(f, err)
		require.Equal(f, store.ChunkPlan{Chunk: 12, NodeID: "c", Size: 3}, plans[2], "with that whose time has come")
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
			{State: job.StateRefused},
			{State: job.StateRefused},
			{State: job.StateCancelled, ExitCode: &much},
		}
		for i := range want {
			want[i].JobID, want[i].ClientID, want[i].StartedAt, want[i].FinishedAt = j.ID, fmt.Sprintf("h%03d", i), &began, &ended
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
	"who may be tried again": func(f *fixture) {
		states := []job.State{job.StateOffline, job.StateRefused, job.StateFailed, job.StateTimeout, job.StateUnknown, job.StateCancelled, job.StateSucceeded}
		set := func(j job.Job) {
			f.mark(j, hosts(len(states))...)
			for i, s := range states {
				id := hosts(len(states))[i]
				r := f.result(j, id, 0, map[job.State]release.StepState{job.StateRefused: release.StepRefused, job.StateFailed: release.StepFailed, job.StateTimeout: release.StepFailed,
					job.StateUnknown: release.StepUnknown, job.StateCancelled: release.StepCancelled, job.StateSucceeded: release.StepSucceeded}[s])
				r.TimedOut = s == job.StateTimeout
				if s == job.StateOffline {
					require.NoError(f, f.ConcludeJobTargets(f.ctx(), j.ID, []store.JobConclusion{{ClientID: id, State: s}}))
					continue
				}
				_, err := f.RecordResults(f.ctx(), []release.StepResult{r})
				require.NoError(f, err)
			}
		}
		for _, onFailure := range []bool{false, true} {
			j := f.job(append(hosts(len(states)), "h900")...)
			set(j)
			require.Zero(f, f.retry(j, store.JobRetry{OnFailure: onFailure}), "no try is left")
			after := f.now().Add(time.Minute).Truncate(time.Microsecond)
			var again []string
			for i, s := range states {
				if job.RetryState(s, job.Options{RetryOnFailure: onFailure}) {
					again = append(again, hosts(len(states))[i])
				}
			}
			require.Equal(f, len(again), f.retry(j, store.JobRetry{Max: 1, OnFailure: onFailure, After: after}))
			require.Equal(f, strings.Join(append(again, "h900"), " "), f.inState(j, job.StatePending))
			target, err := f.JobTarget(f.ctx(), j.ID, again[0])
			require.NoError(f, err)
			require.Equal(f, after, *target.NotBefore)
			require.Equal(f, 1, target.Epoch)
		}
	},
	"hosts that are offline are waited for": func(f *fixture) {
		f.join(4)
		j := f.job("h000", "h001", "h002", "h003")
		for _, id := range []string{"h000", "h001", "h002"} {
			require.NoError(f, f.ConcludeJobTargets(f.ctx(), j.ID, []store.JobConclusion{{ClientID: id, State: job.StateOffline, Error: "no session"}}))
		}
		require.Equal(f, 3, f.retry(j, store.JobRetry{Offline: true}), "though no try is left")
		target, err := f.JobTarget(f.ctx(), j.ID, "h000")
		require.NoError(f, err)
		require.Equal(f, job.Target{JobID: j.ID, ClientID: "h000", State: job.StatePending, WaitsForSession: true}, target)
		awaiting := func() []int {
			waiting, connected, err := f.AwaitingJobTargets(f.ctx(), j.ID)
			require.NoError(f, err)
			return []int{waiting, connected}
		}
		require.Equal(f, []int{3, 0}, awaiting())
		f.connect("n", "h001", "h002", "h003")
		require.Equal(f, []int{3, 2}, awaiting())
		plans, err := f.PlanJobChunks(f.ctx(), j.ID, 10, "d")
		require.NoError(f, err)
		require.Equal(f, []store.ChunkPlan{{1, "n", 1}}, plans)

		// One answers before it is asked again: its first dispatch had reached it.
		require.Len(f, f.tell(j, "h002", 0, release.StepSucceeded), 1)
		require.Equal(f, []int{2, 1}, awaiting())
		woken, err := f.WakeJobTargets(f.ctx(), j.ID)
		require.NoError(f, err)
		require.Equal(f, 1, woken)
		require.Equal(f, []int{1, 0}, awaiting())
		plans, err = f.PlanJobChunks(f.ctx(), j.ID, 10, "d")
		require.NoError(f, err)
		require.Equal(f, []store.ChunkPlan{{2, "n", 2}}, plans)
		f.mark(j, "h001", "h003")
		given, err := f.GiveUpJobTargets(f.ctx(), j.ID, f.now())
		require.NoError(f, err)
		require.Equal(f, 1, given)
		require.Equal(f, []int{0, 0}, awaiting())
		require.Equal(f, "h000 offline, h001 running, h002 succeeded, h003 running", f.jobStates(j.ID))
		given, err = f.GiveUpJobTargets(f.ctx(), j.ID, f.now())
		require.NoError(f, err)
		require.Zero(f, given)
	},
	"finished targets come in the order in which they were decided": func(f *fixture) {
		j := f.job(hosts(6)...)
		f.mark(j, hosts(5)...)
		for _, id := range []string{"h003", "h001"} {
			f.tell(j, id, 0, release.StepFailed)
		}
		require.NoError(f, f.ConcludeJobTargets(f.ctx(), j.ID, []store.JobConclusion{{ClientID: "h000", State: job.StateUnknown}}))
		next := func(after store.TargetCursor, limit int) (string, store.TargetCursor) {
			targets, cursor, err := f.FinishedTargets(f.ctx(), j.ID, after, limit)
			require.NoError(f, err)
			var words []string
			for _, t := range targets {
				words = append(words, t.ClientID+" "+string(t.State))
			}
			return strings.Join(words, ", "), cursor
		}
		found, first := next(0, 2)
		require.Equal(f, "h003 failed, h001 failed", found)
		found, second := next(first, 0)
		require.Equal(f, "h000 unknown", found)
		found, end := next(second, 0)
		require.Empty(f, found)
		require.Equal(f, second, end)

		// What is decided again comes again, and only then.
		f.retry(j, store.JobRetry{Max: 1, OnFailure: true})
		found, _ = next(0, 0)
		require.Equal(f, "h000 unknown", found)
		f.tell(j, "h000", 0, release.StepSucceeded)
		f.mark(j, "h001", "h003")
		f.tell(j, "h003", 1, release.StepSucceeded)
		found, end = next(second, 0)
		require.Equal(f, "h000 succeeded, h003 succeeded", found)
		require.NoError(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusFailed}))
		found, cursor := next(end, 3)
		rest, _ := next(cursor, 0)
		require.ElementsMatch(f, []string{"h001 unknown", "h002 unknown", "h004 unknown", "h005 skipped"}, strings.Split(found+", "+rest, ", "))
	},
	"a reader of finished targets that resumes sees each once": func(f *fixture) {
		ids := hosts(120)
		j := f.job(ids...)
		f.mark(j, ids...)
		told := make(chan error, 1)
		go func() { // ends before this function does
			told <- errors.Join(together(6, func(i int) error {
				for k := i * 20; k < (i+1)*20; k += 4 {
					var batch []release.StepResult
					for _, id := range ids[k : k+4] {
						batch = append(batch, f.result(j, id, 0, release.StepSucceeded))
					}
					if _, err := f.RecordResults(f.ctx(), batch); err != nil {
						return err
					}
				}
				return nil
			})...)
		}()
		seen := map[string]bool{}
		cursor, deadline := store.TargetCursor(0), time.Now().Add(30*time.Second)
		for len(seen) < len(ids) && time.Now().Before(deadline) {
			targets, next, err := f.FinishedTargets(f.ctx(), j.ID, cursor, 7)
			if err != nil {
				require.NoError(f, errors.Join(err, <-told))
			}
			for _, t := range targets {
				require.False(f, seen[t.ClientID], t.ClientID)
				seen[t.ClientID] = true
			}
			cursor = next
		}
		require.NoError(f, <-told)
		require.Len(f, seen, len(ids), "none is skipped")
	},
	"the history of commands": func(f *fixture) {
		create := func(kind string, ids ...string) job.Job {
			j := job.Job{Kind: job.KindBatch, Command: job.Command{Type: kind, Payload: json.RawMessage(`{"n": 1}`)}, Targets: release.Targets{Selector: "*"}}
			require.NoError(f, f.CreateJob(f.ctx(), &j, ids))
			return j
		}
		jobs := map[string]job.Job{}
		for i, ids := range [][]string{{"a"}, {"a", "b", "c"}, {"b"}, {"a", "c"}} {
			jobs[fmt.Sprint(i)] = create([]string{"ping", "echo"}[i%2], ids...)
		}
		f.mark(jobs["1"], "a", "b")
		f.tell(jobs["1"], "a", 0, release.StepFailed)
		require.NoError(f, f.ConcludeJobTargets(f.ctx(), jobs["2"].ID, []store.JobConclusion{{ClientID: "b", State: job.StateOffline}}))
		for _, c := range []struct {
			filter store.CommandFilter
			want   string
			total  int
		}{
			{store.CommandFilter{}, "3a 3c 2b 1a 1b 1c 0a", 7},
			{store.CommandFilter{Limit: 3, Offset: 1}, "3c 2b 1a", 7},
			{store.CommandFilter{Limit: 3, Offset: 5}, "1c 0a", 7},
			{store.CommandFilter{Offset: 7}, "", 7},
			{store.CommandFilter{CommandType: "echo"}, "3a 3c 1a 1b 1c", 5},
			{store.CommandFilter{CommandType: "echo", Offset: 3, Limit: 1}, "1b", 5},
			{store.CommandFilter{Status: "failed"}, "2b 1a", 2},
			{store.CommandFilter{Status: "pending", Offset: 2, Limit: 2}, "1c 0a", 4},
			{store.CommandFilter{Status: "executing", CommandType: "ping"}, "", 0},
			{store.CommandFilter{Status: "odd"}, "", 0},
			{store.CommandFilter{ClientID: "a"}, "3a 1a 0a", 3},
			{store.CommandFilter{ClientID: "a", Limit: 1, Offset: 1}, "1a", 3},
			{store.CommandFilter{ClientID: "b"}, "2b 1b", 2},
			{store.CommandFilter{ClientID: "b", Status: "executing"}, "1b", 1},
			{store.CommandFilter{ClientID: "a", CommandType: "ping"}, "0a", 1},
			{store.CommandFilter{ClientID: "none"}, "", 0},
		} {
			commands, total, err := f.Commands(f.ctx(), c.filter)
			require.NoError(f, err)
			var words []string
			for _, command := range commands {
				for name, j := range jobs {
					if j.ID == command.Job.ID {
						words = append(words, name+command.Target.ClientID)
						require.Equal(f, j.Command, command.Job.Command)
						require.Equal(f, j.ID, command.Target.JobID)
						require.Empty(f, cmp.Diff(job.Counts{}, command.Job.Counts))
					}
				}
			}
			require.Equal(f, c.want, strings.Join(words, " "), "%+v", c.filter)
			require.Equal(f, c.total, total, "%+v", c.filter)
		}
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
	"a job is deleted with all that belongs to it": func(f *fixture) {
		j, stays := f.job("h000", "h001"), f.job("h000")
		for _, each := range []job.Job{j, stays} {
			f.mark(each, "h000")
			f.log(release.Step{ID: release.StepID(each.ID, job.StepCommand, "h000", 0), ClientID: "h000"}, 0, 5, "a")
			_, err := f.PlanJobChunks(f.ctx(), each.ID, 10, "n")
			require.NoError(f, err)
		}
		n, err := f.DeleteJobs(f.ctx(), []string{j.ID})
		require.NoError(f, err)
		require.Zero(f, n, "it has not ended")
		require.NoError(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusFailed}))
		n, err = f.DeleteJobs(f.ctx(), []string{j.ID, "none", j.ID, stays.ID})
		require.NoError(f, err)
		require.Equal(f, 1, n)
		_, err = f.Job(f.ctx(), j.ID)
		require.ErrorIs(f, err, release.ErrNotFound)
		_, err = f.LogHead(f.ctx(), j.ID)
		require.ErrorIs(f, err, release.ErrNotFound)
		require.Equal(f, map[string]int{"jobs": 1, "job_specs": 1, "job_targets": 1, "job_chunks": 1, "task_log_heads": 1, "task_logs": 1, "step_logs": 1},
			f.rows("jobs", "job_specs", "job_targets", "job_chunks", "task_log_heads", "task_logs", "step_logs"))
		require.Empty(f, f.tell(j, "h000", 0, release.StepSucceeded), "its late results are acknowledged")
		f.log(release.Step{ID: release.StepID(j.ID, job.StepCommand, "h000", 0), ClientID: "h000"}, 5, 6, "b")
		require.Equal(f, map[string]int{"task_logs": 1}, f.rows("task_logs"))
	},
	"everyone writes to jobs at once": func(f *fixture) {
		ids := f.join(40)
		f.connect("node", ids...)
		jobs := []job.Job{f.job(ids...), f.job(ids...), f.job(ids...)}
		shuffled := slices.Clone(ids)
		slices.Reverse(shuffled)
		errs := together(30, func(i int) error {
			j, mine := jobs[i%3], ids
			if i%2 == 0 {
				mine = shuffled
			}
			switch i / 3 {
			case 0, 1:
				_, _, err := f.MarkJobDispatched(f.ctx(), j.ID, mine)
				return err
			case 2:
				_, err := f.PlanJobChunks(f.ctx(), j.ID, 7, "node")
				return err
			case 3:
				var sessions []release.ClientSession
				for _, id := range mine {
					sessions = append(sessions, release.ClientSession{ClientID: id, NodeID: "node", JournalID: fmt.Sprint("new ", i)})
				}
				_, err := f.ConnectClients(f.ctx(), sessions)
				return err
			case 4, 5, 6:
				var batch []release.StepResult
				for k, id := range mine {
					batch = append(batch, f.result(jobs[(i+k)%3], id, 0, []release.StepState{release.StepUnknown, release.StepSucceeded, release.StepFailed}[i%3]))
				}
				_, err := f.RecordResults(f.ctx(), batch)
				return err
			case 7:
				var all []store.JobConclusion
				for _, id := range mine {
					all = append(all, store.JobConclusion{ClientID: id, State: job.StateOffline})
				}
				return f.ConcludeJobTargets(f.ctx(), j.ID, all)
			case 8:
				_, err := f.RetryJob(f.ctx(), j.ID, store.JobRetry{Max: 2, OnFailure: true, Offline: i%2 == 0})
				_, woken := f.WakeJobTargets(f.ctx(), j.ID)
				return errors.Join(err, woken)
			default:
				return f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusFailed})
			}
		})
		require.NoError(f, errors.Join(errs...), "no deadlock")
		for _, j := range jobs {
			f.counted(j.ID)
		}
	},
}

// hosts gives n ids of clients.
func hosts(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("h%03d", i)
	}
	return ids
}

// job makes a job for clients.
func (f *fixture) job(ids ...string) job.Job {
	f.Helper()
	j := job.Job{Kind: job.KindBatch, Command: job.Command{Type: "ping"}, Targets: release.Targets{Clients: ids}}
	require.NoError(f, f.CreateJob(f.ctx(), &j, ids))
	return j
}

// mark marks targets of a job as dispatched, which all may be.
func (f *fixture) mark(j job.Job, ids ...string) {
	f.Helper()
	f.advance(time.Second)
	marked, halted, err := f.MarkJobDispatched(f.ctx(), j.ID, ids)
	require.NoError(f, err)
	require.False(f, halted)
	require.True(f, slices.Equal(slices.Sorted(slices.Values(ids)), marked))
}

// result gives what an agent reports of a command.
func (f *fixture) result(j job.Job, id string, epoch int, state release.StepState) release.StepResult {
	r := release.StepResult{StepID: release.StepID(j.ID, job.StepCommand, id, epoch), ClientID: id, State: state, ExitCode: -1, FinishedAt: f.now()}
	if state != release.StepSucceeded {
		r.Error = string(state)
	}
	return r
}

// tell has an agent report a result of a command, and gives what that changed.
func (f *fixture) tell(j job.Job, id string, epoch int, state release.StepState) []release.Step {
	f.Helper()
	changed, err := f.RecordResults(f.ctx(), []release.StepResult{f.result(j, id, epoch, state)})
	require.NoError(f, err)
	return changed
}

// retry tries targets again, and gives their number.
func (f *fixture) retry(j job.Job, r store.JobRetry) int {
	f.Helper()
	n, err := f.RetryJob(f.ctx(), j.ID, r)
	require.NoError(f, err)
	return n
}

// jobStates writes the states of a job's targets, as "h000 succeeded, h001 pending", and checks its counts by them.
func (f *fixture) jobStates(id string) string {
	f.Helper()
	var words []string
	for _, t := range f.counted(id) {
		words = append(words, t.ClientID+" "+string(t.State))
	}
	return strings.Join(words, ", ")
}

// inState gives the targets of a job in a state, as "h000 h001".
func (f *fixture) inState(j job.Job, s job.State) string {
	f.Helper()
	targets, total, err := f.JobTargets(f.ctx(), j.ID, store.JobTargetFilter{State: s})
	require.NoError(f, err)
	require.Len(f, targets, total)
	ids := make([]string, len(targets))
	for i, t := range targets {
		ids[i] = t.ClientID
	}
	return strings.Join(ids, " ")
}

// counted gives the targets of a job, whose counts must be theirs.
func (f *fixture) counted(id string) []job.Target {
	f.Helper()
	targets, total, err := f.JobTargets(f.ctx(), id, store.JobTargetFilter{})
	require.NoError(f, err)
	require.Len(f, targets, total)
	var counts job.Counts
	for _, t := range targets {
		counts.Add(t.State, 1)
	}
	j, err := f.Job(f.ctx(), id)
	require.NoError(f, err)
	require.Equal(f, counts, j.Counts)
	return targets
}

// rows counts the rows of tables.
func (f *fixture) rows(tables ...string) map[string]int {
	f.Helper()
	counts := map[string]int{}
	for _, table := range tables {
		n, err := f.CountRows(f.ctx(), table)
		require.NoError(f, err)
		counts[table] = n
	}
	return counts
}
