package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/internal/telemetry"
)

// values gathers what a registry says, by name and label.
func values(t *testing.T, reg *prometheus.Registry) map[string]string {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	got := map[string]string{}
	for _, f := range families {
		for _, m := range f.Metric {
			value := fmt.Sprint(m.Gauge.GetValue() + m.Counter.GetValue())
			if m.Summary != nil {
				value = fmt.Sprint(m.Summary.GetSampleSum(), "/", m.Summary.GetSampleCount())
			}
			got[f.GetName()+" "+m.Label[0].GetValue()] = value
		}
	}
	return got
}

// Jobs that go their way through a real store are counted as what they are.
func TestJobs(t *testing.T) {
	ctx := t.Context()
	s, err := store.Open(ctx, store.Config{Driver: store.SQLite, DSN: filepath.Join(t.TempDir(), "db"), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	reg := prometheus.NewRegistry()
	require.NoError(t, reg.Register(telemetry.NewJobs(s, slog.New(slog.DiscardHandler))))
	create := func(status job.Status, hosts ...string) job.Job {
		j := job.Job{Kind: job.KindBatch, Command: job.Command{Type: "ping"}}
		require.NoError(t, s.CreateJob(ctx, &j, hosts))
		if status != job.StatusStarting {
			require.NoError(t, s.SetJobProgress(ctx, j.ID, store.JobProgress{Status: status}))
		}
		return j
	}
	create(job.StatusStarting, "a")
	create(job.StatusPaused, "a")
	j := create(job.StatusRunning, "a", "b", "c")
	plans, err := s.PlanJobChunks(ctx, j.ID, 3, "n")
	require.NoError(t, err)
	_, _, err = s.MarkJobChunk(ctx, j.ID, plans[0].Chunk, []string{"a", "b"})
	require.NoError(t, err)
	_, err = s.RecordResults(ctx, []release.StepResult{
		{StepID: release.StepID(j.ID, job.StepCommand, "a", 0), ClientID: "a", State: release.StepSucceeded},
		{StepID: release.StepID(j.ID, job.StepCommand, "b", 0), ClientID: "b", State: release.StepFailed, TimedOut: true},
	})
	require.NoError(t, err)
	require.NoError(t, s.ConcludeJobTargets(ctx, j.ID, []store.JobConclusion{{ClientID: "c", State: job.StateOffline}}))
	got := values(t, reg)
	require.Equal(t, "1", got["quicflow_jobs starting"])
	require.Equal(t, "1", got["quicflow_jobs running"])
	require.Equal(t, "1", got["quicflow_jobs paused"])
	require.Equal(t, "0", got["quicflow_jobs cancelling"])
	require.NotContains(t, got, "quicflow_jobs completed")
	require.Equal(t, "1", got["quicflow_commands_total succeeded"])
	require.Equal(t, "1", got["quicflow_commands_total timeout"])
	require.Equal(t, "1", got["quicflow_commands_total offline"])
	require.Equal(t, "0", got["quicflow_commands_total failed"])

	for range 2 { // told twice, counted once
		require.NoError(t, s.SetJobProgress(ctx, j.ID, store.JobProgress{Status: job.StatusPartial, At: j.CreatedAt.Add(time.Minute)}))
	}
	got = values(t, reg)
	require.Equal(t, "0", got["quicflow_jobs running"])
	require.Equal(t, "60/1", got["quicflow_job_duration_seconds partial"])
	require.Equal(t, "0/0", got["quicflow_job_duration_seconds completed"])
}

// jobSource is a JobSource whose database is down.
type jobSource struct{}

func (jobSource) OpenJobs(context.Context) (map[job.Status]int, error) {
	return nil, errors.New("database is down")
}
func (jobSource) EndedJobs() map[job.Status]job.Total { return nil }
func (jobSource) CommandOutcomes() map[job.State]int  { return map[job.State]int{job.StateFailed: 4} }

func TestJobsWithoutADatabase(t *testing.T) {
	reg := prometheus.NewRegistry()
	require.NoError(t, reg.Register(telemetry.NewJobs(jobSource{}, slog.New(slog.DiscardHandler))))
	got := values(t, reg)
	require.Equal(t, "4", got["quicflow_commands_total failed"])
	require.NotContains(t, got, "quicflow_jobs running")
}
