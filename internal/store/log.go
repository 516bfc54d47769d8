package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// logBatchBytes is how much log data one statement writes, more or less.
const logBatchBytes = 4 << 20

// Records of a step that follow each other in one stream share a row up to this size, and as long as they were made within
// this time.
const (
	joinBytes = 16 << 10
	joinTime  = 100 * time.Millisecond
)

// AppendLogs stores log records and gives, for each step among them, up to where its log is stored now.
//
// Of a step only the record that begins there is taken: one that begins before is a duplicate, one behind it comes
// after a gap, and is asked for again by the answer. Records of a step that is not known are not kept; they are
// acknowledged, so that the agent can forget them.
//
// Sequence numbers are given under the lock of the task's head, so that they commit in their order: who has read up to
// one will find all others behind it.
func (s *Store) AppendLogs(ctx context.Context, records []release.LogRecord) ([]release.LogAck, error) {
	if len(records) == 0 {
		return nil, nil
	}
	var acks []release.LogAck
	var a appender
	err := s.write(ctx, "append logs", func(tx conn) error {
		a = appender{positions: map[string]uint64{}, acks: map[string]uint64{}, last: map[string]*neighbour{}}
		if err := a.load(ctx, tx, records); err != nil {
			return err
		}
		for _, r := range records {
			a.take(r)
		}
		for _, id := range slices.Sorted(maps.Keys(a.unknown)) {
			s.config.Logger.WarnContext(ctx, "log of an unknown step dropped", "step", id)
		}
		acks = acks[:0]
		for _, id := range slices.Sorted(maps.Keys(a.acks)) {
			acks = append(acks, release.LogAck{StepID: id, Position: a.acks[id]})
		}
		return a.write(ctx, tx)
	})
	if err != nil {
		return nil, err
	}
	s.large.note(a.bytes, s.config.MaxLogBytes)
	return acks, nil
}

// appender decides which records are taken.
type appender struct {
	steps     map[string]logStep
	heads     map[string]int64  // by task: last sequence number
	bytes     map[string]int64  // by task: of all that is kept
	positions map[string]uint64 // by step: where the stored log ends
	acks      map[string]uint64
	unknown   map[string]bool
	taken     []release.LogRecord
	last      map[string]*neighbour // by step
}

// neighbour is the last record of a step that was taken.
type neighbour struct {
	index int  // in taken
	own   bool // its data is a copy that may grow
}

type logStep struct {
	ID       string `db:"id"`
	TaskID   string `db:"task_id"`
	ClientID string `db:"client_id"`
}

func (a *appender) load(ctx context.Context, tx conn, records []release.LogRecord) error {
	a.steps, a.heads, a.bytes, a.unknown = map[string]logStep{}, map[string]int64{}, map[string]int64{}, map[string]bool{}
	ids := map[string]bool{}
	for _, r := range records {
		ids[r.StepID] = true
	}
	stepIDs := slices.Sorted(maps.Keys(ids))
	tasks := map[string]bool{}
	ofTasks, err := a.loadCommands(ctx, tx, stepIDs, tasks)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(ofTasks, tx.dialect.batch) {
		var rows []logStep
		if err := tx.list(ctx, &rows, `SELECT id, task_id, client_id FROM steps WHERE id IN (?)`, some); err != nil {
			return err
		}
		for _, row := range rows {
			a.steps[row.ID] = row
			tasks[row.TaskID] = true
		}
	}
	for some := range slices.Chunk(slices.Sorted(maps.Keys(tasks)), tx.dialect.batch) {
		var rows []struct {
			TaskID string `db:"task_id"`
			Seq    int64  `db:"seq"`
			Bytes  int64  `db:"bytes"`
		}
		if err := tx.list(ctx, &rows, `SELECT task_id, seq, bytes FROM task_log_heads WHERE task_id IN (?) ORDER BY task_id`+tx.dialect.lock, some); err != nil {
			return err
		}
		for _, row := range rows {
			a.heads[row.TaskID], a.bytes[row.TaskID] = row.Seq, row.Bytes
		}
	}
	// What was deleted since has no head, and gets no more logs.
	maps.DeleteFunc(a.steps, func(_ string, step logStep) bool { _, ok := a.heads[step.TaskID]; return !ok })
	for some := range slices.Chunk(stepIDs, tx.dialect.batch) {
		var rows []struct {
			StepID   string `db:"step_id"`
			Position uint64 `db:"position"`
		}
		if err := tx.list(ctx, &rows, `SELECT step_id, position FROM step_logs WHERE step_id IN (?)`, some); err != nil {
			return err
		}
		for _, row := range rows {
			a.positions[row.StepID] = row.Position
		}
	}
	return nil
}

