package workflows

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"
	"pgregory.net/rapid"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

func seconds(n int) release.Duration { return release.Duration(time.Duration(n) * time.Second) }

func TestJobGoesOverAllHostsOnce(t *testing.T) {
	c := newCrowd(2500, job.Options{Concurrency: 100})
	c.hubs = 2
	require.NoError(t, runJob(t, c, nil))
	c.requireSound(t)
	require.Equal(t, job.StatusCompleted, c.last().Status)
	require.Equal(t, job.Counts{Total: 2500, Succeeded: 2500}, c.counts())
	require.Equal(t, 4, c.rounds, "two chunks for each hub")
	total := 0
	for _, n := range c.parallel {
		total += n
	}
	require.LessOrEqual(t, total, 100)
	require.GreaterOrEqual(t, total, 98)
}

func TestJobWhoseHostsFailIsPartial(t *testing.T) {
	c := newCrowd(10, job.Options{})
	c.outcome = func(h *jobHost) job.State {
		return []job.State{job.StateSucceeded, job.StateFailed, job.StateTimeout, job.StateUnknown}[h.number%4]
	}
	require.NoError(t, runJob(t, c, nil))
	c.requireSound(t)
	require.Equal(t, job.StatusPartial, c.last().Status)
	require.Equal(t, "7 of 10 hosts did not complete it: 3 failed, 2 timeout, 2 unknown", c.last().Reason)
	for _, h := range c.hosts {
		require.Zero(t, h.epoch, "what ran is not tried again")
	}
}

func TestJobTriesAgainWhatDidNotStart(t *testing.T) {
	c := newCrowd(3, job.Options{Retries: new(3)})
	c.outcome = func(h *jobHost) job.State {
		switch {
		case h.number == 0 && h.epoch < 2:
			return job.StateRefused
		case h.number == 1:
			return job.StateUnknown
		}
		return job.StateSucceeded
	}
	var took time.Duration
	require.NoError(t, runJob(t, c, func(env *testsuite.TestWorkflowEnvironment) {
		start := env.Now()
		env.SetOnActivityCompletedListener(func(*activity.Info, converter.EncodedValue, error) { took = env.Now().Sub(start) })
	}))
	c.requireSound(t)
	require.Equal(t, job.Counts{Total: 3, Succeeded: 2, Unknown: 1}, c.counts())
	require.Equal(t, 2, c.hosts[0].epoch)
	require.Equal(t, 0, c.hosts[1].epoch, "unknown is never tried again")
	require.GreaterOrEqual(t, took, 2*time.Second, "an interval before each new try")
}

func TestJobTriesAgainWhatFailedWhereItIsTold(t *testing.T) {
	c := newCrowd(2, job.Options{RetryOnFailure: true})
	c.outcome = func(h *jobHost) job.State {
		if h.number == 0 || h.epoch == 0 {
			return job.StateFailed
		}
		return job.StateSucceeded
	}
	require.NoError(t, runJob(t, c, nil))
	c.requireSound(t)
	require.Equal(t, job.Counts{Total: 2, Succeeded: 1, Failed: 1}, c.counts())
	require.Equal(t, map[int]int{0: 1, 1: 1, 2: 1}, c.hosts[0].runs)
	require.Equal(t, map[int]int{0: 1, 1: 1}, c.hosts[1].runs)
}

func TestJobEndsWhenTooManyFail(t *testing.T) {
	c := newCrowd(100, job.Options{Concurrency: 1, MaxFailures: &release.Limit{Count: 5}})
	c.outcome = func(*jobHost) job.State { return job.StateFailed }
	require.NoError(t, runJob(t, c, nil))
	c.requireSound(t)
	require.Equal(t, job.StatusFailed, c.last().Status)
	require.Equal(t, job.Counts{Total: 100, Failed: 6, Skipped: 94}, c.counts())
	require.Equal(t, "6 of 100 hosts failed; 5 tolerated", c.last().Reason)
}

// A hub is lost when too many have failed and hosts are at work.
func TestHostsAtWorkAreSeenThroughBeforeAJobFails(t *testing.T) {
	c := newCrowd(4, job.Options{MaxFailures: &release.Limit{}})
	c.failRound = func(round int) error {
		if round > 1 {
			return nil
		}
		c.hosts[0].state = job.StateFailed
		c.hosts[1].state = job.StateRunning
		return drained()
	}
	require.NoError(t, runJob(t, c, nil))
	c.requireSound(t)
	require.Equal(t, job.StatusFailed, c.last().Status)
	require.Equal(t, job.Counts{Total: 4, Failed: 1, Succeeded: 1, Skipped: 2}, c.counts())
}

