package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

const jobTargetColumns = `t.client_id, t.state, t.epoch, t.decided, t.hopeless, t.waits, t.not_before, t.started_at, t.finished_at, t.exit_code, t.error,
	t.stdout, t.stderr, t.stdout_bytes, t.stderr_bytes, t.result, t.result_in_log`

type jobTargetRow struct {
	ClientID    string        `db:"client_id"`
	State       string        `db:"state"`
	Epoch       int           `db:"epoch"`
	Decided     int64         `db:"decided"`
	Hopeless    bool          `db:"hopeless"`
	Waits       bool          `db:"waits"`
	NotBefore   int64         `db:"not_before"`
	StartedAt   int64         `db:"started_at"`
	FinishedAt  int64         `db:"finished_at"`
	ExitCode    sql.NullInt64 `db:"exit_code"`
	Error       string        `db:"error"`
	Stdout      []byte        `db:"stdout"`
	Stderr      []byte        `db:"stderr"`
	StdoutBytes int64         `db:"stdout_bytes"`
	StderrBytes int64         `db:"stderr_bytes"`
	Result      []byte        `db:"result"`
	ResultInLog bool          `db:"result_in_log"`
}

func (r *jobTargetRow) target(jobID string) job.Target {
	t := job.Target{
		JobID: jobID, ClientID: r.ClientID, State: job.State(r.State), Epoch: r.Epoch, Error: r.Error,
		StdoutBytes: r.StdoutBytes, StderrBytes: r.StderrBytes, ResultInLog: r.ResultInLog,
		StartedAt: pointerFromMicros(r.StartedAt), FinishedAt: pointerFromMicros(r.FinishedAt), NotBefore: pointerFromMicros(r.NotBefore),
		WaitsForSession: r.Waits, Decided: r.Decided, Hopeless: r.Hopeless,
	}
	if r.ExitCode.Valid {
		code := int(r.ExitCode.Int64)
		t.ExitCode = &code
	}
	// Nothing is nil, however it is stored.
	if len(r.Stdout) > 0 {
		t.Stdout = r.Stdout
	}
	if len(r.Stderr) > 0 {
		t.Stderr = r.Stderr
	}
	if len(r.Result) > 0 {
		t.Result = json.RawMessage(r.Result)
	}
	return t
}

// JobTargetFilter picks targets of a job. Its zero value picks all.
type JobTargetFilter struct {
	State         job.State
	ClientIDs     []string  // nil: any
	FinishedAfter time.Time // zero: open ones, too
	Limit         int       // 0: no limit
	Offset        int
}

// jobNumber gives the number of a job.
func (c conn) jobNumber(ctx context.Context, id string) (num int64, err error) {
	err = c.get(ctx, &num, `SELECT num FROM jobs WHERE id = ?`, id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, release.NotFound("job", id)
	}
	return num, err
}

// JobTargets gives a page of a job's targets, in the order of their client ids, and the number of all of them.
func (s *Store) JobTargets(ctx context.Context, jobID string, f JobTargetFilter) (targets []job.Target, total int, err error) {
	num, err := s.read().jobNumber(ctx, jobID)
	if err != nil {
		return nil, 0, fmt.Errorf("list targets: %w", err)
	}
	w := &where{}
	w.add(`t.job = ?`, num)
	if f.State != "" {
		w.add(`t.state = ?`, string(f.State))
	}
	if f.ClientIDs != nil {
		in, list := s.dialect.in(f.ClientIDs)
		w.add(`t.client_id `+in, list)
	}
	if !f.FinishedAfter.IsZero() {
		w.add(`t.finished_at > ?`, micros(f.FinishedAfter))
	}
	if f.ClientIDs == nil && f.FinishedAfter.IsZero() && (f.State == "" || f.State.Valid()) {
		var states []job.State
		if f.State != "" {
			states = []job.State{f.State}
		}
		err = s.read().get(ctx, &total, `SELECT `+sumOfCounts(states)+` FROM jobs j WHERE num = ?`, num)
	} else {
		err = s.read().get(ctx, &total, `SELECT COUNT(*) FROM job_targets t`+w.String(), w.args...)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("count targets: %w", err)
	}
	targets, _, err = s.listJobTargets(ctx, jobID, w.String()+` ORDER BY t.client_id LIMIT ? OFFSET ?`, w.page(f.Limit, f.Offset)...)
	return targets, total, err
}

func (s *Store) listJobTargets(ctx context.Context, jobID, condition string, args ...any) (targets []job.Target, last TargetCursor, err error) {
	var rows []jobTargetRow
	if err := s.read().list(ctx, &rows, `SELECT `+jobTargetColumns+` FROM job_targets t`+condition, args...); err != nil {
		return nil, 0, fmt.Errorf("list targets: %w", err)
	}
	targets = make([]job.Target, len(rows))
	for i := range rows {
		targets[i] = rows[i].target(jobID)
		last = TargetCursor(rows[i].Decided)
	}
	return targets, last, nil
}

// JobTarget gives one host of a job.
func (s *Store) JobTarget(ctx context.Context, jobID, clientID string) (job.Target, error) {
	targets, _, err := s.listJobTargets(ctx, jobID, ` WHERE t.job = (SELECT num FROM jobs WHERE id = ?) AND t.client_id = ?`, jobID, clientID)
	if err != nil {
		return job.Target{}, err
	}
	if len(targets) == 0 {
		return job.Target{}, release.NotFound("command", job.CommandID(jobID, clientID))
	}
	return targets[0], nil
}

// TargetCursor is a place in the order in which a job's targets were decided. Zero is its beginning.
type TargetCursor int64

// FinishedTargets gives the targets that were decided behind a cursor, the first first, at most limit (0: no limit), and the cursor
// behind them. The numbers commit in their order, so who resumes with the cursor skips nothing. A target that is decided again (what
// was unknown got its result, another try came to its end) comes again, once for all that was passed over in between.
func (s *Store) FinishedTargets(ctx context.Context, jobID string, after TargetCursor, limit int) ([]job.Target, TargetCursor, error) {
	num, err := s.read().jobNumber(ctx, jobID)
	if err != nil {
		return nil, after, fmt.Errorf("read finished targets: %w", err)
	}
	w := &where{args: []any{num, int64(max(0, after))}}
	// The second condition is what lets the index serve.
	targets, last, err := s.listJobTargets(ctx, jobID, ` WHERE t.job = ? AND t.decided > ? AND t.decided > 0 ORDER BY t.decided LIMIT ? OFFSET ?`, w.page(limit, 0)...)
	return targets, max(after, last), err
}
