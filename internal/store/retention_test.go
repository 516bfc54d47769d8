package store_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var retentionTests = map[string]func(*fixture){
	"old logs are removed, and that is said": func(f *fixture) {
		f.join(3)
		v := f.project("shop", "1.0")["1.0"]
		const records = 1203 // more than one piece
		logged := func() (release.Task, map[string]release.Step) {
			task := f.deploy("shop", &v, "h000", "h001")
			steps := f.dispatch(task, release.StepDeploy, "h000", "h001")
			return task, steps
		}
		old, steps := logged()
		var batch []release.LogRecord
		for i := range uint64(records) {
			batch = append(batch, release.LogRecord{StepID: steps["h000"].ID, ClientID: "h000", Position: i, Next: i + 1, Data: []byte("xy")})
		}
		_, err := f.AppendLogs(f.ctx(), batch)
		require.NoError(f, err)
		f.end(old, release.StatusSucceeded)
		silent, _ := logged()
		f.end(silent, release.StatusFailed)
		open, steps := logged()
		f.log(steps["h000"], 0, 5, "open")
		f.advance(time.Hour)
		young, steps2 := logged()
		f.log(steps2["h001"], 0, 5, "young")
		f.end(young, release.StatusSucceeded)
		upTo := f.now().Add(-30 * time.Minute)

		removed, err := f.RemoveLogs(f.ctx(), time.Time{}, upTo)
		require.NoError(f, err)
		require.Equal(f, store.Removed{Logs: 1, Records: records, Bytes: 2 * records}, removed)
		require.Equal(f, "open", f.text(open))
		require.Equal(f, "young", f.text(young))
		require.Empty(f, f.text(silent))
		said := "logs were removed by retention at " + f.now().Format(time.RFC3339) + " (logs.retention)\n"
		require.Equal(f, said, f.text(old))
		for after, want := range map[int64]int{0: 1, 600: 1, records - 1: 1, records: 0, records + 5: 0} {
			for _, filter := range []store.LogFilter{{}, {ClientID: "h001"}} {
				got, err := f.Logs(f.ctx(), old.ID, after, filter, 1)
				require.NoError(f, err)
				require.Len(f, got, want, after)
				if want == 1 {
					require.Equal(f, release.LogRecord{TaskID: old.ID, Seq: records, Stream: release.StreamSystem, Time: f.now(), Data: []byte(said)}, got[0])
				}
			}
		}
		head, err := f.LogHead(f.ctx(), old.ID)
		require.NoError(f, err)
		require.EqualValues(f, records, head)
		again, err := f.RemoveLogs(f.ctx(), time.Time{}, upTo)
		require.NoError(f, err)
		require.Zero(f, again)

		// What comes late follows, and is no duplicate.
		require.EqualValues(f, records, f.log(release.Step{ID: batch[0].StepID, ClientID: "h000"}, 0, 5, "again"))
		require.EqualValues(f, records+1, f.log(release.Step{ID: batch[0].StepID, ClientID: "h000"}, records, records+1, "late"))
		require.Equal(f, said+"late", f.text(old))
		removed, err = f.RemoveLogs(f.ctx(), time.Time{}, upTo)
		require.NoError(f, err)
		require.Equal(f, store.Removed{Logs: 1, Records: 1, Bytes: 4}, removed)

		// Those that ended before a moment need not be looked at again.
		removed, err = f.RemoveLogs(f.ctx(), upTo, f.now())
		require.NoError(f, err)
		require.Equal(f, store.Removed{Logs: 1, Records: 1, Bytes: 5}, removed)
	},
	"a log that is too large loses its beginning": func(f *fixture) {
		f.limitLogs(1000)
		task, steps := f.running("h000", "h001")
		step := steps["h000"]
		position := uint64(0)
		write := func(n int, step release.Step) {
			f.log(step, position, position+1, strings.Repeat("x", n))
			position++
		}
		trim := func(all bool) store.Removed {
			f.Helper()
			removed, err := f.TrimLogs(f.ctx(), all)
			require.NoError(f, err)
			return removed
		}
		for range 10 {
			write(100, step)
		}
		require.Zero(f, trim(false))
		write(1, step)
		f.log(steps["h001"], 0, 1, "other")
		// 1006 bytes; 900 may stay.
		require.Equal(f, store.Removed{Logs: 1, Records: 2, Bytes: 200}, trim(false))
		require.Zero(f, trim(false))
		got, err := f.Logs(f.ctx(), task.ID, 0, store.LogFilter{}, 3)
		require.NoError(f, err)
		require.Len(f, got, 3)
		require.Equal(f, release.LogRecord{TaskID: task.ID, Seq: 2, Stream: release.StreamSystem, Time: f.now(), Data: []byte("200 bytes cut by logs.max_bytes\n")}, got[0])
		require.EqualValues(f, 3, got[1].Seq)
		for after, want := range map[int64]string{0: "2 3", 1: "2 3", 2: "3 4", 3: "4 5"} {
			got, err := f.Logs(f.ctx(), task.ID, after, store.LogFilter{}, 2)
			require.NoError(f, err)
			require.Equal(f, want, fmt.Sprint(got[0].Seq, got[1].Seq), after)
		}
		got, err = f.Logs(f.ctx(), task.ID, 0, store.LogFilter{ClientID: "h001"}, 0)
		require.NoError(f, err)
		require.Len(f, got, 2)
		require.EqualValues(f, 2, got[0].Seq)
		require.Equal(f, "other", string(got[1].Data))

		// It goes on growing: what is cut adds up.
		write(500, step)
		require.Equal(f, store.Removed{Logs: 1, Records: 5, Bytes: 500}, trim(true))
		require.True(f, strings.HasPrefix(f.text(task), "700 bytes cut by logs.max_bytes\nxxx"))
		require.Len(f, f.text(task), len("700 bytes cut by logs.max_bytes\n")+806)

		// And in the end all of it goes.
		f.end(task, release.StatusSucceeded)
		f.advance(time.Hour)
		_, err = f.RemoveLogs(f.ctx(), time.Time{}, f.now())
		require.NoError(f, err)
		require.True(f, strings.HasPrefix(f.text(task), "logs were removed by retention"))
		require.NotContains(f, f.text(task), "\nx")
	},
	"old jobs are deleted": func(f *fixture) {
		ids := f.join(f.many())
		f.connect("node", ids...)
		make := func(clients ...string) *job.Job {
			f.Helper()
			j := &job.Job{Kind: job.KindBatch, Command: job.Command{Type: "ping"}, Targets: release.Targets{Clients: clients}}
			require.NoError(f, f.CreateJob(f.ctx(), j, clients))
			require.NoError(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusRunning, At: f.now()}))
			_, _, err := f.MarkJobChunk(f.ctx(), j.ID, f.chunk(j.ID), clients)
			require.NoError(f, err)
			f.log(release.Step{ID: release.StepID(j.ID, job.StepCommand, clients[0], 0), ClientID: clients[0]}, 0, 3, "out")
			return j
		}
		end := func(j *job.Job) {
			f.Helper()
			require.NoError(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusFailed, At: f.now()}))
		}
		open, large, small, other := make(ids[0]), make(ids...), make(ids[0]), make(ids[1])
		end(large)
		end(small)
		end(other)
		f.advance(time.Hour)
		young := make(ids[0])
		end(young)
		deleted, removed, err := f.DeleteOldJobs(f.ctx(), f.now().Add(-30*time.Minute))
		require.NoError(f, err)
		require.Equal(f, 3, deleted)
		require.EqualValues(f, 3, removed.Records)
		for _, j := range []*job.Job{large, small, other} {
			_, err := f.Job(f.ctx(), j.ID)
			require.ErrorIs(f, err, release.ErrNotFound)
			_, err = f.LogHead(f.ctx(), j.ID)
			require.ErrorIs(f, err, release.ErrNotFound)
			logs, err := f.Logs(f.ctx(), j.ID, 0, store.LogFilter{}, 0)
			require.NoError(f, err)
			require.Empty(f, logs)
			_, _, err = f.JobTargets(f.ctx(), j.ID, store.JobTargetFilter{})
			require.ErrorIs(f, err, release.ErrNotFound)
		}
		for _, j := range []*job.Job{open, young} {
			_, err := f.Job(f.ctx(), j.ID)
			require.NoError(f, err)
			require.Equal(f, "out", f.text(release.Task{ID: j.ID}))
		}
		require.EqualValues(f, 9, f.log(release.Step{ID: release.StepID(large.ID, job.StepCommand, ids[0], 0), ClientID: ids[0]}, 3, 9, "late"), "it can be forgotten")
		require.Empty(f, f.text(release.Task{ID: large.ID}))

		// The logs of a job go before it.
		upTo := f.now()
		removed, err = f.RemoveLogs(f.ctx(), time.Time{}, upTo)
		require.NoError(f, err)
		require.Equal(f, store.Removed{Logs: 1, Records: 1, Bytes: 3}, removed)
		require.Contains(f, f.text(release.Task{ID: young.ID}), "removed by retention")
	},
	"sweeping": func(f *fixture) {
		f.limitLogs(1000)
		task, steps := f.running("h000")
		v, err := f.Version(f.ctx(), "shop", "1.0")
		require.NoError(f, err)
		f.log(steps["h000"], 0, 1, "old")
		f.end(task, release.StatusSucceeded)
		f.advance(2 * time.Hour)
		open := f.deploy("shop", &v, "h000")
		step := f.dispatch(open, release.StepDeploy, "h000")["h000"]

		log := &lockedBuffer{}
		sweeper := store.NewSweeper(store.SweeperConfig{Store: f.Store, LogRetention: time.Hour, JobRetention: time.Hour, Interval: time.Hour,
			Logger: slog.New(slog.NewTextHandler(log, nil))})
		ctx, cancel := context.WithCancel(f.ctx())
		var running sync.WaitGroup
		running.Go(func() { sweeper.Run(ctx) })
		defer running.Wait()
		defer cancel()
		require.Eventually(f, func() bool { return strings.Contains(f.text(task), "removed by retention") }, 20*time.Second, 5*time.Millisecond)
		f.log(step, 0, 1, strings.Repeat("y", 600))
		f.log(step, 1, 2, strings.Repeat("y", 600)) // too much: it is cut at once
		require.Eventually(f, func() bool { return strings.HasPrefix(f.text(open), "600 bytes cut by logs.max_bytes\nyyy") }, 20*time.Second, 5*time.Millisecond)
		cancel()
		running.Wait()
		require.Contains(f, log.String(), `msg="old logs removed" logs=1 records=1 bytes=3`)
		require.Contains(f, log.String(), `msg="logs cut by logs.max_bytes" logs=1 records=1 bytes=600`)
		require.NotContains(f, log.String(), "level=ERROR")
	},
}

// end brings a task to its end.
func (f *fixture) end(task release.Task, status release.Status) {
	f.Helper()
	for _, s := range []release.Status{release.StatusRunning, status} {
		require.NoError(f, f.SetProgress(f.ctx(), task.ID, store.Progress{Status: s, Phase: release.PhaseWave, Wave: 1, At: f.now()}))
	}
}

// limitLogs opens the store again with a limit for its logs.
func (f *fixture) limitLogs(bytes int64) {
	f.Helper()
	require.NoError(f, f.Close())
	f.config.MaxLogBytes = bytes
	f.open()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
