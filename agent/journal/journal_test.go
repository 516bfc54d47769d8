package journal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/quicflow/quicflow/agent/journal"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, cfg journal.Config) *journal.Journal {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "journal.db")
	}
	if cfg.Now == nil {
		cfg.Now = func() time.Time { return now }
	}
	j, err := journal.Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func step(id string, notAfter time.Time) *quicflowv1.StepRequest {
	return &quicflowv1.StepRequest{StepId: id, TaskId: "t", NotAfterUnixMs: notAfter.UnixMilli()}
}

func result(id string, end uint64) *quicflowv1.StepResult {
	return &quicflowv1.StepResult{
		StepId: id, Outcome: quicflowv1.Outcome_OUTCOME_SUCCEEDED, LogEnd: end, StdoutTail: []byte("tail"),
	}
}

func TestJournalIsTheSameAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, journal.Config{Path: path})
	id := j.ID()
	require.EqualValues(t, 1, j.Generation())
	status, err := j.Begin(step("a", now.Add(time.Hour)))
	require.NoError(t, err)
	require.Equal(t, journal.New, status.State)
	_, err = j.Begin(step("b", now.Add(time.Hour)))
	require.NoError(t, err)
	require.NoError(t, j.Finish(result("b", 7)))
	_, err = j.Confirm([]journal.Ack{{StepID: "a", Log: 3}, {StepID: "b", Result: true, Log: 5}})
	require.NoError(t, err)
	require.NoError(t, j.Close())

	j = open(t, journal.Config{Path: path})
	require.Equal(t, id, j.ID())
	require.EqualValues(t, 2, j.Generation())
	entries, err := j.Entries()
	require.NoError(t, err)
	require.Empty(t, cmp.Diff([]journal.Entry{
		{StepID: "a", Request: step("a", now.Add(time.Hour)), LogAcked: 3},
		{StepID: "b", Request: step("b", now.Add(time.Hour)), Finished: true, ResultAcked: true, LogAcked: 5, LogEnd: 7},
	}, entries, protocmp.Transform()))
}

func TestJournalOpensOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	open(t, journal.Config{Path: path})
	_, err := journal.Open(journal.Config{Path: path})
	require.ErrorIs(t, err, journal.ErrInUse)
}

func TestKnownStepIsAnsweredAndNeverNewAgain(t *testing.T) {
	clock := now
	j := open(t, journal.Config{Margin: time.Hour, Now: func() time.Time { return clock }})
	request := step("a", now.Add(time.Minute))
	begin := func() journal.Status {
		status, err := j.Begin(request)
		require.NoError(t, err)
		return status
	}
	require.Equal(t, journal.New, begin().State)
	require.Equal(t, journal.Running, begin().State)
	require.NoError(t, j.Finish(result("a", 10)))
	require.Equal(t, []byte("tail"), begin().Result.StdoutTail)

	gone, err := j.Confirm([]journal.Ack{{StepID: "a", Result: true, Log: 9}})
	require.NoError(t, err)
	require.Empty(t, gone, "its log is not stored to the end")
	gone, err = j.Confirm([]journal.Ack{{StepID: "a", Result: true, Log: 10}})
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, gone)
	entries, err := j.Entries()
	require.NoError(t, err)
	require.Empty(t, entries)

	status := begin()
	require.Equal(t, journal.Finished, status.State)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, status.Result.Outcome)
	require.Empty(t, status.Result.StdoutTail)

	// It is remembered until not_after and the margin are over.
	clock = now.Add(time.Hour)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, begin().Result.Outcome)
	clock = now.Add(2 * time.Hour)
	_, err = j.Begin(step("other", clock.Add(time.Minute))) // drops old memories
	require.NoError(t, err)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_UNKNOWN, begin().Result.Outcome, "too old to be remembered")

	// Not even a clock that is set back makes it new.
	clock = now
	second := step("second", now.Add(time.Minute))
	status, err = j.Begin(second)
	require.NoError(t, err)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_UNKNOWN, status.Result.Outcome)
}

