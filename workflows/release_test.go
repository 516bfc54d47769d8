package workflows

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"pgregory.net/rapid"

	"github.com/quicflow/quicflow/internal/release"
)

func canary(soak time.Duration, promote release.Promotion) release.Strategy {
	return release.Strategy{Canary: &release.Canary{Percent: 20, Soak: release.Duration(soak), Promote: promote}, MaxParallel: 5}
}

func TestCanaryThenWaves(t *testing.T) {
	s := canary(time.Hour, release.PromoteAuto)
	s.Waves = []float64{50, 100}
	f := newFleet(10, s)
	require.NoError(t, run(t, f, nil))
	f.requireSound(t)
	require.Equal(t, release.StatusSucceeded, f.last().Status)
	require.Equal(t, []release.Phase{release.PhaseCanary, release.PhaseSoak, release.PhaseWave, release.PhaseDone}, f.phases())
	for _, h := range f.hosts {
		require.Equal(t, 1, h.deployed)
	}
	require.LessOrEqual(t, f.mostAtWork, 5)
}

func TestFailedCanaryTouchesNothingElse(t *testing.T) {
	for onFailure, want := range map[release.OnFailure]release.Status{
		release.OnFailureStop: release.StatusFailed, release.OnFailureRollback: release.StatusRolledBack,
	} {
		s := canary(0, release.PromoteAuto)
		s.OnFailure, s.MaxFailures = onFailure, release.Limit{Count: 9}
		f := newFleet(10, s)
		f.outcome = func(h *host, step release.StepName) release.TargetState {
			if step == release.StepDeploy && h == f.hosts[1] {
				return release.TargetFailed
			}
			return release.TargetSucceeded
		}
		require.NoError(t, run(t, f, nil))
		f.requireSound(t)
		require.Equal(t, want, f.last().Status)
		require.Contains(t, f.last().Reason, "1 of 2 canary hosts failed")
		require.Equal(t, []int{0}, f.touched())
	}
}

func TestOfflineHostsAreCountedNotWaitedFor(t *testing.T) {
	f := newFleet(10, canary(0, release.PromoteAuto))
	f.outcome = func(h *host, _ release.StepName) release.TargetState {
		if h == f.hosts[9] {
			return release.TargetOffline
		}
		return release.TargetSucceeded
	}
	require.NoError(t, run(t, f, nil))
	f.requireSound(t)
	require.Equal(t, release.StatusPartial, f.last().Status)
	require.Contains(t, f.last().Reason, "9 of 10 hosts did it: 0 failed, 0 unknown, 1 offline")
}

func TestHubFailuresAreChargedToNoHost(t *testing.T) {
	failures := map[int]error{
		1: drained(),
		2: temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_HEARTBEAT, nil),
		3: temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil),
		6: errors.New("database is away"),
	}
	f := newFleet(20, canary(0, release.PromoteAuto))
	f.failRound = func(round int) error { return failures[round] }
	require.NoError(t, run(t, f, nil))
	f.requireSound(t)
	require.Equal(t, release.StatusSucceeded, f.last().Status)
}

func TestManualPromotionWaitsForAPerson(t *testing.T) {
	f := newFleet(10, canary(time.Minute, release.PromoteManual))
	early := &answer{}
	late := &answer{}
	require.NoError(t, run(t, f, func(env *testsuite.TestWorkflowEnvironment) {
		env.RegisterDelayedCallback(func() {
			require.Equal(t, release.PhasePromotion, f.last().Phase)
			require.Equal(t, []int{0}, f.touched())
			env.UpdateWorkflow(UpdatePromote, "u1", early, Decision{By: "mei"})
		}, 24*time.Hour)
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdatePromote, "u1", late, Decision{By: "mei"}) }, 24*time.Hour+time.Millisecond)
	}))
	f.requireSound(t)
	require.True(t, early.accepted)
	require.Equal(t, release.StatusSucceeded, f.last().Status)
}

func TestUpdatesThatDoNotFitAreRejected(t *testing.T) {
	f := newFleet(10, canary(time.Hour, release.PromoteAuto))
	rejected := map[string]*answer{UpdateResume: {}, "pause twice": {}, "promote while paused": {}}
	require.NoError(t, run(t, f, func(env *testsuite.TestWorkflowEnvironment) {
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdateResume, "r", rejected[UpdateResume], Decision{}) }, time.Minute)
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdatePause, "p", &answer{}, Decision{}) }, 2*time.Minute)
		env.RegisterDelayedCallback(func() {
			env.UpdateWorkflow(UpdatePause, "p2", rejected["pause twice"], Decision{})
			env.UpdateWorkflow(UpdatePromote, "pr", rejected["promote while paused"], Decision{})
		}, 3*time.Minute)
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdateResume, "r2", &answer{}, Decision{}) }, 5*time.Hour)
	}))
	for name, a := range rejected {
		require.Error(t, a.rejected, name)
		var application *temporal.ApplicationError
		require.ErrorAs(t, a.rejected, &application, name)
		require.Equal(t, ErrTypeConflict, application.Type())
	}
	f.requireSound(t)
	require.Equal(t, release.StatusSucceeded, f.last().Status)
}

