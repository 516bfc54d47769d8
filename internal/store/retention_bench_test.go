package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// BenchmarkRemoveLogs removes a log of a million records while sessions of ten hosts are written every few milliseconds, and
// says how long these writes took, against those without a removal. The deletion of the job, with its 100,000 hosts, follows.
func BenchmarkRemoveLogs(b *testing.B) {
	const records = 1_000_000
	onBoth(b, func(b *testing.B, s *store.Store) {
		hosts := fleetOf(b, s, 10)
		ids := make([]string, fleetSize)
		for i := range ids {
			ids[i] = fmt.Sprintf("web-%06d", i)
		}
		started := func(clients []string) job.Job {
			j := job.Job{Kind: job.KindBatch, Command: job.Command{Type: "ping"}, Targets: release.Targets{Selector: "*"}}
			require.NoError(b, s.CreateJob(b.Context(), &j, clients))
			return j
		}
		end := func(j job.Job) {
			require.NoError(b, s.SetJobProgress(b.Context(), j.ID, store.JobProgress{Status: job.StatusRunning, At: time.Now()}))
			require.NoError(b, s.SetJobProgress(b.Context(), j.ID, store.JobProgress{Status: job.StatusFailed, At: time.Now()}))
		}
		fill := func() job.Job {
			j := started(ids)
			began := time.Now()
			blob := "CAST('2026-01-02T03:04:05Z a line of output as scripts print them, neither short nor very long, and then some more of it' AS BYTEA)"
			if b.Name() == "BenchmarkRemoveLogs/sqlite" {
				blob = strings.Replace(blob, "BYTEA", "BLOB", 1)
			}
			require.NoError(b, s.WriteShared(b.Context(), nil, fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
				INSERT INTO task_logs (task_id, seq, step_id, client_id, position, next, stream, stream_offset, at, data)
				SELECT '%s', i, '%s/command/web-000001/0', 'web-000001', i - 1, i, 'stdout', 0, 1, %s FROM n`, records, j.ID, j.ID, blob),
				fmt.Sprintf(`UPDATE task_log_heads SET seq = %d, bytes = %d WHERE task_id = '%s'`, records, 115*records, j.ID)))
			end(j)
			b.Logf("a job of %d hosts, and %d records, written in %s", len(ids), records, time.Since(began).Round(time.Millisecond))
			return j
		}
		// writes gives how long writes took that went on while f did.
		writes := func(f func()) (all []time.Duration) {
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				ticker := time.NewTicker(5 * time.Millisecond)
				defer ticker.Stop()
				for ctx.Err() == nil {
					began := time.Now()
					if _, err := s.ConnectClients(context.Background(), hosts[:10]); err != nil {
						b.Error(err)
					}
					all = append(all, time.Since(began))
					select {
					case <-ticker.C:
					case <-ctx.Done():
					}
				}
			}()
			f()
			cancel()
			<-done
			slices.Sort(all)
			return all
		}
		say := func(what string, took time.Duration, all []time.Duration) {
			b.Logf("%s in %s; %d writes meanwhile: p50 %s, p99 %s, most %s", what, took.Round(time.Millisecond), len(all),
				all[len(all)/2].Round(100*time.Microsecond), all[len(all)*99/100].Round(100*time.Microsecond), all[len(all)-1].Round(100*time.Microsecond))
		}
		for b.Loop() {
			fill()
			say("nothing", 3*time.Second, writes(func() {
				select {
				case <-time.After(3 * time.Second):
				case <-b.Context().Done():
				}
			}))
			began := time.Now()
			all := writes(func() {
				removed, err := s.RemoveLogs(b.Context(), time.Time{}, time.Now())
				require.NoError(b, err)
				require.EqualValues(b, records, removed.Records)
			})
			say(fmt.Sprintf("%d records removed", records), time.Since(began), all)
			began = time.Now()
			all = writes(func() {
				deleted, _, err := s.DeleteOldJobs(b.Context(), time.Now())
				require.NoError(b, err)
				require.Equal(b, 1, deleted)
			})
			say(fmt.Sprintf("a job of %d hosts deleted", len(ids)), time.Since(began), all)
		}
	})
}
