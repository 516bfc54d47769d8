package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"database/sql"

	"github.com/lib/pq"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

// commandID is the id of a command's step, taken apart.
type commandID struct {
	jobID, clientID string
	epoch           int
}

// parseCommand takes the id of a command's step apart, and says whether it is one.
func parseCommand(stepID string) (commandID, bool) {
	jobID, name, clientID, epoch, err := release.ParseStepID(stepID)
	return commandID{jobID, clientID, epoch}, err == nil && name == job.StepCommand
}

// targetChange is what came of a try, by its agent's word or by the server's.
type targetChange struct {
	head     *jobHead
	clientID string
	epoch    int
	from, to job.State
	err      string
	exit     int
	final    bool // its agent said so
	hopeless bool

	stdout, stderr           []byte
	stdoutBytes, stderrBytes int64
	result                   []byte
	resultInLog              bool
	started, finished        int64
	logEnd                   int64

	number int64
	step   release.Step // as which it is told of
}

// recordCommands stores what agents reported of commands; no two results are of the same step.
//
// Nearly all of them are first results of what is running: these are written without looking. The others are read and decided one
// by one.
func (s *Store) recordCommands(ctx context.Context, tx conn, results []release.StepResult) ([]release.Step, error) {
	var jobIDs []string
	ids := make([]commandID, len(results))
	seen := map[string]bool{}
	for i, r := range results {
		id, _ := parseCommand(r.StepID)
		ids[i] = id
		if !seen[id.jobID] {
			seen[id.jobID] = true
			jobIDs = append(jobIDs, id.jobID)
		}
	}
	heads, err := tx.lockJobs(ctx, jobIDs)
	if err != nil {
		return nil, err
	}
	changes := make([]*targetChange, 0, len(results))
	for i, r := range results {
		if head := heads[ids[i].jobID]; head != nil {
			changes = append(changes, s.change(ctx, head, ids[i], r))
		}
	}
	written, others, err := tx.writeTargets(ctx, changes, false)
	if err != nil {
		return nil, err
	}
	late, err := tx.reconsider(ctx, others, func(c *targetChange, now targetState) bool {
		return !now.Final && (c.final || now.State != job.StateUnknown)
	})
	if err != nil {
		return nil, err
	}
	written = append(written, late...)
	steps := make([]release.Step, len(written))
	for i, c := range written {
		steps[i] = c.step
	}
	return steps, tx.writeHeads(ctx, slices.Collect(maps.Values(heads))...)
}

// change gives what a result says, of a target that is running as far as anyone knows.
func (s *Store) change(ctx context.Context, head *jobHead, id commandID, r release.StepResult) *targetChange {
	if len(r.Result) > 0 && !json.Valid(r.Result) {
		s.config.Logger.WarnContext(ctx, "result that is not JSON dropped", "step", r.StepID, "client", r.ClientID)
		r.Result = nil
		if r.State == release.StepSucceeded {
			r.State, r.ExitCode, r.Error = release.StepFailed, noExit, "its result is not JSON"
		}
	}
	return &targetChange{
		head: head, clientID: id.clientID, epoch: id.epoch, from: job.StateRunning, to: stateAfter(r, head.ended()), err: r.Error, exit: r.ExitCode,
		final: r.State.Final(), hopeless: r.NotStarted, stdout: r.StdoutTail, stderr: r.StderrTail,
		stdoutBytes: int64(max(r.StdoutBytes, uint64(len(r.StdoutTail)))), stderrBytes: int64(max(r.StderrBytes, uint64(len(r.StderrTail)))),
		result: r.Result, resultInLog: r.ResultInLog, started: micros(r.StartedAt), finished: micros(s.orNow(r.FinishedAt)), logEnd: int64(r.LogEnd),
		step: release.Step{ID: r.StepID, TaskID: id.jobID, Name: job.StepCommand, ClientID: id.clientID, Epoch: id.epoch, State: r.State},
	}
}

