package store_test

import (
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

func init() {
	jobTests["whatever happens, a job is as the rules say"] = func(f *fixture) {
		ids := f.join(5)
		f.connect("n", ids[:2]...)
		rapid.Check(f.T, func(t *rapid.T) { (&jobStory{f: f, t: t, ids: ids}).run() })
	}
}

// jobStory does at random what can happen to a job, and what the rules say beside it.
type jobStory struct {
	f   *fixture
	t   *rapid.T
	ids []string

	job     job.Job
	status  job.Status
	halted  bool
	targets map[string]*modelTarget

	cursor store.TargetCursor
	seen   map[string]modelTarget // as the reader of finished targets saw them last
}

type modelTarget struct {
	state                  job.State
	epoch                  int
	final, hopeless, waits bool
	notBefore              time.Time
}

func (s *jobStory) run() {
	s.job = s.f.job(s.ids...)
	s.status, s.halted, s.targets, s.seen = job.StatusStarting, false, map[string]*modelTarget{}, map[string]modelTarget{}
	for _, id := range s.ids {
		s.targets[id] = &modelTarget{state: job.StatePending}
	}
	actions := []func(){s.mark, s.mark, s.report, s.report, s.report, s.conclude, s.retry, s.retry, s.wake, s.giveUp, s.halt, s.progress, s.plan,
		func() { s.f.advance(time.Minute) }}
	for range rapid.IntRange(1, 15).Draw(s.t, "actions") {
		actions[rapid.IntRange(0, len(actions)-1).Draw(s.t, "action")]()
		s.compare()
	}
}

func (s *jobStory) some() []string {
	return rapid.SliceOfN(rapid.SampledFrom(s.ids), 1, 5).Draw(s.t, "hosts")
}

func (s *jobStory) over() bool { return s.status.Terminal() }

func (s *jobStory) mark() {
	some := s.some()
	chunk := s.f.chunk(s.job.ID)
	if chunk == 0 {
		return
	}
	marked, halted, err := s.f.MarkJobChunk(s.f.ctx(), s.job.ID, chunk, some)
	require.NoError(s.t, err)
	require.Equal(s.t, s.halted || s.over(), halted)
	var want []string
	for _, id := range slices.Compact(slices.Sorted(slices.Values(some))) {
		m := s.targets[id]
		if m.state == job.StatePending && !halted && !m.waits && !m.notBefore.After(s.f.now()) {
			m.state = job.StateRunning
		}
		if m.state == job.StateRunning {
			want = append(want, id)
		}
	}
	require.Equal(s.t, want, marked)
}

func (s *jobStory) report() {
	states := []release.StepState{release.StepSucceeded, release.StepFailed, release.StepCancelled, release.StepUnknown, release.StepRefused}
	var batch []release.StepResult
	want := 0
	told := map[string]bool{} // one result of a step in a batch, so that the model need not choose
	for _, id := range s.some() {
		m := s.targets[id]
		r := s.f.result(s.job, id, m.epoch+rapid.SampledFrom([]int{0, 0, 0, 0, -1, 1}).Draw(s.t, "epoch"), rapid.SampledFrom(states).Draw(s.t, "result"))
		if told[r.StepID] {
			continue
		}
		told[r.StepID] = true
		r.TimedOut = r.State == release.StepFailed && rapid.Bool().Draw(s.t, "timed out")
		r.NotStarted = r.State == release.StepFailed && !r.TimedOut && rapid.Bool().Draw(s.t, "not started")
		batch = append(batch, r)
		if r.StepID != release.StepID(s.job.ID, job.StepCommand, id, m.epoch) || m.final || r.State == release.StepUnknown && m.state == job.StateUnknown {
			continue
		}
		want++
		*m = modelTarget{epoch: m.epoch, final: r.State != release.StepUnknown, hopeless: r.NotStarted}
		switch {
		case r.State == release.StepRefused && (s.over() || s.halted && s.status != job.StatusPaused):
			m.state = job.StateCancelled
		case r.TimedOut:
			m.state = job.StateTimeout
		case r.NotStarted:
			m.state = job.StateRefused
		default:
			m.state = job.State(r.State) // they have the same names
		}
	}
	changed, err := s.f.RecordResults(s.f.ctx(), batch)
	require.NoError(s.t, err)
	require.Len(s.t, changed, want)
}

func (s *jobStory) conclude() {
	var all []store.JobConclusion
	last := map[string]store.JobConclusion{}
	for _, id := range s.some() {
		c := store.JobConclusion{ClientID: id, Epoch: s.targets[id].epoch - rapid.SampledFrom([]int{0, 0, 1}).Draw(s.t, "older"), Error: "so",
			State:    rapid.SampledFrom([]job.State{job.StateOffline, job.StateOffline, job.StateRefused, job.StateUnknown}).Draw(s.t, "verdict"),
			Hopeless: rapid.Bool().Draw(s.t, "hopeless")}
		all = append(all, c)
		last[id] = c
	}
	require.NoError(s.t, s.f.ConcludeJobTargets(s.f.ctx(), s.job.ID, all))
	for id, c := range last {
		if m := s.targets[id]; !m.state.Decided() && m.epoch == c.Epoch {
			*m = modelTarget{state: c.State, epoch: m.epoch, hopeless: c.Hopeless}
		}
	}
}

func (s *jobStory) retry() {
	r := store.JobRetry{Max: rapid.IntRange(0, 2).Draw(s.t, "max"), OnFailure: rapid.Bool().Draw(s.t, "on failure"), Offline: rapid.Bool().Draw(s.t, "wait")}
	if rapid.Bool().Draw(s.t, "later") {
		r.After = s.f.now().Add(time.Minute)
	}
	retried, counts, err := s.f.RetryJob(s.f.ctx(), s.job.ID, r)
	require.NoError(s.t, err)
	stored, err := s.f.Job(s.f.ctx(), s.job.ID)
	require.NoError(s.t, err)
	require.Equal(s.t, stored.Counts, counts)
	want := 0
	for _, m := range s.targets {
		switch {
		case s.over():
		case m.state == job.StateOffline && r.Offline:
			m.state, m.waits = job.StatePending, true
			want++
		case job.RetryState(m.state, job.Options{RetryOnFailure: r.OnFailure}) && m.epoch < r.Max && !m.hopeless:
			*m = modelTarget{state: job.StatePending, epoch: m.epoch + 1, notBefore: r.After}
			want++
		}
	}
	require.Equal(s.t, want, retried)
}

func (s *jobStory) wake() {
	waiting, connected, err := s.f.AwaitingJobTargets(s.f.ctx(), s.job.ID)
	require.NoError(s.t, err)
	woken, err := s.f.WakeJobTargets(s.f.ctx(), s.job.ID)
	require.NoError(s.t, err)
	wait, wake := 0, 0
	for i, id := range s.ids {
		if m := s.targets[id]; m.waits {
			wait++
			if i < 2 {
				m.waits = false
				wake++
			}
		}
	}
	require.Equal(s.t, []int{wait, wake, wake}, []int{waiting, connected, woken})
}

func (s *jobStory) giveUp() {
	n, err := s.f.GiveUpJobTargets(s.f.ctx(), s.job.ID, s.f.now())
	require.NoError(s.t, err)
	for _, m := range s.targets {
		if m.waits {
			m.state, m.waits = job.StateOffline, false
			n--
		}
	}
	require.Zero(s.t, n)
}

func (s *jobStory) halt() {
	s.halted = rapid.Bool().Draw(s.t, "halted")
	require.NoError(s.t, s.f.SetJobHalt(s.f.ctx(), s.job.ID, s.halted))
}

func (s *jobStory) progress() {
	next := rapid.SampledFrom(job.Statuses()).Draw(s.t, "status")
	err := s.f.SetJobProgress(s.f.ctx(), s.job.ID, store.JobProgress{Status: next})
	if !s.status.CanBecome(next) {
		require.ErrorIs(s.t, err, release.ErrConflict)
		return
	}
	require.NoError(s.t, err)
	if s.status = next; !s.over() {
		return
	}
	for _, m := range s.targets {
		switch {
		case m.waits:
			m.state, m.waits = job.StateOffline, false
		case m.state == job.StatePending:
			m.state = job.StateSkipped
		case m.state == job.StateRunning:
			m.state = job.StateUnknown
		}
	}
}

func (s *jobStory) plan() {
	plans, err := s.f.PlanJobChunks(s.f.ctx(), s.job.ID, 2, "other")
	require.NoError(s.t, err)
	got := map[string][]string{}
	for _, p := range plans {
		chunk, err := s.f.JobSteps(s.f.ctx(), s.job.ID, p.Chunk)
		require.NoError(s.t, err)
		require.Len(s.t, chunk, p.Size)
		for _, target := range chunk {
			got[p.NodeID] = append(got[p.NodeID], target.ClientID)
		}
	}
	want := map[string][]string{}
	for i, id := range s.ids {
		m := s.targets[id]
		if m.state != job.StateRunning && (m.state != job.StatePending || s.halted || m.waits || m.notBefore.After(s.f.now())) {
			continue
		}
		node := "other"
		if i < 2 {
			node = "n"
		}
		want[node] = append(want[node], id)
	}
	require.Equal(s.t, want, got)
}

// compare holds the store to the model: the targets, the counts, and what a reader saw that resumes again and again.
func (s *jobStory) compare() {
	var words []string
	var counts job.Counts
	for _, id := range s.ids {
		words = append(words, id+" "+string(s.targets[id].state))
		counts.Add(s.targets[id].state, 1)
	}
	require.Equal(s.t, strings.Join(words, ", "), s.f.jobStates(s.job.ID))
	j, err := s.f.Job(s.f.ctx(), s.job.ID)
	require.NoError(s.t, err)
	require.Equal(s.t, counts, j.Counts)
	require.Equal(s.t, s.status, j.Status)
	require.Equal(s.t, s.over(), j.FinishedAt != nil)

	for {
		targets, next, err := s.f.FinishedTargets(s.f.ctx(), s.job.ID, s.cursor, 2)
		require.NoError(s.t, err)
		for _, target := range targets {
			s.seen[target.ClientID] = modelTarget{state: target.State, epoch: target.Epoch}
		}
		if len(targets) == 0 {
			require.Equal(s.t, s.cursor, next)
			break
		}
		require.Greater(s.t, next, s.cursor)
		s.cursor = next
	}
	for id, m := range s.targets {
		if m.state.Decided() {
			require.Equal(s.t, modelTarget{state: m.state, epoch: m.epoch}, s.seen[id], id)
		}
	}
}
