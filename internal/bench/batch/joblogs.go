package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/quicflow/quicflow/internal/bench/rig"
)

const (
	lineSize = 64 // bytes that a line of a simulated agent has
	// quiet is how long nothing more must come before the log is read, and patience for how long what is missing is waited for.
	quiet    = time.Second
	patience = 20 * time.Second
)

// logsResult is one job whose hosts print lines. Times count from the request, lags from a line's time.
type logsResult struct {
	Database string `json:"database"`
	Agents   int    `json:"agents"`
	Lines    int    `json:"lines"` // of each
	Round    int    `json:"round"`
	Reader   bool   `json:"reader"` // someone follows the log meanwhile

	Status    string        `json:"status"`
	Printed   time.Duration `json:"printed"`  // the last host has ended, by its clock
	Complete  time.Duration `json:"complete"` // the job, as the server says
	Stored    time.Duration `json:"stored"`   // the last line
	PerSecond float64       `json:"lines_per_second"`
	Records   int           `json:"records"` // in which the lines are stored
	Wrong     int           `json:"wrong"`   // hosts of which there is more or less than they printed

	// Sent: since the agent sent it, which it may once the server has room. Since: since the host had printed all of its lines.
	SentP50  time.Duration `json:"lag_since_sent_p50"`
	SentP99  time.Duration `json:"lag_since_sent_p99"`
	SinceP50 time.Duration `json:"lag_since_printed_p50"`
	SinceP99 time.Duration `json:"lag_since_printed_p99"`
	// ReadP50: until a reader had it, since the agent sent it.
	ReadP50 time.Duration `json:"reader_lag_p50,omitempty"`
	ReadP99 time.Duration `json:"reader_lag_p99,omitempty"`
	Read    time.Duration `json:"reader_had_all,omitempty"`

	CPU costs `json:"cpu"`
}

// jobLogs takes one round more, in which someone follows the log as an event stream.
func (b *bench) jobLogs(ctx context.Context, w *world) error {
	var all []logsResult
	for round := range b.rounds + 1 {
		r, err := b.logsRound(ctx, w, round == b.rounds)
		if err != nil {
			return err
		}
		r.Round = round + 1
		all = append(all, r)
		b.report.Logs = append(b.report.Logs, r)
	}
	rig.Heading("Logs of a job: %d agents print %d lines of %d bytes each, %s", w.agents, b.lines, lineSize, w.database)
	fmt.Printf("%-16s %9s %9s %10s %9s %10s %22s %24s %22s %10s %11s %10s %10s %9s %9s\n", "", "printed", "complete", "all stored", "lines/s", "records", "lag since sent 50/99",
		"lag since printed 50/99", "reader's lag 50/99", "read all", "server CPU", "DB CPU", "fleet CPU", "peak RSS", "wrong")
	pair := func(a, b time.Duration) string { return rig.Short(a) + " / " + rig.Short(b) }
	for _, r := range all {
		name, lag, read := fmt.Sprintf("round %d", r.Round), "-", "-"
		if r.Reader {
			name, lag, read = "with a reader", pair(r.ReadP50, r.ReadP99), rig.Short(r.Read)
		}
		fmt.Printf("%-16s %9s %9s %10s %9.0f %10d %22s %24s %22s %10s %11s %10s %10s %9s %9d\n", name, rig.Short(r.Printed), rig.Short(r.Complete), rig.Short(r.Stored), r.PerSecond, r.Records,
			pair(r.SentP50, r.SentP99), pair(r.SinceP50, r.SinceP99), lag, read, rig.Short(r.CPU.Server), rig.Short(r.CPU.Database), rig.Short(r.CPU.Fleet), rig.Size(r.CPU.Peak), r.Wrong)
	}
	return nil
}

// head is up to where a log was stored at a time.
type head struct {
	seq int64
	at  time.Time
}

// seen gives when a record was there first.
func seen(heads []head, seq int64) (time.Time, bool) {
	i := sort.Search(len(heads), func(i int) bool { return heads[i].seq >= seq })
	if i == len(heads) {
		return time.Time{}, false
	}
	return heads[i].at, true
}

func (b *bench) logsRound(ctx context.Context, w *world, follow bool) (r logsResult, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.patience, errors.New("the logs were not there within -patience"))
	defer cancel()
	r.Database, r.Agents, r.Lines, r.Reader = w.database, w.agents, b.lines, follow
	before, err := w.costs()
	if err != nil {
		return r, err
	}
	began := time.Now()
	j, err := b.request(ctx, w)
	if err != nil {
		return r, err
	}
	var read []head
	followed := make(chan error, 1)
	if follow {
		go func() { // ends with the stream, which is waited for below
			var err error
			read, err = w.follow(ctx, j.ID)
			followed <- err
		}()
	} else {
		followed <- nil
	}
	l := &jobLog{world: w, jobID: j.ID, want: w.agents * b.lines * lineSize}
	after, err := l.watch(ctx, &j)
	if err != nil {
		return r, err
	}
	if err := <-followed; err != nil {
		return r, fmt.Errorf("reader: %w", err)
	}
	r.CPU, r.Status, r.Complete = after.since(before), j.Status, j.FinishedAt.Sub(began)
	if len(l.heads) > 0 {
		r.Stored = l.heads[len(l.heads)-1].at.Sub(began)
		r.PerSecond = float64(w.agents*b.lines) / r.Stored.Seconds()
	}
	if len(read) > 0 {
		r.Read = read[len(read)-1].at.Sub(began)
	}
	return r, b.judgeLogs(ctx, &r, l, began, read)
}