func TestLateStepIsRefused(t *testing.T) {
	j := open(t, journal.Config{})
	status, err := j.Begin(step("late", now.Add(-time.Millisecond)))
	require.NoError(t, err)
	require.Equal(t, journal.Finished, status.State)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, status.Result.Outcome)
	require.Contains(t, status.Result.Error, "too late")
	entries, err := j.Entries()
	require.NoError(t, err)
	require.Len(t, entries, 1, "the refusal is a result that is sent until it is confirmed")
	require.Nil(t, entries[0].Request)

	_, err = j.Begin(step("endless", time.UnixMilli(0)))
	require.ErrorIs(t, err, journal.ErrNoDeadline)
}

func TestTombstoneKeepsAStepFromStarting(t *testing.T) {
	j := open(t, journal.Config{})
	tombstone := &quicflowv1.StepResult{StepId: "a", Outcome: quicflowv1.Outcome_OUTCOME_REFUSED, Error: "cancelled"}
	status, err := j.Tombstone(tombstone, now.Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, journal.New, status.State)
	status, err = j.Begin(step("a", now.Add(time.Hour)))
	require.NoError(t, err)
	require.Equal(t, "cancelled", status.Result.Error)

	_, err = j.Begin(step("b", now.Add(time.Hour)))
	require.NoError(t, err)
	tombstone.StepId = "b"
	status, err = j.Tombstone(tombstone, now.Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, journal.Running, status.State, "a running step is not buried")
}

func TestFullJournalRefusesAndNeverEvicts(t *testing.T) {
	j := open(t, journal.Config{MaxEntries: 2, MaxRemembered: 3})
	for _, id := range []string{"a", "b"} {
		_, err := j.Begin(step(id, now.Add(time.Hour)))
		require.NoError(t, err)
	}
	_, err := j.Begin(step("c", now.Add(time.Hour)))
	require.ErrorIs(t, err, journal.ErrFull)
	require.ErrorContains(t, err, "2 steps run or wait for the server to confirm their results and logs; it takes no more than 2")
	status, err := j.Begin(step("a", now.Add(time.Hour)))
	require.NoError(t, err)
	require.Equal(t, journal.Running, status.State)
	_, err = j.Tombstone(&quicflowv1.StepResult{StepId: "d"}, now.Add(time.Hour))
	require.NoError(t, err, "there is still room to promise that a step will not start")

	finish := func(id string) {
		require.NoError(t, j.Finish(result(id, 0)))
		_, err := j.Confirm([]journal.Ack{{StepID: id, Result: true}})
		require.NoError(t, err)
	}
	finish("a")
	finish("d")
	_, err = j.Begin(step("c", now.Add(time.Hour)))
	require.NoError(t, err)
	finish("c")
	_, err = j.Begin(step("e", now.Add(time.Hour)))
	require.ErrorIs(t, err, journal.ErrFull, "confirmed steps are remembered, and so bounded, too")
	require.ErrorContains(t, err, "it remembers 3 confirmed steps, as many as it may")
}

func TestOnlyOneBeginIsNew(t *testing.T) {
	j := open(t, journal.Config{})
	var news atomic.Int32
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			status, err := j.Begin(step(fmt.Sprint("step", i%4), now.Add(time.Hour)))
			if err == nil && status.State == journal.New {
				news.Add(1)
			}
		})
	}
	group.Wait()
	require.EqualValues(t, 4, news.Load())
}

func TestResultOfUnknownStep(t *testing.T) {
	j := open(t, journal.Config{})
	require.ErrorIs(t, j.Finish(result("a", 0)), journal.ErrUnknownStep)
	gone, err := j.Confirm([]journal.Ack{{StepID: "a", Result: true}})
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, gone)
}

