package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var jobReadTests = map[string]func(*fixture){
	"finished targets come in the order in which they were decided": func(f *fixture) {
		j := f.job(hosts(6)...)
		f.mark(j, hosts(5)...)
		for _, id := range []string{"h003", "h001"} {
			f.tell(j, id, 0, release.StepFailed)
		}
		require.NoError(f, f.ConcludeJobTargets(f.ctx(), j.ID, []store.JobConclusion{{ClientID: "h000", State: job.StateUnknown}}))
		next := func(after store.TargetCursor, limit int) (string, store.TargetCursor) {
			targets, cursor, err := f.FinishedTargets(f.ctx(), j.ID, after, limit)
			require.NoError(f, err)
			var words []string
			for _, t := range targets {
				words = append(words, t.ClientID+" "+string(t.State))
			}
			return strings.Join(words, ", "), cursor
		}
		found, first := next(0, 2)
		require.Equal(f, "h003 failed, h001 failed", found)
		found, second := next(first, 0)
		require.Equal(f, "h000 unknown", found)
		found, end := next(second, 0)
		require.Empty(f, found)
		require.Equal(f, second, end)

		// What is decided again comes again, and only then.
		f.retry(j, store.JobRetry{Max: 1, OnFailure: true})
		found, _ = next(0, 0)
		require.Equal(f, "h000 unknown", found)
		f.tell(j, "h000", 0, release.StepSucceeded)
		f.mark(j, "h001", "h003")
		f.tell(j, "h003", 1, release.StepSucceeded)
		found, end = next(second, 0)
		require.Equal(f, "h000 succeeded, h003 succeeded", found)
		require.NoError(f, f.SetJobProgress(f.ctx(), j.ID, store.JobProgress{Status: job.StatusFailed}))
		found, cursor := next(end, 3)
		rest, _ := next(cursor, 0)
		require.ElementsMatch(f, []string{"h001 unknown", "h002 unknown", "h004 unknown", "h005 skipped"}, strings.Split(found+", "+rest, ", "))
	},
	"a reader of finished targets that resumes sees each once": func(f *fixture) {
		ids := hosts(120)
		j := f.job(ids...)
		f.mark(j, ids...)
		told := make(chan error, 1)
		go func() { // ends before this function does
			told <- errors.Join(together(6, func(i int) error {
				for k := i * 20; k < (i+1)*20; k += 4 {
					var batch []release.StepResult
					for _, id := range ids[k : k+4] {
						batch = append(batch, f.result(j, id, 0, release.StepSucceeded))
					}
					if _, err := f.RecordResults(f.ctx(), batch); err != nil {
						return err
					}
				}
				return nil
			})...)
		}()
		seen := map[string]bool{}
		cursor, deadline := store.TargetCursor(0), time.Now().Add(30*time.Second)
		for len(seen) < len(ids) && time.Now().Before(deadline) {
			targets, next, err := f.FinishedTargets(f.ctx(), j.ID, cursor, 7)
			if err != nil {
				require.NoError(f, errors.Join(err, <-told))
			}
			for _, t := range targets {
				require.False(f, seen[t.ClientID], t.ClientID)
				seen[t.ClientID] = true
			}
			cursor = next
		}
		require.NoError(f, <-told)
		require.Len(f, seen, len(ids), "none is skipped")
	},
	"the history of commands": func(f *fixture) {
		create := func(kind string, ids ...string) job.Job {
			j := job.Job{Kind: job.KindBatch, Command: job.Command{Type: kind, Payload: json.RawMessage(`{"n": 1}`)}, Targets: release.Targets{Selector: "*"}}
			require.NoError(f, f.CreateJob(f.ctx(), &j, ids))
			return j
		}
		jobs := map[string]job.Job{}
		for i, ids := range [][]string{{"a"}, {"a", "b", "c"}, {"b"}, {"a", "c"}} {
			jobs[fmt.Sprint(i)] = create([]string{"ping", "echo"}[i%2], ids...)
		}
		f.mark(jobs["1"], "a", "b")
		f.tell(jobs["1"], "a", 0, release.StepFailed)
		require.NoError(f, f.ConcludeJobTargets(f.ctx(), jobs["2"].ID, []store.JobConclusion{{ClientID: "b", State: job.StateOffline}}))
		for _, c := range []struct {
			filter store.CommandFilter
			want   string
			total  int
		}{
			{store.CommandFilter{}, "3a 3c 2b 1a 1b 1c 0a", 7},
			{store.CommandFilter{Limit: 3, Offset: 1}, "3c 2b 1a", 7},
			{store.CommandFilter{Limit: 3, Offset: 5}, "1c 0a", 7},
			{store.CommandFilter{Offset: 7}, "", 7},
			{store.CommandFilter{CommandType: "echo"}, "3a 3c 1a 1b 1c", 5},
			{store.CommandFilter{CommandType: "echo", Offset: 3, Limit: 1}, "1b", 5},
			{store.CommandFilter{Status: "failed"}, "2b 1a", 2},
			{store.CommandFilter{Status: "pending", Offset: 2, Limit: 2}, "1c 0a", 4},
			{store.CommandFilter{Status: "executing", CommandType: "ping"}, "", 0},
			{store.CommandFilter{Status: "odd"}, "", 0},
			{store.CommandFilter{ClientID: "a"}, "3a 1a 0a", 3},
			{store.CommandFilter{ClientID: "a", Limit: 1, Offset: 1}, "1a", 3},
			{store.CommandFilter{ClientID: "b"}, "2b 1b", 2},
			{store.CommandFilter{ClientID: "b", Status: "executing"}, "1b", 1},
			{store.CommandFilter{ClientID: "a", CommandType: "ping"}, "0a", 1},
			{store.CommandFilter{ClientID: "none"}, "", 0},
		} {
			commands, total, err := f.Commands(f.ctx(), c.filter)
			require.NoError(f, err)
			var words []string
			for _, command := range commands {
				for name, j := range jobs {
					if j.ID == command.Job.ID {
						words = append(words, name+command.Target.ClientID)
						require.Equal(f, j.Command, command.Job.Command)
						require.Equal(f, j.ID, command.Target.JobID)
						require.Empty(f, cmp.Diff(job.Counts{}, command.Job.Counts))
					}
				}
			}
			require.Equal(f, c.want, strings.Join(words, " "), "%+v", c.filter)
			require.Equal(f, c.total, total, "%+v", c.filter)
		}
	},
}
