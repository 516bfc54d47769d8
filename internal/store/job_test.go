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
		require.Equal(f, release.Targets{Selector: "env=prod"}, j.Targets, "so long a list is not kept")
		got, err := f.Job(f.ctx(), j.ID)
		require.NoError(f, err)
		require.Empty(f, cmp.Diff(j, got))
		jobs, total, err := f.Jobs(f.ctx(), store.JobFilter{})
		require.NoError(f, err)
		require.Equal(f, 1, total)
		require.Empty(f, cmp.Diff([]job.Job{j}, jobs))
		short := f.job("h1", "h0")
		got, err = f.Job(f.ctx(), short.ID)
		require.NoError(f, err)
		require.Equal(f, []string{"h1", "h0"}, got.Targets.Clients)

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
		_, _, err = f.MarkJobChunk(f.ctx(), "none", 1, []string{"h000"})
		add(err)
		add(f.ConcludeJobTargets(f.ctx(), "none", nil))
		_, _, err = f.RetryJob(f.ctx(), "none", store.JobRetry{})
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
		chunk, err := f.JobSteps(f.ctx(), "none", 1)
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
		chunk, err := f.JobSteps(f.ctx(), j.ID, plans[0].Chunk)
		require.NoError(f, err)
		require.Empty(f, chunk)

		f.advance(time.Minute)
		require.NoError(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusTimeout}), "said twice")
		require.ErrorIs(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusRunning}), release.ErrConflict)
		got, err = f.Job(f.ctx(), j.ID)
		require.NoError(f, err)
		require.Equal(f, ended, *got.FinishedAt)
		marked, halted, err := f.MarkJobChunk(f.ctx(), j.ID, plans[0].Chunk, []string{"h000", "h001", "h002"})
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
				plans, err := f.PlanJobChunks(f.ctx(), j.ID, len(ids), "node")
				if err == nil && len(plans) > 0 {
					_, _, err = f.MarkJobChunk(f.ctx(), j.ID, plans[0].Chunk, mine)
				}
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
				_, _, err := f.RetryJob(f.ctx(), j.ID, store.JobRetry{Max: 2, OnFailure: true, Offline: i%2 == 0})
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
		chunk, err := f.JobSteps(f.ctx(), j.ID, 4)
		require.NoError(f, err)
		require.Equal(f, []store.JobStep{{ClientID: "h005", State: job.StatePending}, {ClientID: "h006", State: job.StatePending}}, chunk)

		// Planned again are those that are open, the running ones, too.
		for i, id := range []string{"h003", "h004", "h005"} {
			_, _, err := f.MarkJobChunk(f.ctx(), j.ID, plans[2+i/2].Chunk, []string{id})
			require.NoError(f, err)
		}
		f.tell(j, "h005", 0, release.StepFailed)
		chunk, err = f.JobSteps(f.ctx(), j.ID, 4)
		require.NoError(f, err)
		require.Equal(f, job.StateFailed, chunk[0].State)
		f.connect("a", "h004")
		plans, err = f.PlanJobChunks(f.ctx(), j.ID, 100, "c")
		require.NoError(f, err)
		require.Equal(f, []store.ChunkPlan{{7, "a", 4}, {8, "b", 3}, {9, "c", 2}}, plans)
		chunk, err = f.JobSteps(f.ctx(), j.ID, 7)
		require.NoError(f, err)
		require.Equal(f, job.StateRunning, chunk[3].State)
		chunk, err = f.JobSteps(f.ctx(), j.ID, 2)
		require.NoError(f, err)
		require.Empty(f, chunk, "a dispatch of the old plan finds nothing")
		f.advance(time.Hour)
		plans, err = f.PlanJobChunks(f.ctx(), j.ID, 100, "c")
		require.NoError(f, err)
		require.Equal(f, store.ChunkPlan{Chunk: 12, NodeID: "c", Size: 3}, plans[2], "with that whose time has come")
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
		marked, halted, err := f.MarkJobChunk(f.ctx(), j.ID, f.chunk(j.ID), all)
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
		marked, _, err = f.MarkJobChunk(f.ctx(), j.ID, f.chunk(j.ID), all)
		require.NoError(f, err)
		require.Equal(f, []string{"h001", "h002", "h004"}, marked)
		marked, _, err = f.MarkJobChunk(f.ctx(), j.ID, f.chunk(j.ID), nil)
		require.NoError(f, err)
		require.Empty(f, marked)
	},
	"the halt fence of a job": func(f *fixture) {
		ids := hosts(40)
		j := f.job(ids...)
		chunk := f.chunk(j.ID)
		var raised atomic.Bool
		errs := together(len(ids)+1, func(i int) error {
			if i == len(ids) {
				err := f.SetJobHalt(f.ctx(), j.ID, true)
				raised.Store(true)
				return err
			}
			late := raised.Load()
			marked, halted, err := f.MarkJobChunk(f.ctx(), j.ID, chunk, ids[i:i+1])
			if err == nil && (late && !halted || halted == (len(marked) > 0)) {
				err = fmt.Errorf("%s: marked %v, halted %v, after the fence %v", ids[i], marked, halted, late)
			}
			return err
		})
		require.NoError(f, errors.Join(errs...))
		running, _, err := f.JobTargets(f.ctx(), j.ID, store.JobTargetFilter{State: job.StateRunning})
		require.NoError(f, err)
		marked, halted, err := f.MarkJobChunk(f.ctx(), j.ID, chunk, ids)
		require.NoError(f, err)
		require.True(f, halted)
		require.Len(f, marked, len(running), "what was dispatched already is not held back")
		require.NoError(f, f.SetJobHalt(f.ctx(), j.ID, false))
		f.mark(j, ids...)
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
	marked, halted, err := f.MarkJobChunk(f.ctx(), j.ID, f.chunk(j.ID), ids)
	require.NoError(f, err)
	require.False(f, halted)
	require.True(f, slices.Equal(slices.Sorted(slices.Values(ids)), marked))
}

// chunk plans a job, and gives a chunk of the plan; 0 if it has none.
func (f *fixture) chunk(jobID string) int {
	f.Helper()
	plans, err := f.PlanJobChunks(f.ctx(), jobID, 1000, "n")
	require.NoError(f, err)
	if len(plans) == 0 {
		return 0
	}
	return plans[0].Chunk
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
	n, counts, err := f.RetryJob(f.ctx(), j.ID, r)
	require.NoError(f, err)
	stored, err := f.Job(f.ctx(), j.ID)
	require.NoError(f, err)
	require.Equal(f, stored.Counts, counts)
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
