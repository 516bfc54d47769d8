package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

// jobStates has the order of the columns of counts.
var jobStates = job.States()

// countColumn names the column of jobs that counts a state.
func countColumn(s job.State) string { return "n_" + string(s) }

// sumOfCounts gives the expression for how many targets of a job are in one of some states; of all without any.
func sumOfCounts(states []job.State) string {
	if len(states) == 0 {
		return "j.total"
	}
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = "j." + countColumn(s)
	}
	return strings.Join(names, " + ")
}

const selectJob = `SELECT j.num, j.id, j.kind, j.command_type, s.payload, j.selector, j.options, j.status, j.reason, j.created_by, j.created_at,
	j.updated_at, j.finished_at, ` + countColumns + ` FROM jobs j JOIN job_specs s ON s.job = j.num`

// countColumns are those of jobCounts.
const countColumns = `total, n_pending, n_running, n_succeeded, n_failed, n_timeout, n_refused, n_unknown, n_offline, n_cancelled, n_skipped`

// jobCounts is what a job's row says of its targets.
type jobCounts struct {
	Total     int `db:"total"`
	Pending   int `db:"n_pending"`
	Running   int `db:"n_running"`
	Succeeded int `db:"n_succeeded"`
	Failed    int `db:"n_failed"`
	Timeout   int `db:"n_timeout"`
	Refused   int `db:"n_refused"`
	Unknown   int `db:"n_unknown"`
	Offline   int `db:"n_offline"`
	Cancelled int `db:"n_cancelled"`
	Skipped   int `db:"n_skipped"`
}

type jobRow struct {
	Num         int64  `db:"num"`
	ID          string `db:"id"`
	Kind        string `db:"kind"`
	CommandType string `db:"command_type"`
	Payload     []byte `db:"payload"`
	Selector    string `db:"selector"`
	Options     []byte `db:"options"`
	Status      string `db:"status"`
	Reason      string `db:"reason"`
	CreatedBy   string `db:"created_by"`
	CreatedAt   int64  `db:"created_at"`
	UpdatedAt   int64  `db:"updated_at"`
	FinishedAt  int64  `db:"finished_at"`
	jobCounts
}

// job gives the domain's form, without the clients that were listed.
func (r *jobRow) job() (job.Job, error) {
	j := job.Job{
		ID: r.ID, Kind: job.Kind(r.Kind), Command: job.Command{Type: r.CommandType}, Targets: release.Targets{Selector: r.Selector},
		Status: job.Status(r.Status), Reason: r.Reason, WorkflowID: job.WorkflowID(r.ID), CreatedBy: r.CreatedBy,
		CreatedAt: fromMicros(r.CreatedAt), UpdatedAt: fromMicros(r.UpdatedAt), FinishedAt: pointerFromMicros(r.FinishedAt),
		Counts: job.Counts(r.jobCounts),
	}
	if len(r.Payload) > 0 {
		j.Command.Payload = json.RawMessage(r.Payload)
	}
	if err := json.Unmarshal(r.Options, &j.Options); err != nil {
		return j, fmt.Errorf("read job %s: %w", r.ID, err)
	}
	return j, nil
}

// maxListed is how many listed clients are kept as they were asked for. More would make every reading of the job slow, and say
// nothing that its targets do not.
const maxListed = 1000

// CreateJob stores a job in status starting, and its targets, all pending. Of j it wants Kind, Command, Targets, Options and
// CreatedBy; it fills the rest. More than 1,000 Targets.Clients are not kept, nor left in j.
func (s *Store) CreateJob(ctx context.Context, j *job.Job, clientIDs []string) error {
	made := *j
	if err := fillID(&made.ID); err != nil {
		return err
	}
	clientIDs = slices.Compact(slices.Sorted(slices.Values(clientIDs)))
	switch {
	case len(clientIDs) == 0:
		return release.Invalid("targets", "pick no host")
	case len(clientIDs) > job.MaxTargets:
		return release.Invalid("targets", "pick %d hosts; the limit is %d", len(clientIDs), job.MaxTargets)
	}
	made.CreatedAt = stored(s.orNow(made.CreatedAt))
	made.UpdatedAt, made.FinishedAt = made.CreatedAt, nil
	made.Status, made.Reason, made.WorkflowID = job.StatusStarting, "", job.WorkflowID(made.ID)
	if len(made.Targets.Clients) > maxListed {
		made.Targets.Clients = nil
	}
	made.Counts = job.Counts{}
	made.Counts.Add(job.StatePending, len(clientIDs))

	err := s.writeShared(ctx, "create job", func(ctx context.Context, tx conn) error {
		num, err := insertJob(ctx, tx, &made, clientIDs)
		if err != nil {
			return err
		}
		return insertJobTargets(ctx, tx, num, clientIDs)
	})
	if err != nil {
		return err
	}
	*j = made
	s.grew(ctx, "job_targets", len(clientIDs))
	return nil
}