// stateAfter gives a target's state after a result.
func stateAfter(r release.StepResult, ended bool) job.State {
	switch r.State {
	case release.StepSucceeded:
		return job.StateSucceeded
	case release.StepCancelled:
		return job.StateCancelled
	case release.StepUnknown:
		return job.StateUnknown
	case release.StepRefused:
		if ended {
			return job.StateCancelled
		}
		return job.StateRefused
	}
	switch {
	case r.TimedOut:
		return job.StateTimeout
	case r.NotStarted:
		return job.StateRefused
	}
	return job.StateFailed
}

// targetState is a target as far as it decides what may be written.
type targetState struct {
	JobID    string    `db:"job_id"`
	ClientID string    `db:"client_id"`
	State    job.State `db:"state"`
	Epoch    int       `db:"epoch"`
	Final    bool      `db:"final"`
}

// targetStates reads targets, by job and client.
func (c conn) targetStates(ctx context.Context, keys []targetKey) (map[targetKey]targetState, error) {
	states := make(map[targetKey]targetState, len(keys))
	if len(keys) == 0 {
		return states, nil
	}
	table, join, args := c.dialect.pairs(keys)
	var rows []targetState
	if err := c.list(ctx, &rows, `SELECT j.id AS job_id, t.client_id, t.state, t.epoch, t.final FROM `+table+` `+join+` jobs j ON j.id = pair.one `+
		join+` job_targets t ON t.job = j.num AND t.client_id = pair.other`, args...); err != nil {
		return nil, err
	}
	for _, r := range rows {
		states[targetKey{r.JobID, r.ClientID}] = r
	}
	return states, nil
}

// pairs gives a table named pair, with the columns one and other, its arguments, and the word that joins it with what is looked up
// by it.
func (d dialect) pairs(keys []targetKey) (table, join string, args []any) {
	if d.lock == "" {
		list := make([][2]string, len(keys))
		for i, key := range keys {
			list[i] = [2]string{key.taskID, key.clientID}
		}
		text, err := json.Marshal(list)
		if err != nil {
			panic(err) // texts can always be written
		}
		// CROSS keeps the order of the join: its planner does not know that the list is short.
		return `(SELECT value ->> 0 AS one, value ->> 1 AS other FROM json_each(?)) AS pair`, `CROSS JOIN`, []any{string(text)}
	}
	ones, others := make([]string, len(keys)), make([]string, len(keys))
	for i, key := range keys {
		ones[i], others[i] = clean(key.taskID), clean(key.clientID)
	}
	return `unnest(CAST(? AS TEXT[]), CAST(? AS TEXT[])) AS pair (one, other)`, `JOIN`, []any{pq.Array(ones), pq.Array(others)}
}

// reconsider reads the targets of changes, whose jobs are locked, and writes those that are of the target's epoch and that may
// agrees to.
func (c conn) reconsider(ctx context.Context, changes []*targetChange, may func(*targetChange, targetState) bool) (written []*targetChange, err error) {
	if len(changes) == 0 {
		return nil, nil
	}
	keys := make([]targetKey, len(changes))
	for i, change := range changes {
		keys[i] = targetKey{change.head.ID, change.clientID}
	}
	states, err := c.targetStates(ctx, keys)
	if err != nil {
		return nil, err
	}
	var agreed []*targetChange
	for i, change := range changes {
		now, known := states[keys[i]]
		if known && now.Epoch == change.epoch && may(change, now) {
			change.from = now.State
			agreed = append(agreed, change)
		}
	}
	written, _, err = c.writeTargets(ctx, agreed, true)
	return written, err
}

// The values of a target that are written, in the order of targetChange.values.
const setTarget = `state = %s, exit_code = NULLIF(%s, -1), error = %s, stdout = %s, stderr = %s, stdout_bytes = %s, stderr_bytes = %s,
	result = %s, result_in_log = %s, started_at = COALESCE(NULLIF(%s, 0), %sstarted_at), finished_at = %s, log_end = %s, final = %s, hopeless = %s,
	decided = %s`

// What only a target has to give up that was not running. To write it costs a look at an index.
const setIdle = `, waits = FALSE, not_before = 0`