// Whatever happens in whatever order, a step is new at most once, a result once given stays, and reopening changes
// nothing but the generation.
func TestJournalAgainstModel(t *testing.T) {
	base := t.TempDir()
	runs := 0
	rapid.Check(t, func(r *rapid.T) {
		runs++
		clock := now
		cfg := journal.Config{
			Path: filepath.Join(base, fmt.Sprint(runs)), NoSync: true, Margin: time.Minute, Now: func() time.Time { return clock },
		}
		j, err := journal.Open(cfg)
		require.NoError(r, err)
		defer func() { _ = j.Close() }()
		started := map[string]bool{}
		finished := map[string]quicflowv1.Outcome{}
		ids := rapid.SampledFrom([]string{"a", "b", "c"})
		begin := func(id string) journal.Status {
			status, err := j.Begin(step(id, now.Add(10*time.Minute)))
			require.NoError(r, err)
			return status
		}
		r.Repeat(map[string]func(*rapid.T){
			"begin": func(r *rapid.T) {
				id := ids.Draw(r, "id")
				status := begin(id)
				if status.State == journal.New {
					require.False(r, started[id], "started twice")
					require.NotContains(r, finished, id)
					started[id] = true
				}
				if outcome, ok := finished[id]; ok {
					require.Equal(r, journal.Finished, status.State)
					if status.Result.Outcome != quicflowv1.Outcome_OUTCOME_UNKNOWN { // forgotten
						require.Equal(r, outcome, status.Result.Outcome)
					}
				} else if status.State == journal.Finished {
					finished[id] = status.Result.Outcome
				}
			},
			"finish": func(r *rapid.T) {
				id := ids.Draw(r, "id")
				outcome := rapid.SampledFrom([]quicflowv1.Outcome{1, 2, 3}).Draw(r, "outcome")
				err := j.Finish(&quicflowv1.StepResult{StepId: id, Outcome: outcome})
				if _, ok := finished[id]; err == nil && !ok {
					require.True(r, started[id])
					finished[id] = outcome
				}
			},
			"tombstone": func(r *rapid.T) {
				id := ids.Draw(r, "id")
				status, err := j.Tombstone(&quicflowv1.StepResult{StepId: id, Outcome: quicflowv1.Outcome_OUTCOME_REFUSED}, now.Add(10*time.Minute))
				require.NoError(r, err)
				if status.State == journal.New { // not known, or forgotten
					if _, ok := finished[id]; !ok {
						require.False(r, started[id])
					}
					finished[id] = quicflowv1.Outcome_OUTCOME_REFUSED
				}
			},
			"confirm": func(r *rapid.T) {
				_, err := j.Confirm([]journal.Ack{{StepID: ids.Draw(r, "id"), Result: rapid.Bool().Draw(r, "result")}})
				require.NoError(r, err)
			},
			"clock": func(r *rapid.T) {
				clock = now.Add(time.Duration(rapid.IntRange(-5, 20).Draw(r, "minutes")) * time.Minute)
			},
			"reopen": func(r *rapid.T) {
				generation := j.Generation()
				require.NoError(r, j.Close())
				j, err = journal.Open(cfg)
				require.NoError(r, err)
				require.Equal(r, generation+1, j.Generation())
			},
		})
	})
}