func TestPausedSoakDoesNotGoOn(t *testing.T) {
	f := newFleet(10, canary(time.Hour, release.PromoteAuto))
	require.NoError(t, run(t, f, func(env *testsuite.TestWorkflowEnvironment) {
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdatePause, "p", &answer{}, Decision{By: "mei", Reason: "lunch"}) }, time.Minute)
		env.RegisterDelayedCallback(func() {
			require.Equal(t, []int{0}, f.touched())
			require.Equal(t, release.StatusPaused, f.last().Status)
			require.Equal(t, "paused by mei: lunch", f.last().Reason)
			env.UpdateWorkflow(UpdateResume, "r", &answer{}, Decision{By: "mei"})
		}, 10*time.Hour)
	}))
	f.requireSound(t)
	require.Equal(t, release.StatusSucceeded, f.last().Status)
}

func TestAbortAndRollbackInTheSoak(t *testing.T) {
	for update, want := range map[string]release.Status{UpdateAbort: release.StatusAborted, UpdateRollback: release.StatusRolledBack} {
		f := newFleet(10, canary(time.Hour, release.PromoteAuto))
		again := &answer{}
		require.NoError(t, run(t, f, func(env *testsuite.TestWorkflowEnvironment) {
			env.RegisterDelayedCallback(func() {
				env.UpdateWorkflow(update, "u", &answer{}, Decision{By: "mei"})
				env.UpdateWorkflow(UpdatePromote, "late", again, Decision{By: "mei"})
			}, time.Minute)
		}))
		f.requireSound(t)
		require.Error(t, again.rejected)
		require.Equal(t, want, f.last().Status)
		require.Equal(t, []int{0}, f.touched())
		for _, h := range f.hosts {
			require.Equal(t, want == release.StatusRolledBack && h.wave == 0, h.returned == 1)
		}
	}
}

// TestHostsAtWorkAreSeenThroughBeforeARolloutGivesUp loses a hub when the budget is spent and a host is at work.
func TestHostsAtWorkAreSeenThroughBeforeARolloutGivesUp(t *testing.T) {
	f := newFleet(4, release.Strategy{})
	f.failRound = func(round int) error {
		if round > 1 {
			return nil
		}
		f.hosts[0].state, f.hosts[0].deployed = release.TargetFailed, 1
		f.hosts[1].state = release.TargetRunning
		return drained()
	}
	require.NoError(t, run(t, f, nil))
	f.requireSound(t)
	require.Equal(t, release.StatusFailed, f.last().Status)
	require.Equal(t, release.Counts{Total: 4, Failed: 1, Succeeded: 1, Pending: 2}, f.counts().All)
}

// TestPauseAtTheLastMomentHolds has someone pause when every host is done and the rollout is about to say so.
func TestPauseAtTheLastMomentHolds(t *testing.T) {
	f := newFleet(3, release.Strategy{})
	require.NoError(t, run(t, f, func(env *testsuite.TestWorkflowEnvironment) {
		done := func() bool { all := f.counts().All; return all.Succeeded == all.Total }
		pauses := onActivity(env, ActivityCountTargets, done, func() { env.UpdateWorkflow(UpdatePause, "p", &answer{}, Decision{By: "mei"}) })
		f.beforeCount = func(release.Counts) {
			if pauses.Load() {
				require.Eventually(t, func() bool { return f.wrote(release.StatusPaused) }, 5*time.Second, time.Millisecond)
			}
		}
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdateResume, "r", &answer{}, Decision{By: "mei"}) }, time.Hour)
	}))
	f.requireSound(t)
	require.Equal(t, release.StatusSucceeded, f.last().Status)
}

// TestResumeDoesNotReviveARolloutThatGaveUp has someone pause and resume at the moment when the budget is found spent: the
// resume is lowering the fence when the rollout wants it raised.
func TestResumeDoesNotReviveARolloutThatGaveUp(t *testing.T) {
	for onFailure, want := range map[release.OnFailure]release.Status{
		release.OnFailureStop: release.StatusFailed, release.OnFailureRollback: release.StatusRolledBack,
	} {
		s := canary(0, release.PromoteAuto)
		s.OnFailure = onFailure
		f := newFleet(10, s)
		f.outcome = func(_ *host, step release.StepName) release.TargetState {
			if step == release.StepDeploy {
				return release.TargetFailed
			}
			return release.TargetSucceeded
		}
		lowering, judged := make(chan struct{}), make(chan struct{})
		require.NoError(t, run(t, f, func(env *testsuite.TestWorkflowEnvironment) {
			failed := func() bool { return f.counts().All.Failed > 0 }
			pauses := onActivity(env, ActivityCountTargets, failed, func() {
				env.UpdateWorkflow(UpdatePause, "p", &answer{}, Decision{By: "mei"})
				env.UpdateWorkflow(UpdateResume, "r", &answer{}, Decision{By: "mei"})
			})
			f.beforeCount = func(release.Counts) {
				if pauses.Load() {
					<-lowering
				}
			}
			env.SetOnActivityCompletedListener(func(info *activity.Info, _ converter.EncodedValue, _ error) {
				if info.ActivityType.Name == ActivityCountTargets && pauses.Load() {
					// Its turn comes when the workflow has dealt with the count. One that is paused is not promoted.
					env.UpdateWorkflow(UpdatePromote, "probe", &answer{atRejection: sync.OnceFunc(func() { close(judged) })}, Decision{})
				}
			})
			f.beforeHalt = func(halted bool) {
				if !halted {
					close(lowering)
					<-judged
				}
			}
		}))
		f.requireSound(t)
		require.Equal(t, want, f.last().Status)
		require.True(t, f.halted, "the fence stays up")
	}
}