func TestJobChargesNoHostForItsHub(t *testing.T) {
	failures := map[int]error{
		1: drained(),
		2: temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_HEARTBEAT, nil),
		3: temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil),
		4: errors.New("database is away"),
	}
	c := newCrowd(20, job.Options{MaxFailures: &release.Limit{}})
	c.chunkSize = 7
	c.failRound = func(round int) error { return failures[round] }
	require.NoError(t, runJob(t, c, nil))
	c.requireSound(t)
	require.Equal(t, job.StatusCompleted, c.last().Status)
}

// A hub that never answers is not asked for ever: its hosts go to another, which finds them offline.
func TestJobOfAHubThatAnswersNothing(t *testing.T) {
	c := newCrowd(3, job.Options{})
	c.failRound = func(int) error {
		for _, h := range c.hosts {
			if c.rounds > 1 { // the planner's own hub
				h.state = job.StateOffline
			}
		}
		if c.rounds > 1 {
			return nil
		}
		return temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil)
	}
	require.NoError(t, runJob(t, c, nil))
	c.requireSound(t)
	require.Equal(t, job.StatusFailed, c.last().Status)
	require.Equal(t, job.Counts{Total: 3, Offline: 3}, c.counts())
}

func TestPausedJobStartsNothingAndItsTimeStandsStill(t *testing.T) {
	c := newCrowd(10, job.Options{Concurrency: 1, JobTimeout: seconds(60)})
	c.chunkSize = 1
	twice, early := &answer{}, &answer{}
	var resumed atomic.Bool
	require.NoError(t, runJob(t, c, func(env *testsuite.TestWorkflowEnvironment) {
		pauses := onActivity(env, ActivityDispatchJobChunk, func() bool { return c.counts().Succeeded == 3 }, func() {
			env.UpdateWorkflow(UpdateResume, "early", early, Decision{By: "mei"})
			env.UpdateWorkflow(UpdatePause, "p", &answer{}, Decision{By: "mei", Reason: "lunch"})
		})
		c.beforeHost = func(*jobHost) {
			if pauses.Load() && c.last().Status != job.StatusPaused && !resumed.Load() {
				assert.Eventually(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.halted }, 5*time.Second, time.Millisecond)
			}
		}
		env.RegisterDelayedCallback(func() {
			require.Equal(t, job.Counts{Total: 10, Succeeded: 3, Pending: 7}, c.counts())
			require.Equal(t, job.StatusPaused, c.last().Status)
			require.Equal(t, "paused by mei: lunch", c.last().Reason)
			resumed.Store(true)
			env.UpdateWorkflow(UpdatePause, "p2", twice, Decision{By: "mei"})
			env.UpdateWorkflow(UpdateResume, "r", &answer{}, Decision{By: "mei"})
		}, 10*time.Hour)
	}))
	for _, a := range []*answer{twice, early} {
		var application *temporal.ApplicationError
		require.ErrorAs(t, a.rejected, &application)
		require.Equal(t, ErrTypeConflict, application.Type())
	}
	c.requireSound(t)
	require.Equal(t, job.StatusCompleted, c.last().Status)
}

func TestCancelledJobStopsWhatRunsAndStartsNothing(t *testing.T) {
	c := newCrowd(10, job.Options{Concurrency: 5})
	c.chunkSize = 5
	again := &answer{}
	require.NoError(t, runJob(t, c, func(env *testsuite.TestWorkflowEnvironment) {
		cancelled := onActivity(env, ActivityDispatchJobChunk, func() bool { return true }, func() {
			env.UpdateWorkflow(UpdateCancel, "c", &chained{then: func() {
				env.UpdateWorkflow(UpdatePause, "late", again, Decision{By: "mei"})
			}}, Decision{By: "mei", Reason: "enough"})
		})
		c.whileAt = func(context.Context) {
			if !cancelled.Load() {
				return
			}
			c.mu.Lock()
			for _, h := range c.hosts[:2] {
				h.state = job.StateRunning
			}
			c.mu.Unlock()
			assert.Eventually(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.halted }, 5*time.Second, time.Millisecond)
		}
		c.outcome = func(*jobHost) job.State { return job.StateRunning }
	}))
	c.requireSound(t)
	require.Error(t, again.rejected)
	require.Equal(t, job.StatusCancelled, c.last().Status)
	require.Equal(t, "cancelled by mei: enough", c.last().Reason)
	require.Equal(t, job.Counts{Total: 10, Cancelled: 2, Skipped: 8}, c.counts())
}

