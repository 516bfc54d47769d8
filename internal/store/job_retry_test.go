package store_test

import (
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var jobRetryTests = map[string]func(*fixture){
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
}