func TestHistoryDoesNotGrowWithTheHostsOfAChunk(t *testing.T) {
	for _, hosts := range []int{10, 500} {
		f := newFleet(hosts, release.Strategy{MaxParallel: 100})
		require.NoError(t, run(t, f, nil))
		require.Equal(t, 1, f.rounds)
	}
}

// TestAnyStory plays random rollouts: failing and unreachable hosts, failing hubs, and people who intervene.
func TestAnyStory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := canary(time.Duration(rapid.IntRange(0, 60).Draw(rt, "soak"))*time.Minute, rapid.SampledFrom([]release.Promotion{release.PromoteAuto, release.PromoteManual}).Draw(rt, "promote"))
		s.MaxParallel = rapid.IntRange(1, 20).Draw(rt, "parallel")
		s.MaxFailures = release.Limit{Count: rapid.IntRange(0, 4).Draw(rt, "max failures")}
		s.Canary.MaxFailures = release.Limit{Count: rapid.IntRange(0, 1).Draw(rt, "canary failures")}
		s.OnFailure = rapid.SampledFrom([]release.OnFailure{release.OnFailureStop, release.OnFailureRollback}).Draw(rt, "on failure")
		s.Offline = rapid.SampledFrom([]release.Offline{release.OfflineSkip, release.OfflineFail}).Draw(rt, "offline")
		s.Waves = []float64{50}
		f := newFleet(rapid.IntRange(1, 40).Draw(rt, "hosts"), s)
		f.chunksLimit = rapid.IntRange(1, 10).Draw(rt, "chunk size")
		outcomes := map[*host]release.TargetState{}
		for _, h := range f.hosts {
			outcomes[h] = rapid.SampledFrom([]release.TargetState{release.TargetSucceeded, release.TargetSucceeded, release.TargetSucceeded,
				release.TargetSucceeded, release.TargetFailed, release.TargetUnknown, release.TargetOffline}).Draw(rt, "outcome")
		}
		f.outcome = func(h *host, step release.StepName) release.TargetState {
			if step == release.StepRollback {
				return release.TargetSucceeded
			}
			return outcomes[h]
		}
		hubFails := rapid.SliceOfN(rapid.Bool(), 0, 6).Draw(rt, "hub fails")
		f.failRound = func(round int) error {
			if round <= len(hubFails) && hubFails[round-1] {
				return drained()
			}
			return nil
		}
		err := run(t, f, func(env *testsuite.TestWorkflowEnvironment) {
			at := time.Duration(0)
			for i, name := range rapid.SliceOfN(rapid.SampledFrom([]string{UpdatePause, UpdateResume, UpdatePromote, UpdateAbort, UpdateRollback}), 0, 4).Draw(rt, "updates") {
				at += time.Duration(rapid.IntRange(0, 40*60).Draw(rt, "seconds")) * time.Second
				env.RegisterDelayedCallback(func() { env.UpdateWorkflow(name, name+string(rune('0'+i)), &answer{}, Decision{By: "mei"}) }, at)
			}
			// In the end someone comes and lets everything go on.
			for i := range 3 {
				env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdateResume, "end"+string(rune('0'+i)), &answer{}, Decision{}) }, at+time.Duration(100+2*i)*time.Hour)
				env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdatePromote, "go"+string(rune('0'+i)), &answer{}, Decision{}) }, at+time.Duration(101+2*i)*time.Hour)
			}
		})
		require.NoError(rt, err)
		f.requireSound(rt)
		if f.last().Status == release.StatusRolledBack {
			for _, h := range f.hosts {
				require.Equal(rt, h.deployed, h.returned, "every touched host returns")
			}
		}
	})
}

// onActivity does something once, when an activity starts and a condition holds, and says whether it has.
func onActivity(env *testsuite.TestWorkflowEnvironment, name string, condition func() bool, do func()) *atomic.Bool {
	did := new(atomic.Bool)
	env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
		if info.ActivityType.Name == name && condition() && did.CompareAndSwap(false, true) {
			do()
		}
	})
	return did
}

// answer notes what became of an update.
type answer struct {
	accepted bool
	rejected error
	done     error

	atRejection func() // nil: nothing
}

func (a *answer) Accept()                   { a.accepted = true }
func (a *answer) Complete(_ any, err error) { a.done = err }
func (a *answer) Reject(err error) {
	a.rejected = err
	if a.atRejection != nil {
		a.atRejection()
	}
}