// loadCommands takes the steps of jobs out of some, and gives the rest.
func (a *appender) loadCommands(ctx context.Context, tx conn, stepIDs []string, jobs map[string]bool) (rest []string, err error) {
	commands := map[string]commandID{}
	keys := map[targetKey]bool{}
	for _, id := range stepIDs {
		if c, ok := parseCommand(id); ok {
			commands[id] = c
			keys[targetKey{c.jobID, c.clientID}] = true
		} else {
			rest = append(rest, id)
		}
	}
	known, err := tx.targetStates(ctx, slices.Collect(maps.Keys(keys)))
	if err != nil {
		return nil, err
	}
	for id, c := range commands {
		if t, ok := known[targetKey{c.jobID, c.clientID}]; ok && c.epoch >= 0 && c.epoch <= t.Epoch {
			a.steps[id] = logStep{ID: id, TaskID: c.jobID, ClientID: c.clientID}
			jobs[c.jobID] = true
		}
	}
	return rest, nil
}

func (a *appender) take(r release.LogRecord) {
	step, ok := a.steps[r.StepID]
	if !ok || step.ClientID != r.ClientID {
		a.unknown[r.StepID] = true
		if !ok {
			a.acks[r.StepID] = max(a.acks[r.StepID], r.Next)
		}
		return
	}
	if r.Position == a.positions[r.StepID] && r.Next > r.Position {
		a.positions[r.StepID] = r.Next
		a.bytes[step.TaskID] += int64(len(r.Data))
		if !a.join(r) {
			a.heads[step.TaskID]++
			r.TaskID, r.Seq = step.TaskID, a.heads[step.TaskID]
			a.last[r.StepID] = &neighbour{index: len(a.taken)}
			a.taken = append(a.taken, r)
		}
	}
	a.acks[r.StepID] = a.positions[r.StepID]
}

// join puts a record into the same row as the one before it, if it goes on where that ends: a row costs more than its data
// where a host prints line by line.
func (a *appender) join(r release.LogRecord) bool {
	n := a.last[r.StepID]
	if n == nil {
		return false
	}
	before := &a.taken[n.index]
	if before.Stream != r.Stream || before.Next != r.Position || before.Offset+uint64(len(before.Data)) != r.Offset ||
		len(before.Data)+len(r.Data) > joinBytes || r.Time.Sub(before.Time).Abs() > joinTime {
		return false
	}
	if !n.own {
		before.Data, n.own = slices.Clone(before.Data), true
	}
	before.Data, before.Next = append(before.Data, r.Data...), r.Next
	return true
}