func insertJob(ctx context.Context, tx conn, j *job.Job, clientIDs []string) (num int64, err error) {
	options, err := json.Marshal(j.Options)
	if err != nil {
		return 0, err
	}
	clients, err := json.Marshal(j.Targets.Clients)
	if err != nil {
		return 0, err
	}
	only := ""
	if len(clientIDs) == 1 {
		only = clientIDs[0]
	}
	err = tx.get(ctx, &num, `INSERT INTO jobs (id, kind, command_type, selector, options, only_client, status, created_by, created_at, updated_at, total, n_pending)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING num`, j.ID, string(j.Kind), j.Command.Type, j.Targets.Selector, string(options), only,
		string(j.Status), j.CreatedBy, micros(j.CreatedAt), micros(j.UpdatedAt), len(clientIDs), len(clientIDs))
	if isDuplicate(err) {
		return 0, release.Conflict("job %s exists already", j.ID)
	}
	if err != nil {
		return 0, err
	}
	if _, err := tx.exec(ctx, `INSERT INTO job_specs (job, payload, clients) VALUES (?, ?, ?)`, num, string(j.Command.Payload), string(clients)); err != nil {
		return 0, err
	}
	_, err = tx.exec(ctx, `INSERT INTO task_log_heads (task_id) VALUES (?)`, j.ID)
	return num, err
}

// copyRows is from how many rows on PostgreSQL's COPY is faster than a statement.
const copyRows = 100

func insertJobTargets(ctx context.Context, tx conn, num int64, clientIDs []string) error {
	if tx.postgres() && len(clientIDs) >= copyRows {
		return tx.copyIn(ctx, "job_targets", []string{"job", "client_id", "place"}, len(clientIDs), func(i int) []any {
			return []any{num, clean(clientIDs[i]), i}
		})
	}
	rows, list := tx.dialect.ordered(clientIDs)
	_, err := tx.exec(ctx, `INSERT INTO job_targets (job, client_id, place) SELECT CAST(? AS BIGINT), value, place FROM `+rows, num, list)
	return err
}

// Job gives a job with its counts as they are now.
func (s *Store) Job(ctx context.Context, id string) (job.Job, error) {
	var row struct {
		jobRow
		Clients []byte `db:"clients"`
	}
	err := s.read().get(ctx, &row, strings.Replace(selectJob, "s.payload,", "s.payload, s.clients,", 1)+` WHERE j.id = ?`, id)
	if errors.Is(err, sql.ErrNoRows) {
		return job.Job{}, release.NotFound("job", id)
	}
	if err != nil {
		return job.Job{}, fmt.Errorf("read job: %w", err)
	}
	j, err := row.job()
	if err != nil {
		return j, err
	}
	if err := json.Unmarshal(row.Clients, &j.Targets.Clients); err != nil {
		return j, fmt.Errorf("read job %s: %w", id, err)
	}
	return j, nil
}

// JobFilter picks jobs. Its zero value picks all.
type JobFilter struct {
	Kinds  []job.Kind
	Status job.Status
	Limit  int // 0: no limit
	Offset int
}

// Jobs gives a page of jobs, the newest first, and the number of all of them. They come without Targets.Clients, which may be
// very long.
func (s *Store) Jobs(ctx context.Context, f JobFilter) (jobs []job.Job, total int, err error) {
	w := &where{}
	if len(f.Kinds) > 0 {
		kinds := make([]string, len(f.Kinds))
		for i, k := range f.Kinds {
			kinds[i] = string(k)
		}
		w.add(`j.kind IN (?)`, kinds)
	}
	if f.Status != "" {
		w.add(`j.status = ?`, string(f.Status))
	}
	if err := s.read().get(ctx, &total, `SELECT COUNT(*) FROM jobs j`+w.String(), w.args...); err != nil {
		return nil, 0, fmt.Errorf("count jobs: %w", err)
	}
	jobs, err = s.listJobs(ctx, w.String()+` ORDER BY j.num DESC LIMIT ? OFFSET ?`, w.page(f.Limit, f.Offset)...)
	return jobs, total, err
}

// UnfinishedJobs gives the jobs that have not ended, the oldest first, without Targets.Clients.
func (s *Store) UnfinishedJobs(ctx context.Context) ([]job.Job, error) {
	return s.listJobs(ctx, ` WHERE j.finished_at = 0 ORDER BY j.num`)
}

func (s *Store) listJobs(ctx context.Context, condition string, args ...any) ([]job.Job, error) {
	var rows []jobRow
	if err := s.read().list(ctx, &rows, selectJob+condition, args...); err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	jobs := make([]job.Job, len(rows))
	for i := range rows {
		var err error
		if jobs[i], err = rows[i].job(); err != nil {
			return nil, err
		}
	}
	return jobs, nil
}