// writeTargets writes changes to those targets that are in the state and epoch that they start from, and gives those that are
// written and the others. Of a target there is at most one change that fits.
func (c conn) writeTargets(ctx context.Context, changes []*targetChange, idle bool) (written, others []*targetChange, err error) {
	if len(changes) == 0 {
		return nil, nil, nil
	}
	for _, change := range changes {
		change.head.Decided++
		change.number = change.head.Decided
	}
	done := make([]bool, len(changes))
	if c.postgres() {
		err = c.writeTargetsTogether(ctx, changes, idle, done)
	} else {
		err = c.writeTargetsEach(ctx, changes, idle, done)
	}
	if err != nil {
		return nil, nil, err
	}
	for i, change := range changes {
		if !done[i] {
			others = append(others, change)
			continue
		}
		written = append(written, change)
		change.head.move(change.from, change.to, 1)
		c.commands[change.to]++
	}
	return written, others, nil
}

// writeTargetsEach uses one statement for one row, which is prepared once: with more rows in a statement, this driver is slower.
func (c conn) writeTargetsEach(ctx context.Context, changes []*targetChange, idle bool, done []bool) error {
	set := fmt.Sprintf(setTarget, "?", "?", "?", "?", "?", "?", "?", "?", "?", "?", "", "?", "?", "?", "?", "?")
	if idle {
		set += setIdle
	}
	// A context that may end costs a goroutine each time.
	ctx = context.WithoutCancel(ctx)
	statement, err := c.prepare(ctx, `UPDATE job_targets SET `+set+` WHERE job = ? AND client_id = ? AND epoch = ? AND state = ?`)
	if err != nil {
		return err
	}
	defer statement.Close()
	for i, t := range changes {
		result, err := statement.ExecContext(ctx, string(t.to), t.exit, clean(t.err), t.stdout, t.stderr, t.stdoutBytes, t.stderrBytes, t.result,
			t.resultInLog, t.started, t.finished, t.logEnd, t.final, t.hopeless, t.number, t.head.Num, t.clientID, t.epoch, string(t.from))
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return err
		}
		done[i] = n > 0
	}
	return nil
}

// writeTargetsTogether uses one statement for many rows.
func (c conn) writeTargetsTogether(ctx context.Context, changes []*targetChange, idle bool, done []bool) error {
	set := fmt.Sprintf(setTarget, "now", "code", "why", "out", "err", "out_bytes", "err_bytes", "typed", "in_log", "began", "t.", "ended", "spool", "said", "no_hope", "number")
	if idle {
		set += setIdle
	}
	for first := 0; first < len(changes); first += c.dialect.batch {
		some := changes[first:min(first+c.dialect.batch, len(changes))]
		n := len(some)
		texts := [5][]string{}
		for i := range texts {
			texts[i] = make([]string, n)
		}
		numbers := [10][]int64{}
		for i := range numbers {
			numbers[i] = make([]int64, n)
		}
		bytes := [3][][]byte{}
		for i := range bytes {
			bytes[i] = make([][]byte, n)
		}
		flags := [3][]bool{}
		for i := range flags {
			flags[i] = make([]bool, n)
		}
		for i, t := range some {
			for k, v := range [...]string{t.clientID, string(t.from), string(t.to), clean(t.err)} {
				texts[k][i] = v
			}
			for k, v := range [...]int64{t.head.Num, int64(t.epoch), int64(t.exit), t.stdoutBytes, t.stderrBytes, t.started, t.finished, t.logEnd, t.number, int64(first + i)} {
				numbers[k][i] = v
			}
			for k, v := range [...][]byte{t.stdout, t.stderr, t.result} {
				bytes[k][i] = v
			}
			for k, v := range [...]bool{t.resultInLog, t.final, t.hopeless} {
				flags[k][i] = v
			}
		}
		var args []any
		for _, v := range texts[:4] {
			args = append(args, pq.Array(v))
		}
		for _, v := range numbers {
			args = append(args, pq.Array(v))
		}
		for _, v := range bytes {
			args = append(args, pq.Array(v))
		}
		for _, v := range flags {
			args = append(args, pq.Array(v))
		}
		var places []int
		if err := c.list(ctx, &places, `UPDATE job_targets t SET `+set+` FROM unnest(CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]),
			CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]),
			CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BYTEA[]), CAST(? AS BYTEA[]), CAST(? AS BYTEA[]),
			CAST(? AS BOOLEAN[]), CAST(? AS BOOLEAN[]), CAST(? AS BOOLEAN[]))
			AS i (client, before, now, why, of_job, try, code, out_bytes, err_bytes, began, ended, spool, number, row, out, err, typed, in_log, said, no_hope)
			WHERE t.job = of_job AND t.client_id = client AND t.epoch = try AND t.state = before RETURNING row`, args...); err != nil {
			return err
		}
		for _, place := range places {
			done[place] = true
		}
	}
	return nil
}