func (a *appender) write(ctx context.Context, tx conn) error {
	heads, positions := map[string][]any{}, map[string][]any{}
	for _, r := range a.taken {
		heads[r.TaskID] = []any{r.TaskID, r.Seq, a.bytes[r.TaskID]}
		positions[r.StepID] = []any{r.StepID, int64(r.Next)}
	}
	for rest := a.taken; len(rest) > 0; {
		n, size := 0, 0
		for n < len(rest) && n < tx.dialect.batch && size < logBatchBytes {
			size += len(rest[n].Data)
			n++
		}
		if err := insertLogs(ctx, tx, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	for keys := range slices.Chunk(slices.Sorted(maps.Keys(heads)), tx.dialect.batch) {
		with, args := tx.dialect.input("task TEXT, number BIGINT, held BIGINT", pick(heads, keys))
		if _, err := tx.exec(ctx, with+`UPDATE task_log_heads SET seq = number, bytes = held FROM input WHERE task_id = task`, args...); err != nil {
			return err
		}
	}
	for keys := range slices.Chunk(slices.Sorted(maps.Keys(positions)), tx.dialect.batch) {
		with, args := tx.dialect.input("step TEXT, stored BIGINT", pick(positions, keys))
		if _, err := tx.exec(ctx, with+`INSERT INTO step_logs (step_id, position) SELECT step, stored FROM input WHERE TRUE
			ON CONFLICT (step_id) DO UPDATE SET position = excluded.position`, args...); err != nil {
			return err
		}
	}
	return nil
}

var logColumns = []string{"task_id", "seq", "step_id", "client_id", "position", "next", "stream", "stream_offset", "at", "data"}

func insertLogs(ctx context.Context, tx conn, records []release.LogRecord) error {
	row := func(i int) []any {
		r := &records[i]
		data := r.Data
		if data == nil {
			data = []byte{} // nil would be NULL
		}
		return []any{r.TaskID, r.Seq, r.StepID, r.ClientID, int64(r.Position), int64(r.Next), string(r.Stream), int64(r.Offset), micros(r.Time), data}
	}
	if tx.postgres() && len(records) >= copyRows {
		return tx.copyIn(ctx, "task_logs", logColumns, len(records), row)
	}
	args := make([]any, 0, len(records)*len(logColumns))
	for i := range records {
		args = append(args, row(i)...)
	}
	_, err := tx.exec(ctx, `INSERT INTO task_logs (`+strings.Join(logColumns, ", ")+`) VALUES `+rowsOf(len(records), len(logColumns)), args...)
	return err
}

func pick(rows map[string][]any, keys []string) [][]any {
	picked := make([][]any, len(keys))
	for i, key := range keys {
		picked[i] = rows[key]
	}
	return picked
}

// LogFilter picks log records of a task or job. Its zero value picks all.
type LogFilter struct {
	ClientID   string
	StepID     string
	Stream     release.Stream
	FromOffset uint64 // only records that begin here in their stream, or later
}

// Logs gives the records of a task or job behind a sequence number, in their order, at most limit (0: no limit). Where some
// are gone, a notice stands for them, which has the number of the last of these; see release.LogRecord.
func (s *Store) Logs(ctx context.Context, taskID string, afterSeq int64, filter LogFilter, limit int) ([]release.LogRecord, error) {
	w := &where{}
	w.add(`task_id = ?`, taskID)
	w.add(`seq > ?`, afterSeq)
	if filter.ClientID != "" {
		w.add(`client_id = ?`, filter.ClientID)
	}
	if filter.StepID != "" {
		w.add(`step_id = ?`, filter.StepID)
	}
	if filter.Stream != "" {
		w.add(`stream = ?`, string(filter.Stream))
	}
	if filter.FromOffset > 0 {
		w.add(`stream_offset >= ?`, int64(filter.FromOffset))
	}
	var rows []struct {
		TaskID   string `db:"task_id"`
		Seq      int64  `db:"seq"`
		StepID   string `db:"step_id"`
		ClientID string `db:"client_id"`
		Position uint64 `db:"position"`
		Next     uint64 `db:"next"`
		Stream   string `db:"stream"`
		Offset   uint64 `db:"stream_offset"`
		At       int64  `db:"at"`
		Data     []byte `db:"data"`
	}
	if err := s.read().list(ctx, &rows, `SELECT task_id, seq, step_id, client_id, position, next, stream, stream_offset, at, data
		FROM task_logs`+w.String()+` ORDER BY seq LIMIT ? OFFSET ?`, w.page(limit, 0)...); err != nil {
		return nil, fmt.Errorf("read logs: %w", err)
	}
	records := make([]release.LogRecord, len(rows))
	for i, r := range rows {
		records[i] = release.LogRecord{
			TaskID: r.TaskID, Seq: r.Seq, StepID: r.StepID, ClientID: r.ClientID, Position: r.Position, Next: r.Next,
			Stream: release.Stream(r.Stream), Offset: r.Offset, Time: fromMicros(r.At), Data: r.Data,
		}
	}
	if len(records) > 0 && records[0].Seq == afterSeq+1 {
		return records, nil
	}
	notice, err := s.cutNotice(ctx, taskID)
	if err != nil {
		return nil, err
	}
	if len(records) > 0 {
		notice.Seq = min(notice.Seq, records[0].Seq-1) // there may be a later cut than these were read before
	}
	if notice.Seq <= afterSeq {
		return records, nil
	}
	records = slices.Insert(records, 0, notice)
	if limit > 0 {
		records = records[:min(len(records), limit)]
	}
	return records, nil
}

// LogHead gives the last sequence number of a task, 0 if it has no log.
func (s *Store) LogHead(ctx context.Context, taskID string) (int64, error) {
	var seq int64
	err := s.read().get(ctx, &seq, `SELECT seq FROM task_log_heads WHERE task_id = ?`, taskID)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, release.NotFound("task", taskID)
	}
	if err != nil {
		return 0, fmt.Errorf("read log head: %w", err)
	}
	return seq, nil
}

// LogsComplete says whether all that the finished steps of a task or job printed is stored, and names the clients of those
// where some is missing.
func (s *Store) LogsComplete(ctx context.Context, taskID string) (complete bool, missing []string, err error) {
	err = s.read().list(ctx, &missing, `SELECT s.client_id AS client_id FROM steps s LEFT JOIN step_logs l ON l.step_id = s.id
		WHERE s.task_id = ? AND s.log_end > COALESCE(l.position, 0)
		UNION SELECT t.client_id AS client_id FROM jobs j JOIN job_targets t ON t.job = j.num
		LEFT JOIN step_logs l ON l.step_id = j.id || '/command/' || t.client_id || '/' || t.epoch
		WHERE j.id = ? AND t.log_end > COALESCE(l.position, 0) ORDER BY client_id`, taskID, taskID)
	if err != nil {
		return false, nil, fmt.Errorf("compare logs with results: %w", err)
	}
	return len(missing) == 0, missing, nil
}