// jobHead is what a job's row says about its targets, and what is to be written there.
type jobHead struct {
	Num        int64      `db:"num"`
	ID         string     `db:"id"`
	Status     job.Status `db:"status"`
	Halted     bool       `db:"halted"`
	CreatedAt  int64      `db:"created_at"`
	FinishedAt int64      `db:"finished_at"`
	Chunk      int        `db:"chunk"`
	Decided    int64      `db:"decided"`
	jobCounts

	moved map[job.State]int
}

// counts gives where the targets are, those included that were moved.
func (h *jobHead) counts() job.Counts {
	counts := job.Counts(h.jobCounts)
	for state, n := range h.moved {
		counts.Add(state, n)
	}
	return counts
}

// ended says whether the job was stopped, or is over; one that is paused was not.
func (h *jobHead) ended() bool { return h.Halted && h.Status != job.StatusPaused || h.FinishedAt != 0 }

// move counts n targets that went from a state to another.
func (h *jobHead) move(from, to job.State, n int) {
	if h.moved == nil {
		h.moved = map[job.State]int{}
	}
	h.moved[from] -= n
	h.moved[to] += n
}

const selectHead = `SELECT num, id, status, halted, created_at, finished_at, chunk, decided, ` + countColumns + ` FROM jobs`

// lockJob locks a job; every write to what belongs to it begins so.
func (c conn) lockJob(ctx context.Context, id string) (*jobHead, error) {
	h := &jobHead{}
	err := c.get(ctx, h, selectHead+` WHERE id = ?`+c.dialect.lock, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, release.NotFound("job", id)
	}
	return h, err
}

// lockJobs locks the jobs that exist of these.
func (c conn) lockJobs(ctx context.Context, ids []string) (map[string]*jobHead, error) {
	heads := make(map[string]*jobHead, len(ids))
	if len(ids) == 0 {
		return heads, nil
	}
	in, list := c.dialect.in(ids)
	var rows []*jobHead
	if err := c.list(ctx, &rows, selectHead+` WHERE id `+in+` ORDER BY num`+c.dialect.lock, list); err != nil {
		return nil, err
	}
	for _, h := range rows {
		heads[h.ID] = h
	}
	return heads, nil
}

// writeHeads writes the counts and the numbers of jobs.
func (c conn) writeHeads(ctx context.Context, heads ...*jobHead) error {
	columns := "job BIGINT, last_decided BIGINT"
	set := "decided = last_decided"
	for _, s := range jobStates {
		columns += ", more_" + string(s) + " BIGINT"
		set += fmt.Sprintf(", %[1]s = %[1]s + more_%[2]s", countColumn(s), s)
	}
	var rows [][]any
	for _, h := range heads {
		if h.moved == nil {
			continue
		}
		row := []any{h.Num, h.Decided}
		for _, s := range jobStates {
			row = append(row, h.moved[s])
		}
		rows = append(rows, row)
	}
	for some := range slices.Chunk(rows, c.dialect.batch) {
		with, args := c.dialect.input(columns, some)
		if _, err := c.exec(ctx, with+`UPDATE jobs SET `+set+` FROM input WHERE num = job`, args...); err != nil {
			return err
		}
	}
	return nil
}

// JobProgress is where a job stands, as its workflow says.
type JobProgress struct {
	Status job.Status
	Reason string
	At     time.Time // defaults to now
}

// commandLeftAtWork is why a target becomes unknown when its job ends.
const commandLeftAtWork = "the job ended before the agent said how the command ended"

// notConnected is why a target becomes offline that was waited for until its job ended.
const notConnected = "the host did not connect while it was waited for"

// SetJobProgress stores where a job stands. A status that cannot follow the present one gets release.ErrConflict. When the job
// ends, what is open is decided: a pending target becomes skipped, or offline if its host was waited for, and a running one
// unknown: nobody asks for it any more, but its result is taken when it comes.
func (s *Store) SetJobProgress(ctx context.Context, jobID string, p JobProgress) error {
	return s.writeShared(ctx, "store progress of job", func(ctx context.Context, tx conn) error {
		head, err := tx.lockJob(ctx, jobID)
		if err != nil {
			return err
		}
		if !head.Status.CanBecome(p.Status) {
			return release.Conflict("job %s is %s and cannot become %s", jobID, head.Status, p.Status)
		}
		at := micros(s.orNow(p.At))
		var finishedAt int64
		if p.Status.Terminal() {
			finishedAt = at
			if head.FinishedAt == 0 {
				total := tx.ended[p.Status]
				tx.ended[p.Status] = job.Total{Jobs: total.Jobs + 1, Took: total.Took + time.Duration(at-head.CreatedAt)*time.Microsecond}
			}
		}
		if _, err := tx.exec(ctx, `UPDATE jobs SET status = ?, reason = ?, updated_at = ?,
			finished_at = CASE WHEN finished_at = 0 THEN ? ELSE finished_at END WHERE num = ?`,
			string(p.Status), p.Reason, at, finishedAt, head.Num); err != nil || !p.Status.Terminal() {
			return err
		}
		for _, left := range []struct {
			open      int
			condition string
			from, to  job.State
			why       string
		}{
			{head.Pending, `state = 'pending' AND waits`, job.StatePending, job.StateOffline, notConnected},
			{head.Pending, `state = 'pending'`, job.StatePending, job.StateSkipped, ""},
			{head.Running, `state = 'running'`, job.StateRunning, job.StateUnknown, commandLeftAtWork},
		} {
			if left.open == 0 {
				continue
			}
			if _, err := tx.decide(ctx, head, left.condition, left.from, left.to, left.why, at); err != nil {
				return err
			}
		}
		if _, err := tx.exec(ctx, `DELETE FROM job_chunks WHERE job = ?`, head.Num); err != nil {
			return err
		}
		return tx.writeHeads(ctx, head)
	})
}

