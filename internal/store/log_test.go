package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var logTests = map[string]func(*fixture){
	"records are kept as they came": func(f *fixture) {
		task, steps := f.running("h000", "h001")
		first := release.LogRecord{StepID: steps["h000"].ID, ClientID: "h000", Position: 0, Next: 30, Stream: release.StreamStderr,
			Offset: 0, Time: f.now(), Data: []byte("\x00\xff not text")}
		second := first
		second.Position, second.Next, second.Stream, second.Data = 30, 40, release.StreamSystem, nil
		other := release.LogRecord{StepID: steps["h001"].ID, ClientID: "h001", Next: 1, Stream: release.StreamStdout, Offset: 5, Time: f.now(), Data: []byte("x")}
		acks, err := f.AppendLogs(f.ctx(), []release.LogRecord{first, other, second})
		require.NoError(f, err)
		require.Equal(f, []release.LogAck{{StepID: first.StepID, Position: 40}, {StepID: other.StepID, Position: 1}}, acks)

		first.TaskID, other.TaskID, second.TaskID = task.ID, task.ID, task.ID
		first.Seq, other.Seq, second.Seq = 1, 2, 3
		got, err := f.Logs(f.ctx(), task.ID, 0, store.LogFilter{}, 10)
		require.NoError(f, err)
		require.Empty(f, cmp.Diff([]release.LogRecord{first, other, second}, got, cmpopts.EquateEmpty()))
		got, err = f.Logs(f.ctx(), task.ID, 1, store.LogFilter{ClientID: "h000"}, 10)
		require.NoError(f, err)
		require.Len(f, got, 1)
		require.EqualValues(f, 3, got[0].Seq)
		got, err = f.Logs(f.ctx(), task.ID, 0, store.LogFilter{}, 2)
		require.NoError(f, err)
		require.Len(f, got, 2)
		head, err := f.LogHead(f.ctx(), task.ID)
		require.NoError(f, err)
		require.EqualValues(f, 3, head)
	},
	"many records are kept as they came": func(f *fixture) {
		_, steps := f.running("h000", "h001")
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		text := `\N \x00 \\. \.` + "\n\\.\n\t\r\n" // what means something to COPY
		var batch []release.LogRecord
		for i := range uint64(300) { // more than COPY is used from
			data := [][]byte{all, []byte(text), nil, []byte(`\`), []byte("\x00")}[i%5]
			id := []string{"h000", "h001"}[i%2]
			batch = append(batch, release.LogRecord{StepID: steps[id].ID, ClientID: id, Position: i / 2, Next: i/2 + 1, Stream: release.StreamStdout,
				Offset: 1000 * i, Time: f.now().Add(time.Duration(i) * time.Second), Data: data})
		}
		_, err := f.AppendLogs(f.ctx(), batch)
		require.NoError(f, err)
		got, err := f.Logs(f.ctx(), steps["h000"].TaskID, 0, store.LogFilter{}, 0)
		require.NoError(f, err)
		for i := range batch {
			batch[i].TaskID, batch[i].Seq = steps["h000"].TaskID, int64(i)+1
		}
		require.Empty(f, cmp.Diff(batch, got, cmpopts.EquateEmpty()))
	},
	"duplicates and gaps are not taken": func(f *fixture) {
		task, steps := f.running("h000")
		step := steps["h000"]
		require.EqualValues(f, 5, f.log(step, 0, 5, "a"))
		require.EqualValues(f, 5, f.log(step, 0, 5, "a"), "sent again")
		require.EqualValues(f, 5, f.log(step, 7, 9, "c"), "a gap")
		require.EqualValues(f, 5, f.log(step, 5, 5, "empty"))
		require.EqualValues(f, 7, f.log(step, 5, 7, "b"))
		require.EqualValues(f, 9, f.log(step, 7, 9, "c"))
		require.Equal(f, "abc", f.text(task))
	},
	"lines that follow each other share a row": func(f *fixture) {
		task, steps := f.running("h000", "h001")
		var batch []release.LogRecord
		line := func(id string, position uint64, stream release.Stream, offset uint64, later time.Duration) {
			all := []byte("line\nrest of a buffer") // more than the record's data, to be left alone
			batch = append(batch, release.LogRecord{StepID: steps[id].ID, ClientID: id, Position: position, Next: position + 1, Stream: stream, Offset: offset,
				Time: f.now().Add(later), Data: all[:5]})
		}
		for i := range uint64(100) {
			line("h000", i, release.StreamStdout, 5*i, 0)
			line("h001", i, release.StreamStdout, 5*i, 0)
		}
		line("h000", 100, release.StreamStderr, 0, 0)
		line("h000", 101, release.StreamStdout, 500, 0)
		line("h000", 102, release.StreamStdout, 505, time.Second)
		line("h000", 103, release.StreamStdout, 999, time.Second) // not where the one before it ends
		acks, err := f.AppendLogs(f.ctx(), batch)
		require.NoError(f, err)
		require.Equal(f, []release.LogAck{{StepID: steps["h000"].ID, Position: 104}, {StepID: steps["h001"].ID, Position: 100}}, acks)
		for _, r := range batch {
			require.Equal(f, "line\nrest of a buffer", string(r.Data[:cap(r.Data)][:21]))
		}
		got, err := f.Logs(f.ctx(), task.ID, 0, store.LogFilter{}, 0)
		require.NoError(f, err)
		var rows []string
		for _, r := range got {
			require.EqualValues(f, len(rows)+1, r.Seq)
			rows = append(rows, fmt.Sprintf("%s %s %d-%d %d+%d", r.ClientID, r.Stream, r.Position, r.Next, r.Offset, len(r.Data)))
		}
		require.Equal(f, []string{"h000 stdout 0-100 0+500", "h001 stdout 0-100 0+500", "h000 stderr 100-101 0+5", "h000 stdout 101-102 500+5",
			"h000 stdout 102-103 505+5", "h000 stdout 103-104 999+5"}, rows)
		require.Equal(f, strings.Repeat("line\n", 100), string(got[0].Data))
		require.EqualValues(f, 104, f.log(steps["h000"], 104, 104, "")) // and it goes on behind it
		require.EqualValues(f, 105, f.log(steps["h000"], 104, 105, "x"))
	},
	"the log of a step that is not known is acknowledged": func(f *fixture) {
		task, steps := f.running("h000")
		acks, err := f.AppendLogs(f.ctx(), []release.LogRecord{
			{StepID: "odd", ClientID: "h000", Position: 10, Next: 20, Data: []byte("x")},
			{StepID: "odd", ClientID: "h000", Position: 20, Next: 30, Data: []byte("x")},
			{StepID: steps["h000"].ID, ClientID: "h000", Position: 0, Next: 1, Data: []byte("y")},
			{StepID: steps["h000"].ID, ClientID: "foreign", Position: 1, Next: 2, Data: []byte("z")},
		})
		require.NoError(f, err)
		require.Equal(f, []release.LogAck{{StepID: steps["h000"].ID, Position: 1}, {StepID: "odd", Position: 30}}, acks)
		require.Equal(f, "y", f.text(task))
		acks, err = f.AppendLogs(f.ctx(), nil)
		require.NoError(f, err)
		require.Empty(f, acks)
	},
	"a large batch": func(f *fixture) {
		task, steps := f.running("h000", "h001", "h002")
		each := f.many()
		var batch []release.LogRecord
		for i := range uint64(each) {
			for _, id := range []string{"h000", "h001", "h002"} {
				batch = append(batch, release.LogRecord{StepID: steps[id].ID, ClientID: id, Position: i, Next: i + 1, Data: []byte{'.'}})
			}
		}
		_, err := f.AppendLogs(f.ctx(), batch)
		require.NoError(f, err)
		got, err := f.Logs(f.ctx(), task.ID, 0, store.LogFilter{}, 0)
		require.NoError(f, err)
		require.Len(f, got, 3*each)
		for i, r := range got {
			require.EqualValues(f, i+1, r.Seq)
			require.Equal(f, batch[i].StepID, r.StepID)
		}
	},
	"a reader that resumes sees every record once": func(f *fixture) {
		const records = 30
		hosts := []string{"h000", "h001", "h002", "h003", "h004"}
		task, steps := f.running(hosts...)
		ctx, cancel := context.WithTimeout(f.ctx(), 30*time.Second)
		defer cancel()
		appended := make(chan error, 1)
		go func() { // ends before this function does
			appended <- errors.Join(together(2*len(hosts), func(i int) error { // two connections of each host send the same
				id := hosts[i%len(hosts)]
				for position := uint64(0); position < records; {
					var batch []release.LogRecord
					for k := position; k < min(position+3, records); k++ {
						batch = append(batch, release.LogRecord{StepID: steps[id].ID, ClientID: id, Position: k, Next: k + 1,
							Time: f.now(), Data: []byte(fmt.Sprintf("%s/%d", id, k))})
					}
					acks, err := f.AppendLogs(ctx, batch)
					if err != nil {
						return err
					}
					position = acks[0].Position
				}
				return nil
			})...)
		}()

		seen, last := map[string]bool{}, int64(0)
		next := map[string]uint64{}
		for len(seen) < records*len(hosts) {
			require.NoError(f, ctx.Err())
			got, err := f.Logs(ctx, task.ID, last, store.LogFilter{}, 7)
			require.NoError(f, err)
			for _, r := range got {
				require.Equal(f, last+1, r.Seq, "no number is skipped")
				require.False(f, seen[string(r.Data)])
				require.Equal(f, next[r.ClientID], r.Position, "each step's log is in its order")
				seen[string(r.Data)], last, next[r.ClientID] = true, r.Seq, r.Next
			}
		}
		require.NoError(f, <-appended)
		head, err := f.LogHead(f.ctx(), task.ID)
		require.NoError(f, err)
		require.EqualValues(f, records*len(hosts), head)
	},
	"tasks side by side": func(f *fixture) {
		hosts := []string{"h000", "h001", "h002"}
		taskA, stepsA := f.running(hosts...)
		v, err := f.Version(f.ctx(), "shop", "1.0")
		require.NoError(f, err)
		taskB := f.deploy("shop", &v, hosts...)
		stepsB := f.dispatch(taskB, release.StepDeploy, hosts...)
		const rounds = 30
		errs := together(len(hosts), func(i int) error {
			for k := range uint64(rounds) {
				id := hosts[i]
				batch := []release.LogRecord{
					{StepID: stepsA[id].ID, ClientID: id, Position: k, Next: k + 1, Data: []byte("a")},
					{StepID: stepsB[id].ID, ClientID: id, Position: k, Next: k + 1, Data: []byte("b")}}
				if i == 1 {
					batch[0], batch[1] = batch[1], batch[0]
				}
				if _, err := f.AppendLogs(f.ctx(), batch); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(f, errors.Join(errs...))
		for _, task := range []release.Task{taskA, taskB} {
			head, err := f.LogHead(f.ctx(), task.ID)
			require.NoError(f, err)
			require.EqualValues(f, rounds*len(hosts), head)
		}
	},
}

// running gives a task with a step under way on each of these clients.
func (f *fixture) running(ids ...string) (release.Task, map[string]release.Step) {
	f.Helper()
	f.join(len(ids))
	v := f.project("shop", "1.0")["1.0"]
	task := f.deploy("shop", &v, ids...)
	return task, f.dispatch(task, release.StepDeploy, ids...)
}

// log appends a record and gives the position that is acknowledged.
func (f *fixture) log(step release.Step, position, next uint64, text string) uint64 {
	f.Helper()
	acks, err := f.AppendLogs(f.ctx(), []release.LogRecord{{StepID: step.ID, ClientID: step.ClientID, Position: position, Next: next,
		Stream: release.StreamStdout, Time: f.now(), Data: []byte(text)}})
	require.NoError(f, err)
	require.Len(f, acks, 1)
	return acks[0].Position
}

// text gives all that a task printed.
func (f *fixture) text(task release.Task) string {
	f.Helper()
	records, err := f.Logs(f.ctx(), task.ID, 0, store.LogFilter{}, 0)
	require.NoError(f, err)
	var text []byte
	for _, r := range records {
		text = append(text, r.Data...)
	}
	return string(text)
}
