package workflows

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/quicflow/quicflow/internal/release"
)

// fleet is a scripted world for a ReleaseWorkflow: hosts whose steps end as told, and hubs that may fail to answer.
type fleet struct {
	mu      sync.Mutex
	plan    Plan
	hosts   []*host
	halted  bool
	fencing int // writers of the fence at this moment
	written []ProgressRequest
	rounds  int

	outcome     func(h *host, step release.StepName) release.TargetState // of a host's step
	failRound   func(round int) error                                    // of DispatchChunk; nil means none fails
	beforeHost  func(h *host)                                            // called before a host starts
	beforeCount func(all release.Counts)                                 // called with what CountTargets will answer
	beforeHalt  func(halted bool)                                        // called before SetHalt writes
	mostAtWork  int
	violations  []string
	chunksLimit int
}

type host struct {
	id       string
	wave     int
	state    release.TargetState
	deployed int // times its deploy step ran
	returned int // times its rollback step ran
	chunk    int
}

func newFleet(hosts int, s release.Strategy) *fleet {
	s = s.WithDefaults()
	f := &fleet{
		plan:    Plan{Strategy: s, Waves: release.PlanWaves(hosts, s), Total: hosts},
		outcome: func(*host, release.StepName) release.TargetState { return release.TargetSucceeded },
	}
	for _, w := range f.plan.Waves {
		for range w.Size {
			f.hosts = append(f.hosts, &host{id: string(rune('a' + len(f.hosts)%26)), wave: w.Number, state: release.TargetPending})
		}
	}
	return f
}

func (f *fleet) register(env *testsuite.TestWorkflowEnvironment) {
	for name, activityFunc := range map[string]any{
		ActivityLoadPlan:      f.loadPlan,
		ActivityRecord:        f.record,
		ActivitySetHalt:       f.setHalt,
		ActivityPlanChunks:    f.planChunks,
		ActivityCountTargets:  f.countTargets,
		ActivityDispatchChunk: f.dispatchChunk,
	} {
		env.RegisterActivityWithOptions(activityFunc, activity.RegisterOptions{Name: name})
	}
}

func (f *fleet) loadPlan(context.Context, PlanRequest) (Plan, error) { return f.plan, nil }

func (f *fleet) record(_ context.Context, r ProgressRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := release.StatusStarting
	if n := len(f.written); n > 0 {
		last = f.written[n-1].Status
	}
	if !last.CanBecome(r.Status) {
		f.violations = append(f.violations, "status went from "+string(last)+" to "+string(r.Status))
	}
	f.written = append(f.written, r)
	return nil
}

