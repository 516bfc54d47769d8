package store_test

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

func init() {
	jobTests["a chunk of an old plan is not marked"] = func(f *fixture) {
		j := f.job(f.join(3)...)
		plan := func() int {
			plans, err := f.PlanJobChunks(f.ctx(), j.ID, 10, "n")
			require.NoError(f, err)
			require.Len(f, plans, 1)
			return plans[0].Chunk
		}
		old := plan()
		marked, halted, err := f.MarkJobChunk(f.ctx(), j.ID, old, []string{"h000"})
		require.NoError(f, err)
		require.False(f, halted)
		require.Equal(f, []string{"h000"}, marked)
		latest := plan()
		marked, halted, err = f.MarkJobChunk(f.ctx(), j.ID, old, []string{"h000", "h001"})
		require.NoError(f, err)
		require.True(f, halted)
		require.Empty(f, marked)
		steps, err := f.JobSteps(f.ctx(), j.ID, old)
		require.NoError(f, err)
		require.Empty(f, steps)
		steps, err = f.JobSteps(f.ctx(), j.ID, latest)
		require.NoError(f, err)
		require.Equal(f, []store.JobStep{{"h000", job.StateRunning, 0}, {"h001", job.StatePending, 0}, {"h002", job.StatePending, 0}}, steps)
		marked, _, err = f.MarkJobChunk(f.ctx(), j.ID, latest, []string{"h000", "h001"})
		require.NoError(f, err)
		require.Equal(f, []string{"h000", "h001"}, marked)
	}
	jobTests["of a halted job only what runs is planned"] = func(f *fixture) {
		j := f.job(f.join(3)...)
		f.mark(j, "h001")
		require.NoError(f, f.SetJobHalt(f.ctx(), j.ID, true))
		plans, err := f.PlanJobChunks(f.ctx(), j.ID, 10, "n")
		require.NoError(f, err)
		require.Len(f, plans, 1)
		require.Equal(f, 1, plans[0].Size)
		require.NoError(f, f.SetJobHalt(f.ctx(), j.ID, false))
		plans, err = f.PlanJobChunks(f.ctx(), j.ID, 10, "n")
		require.NoError(f, err)
		require.Equal(f, 3, plans[0].Size)
	}
	jobTests["jobs are counted, open and ended"] = func(f *fixture) {
		ids := f.join(1)
		open, ended := f.job(ids...), f.job(ids...)
		require.NoError(f, f.SetJobProgress(f.ctx(), open.ID, store.JobProgress{Status: job.StatusPaused}))
		before := f.EndedJobs()[job.StatusFailed]
		for range 2 {
			require.NoError(f, f.SetJobProgress(f.ctx(), ended.ID, store.JobProgress{Status: job.StatusFailed, At: ended.CreatedAt.Add(time.Minute)}))
		}
		after := f.EndedJobs()[job.StatusFailed]
		require.Equal(f, job.Total{Jobs: 1, Took: time.Minute}, job.Total{Jobs: after.Jobs - before.Jobs, Took: after.Took - before.Took})
		counts, err := f.OpenJobs(f.ctx())
		require.NoError(f, err)
		require.Equal(f, map[job.Status]int{job.StatusPaused: 1}, counts)
		require.ErrorIs(f, f.SetJobProgress(f.ctx(), ended.ID, store.JobProgress{Status: job.StatusRunning}), release.ErrConflict)
	}
}