func (c conn) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	preparer, ok := c.db.(interface {
		PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	})
	if !ok {
		return nil, fmt.Errorf("prepare a statement: no transaction")
	}
	return preparer.PrepareContext(ctx, query)
}

// JobConclusion is the server's own verdict on a target, where the agent gave none.
type JobConclusion struct {
	ClientID string
	Epoch    int
	State    job.State // offline, refused, cancelled: nothing was started there; unknown: that cannot be known
	Error    string
	Hopeless bool      // with refused: another try would end the same, so RetryJob makes none
	At       time.Time // defaults to now
}

// ConcludeJobTargets stores verdicts of the server on targets that are open. One of an older epoch changes nothing; a result of the
// agent that comes later replaces it.
func (s *Store) ConcludeJobTargets(ctx context.Context, jobID string, conclusions []JobConclusion) error {
	for _, c := range conclusions {
		switch c.State {
		case job.StateOffline, job.StateRefused, job.StateCancelled, job.StateUnknown:
		default:
			return fmt.Errorf("conclude target %s of job %s: %q is not a verdict", c.ClientID, jobID, c.State)
		}
	}
	return s.writeShared(ctx, "conclude targets", func(ctx context.Context, tx conn) error {
		head, err := tx.lockJob(ctx, jobID)
		if err != nil {
			return err
		}
		last := make(map[string]JobConclusion, len(conclusions)) // of each client
		for _, c := range conclusions {
			last[c.ClientID] = c
		}
		changes := make([]*targetChange, 0, len(last))
		for _, id := range slices.Sorted(maps.Keys(last)) {
			c := last[id]
			changes = append(changes, &targetChange{head: head, clientID: id, epoch: c.Epoch, to: c.State, err: c.Error, exit: noExit,
				hopeless: c.Hopeless, finished: micros(s.orNow(c.At))})
		}
		return tx.concludeOpen(ctx, changes, head)
	})
}

// concludeOpen writes those changes whose targets are open, and the heads.
func (c conn) concludeOpen(ctx context.Context, changes []*targetChange, heads ...*jobHead) error {
	if _, err := c.reconsider(ctx, changes, func(_ *targetChange, now targetState) bool { return !now.State.Decided() }); err != nil {
		return err
	}
	return c.writeHeads(ctx, heads...)
}

// forgetCommands makes the running targets of the clients unknown.
func (s *Store) forgetCommands(ctx context.Context, tx conn, clientIDs []string) error {
	in, list := tx.dialect.in(clientIDs)
	var rows []targetState
	if err := tx.list(ctx, &rows, `SELECT j.id AS job_id, t.client_id, t.state, t.epoch, t.final FROM jobs j JOIN job_targets t ON t.job = j.num
		WHERE j.finished_at = 0 AND j.n_running > 0 AND t.client_id `+in+` AND t.state = 'running'`, list); err != nil || len(rows) == 0 {
		return err
	}
	jobs := map[string]bool{}
	for _, r := range rows {
		jobs[r.JobID] = true
	}
	heads, err := tx.lockJobs(ctx, slices.Sorted(maps.Keys(jobs)))
	if err != nil {
		return err
	}
	at := micros(s.now())
	var changes []*targetChange
	for _, r := range rows {
		if head := heads[r.JobID]; head != nil {
			changes = append(changes, &targetChange{head: head, clientID: r.ClientID, epoch: r.Epoch, to: job.StateUnknown, err: journalReset, exit: noExit, finished: at})
		}
	}
	return tx.concludeOpen(ctx, changes, slices.Collect(maps.Values(heads))...)
}