func (f *fleet) setHalt(_ context.Context, r HaltRequest) error {
	f.mu.Lock()
	if f.fencing++; f.fencing > 1 {
		f.violations = append(f.violations, "two writers of the fence at the same time")
	}
	f.mu.Unlock()
	if f.beforeHalt != nil {
		f.beforeHalt(r.Halted)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.halted = r.Halted
	f.fencing--
	return nil
}

func (f *fleet) planChunks(_ context.Context, r ChunksRequest) (ChunkPlan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var left []*host
	for _, h := range f.hosts {
		h.chunk = -1
		if r.Step == release.StepDeploy && h.wave == r.Wave && !h.state.Decided() ||
			r.Step == release.StepRollback && h.state.Touched() && h.state != release.TargetRolledBack && h.state != release.TargetRollbackFailed {
			left = append(left, h)
		}
	}
	size := cmp.Or(f.chunksLimit, r.Size)
	var plan ChunkPlan
	for n, part := range slices.Collect(slices.Chunk(left, size)) {
		for _, h := range part {
			h.chunk = n
		}
		queue := HubQueue("one")
		if slices.Contains(r.Avoid, queue) {
			queue = HubQueue("two")
		}
		plan.Chunks = append(plan.Chunks, Chunk{Number: n, Queue: queue, Size: len(part)})
	}
	return plan, nil
}

func (f *fleet) countTargets(context.Context, CountRequest) (TargetCounts, error) {
	counts := f.counts()
	if f.beforeCount != nil {
		f.beforeCount(counts.All)
	}
	return counts, nil
}

func (f *fleet) counts() TargetCounts {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := TargetCounts{ByWave: map[int]release.Counts{}}
	for _, h := range f.hosts {
		wave := counts.ByWave[h.wave]
		wave.Add(h.state, 1)
		counts.ByWave[h.wave] = wave
		counts.All.Add(h.state, 1)
	}
	return counts
}

func (f *fleet) dispatchChunk(_ context.Context, r DispatchRequest) (DispatchReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rounds++
	var report DispatchReport
	if f.failRound != nil {
		if err := f.failRound(f.rounds); err != nil {
			return report, err
		}
	}
	f.mostAtWork = max(f.mostAtWork, r.Parallel)
	for _, h := range f.hosts {
		if h.chunk != r.Chunk {
			continue
		}
		if r.Cancel {
			if h.state == release.TargetRunning {
				h.state = release.TargetCancelled
			}
			continue
		}
		if r.Step == release.StepDeploy && h.state != release.TargetRunning && (f.halted || r.Budget >= 0 && report.Charged > r.Budget) {
			report.Undecided++
			continue
		}
		if f.beforeHost != nil {
			f.mu.Unlock()
			f.beforeHost(h)
			f.mu.Lock()
			if f.halted && r.Step == release.StepDeploy {
				report.Undecided++
				continue
			}
		}
		state := f.outcome(h, r.Step)
		if state != release.TargetOffline {
			if r.Step == release.StepDeploy {
				h.deployed++
			} else {
				h.returned++
			}
		}
		if r.Step == release.StepRollback {
			state = map[bool]release.TargetState{true: release.TargetRolledBack, false: release.TargetRollbackFailed}[state == release.TargetSucceeded]
		}
		h.state = state
		if state == release.TargetFailed || state == release.TargetUnknown {
			report.Charged++
		}
	}
	return report, nil
}

func (f *fleet) last() ProgressRequest { return f.written[len(f.written)-1] }

// wrote says whether a status was recorded.
func (f *fleet) wrote(status release.Status) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.written, func(r ProgressRequest) bool { return r.Status == status })
}

// requireSound checks what must hold of every rollout, whatever happened.
func (f *fleet) requireSound(t require.TestingT) {
	require.Empty(t, f.violations)
	require.True(t, f.last().Status.Terminal(), "ended as %s", f.last().Status)
	for _, h := range f.hosts {
		require.LessOrEqual(t, h.deployed, 1, "a deploy step ran twice")
		require.LessOrEqual(t, h.returned, 1, "a rollback step ran twice")
		require.LessOrEqual(t, h.returned, h.deployed, "a host that was not touched was rolled back")
	}
}

func (f *fleet) phases() []release.Phase {
	var phases []release.Phase
	for _, w := range f.written {
		phases = append(phases, w.Phase)
	}
	return slices.Compact(phases)
}

func (f *fleet) touched() []int {
	waves := map[int]bool{}
	for _, h := range f.hosts {
		if h.deployed > 0 {
			waves[h.wave] = true
		}
	}
	return slices.Sorted(maps.Keys(waves))
}

func run(t testing.TB, f *fleet, prepare func(env *testsuite.TestWorkflowEnvironment)) error {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestWorkflowEnvironment()
	f.register(env)
	if prepare != nil {
		prepare(env)
	}
	env.ExecuteWorkflow(ReleaseWorkflow, ReleaseInput{TaskID: "t", Project: "p", Version: "2"})
	require.True(t, env.IsWorkflowCompleted())
	return env.GetWorkflowError()
}

func drained() error {
	return temporal.NewApplicationErrorWithOptions("stopping", ErrTypeDraining, temporal.ApplicationErrorOptions{NonRetryable: true})
}