func TestPausedJobCanBeCancelled(t *testing.T) {
	c := newCrowd(10, job.Options{})
	require.NoError(t, runJob(t, c, func(env *testsuite.TestWorkflowEnvironment) {
		c.halted = true
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdatePause, "p", &answer{}, Decision{By: "mei"}) }, time.Millisecond)
		env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdateCancel, "c", &answer{}, Decision{By: "mei"}) }, time.Hour)
	}))
	c.requireSound(t)
	require.Equal(t, job.StatusCancelled, c.last().Status)
	require.Equal(t, 10, c.counts().Skipped)
}

func TestJobWhoseTimeIsOver(t *testing.T) {
	c := newCrowd(10, job.Options{JobTimeout: seconds(90), WaitOffline: seconds(3600), TaskTimeout: seconds(60)})
	// One host after the other is refused and tried again, for longer than the job may take.
	c.options.Retries = new(1000)
	c.options.RetryInterval = seconds(10)
	c.outcome = func(h *jobHost) job.State {
		switch {
		case h.number < 3:
			return job.StateSucceeded
		case h.epoch == 3:
			return job.StateRunning // and no one knows what became of it
		}
		return job.StateRefused
	}
	require.NoError(t, runJob(t, c, nil))
	c.requireSound(t)
	require.Equal(t, job.StatusTimeout, c.last().Status)
	require.Equal(t, "not done within 1m30s", c.last().Reason)
	require.Equal(t, job.StatusCancelling, c.written[len(c.written)-2].Status)
	require.Equal(t, 3, c.counts().Succeeded)
	require.Equal(t, 7, c.counts().Cancelled+c.counts().Skipped)
}

func TestJobWaitsForHostsThatAreOffline(t *testing.T) {
	c := newCrowd(10, job.Options{WaitOffline: seconds(3600)})
	away := map[int]bool{3: true, 4: true, 5: true}
	c.outcome = func(h *jobHost) job.State {
		if away[h.number] {
			return job.StateOffline
		}
		return job.StateSucceeded
	}
	asked := 0
	c.back = func(h *jobHost) bool {
		asked++
		if h.number < 5 && asked > 1 {
			delete(away, h.number)
			return true
		}
		return false
	}
	require.NoError(t, runJob(t, c, nil))
	c.requireSound(t)
	require.Equal(t, job.Counts{Total: 10, Succeeded: 9, Offline: 1}, c.counts())
	require.Equal(t, job.StatusPartial, c.last().Status)
	require.Equal(t, 0, c.hosts[4].epoch, "waiting is no new try")
}

func TestJobContinuesAsNewWithWhatItKnows(t *testing.T) {
	c := newCrowd(50, job.Options{Concurrency: 5, RetryOnFailure: true})
	c.chunkSize = 5
	c.outcome = func(h *jobHost) job.State {
		if h.epoch == 0 {
			return job.StateFailed
		}
		return job.StateSucceeded
	}
	input, runs := BatchInput{JobID: "j"}, 0
	again := &answer{}
	for {
		runs++
		err := resumeJob(t, c, input, func(env *testsuite.TestWorkflowEnvironment) {
			if c.now != nil {
				env.SetStartTime(c.now())
			}
			c.now = env.Now
			env.SetContinueAsNewSuggested(true)
			env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdatePause, "same", again, Decision{By: "mei"}) }, 0)
			env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdateResume, "other", &answer{}, Decision{By: "mei"}) }, time.Second)
		})
		var next *workflow.ContinueAsNewError
		if !errors.As(err, &next) {
			require.NoError(t, err)
			break
		}
		require.Less(t, runs, 20)
		require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &input))
		require.NotNil(t, input.Carried)
		require.Contains(t, input.Carried.Updates, "same")
		require.False(t, input.Carried.Deadline.IsZero())
	}
	require.Greater(t, runs, 1)
	require.NoError(t, again.rejected, "an update that was carried out is not carried out again")
	c.requireSound(t)
	require.Equal(t, 50, c.counts().Succeeded)
}

// A history stays short whatever the fleet's size, and however often everything has to be tried again.
func TestHistoryOfALargeJob(t *testing.T) {
	c := newCrowd(job.MaxTargets, job.Options{RetryOnFailure: true, Retries: new(8)})
	c.hubs = 150
	c.outcome = func(h *jobHost) job.State {
		if h.epoch < 8 {
			return job.StateFailed
		}
		return job.StateSucceeded
	}
	input, runs, most := BatchInput{JobID: "j"}, 0, 0
	for {
		runs++
		err := resumeJob(t, c, input, func(env *testsuite.TestWorkflowEnvironment) {
			// A server tells how long the history is with each workflow task; so does this, by what was done so far.
			env.SetOnActivityStartedListener(func(*activity.Info, context.Context, converter.EncodedValues) {
				c.mu.Lock()
				defer c.mu.Unlock()
				env.SetCurrentHistoryLength(c.events)
			})
		})
		most = max(most, c.events)
		var next *workflow.ContinueAsNewError
		if !errors.As(err, &next) {
			require.NoError(t, err)
			break
		}
		require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &input))
	}
	c.requireSound(t)
	require.Equal(t, job.MaxTargets, c.counts().Succeeded)
	require.Greater(t, runs, 1)
	require.Less(t, most, 5000)
	t.Logf("%d runs, at most %d events", runs, most)
}

