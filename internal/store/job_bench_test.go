package store_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// benchJobs runs a benchmark on both databases.
func benchJobs(b *testing.B, run func(b *testing.B, s *store.Store)) {
	for _, driver := range []store.Driver{store.SQLite, store.Postgres} {
		b.Run(string(driver), func(b *testing.B) {
			config := store.Config{Driver: driver, DSN: filepath.Join(b.TempDir(), "db"), Logger: slog.New(slog.DiscardHandler)}
			if driver == store.Postgres {
				config.DSN = postgres.Database(b)
			}
			s, err := store.Open(b.Context(), config)
			require.NoError(b, err)
			defer s.Close()
			run(b, s)
		})
	}
}

const benchHosts, benchChunk = 100_000, 1000

func benchJob(b *testing.B, s *store.Store) (*job.Job, []string) {
	ids := make([]string, benchHosts)
	for i := range ids {
		ids[i] = fmt.Sprintf("agent-%06d", i)
	}
	j := &job.Job{Kind: job.KindBatch, Command: job.Command{Type: "ping"}, Targets: release.Targets{Clients: ids}}
	require.NoError(b, s.CreateJob(b.Context(), j, ids))
	return j, ids
}

func benchPlan(b *testing.B, s *store.Store, jobID string) []store.ChunkPlan {
	plans, err := s.PlanJobChunks(b.Context(), jobID, benchChunk, "n")
	require.NoError(b, err)
	return plans
}

func perHost(b *testing.B, hosts int) {
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*hosts), "µs/host")
}

// BenchmarkCreateJob100k stores a job with its targets.
func BenchmarkCreateJob100k(b *testing.B) {
	benchJobs(b, func(b *testing.B, s *store.Store) {
		for b.Loop() {
			benchJob(b, s)
		}
		perHost(b, benchHosts)
	})
}

// BenchmarkMarkJob marks a chunk of 1,000 hosts as dispatched, of a job with 100,000.
func BenchmarkMarkJob(b *testing.B) {
	benchJobs(b, func(b *testing.B, s *store.Store) {
		var j *job.Job
		var ids []string
		var plans []store.ChunkPlan
		at := benchHosts
		for b.Loop() {
			if at == benchHosts {
				b.StopTimer()
				j, ids = benchJob(b, s)
				plans = benchPlan(b, s, j.ID)
				at = 0
				b.StartTimer()
			}
			marked, _, err := s.MarkJobChunk(b.Context(), j.ID, plans[at/benchChunk].Chunk, ids[at:at+benchChunk])
			require.NoError(b, err)
			require.Len(b, marked, benchChunk)
			at += benchChunk
		}
		perHost(b, benchChunk)
	})
}

// BenchmarkRecordJobResults stores 1,000 results of running hosts in one call, of a job with 100,000.
func BenchmarkRecordJobResults(b *testing.B) {
	benchJobs(b, func(b *testing.B, s *store.Store) {
		var j *job.Job
		var ids []string
		at := benchHosts
		results := make([]release.StepResult, benchChunk)
		out := []byte("Linux agent 6.1.0-44-amd64 #1 SMP x86_64 GNU/Linux\n")
		for b.Loop() {
			if at == benchHosts {
				b.StopTimer()
				j, ids = benchJob(b, s)
				_, _, err := s.MarkJobChunk(b.Context(), j.ID, benchPlan(b, s, j.ID)[0].Chunk, ids)
				require.NoError(b, err)
				at = 0
				b.StartTimer()
			}
			now := time.Now()
			for i := range results {
				id := ids[at+i]
				results[i] = release.StepResult{StepID: release.StepID(j.ID, job.StepCommand, id, 0), ClientID: id, State: release.StepSucceeded,
					StdoutTail: out, StdoutBytes: uint64(len(out)), StartedAt: now, FinishedAt: now, LogEnd: 80}
			}
			changed, err := s.RecordResults(b.Context(), results)
			require.NoError(b, err)
			require.Len(b, changed, benchChunk)
			at += benchChunk
		}
		perHost(b, benchChunk)
	})
}

// BenchmarkAppendLogs stores a record of each of 1,000 hosts in one call: a few lines, and as much as a record holds.
func BenchmarkAppendLogs(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			benchJobs(b, func(b *testing.B, s *store.Store) {
				j, ids := benchJob(b, s)
				records := make([]release.LogRecord, benchChunk)
				data := []byte(strings.Repeat("a line of 16 by\n", size/16))
				position := uint64(0)
				for b.Loop() {
					for i := range records {
						records[i] = release.LogRecord{StepID: release.StepID(j.ID, job.StepCommand, ids[i], 0), ClientID: ids[i], Position: position, Next: position + 1,
							Stream: release.StreamStdout, Offset: position * uint64(size), Time: time.Now(), Data: data}
					}
					position++
					acks, err := s.AppendLogs(b.Context(), records)
					require.NoError(b, err)
					require.Len(b, acks, benchChunk)
				}
				perHost(b, benchChunk)
			})
		})
	}
}