// Intents of steps that come together share their fsyncs.
func TestConcurrentIntentsShareCommits(t *testing.T) {
	const steps = 100
	j := open(t, journal.Config{})
	before := j.Commits()
	start := make(chan struct{})
	var group sync.WaitGroup
	for i := range steps {
		group.Go(func() {
			<-start
			_, err := j.Begin(step(fmt.Sprint("step", i), now.Add(time.Hour)))
			if err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	group.Wait()
	require.Less(t, j.Commits()-before, steps/4)
	stats, err := j.Stats()
	require.NoError(t, err)
	require.Equal(t, steps, stats.Entries)
}

// Intent and result of what has no effect are one commit.
func TestRecordIsOneCommit(t *testing.T) {
	j := open(t, journal.Config{MaxEntries: 2, MaxRemembered: 3})
	request := step("a", now.Add(time.Hour))
	ready, err := j.Ready(request)
	require.NoError(t, err)
	require.True(t, ready)
	before := j.Commits()
	status, err := j.Record(result("a", 0), now.Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, journal.New, status.State)
	require.Equal(t, before+1, j.Commits())

	ready, err = j.Ready(request)
	require.NoError(t, err)
	require.False(t, ready, "it is known")
	other := result("a", 0)
	other.Outcome = quicflowv1.Outcome_OUTCOME_FAILED
	status, err = j.Record(other, now.Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, status.Result.Outcome, "the first result stays")
	status, err = j.Begin(request)
	require.NoError(t, err)
	require.Equal(t, journal.Finished, status.State)

	for name, late := range map[string]*quicflowv1.StepRequest{
		"late": step("late", now.Add(-time.Second)), "endless": step("endless", time.UnixMilli(0)),
	} {
		ready, err = j.Ready(late)
		require.NoError(t, err)
		require.False(t, ready, name)
	}
	_, err = j.Record(result("b", 0), now.Add(time.Hour))
	require.NoError(t, err)
	_, err = j.Record(result("c", 0), now.Add(time.Hour))
	require.ErrorIs(t, err, journal.ErrFull)
	ready, err = j.Ready(step("c", now.Add(time.Hour)))
	require.NoError(t, err)
	require.False(t, ready)
}

// A copy in the original's place is another journal, though its generation went forward.
func TestCopiedJournal(t *testing.T) {
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "journal.db"), filepath.Join(dir, "backup")
	j := open(t, journal.Config{Path: path})
	require.False(t, j.Copied())
	_, err := j.Begin(step("a", now.Add(time.Hour)))
	require.NoError(t, err)
	require.NoError(t, j.Finish(result("a", 0)))
	id := j.ID()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(backup, text, 0o600))
	_, err = j.Begin(step("b", now.Add(time.Hour))) // what the copy lacks
	require.NoError(t, err)
	require.NoError(t, j.Close())

	j = open(t, journal.Config{Path: path})
	require.False(t, j.Copied())
	require.Equal(t, id, j.ID(), "the original is itself")
	require.NoError(t, j.Close())

	require.NoError(t, os.Rename(backup, path))
	j = open(t, journal.Config{Path: path})
	require.True(t, j.Copied())
	require.NotEqual(t, id, j.ID())
	status, err := j.Begin(step("a", now.Add(time.Hour)))
	require.NoError(t, err)
	require.Equal(t, journal.Finished, status.State, "what it knows it still answers")
	id = j.ID()
	require.NoError(t, j.Close())

	j = open(t, journal.Config{Path: path})
	require.False(t, j.Copied())
	require.Equal(t, id, j.ID(), "from now on it is the original")
}

func BenchmarkBegin(b *testing.B) {
	for _, concurrent := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(concurrent), func(b *testing.B) {
			j, err := journal.Open(journal.Config{Path: filepath.Join(b.TempDir(), "journal.db"), MaxEntries: 10_000_000})
			require.NoError(b, err)
			defer func() { _ = j.Close() }()
			notAfter := time.Now().Add(time.Hour)
			var next atomic.Int64
			var group sync.WaitGroup
			before := j.Commits()
			b.ResetTimer()
			for range concurrent {
				group.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						if _, err := j.Begin(step(fmt.Sprintf("task/deploy/host/%d", n), notAfter)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			group.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "begin/s")
			b.ReportMetric(float64(b.N)/float64(j.Commits()-before), "begin/commit")
		})
	}
}

// A journal takes no secrets, should someone forget to take them out.
func TestNoSecrets(t *testing.T) {
	j := open(t, journal.Config{})
	s := step("a", time.Now().Add(time.Hour))
	s.Spec = &quicflowv1.StepRequest_Deploy{Deploy: &quicflowv1.DeployStep{Secrets: map[string]string{"TOKEN": "x"}}}
	_, err := j.Begin(s)
	require.ErrorIs(t, err, journal.ErrSecrets)
	status, err := j.Lookup("a")
	require.NoError(t, err)
	require.Equal(t, journal.New, status.State)
}