// decide moves all targets of a job that a condition holds for from a state to a decided one, and gives their number.
func (c conn) decide(ctx context.Context, head *jobHead, condition string, from, to job.State, why string, at int64) (int, error) {
	// Their places make the numbers: none twice, and no need to look at each row before it is written.
	n, err := c.exec(ctx, `UPDATE job_targets SET state = ?, error = ?, finished_at = ?, decided = ? + 1 + place, waits = FALSE
		WHERE job = ? AND `+condition, string(to), why, at, head.Decided, head.Num)
	if err != nil || n == 0 {
		return 0, err
	}
	head.Decided += job.MaxTargets
	head.move(from, to, int(n))
	return int(n), nil
}

// SetJobHalt raises or lowers the fence of a job: once it is raised, nothing of the job is marked as dispatched.
func (s *Store) SetJobHalt(ctx context.Context, jobID string, halted bool) error {
	return s.writeShared(ctx, "set halt of job", func(ctx context.Context, tx conn) error {
		n, err := tx.exec(ctx, `UPDATE jobs SET halted = ? WHERE id = ?`, halted, jobID)
		if err == nil && n == 0 {
			return release.NotFound("job", jobID)
		}
		return err
	})
}

// DeleteJobs deletes jobs with their targets and logs. Those that do not exist, or have not ended, are passed over.
func (s *Store) DeleteJobs(ctx context.Context, ids []string) (deleted int, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	err = s.write(ctx, "delete jobs", func(tx conn) error {
		deleted = 0
		heads, err := tx.lockJobs(ctx, ids)
		if err != nil {
			return err
		}
		for _, id := range slices.Sorted(slices.Values(ids)) {
			if h := heads[id]; h == nil || h.FinishedAt == 0 {
				continue
			}
			delete(heads, id) // should it be named twice
			if _, err := tx.exec(ctx, `DELETE FROM jobs WHERE id = ?`, id); err != nil {
				return err
			}
			deleted++
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return deleted, nil
}

// in gives a condition for a column to be one of the texts, behind its name, and its only argument: however many there are, they
// are one parameter.
func (d dialect) in(texts []string) (condition string, list any) {
	if d.lock != "" {
		return `= ANY(?)`, pq.Array(cleaned(texts))
	}
	return `IN (SELECT value FROM json_each(?))`, jsonList(texts)
}

// ordered gives a table of the texts, with the columns value and place, which counts from 0, and its only argument.
func (d dialect) ordered(texts []string) (table string, list any) {
	if d.lock != "" {
		return `(SELECT value, place - 1 AS place FROM unnest(CAST(? AS TEXT[])) WITH ORDINALITY AS list (value, place)) AS list`, pq.Array(cleaned(texts))
	}
	return `(SELECT value, key AS place FROM json_each(?))`, jsonList(texts)
}

func cleaned(texts []string) []string {
	all := make([]string, len(texts))
	for i, text := range texts {
		all[i] = clean(text)
	}
	return all
}

func jsonList(texts []string) string {
	list, err := json.Marshal(texts)
	if err != nil {
		panic(err) // texts can always be written
	}
	return string(list)
}

func (c conn) postgres() bool { return c.dialect.lock != "" }

// copyIn sends rows by PostgreSQL's COPY.
func (c conn) copyIn(ctx context.Context, table string, columns []string, n int, row func(i int) []any) error {
	statement, err := c.prepare(ctx, `COPY `+table+` (`+strings.Join(columns, ", ")+`) FROM STDIN`)
	if err != nil {
		return err
	}
	defer statement.Close()
	for i := range n {
		if _, err := statement.ExecContext(ctx, row(i)...); err != nil {
			return err
		}
	}
	_, err = statement.ExecContext(ctx)
	return err
}
