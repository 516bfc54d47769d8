package workflows

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

// crowd is a scripted world for a BatchJobWorkflow: hosts whose command ends as told, and hubs that may fail to answer.
type crowd struct {
	env     *testsuite.TestWorkflowEnvironment
	options job.Options
	now     func() time.Time // of the run before
	hubs    int              // that hold the sessions; 0 means one

	mu      sync.Mutex
	hosts   []*jobHost
	halted  bool
	written []JobProgressRequest
	rounds  int // of DispatchJobChunk
	chunks  int // numbers given
	events  int // of the history, as a server would count them, of this run

	outcome    func(h *jobHost) job.State // of a host's command, at its present epoch
	failRound  func(round int) error      // of DispatchJobChunk; nil means none fails
	beforeHost func(h *jobHost)           // called before a host starts
	whileAt    func(ctx context.Context)  // called in each dispatch once it has begun, without the lock
	back       func(h *jobHost) bool      // whether a host that is waited for has come back
	chunkSize  int
	parallel   map[string]int // by queue, of the latest request
	violations []string
}

type jobHost struct {
	number    int
	state     job.State
	epoch     int
	runs      map[int]int // by epoch
	notBefore time.Time
	waits     bool
	chunk     int
}

func newCrowd(hosts int, options job.Options) *crowd {
	c := &crowd{options: options.WithDefaults(limits()), parallel: map[string]int{}}
	c.outcome = func(*jobHost) job.State { return job.StateSucceeded }
	for i := range hosts {
		c.hosts = append(c.hosts, &jobHost{number: i, state: job.StatePending, runs: map[int]int{}, chunk: -1})
	}
	return c
}

func limits() job.Limits {
	return job.Limits{MaxConcurrency: 5000, TaskTimeout: release.Duration(time.Minute), JobTimeout: release.Duration(10 * time.Minute),
		RetryInterval: release.Duration(time.Second), Retries: 2}
}