// record is one of a log: lines of one host that were printed together.
type record struct {
	Seq      int64     `json:"seq"`
	ClientID string    `json:"client_id"`
	Time     time.Time `json:"time"`
	Text     string    `json:"text"`
}

// jobLog is what is known of a job's log.
type jobLog struct {
	world   *world
	jobID   string
	want    int // bytes
	heads   []head
	records []record
	bytes   int // of records
}

// watch looks how far the log is stored until the job has ended and all is there, or nothing more comes. It gives what was used
// by then; the log is read afterwards.
func (l *jobLog) watch(ctx context.Context, j *job) (used costs, err error) {
	w := l.world
	path := fmt.Sprintf("/api/batch/jobs/%s/logs?limit=1&after=%d", l.jobID, int64(math.MaxInt64))
	for last, quietSince, looked := int64(0), time.Now(), int64(-1); ; {
		var page struct {
			Head int64 `json:"head"`
		}
		if err := w.server.Get(ctx, path, &page); err != nil {
			return used, err
		}
		now := time.Now()
		if page.Head > last {
			l.heads, last, quietSince = append(l.heads, head{page.Head, now}), page.Head, now
		}
		if !j.ended() {
			if err := w.server.Get(ctx, "/api/batch/jobs/"+j.ID, j); err != nil {
				return used, err
			}
			quietSince = now
		}
		if silence := now.Sub(quietSince); j.ended() && silence > quiet {
			if looked != last {
				looked = last
				if used, err = w.costs(); err != nil {
					return used, err
				}
				if err := l.read(ctx); err != nil {
					return used, err
				}
			}
			if l.bytes >= l.want || silence > patience {
				return used, w.finish(ctx, j)
			}
		}
		if err := pause(ctx, ask); err != nil {
			return used, fmt.Errorf("head of the log is %d: %w", last, err)
		}
	}
}

// read reads what is new in the log.
func (l *jobLog) read(ctx context.Context) error {
	for {
		after := int64(0)
		if n := len(l.records); n > 0 {
			after = l.records[n-1].Seq
		}
		var page struct {
			Logs []record `json:"logs"`
		}
		if err := l.world.server.Get(ctx, fmt.Sprintf("/api/batch/jobs/%s/logs?limit=5000&after=%d", l.jobID, after), &page); err != nil {
			return err
		}
		if len(page.Logs) == 0 {
			return nil
		}
		for _, r := range page.Logs {
			l.bytes += len(r.Text)
		}
		l.records = append(l.records, page.Logs...)
	}
}

// follow reads a job's log as it comes, until its end, and says what it had when.
func (w *world) follow(ctx context.Context, jobID string) (read []head, err error) {
	id := []byte("id: ")
	err = w.server.Lines(ctx, "/api/batch/jobs/"+jobID+"/logs", func(line []byte) error {
		number, ok := bytes.CutPrefix(line, id)
		if !ok {
			return nil
		}
		seq, err := strconv.ParseInt(string(number), 10, 64)
		if err == nil {
			read = append(read, head{seq, time.Now()})
		}
		return err
	})
	return read, err
}

// judgeLogs compares what was stored with what was printed.
func (b *bench) judgeLogs(ctx context.Context, r *logsResult, l *jobLog, began time.Time, read []head) error {
	targets, err := l.world.targets(ctx, l.jobID)
	if err != nil {
		return err
	}
	printed := make(map[string]time.Time, len(targets))
	for _, t := range targets {
		if t.FinishedAt != nil {
			printed[t.ClientID] = *t.FinishedAt
			r.Printed = max(r.Printed, t.FinishedAt.Sub(began))
		}
	}
	var sent, since, had []time.Duration // of each line
	got := make(map[string]int, len(targets))
	for _, record := range l.records {
		got[record.ClientID] += len(record.Text)
		stored, isStored := seen(l.heads, record.Seq)
		told, isTold := seen(read, record.Seq)
		for range max(1, len(record.Text)/lineSize) {
			if isStored {
				sent, since = append(sent, stored.Sub(record.Time)), append(since, stored.Sub(printed[record.ClientID]))
			}
			if isTold {
				had = append(had, told.Sub(record.Time))
			}
		}
	}
	r.Records = len(l.records)
	for i := range l.world.agents {
		if got[rig.ClientID(i)] != b.lines*lineSize {
			r.Wrong++
		}
	}
	if r.Wrong > 0 {
		fmt.Fprintf(os.Stderr, "job %s: of %d hosts there is more or less than they printed\n", l.jobID, r.Wrong)
	}
	for _, times := range [][]time.Duration{sent, since, had} {
		slices.Sort(times)
	}
	r.SentP50, r.SentP99 = percentile(sent, 50), percentile(sent, 99)
	r.SinceP50, r.SinceP99 = percentile(since, 50), percentile(since, 99)
	r.ReadP50, r.ReadP99 = percentile(had, 50), percentile(had, 99)
	return nil
}

// percentile is 0 of none.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}