// TestAnyJob plays random jobs: hosts that fail, refuse and are away, hubs that fail, and people who intervene.
func TestAnyJob(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := job.Options{
			Concurrency: rapid.IntRange(1, 20).Draw(rt, "concurrency"), Retries: new(rapid.IntRange(0, 3).Draw(rt, "retries")),
			RetryInterval: seconds(rapid.IntRange(0, 30).Draw(rt, "interval")), RetryOnFailure: rapid.Bool().Draw(rt, "on failure"),
			JobTimeout: seconds(rapid.IntRange(1, 3000).Draw(rt, "timeout")), WaitOffline: seconds(rapid.IntRange(0, 600).Draw(rt, "wait")),
		}
		if rapid.Bool().Draw(rt, "limited") {
			o.MaxFailures = &release.Limit{Count: rapid.IntRange(0, 5).Draw(rt, "max failures")}
		}
		c := newCrowd(rapid.IntRange(1, 40).Draw(rt, "hosts"), o)
		c.hubs, c.chunkSize = rapid.IntRange(1, 3).Draw(rt, "hubs"), rapid.IntRange(1, 10).Draw(rt, "chunk size")
		outcomes := map[*jobHost][]job.State{}
		for _, h := range c.hosts {
			for range 4 {
				outcomes[h] = append(outcomes[h], rapid.SampledFrom([]job.State{job.StateSucceeded, job.StateSucceeded, job.StateSucceeded,
					job.StateFailed, job.StateTimeout, job.StateRefused, job.StateUnknown, job.StateOffline, job.StateRunning}).Draw(rt, "outcome"))
			}
		}
		visits := map[*jobHost]int{}
		c.outcome = func(h *jobHost) job.State {
			visits[h]++
			if h.state == job.StateRunning && visits[h] > 3 { // seen through in the end
				return job.StateSucceeded
			}
			return outcomes[h][min(h.epoch, 3)]
		}
		comeBack := rapid.Bool().Draw(rt, "come back")
		c.back = func(h *jobHost) bool {
			if comeBack {
				outcomes[h][min(h.epoch, 3)] = job.StateSucceeded
			}
			return comeBack
		}
		hubFails := rapid.SliceOfN(rapid.Bool(), 0, 6).Draw(rt, "hub fails")
		c.failRound = func(round int) error {
			if round <= len(hubFails) && hubFails[round-1] {
				return drained()
			}
			return nil
		}
		updates := rapid.SliceOfN(rapid.SampledFrom([]string{UpdatePause, UpdateResume, UpdateCancel}), 0, 4).Draw(rt, "updates")
		at := time.Duration(0)
		var plan []time.Duration
		for range updates {
			at += time.Duration(rapid.IntRange(0, 60_000).Draw(rt, "ms")) * time.Millisecond
			plan = append(plan, at)
		}
		err := runJob(t, c, func(env *testsuite.TestWorkflowEnvironment) {
			for i, name := range updates {
				env.RegisterDelayedCallback(func() { env.UpdateWorkflow(name, name+string(rune('0'+i)), &answer{}, Decision{By: "mei"}) }, plan[i])
			}
			// In the end someone comes and lets everything go on.
			for i := range 3 {
				env.RegisterDelayedCallback(func() { env.UpdateWorkflow(UpdateResume, "end"+string(rune('0'+i)), &answer{}, Decision{}) }, at+time.Duration(100+2*i)*time.Hour)
			}
		})
		require.NoError(rt, err)
		c.requireSound(rt)
		if c.last().Status == job.StatusCompleted {
			require.Equal(rt, len(c.hosts), c.counts().Succeeded)
		}
		if o.MaxFailures == nil && len(updates) == 0 && c.last().Status != job.StatusTimeout {
			require.Zero(rt, c.counts().Skipped+c.counts().Cancelled, "no one stopped it")
		}
	})
}

// chained is an answer that something follows.
type chained struct {
	answer
	then func()
}

func (c *chained) Complete(value any, err error) {
	c.answer.Complete(value, err)
	c.then()
}