func (c *crowd) register(env *testsuite.TestWorkflowEnvironment) {
	c.env = env
	for name, f := range map[string]any{
		ActivityLoadJob:          c.loadJob,
		ActivityRecordJob:        c.recordJob,
		ActivitySetJobHalt:       c.setHalt,
		ActivityPlanJobChunks:    c.planChunks,
		ActivityCountJob:         c.countJob,
		ActivityDispatchJobChunk: c.dispatchChunk,
		ActivityRetryJob:         c.retryJob,
		ActivityAwaitJobHosts:    c.awaitHosts,
	} {
		env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
}

// happened counts what an activity adds to a history: three events of its own and three of the workflow task after it.
func (c *crowd) happened() { c.events += 6 }

func (c *crowd) loadJob(ctx context.Context, r JobLoadRequest) (JobPlan, error) {
	if r.Begin {
		if err := c.recordJob(ctx, JobProgressRequest{Status: job.StatusRunning}); err != nil {
			return JobPlan{}, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happened()
	return JobPlan{Options: c.options, Total: len(c.hosts)}, nil
}

func (c *crowd) recordJob(_ context.Context, r JobProgressRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happened()
	last := job.StatusStarting
	if n := len(c.written); n > 0 {
		last = c.written[n-1].Status
	}
	if !last.CanBecome(r.Status) {
		c.violations = append(c.violations, "status went from "+string(last)+" to "+string(r.Status))
	}
	c.written = append(c.written, r)
	if r.Status.Terminal() {
		for _, h := range c.hosts {
			switch h.state {
			case job.StatePending:
				h.state = job.StateSkipped
			case job.StateRunning:
				h.state = job.StateUnknown
			}
		}
	}
	return nil
}

func (c *crowd) setHalt(_ context.Context, r JobHaltRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happened()
	c.halted = r.Halted
	return nil
}

func (c *crowd) standing() (s JobStanding) {
	s.Counts.Total = len(c.hosts)
	for _, h := range c.hosts {
		s.Counts.Add(h.state, 1)
		if h.waits {
			s.Waiting++
		}
	}
	s.Counts.Total = len(c.hosts)
	return s
}

func (c *crowd) countJob(context.Context, JobRequest) (JobStanding, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happened()
	return c.standing(), nil
}

func (c *crowd) planChunks(_ context.Context, r JobChunksRequest) (plan ChunkPlan, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happened()
	now := c.env.Now()
	size := cmp.Or(c.chunkSize, r.Size)
	byHub := make([][]*jobHost, max(1, c.hubs))
	for _, h := range c.hosts {
		if h.state == job.StateRunning || h.state == job.StatePending && !h.waits && !now.Before(h.notBefore) {
			hub := h.number % len(byHub)
			byHub[hub] = append(byHub[hub], h)
		}
	}
	for hub, hosts := range byHub {
		for part := range slices.Chunk(hosts, size) {
			c.chunks++
			for _, h := range part {
				h.chunk = c.chunks
			}
			queue := HubQueue(fmt.Sprint(hub))
			if slices.Contains(r.Avoid, queue) {
				queue = HubQueue("planner")
			}
			plan.Chunks = append(plan.Chunks, Chunk{Number: c.chunks, Queue: queue, Size: len(part)})
		}
	}
	return plan, nil
}

func (c *crowd) dispatchChunk(ctx context.Context, r JobDispatchRequest) (report DispatchReport, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happened()
	c.rounds++
	if c.failRound != nil {
		if err := c.failRound(c.rounds); err != nil {
			return report, err
		}
	}
	if c.whileAt != nil && !r.Cancel {
		c.mu.Unlock()
		c.whileAt(ctx)
		c.mu.Lock()
	}
	c.parallel[activity.GetInfo(ctx).TaskQueue] = r.Parallel
	for _, h := range c.hosts {
		if h.chunk != r.Chunk || h.state.Decided() {
			continue
		}
		if r.Cancel {
			if h.state == job.StateRunning {
				h.state = job.StateCancelled
			}
			continue
		}
		if h.state == job.StatePending {
			if c.beforeHost != nil {
				c.mu.Unlock()
				c.beforeHost(h)
				c.mu.Lock()
			}
			if c.halted || r.Budget >= 0 && report.Charged > r.Budget {
				report.Undecided++
				continue
			}
		}
		atWork := h.state == job.StateRunning
		if h.state = c.outcome(h); !atWork && h.state != job.StateOffline && h.state != job.StateRefused {
			h.runs[h.epoch]++
		}
		if h.state == job.StateRunning {
			report.Undecided++
		}
		switch h.state {
		case job.StateFailed, job.StateTimeout, job.StateRefused, job.StateUnknown, job.StateOffline:
			report.Charged++
		}
	}
	return report, nil
}

func (c *crowd) retryJob(_ context.Context, r JobRetryRequest) (answer JobRetryAnswer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happened()
	for _, h := range c.hosts {
		switch {
		case h.state == job.StateOffline && r.WaitOffline:
			h.state, h.waits = job.StatePending, true
		case job.RetryState(h.state, c.options) && h.epoch < *c.options.Retries:
			h.state, h.notBefore = job.StatePending, c.env.Now().Add(c.options.RetryInterval.Std())
			h.epoch++
			answer.Retried++
		}
	}
	answer.JobStanding = c.standing()
	return answer, nil
}

func (c *crowd) awaitHosts(_ context.Context, r JobHostsRequest) (answer JobHostsAnswer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happened()
	for _, h := range c.hosts {
		if h.waits && c.back != nil && c.back(h) {
			h.waits = false
			answer.Back++
		}
	}
	if answer.Back > 0 {
		return answer, nil
	}
	answer.Over = true
	for _, h := range c.hosts {
		if h.waits {
			h.waits, h.state, h.epoch = false, job.StateOffline, *c.options.Retries
		}
	}
	return answer, nil
}

func (c *crowd) last() JobProgressRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.written[len(c.written)-1]
}

func (c *crowd) counts() job.Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.standing().Counts
}

// requireSound checks what must hold of every job, whatever happened.
func (c *crowd) requireSound(t require.TestingT) {
	require.Empty(t, c.violations)
	require.True(t, c.last().Status.Terminal(), "ended as %s", c.last().Status)
	for _, h := range c.hosts {
		require.True(t, h.state.Decided(), "host %d is %s", h.number, h.state)
		require.LessOrEqual(t, h.epoch, *c.options.Retries, "tried too often")
		for epoch, runs := range h.runs {
			require.Equal(t, 1, runs, "host %d ran its command twice at epoch %d", h.number, epoch)
		}
	}
}

func runJob(t testing.TB, c *crowd, prepare func(env *testsuite.TestWorkflowEnvironment)) error {
	return resumeJob(t, c, BatchInput{JobID: "j"}, prepare)
}

func resumeJob(t testing.TB, c *crowd, input BatchInput, prepare func(env *testsuite.TestWorkflowEnvironment)) error {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(time.Minute)
	c.register(env)
	c.events = 0
	if prepare != nil {
		prepare(env)
	}
	env.ExecuteWorkflow(BatchJobWorkflow, input)
	require.True(t, env.IsWorkflowCompleted())
	return env.GetWorkflowError()
}
