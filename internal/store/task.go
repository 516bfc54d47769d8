package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

var selectTask = `SELECT t.id, t.project_id, ` + formerName("p") + ` AS project, COALESCE(t.version_id, '') AS version_id,
	COALESCE(` + formerName("v") + `, '') AS version, t.environment_id, COALESCE(e.name, '') AS environment, t.config_id, t.action, t.targets, t.strategy, t.override, t.waves, t.status, t.phase, t.wave, t.reason, t.soak_until, t.workflow_id,
	t.created_by, t.created_at, t.updated_at, t.finished_at
	FROM tasks t JOIN projects p ON p.id = t.project_id LEFT JOIN versions v ON v.id = t.version_id LEFT JOIN environments e ON e.id = t.environment_id`

type taskRow struct {
	ID        string `db:"id"`
	ProjectID string `db:"project_id"`
	Project   string `db:"project"`
	VersionID string `db:"version_id"`
	Version   string `db:"version"`
	Action    string `db:"action"`

	EnvironmentID string `db:"environment_id"`
	Environment   string `db:"environment"`
	ConfigID      string `db:"config_id"`

	Targets    []byte `db:"targets"`
	Strategy   []byte `db:"strategy"`
	Override   []byte `db:"override"`
	Waves      []byte `db:"waves"`
	Status     string `db:"status"`
	Phase      string `db:"phase"`
	Wave       int    `db:"wave"`
	Reason     string `db:"reason"`
	SoakUntil  int64  `db:"soak_until"`
	WorkflowID string `db:"workflow_id"`
	CreatedBy  string `db:"created_by"`
	CreatedAt  int64  `db:"created_at"`
	UpdatedAt  int64  `db:"updated_at"`
	FinishedAt int64  `db:"finished_at"`
}

func (r *taskRow) task() (release.Task, error) {
	t := release.Task{
		ID: r.ID, ProjectID: r.ProjectID, Project: r.Project, VersionID: r.VersionID, Version: r.Version,
		Action: release.Action(r.Action), Status: release.Status(r.Status), Phase: release.Phase(r.Phase), Wave: r.Wave,
		Reason: r.Reason, SoakUntil: pointerFromMicros(r.SoakUntil), WorkflowID: r.WorkflowID, CreatedBy: r.CreatedBy,
		EnvironmentID: r.EnvironmentID, Environment: r.Environment, ConfigID: r.ConfigID,
		CreatedAt: fromMicros(r.CreatedAt), UpdatedAt: fromMicros(r.UpdatedAt), FinishedAt: pointerFromMicros(r.FinishedAt),
	}
	for _, part := range []struct {
		text []byte
		into any
	}{{r.Targets, &t.Targets}, {r.Strategy, &t.Strategy}, {r.Override, &t.Override}, {r.Waves, &t.Waves}} {
		if err := json.Unmarshal(part.text, part.into); err != nil {
			return t, fmt.Errorf("read task %s: %w", r.ID, err)
		}
	}
	return t, nil
}

// CreateTask stores a task in status starting, and its targets, all pending, in waves over their sorted ids. Of t it
// wants ProjectID, VersionID (unless it uninstalls), EnvironmentID (if it is in one), Action, Targets, Strategy, Override, Snapshot (of what it deploys) and
// CreatedBy; it fills the rest.
func (s *Store) CreateTask(ctx context.Context, t *release.Task, clientIDs []string) error {
	task := *t
	if err := fillID(&task.ID); err != nil {
		return err
	}
	clientIDs = slices.Compact(slices.Sorted(slices.Values(clientIDs)))
	if len(clientIDs) == 0 {
		return release.Invalid("targets", "pick no host")
	}
	task.CreatedAt = stored(s.orNow(task.CreatedAt))
	task.UpdatedAt, task.FinishedAt, task.SoakUntil = task.CreatedAt, nil, nil
	task.Status, task.Phase, task.Reason = release.StatusStarting, release.PhasePlan, ""
	task.Waves = release.PlanWaves(len(clientIDs), task.Strategy)
	task.Wave = task.Waves[0].Number
	task.Counts = release.Counts{}
	task.Counts.Add(release.TargetPending, len(clientIDs))

	err := s.write(ctx, "create task", func(tx conn) error {
		// The locks make whoever deletes one of them wait, or this one see it.
		p, err := project(ctx, tx, task.ProjectID, tx.dialect.lock)
		if err != nil {
			return err
		}
		task.Project = p.Name
		if task.VersionID != "" {
			v, err := version(ctx, tx, task.VersionID, ` WHERE v.id = ? AND v.project_id = ? AND v.deleted_at = 0`+tx.lockOf("v"), task.VersionID, task.ProjectID)
			if err != nil {
				return err
			}
			task.Version = v.Name
		}
		if task.EnvironmentID != "" {
			e, err := environment(ctx, tx, task.ProjectID, task.EnvironmentID, tx.dialect.lock)
			if err != nil {
				return err
			}
			task.Environment = e.Name
		}
		task.ConfigID = ""
		if task.Snapshot != nil {
			task.ConfigID = task.Snapshot.ID
			if err := putSnapshot(ctx, tx, task.Snapshot, task.CreatedAt); err != nil {
				return err
			}
		}
		task.WorkflowID = release.WorkflowID(task.Project, task.ID)
		if err := insertTask(ctx, tx, &task); err != nil {
			return err
		}
		return insertTargets(ctx, tx, &task, clientIDs)
	})
	if err != nil {
		return err
	}
	*t = task
	s.grew(ctx, "task_targets", len(clientIDs))
	return nil
}

func insertTask(ctx context.Context, tx conn, t *release.Task) error {
	var texts [4]string
	for i, part := range []any{t.Targets, t.Strategy, t.Override, t.Waves} {
		text, err := json.Marshal(part)
		if err != nil {
			return err
		}
		texts[i] = string(text)
	}
	_, err := tx.exec(ctx, `INSERT INTO tasks (id, project_id, version_id, environment_id, config_id, action, targets, strategy, override, waves,
		status, phase, wave, workflow_id, created_by, created_at, updated_at) VALUES (?, ?, NULLIF(?, ''), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		t.ID, t.ProjectID, t.VersionID, t.EnvironmentID, t.ConfigID, string(t.Action), texts[0], texts[1], texts[2], texts[3],
		string(t.Status), string(t.Phase), t.Wave, t.WorkflowID, t.CreatedBy, micros(t.CreatedAt), micros(t.UpdatedAt))
	if isDuplicate(err) {
		return release.Conflict("task %s exists already", t.ID)
	}
	if err != nil {
		return err
	}
	_, err = tx.exec(ctx, `INSERT INTO task_log_heads (task_id) VALUES (?)`, t.ID)
	return err
}

func insertTargets(ctx context.Context, tx conn, t *release.Task, clientIDs []string) error {
	rows := make([][]any, 0, len(clientIDs))
	for i, members := range release.InWaves(clientIDs, t.Waves) {
		for _, id := range members {
			rows = append(rows, []any{id, t.Waves[i].Number})
		}
	}
	for some := range slices.Chunk(rows, tx.dialect.batch) {
		with, args := tx.dialect.input("client TEXT, number BIGINT", some)
		if _, err := tx.exec(ctx, with+`INSERT INTO task_targets (task_id, client_id, wave, state)
			SELECT CAST(? AS TEXT), client, number, 'pending' FROM input`, append(args, t.ID)...); err != nil {
			return err
		}
	}
	return nil
}

// Task gives a task with its counts as they are now.
func (s *Store) Task(ctx context.Context, id string) (release.Task, error) {
	tasks, err := s.listTasks(ctx, ` WHERE t.id = ?`, id)
	if err != nil {
		return release.Task{}, err
	}
	if len(tasks) == 0 {
		return release.Task{}, release.NotFound("task", id)
	}
	return tasks[0], nil
}

// TaskFilter picks tasks. Its zero value picks all.
type TaskFilter struct {
	Project     string // name or id
	Environment string // name or id
	Status      release.Status
	Limit       int // 0: no limit
	Offset      int
}

// Tasks gives a page of tasks, the newest first, and the number of all of them.
func (s *Store) Tasks(ctx context.Context, f TaskFilter) (tasks []release.Task, total int, err error) {
	w := &where{}
	if f.Project != "" {
		w.add(`t.project_id IN (SELECT id FROM projects WHERE id = ? OR name = ?)`, f.Project, f.Project)
	}
	if f.Environment != "" {
		w.add(`t.environment_id IN (SELECT id FROM environments WHERE id = ? OR (name = ? AND deleted_at = 0))`, f.Environment, f.Environment)
	}
	if f.Status != "" {
		w.add(`t.status = ?`, string(f.Status))
	}
	if err := s.read().get(ctx, &total, `SELECT COUNT(*) FROM tasks t`+w.String(), w.args...); err != nil {
		return nil, 0, fmt.Errorf("count tasks: %w", err)
	}
	tasks, err = s.listTasks(ctx, w.String()+` ORDER BY t.created_at DESC, t.id DESC LIMIT ? OFFSET ?`, w.page(f.Limit, f.Offset)...)
	return tasks, total, err
}

// RecentTasks is what happens in rollouts, and what happened of late.
type RecentTasks struct {
	Active      []release.Task // that have not ended, the oldest first
	ActiveTotal int            // how many they are in all
	Failed      []release.Task // that ended otherwise than succeeded, the newest first
	Succeeded   []release.Task // the newest first
}

// RecentTasks gives at most so many tasks of each kind; those that ended, if that was after a time.
func (s *Store) RecentTasks(ctx context.Context, after time.Time, limit int) (r RecentTasks, err error) {
	if err := s.read().get(ctx, &r.ActiveTotal, `SELECT COUNT(*) FROM tasks t WHERE t.finished_at = 0`); err != nil {
		return r, fmt.Errorf("count tasks: %w", err)
	}
	if r.Active, err = s.listTasks(ctx, ` WHERE t.finished_at = 0 ORDER BY t.created_at, t.id LIMIT ?`, limit); err != nil {
		return r, err
	}
	const ended = ` WHERE t.finished_at > 0 AND t.finished_at >= ? AND `
	const newest = ` ORDER BY t.created_at DESC, t.id DESC LIMIT ?`
	if r.Failed, err = s.listTasks(ctx, ended+`t.status <> ?`+newest, micros(after), string(release.StatusSucceeded), limit); err != nil {
		return r, err
	}
	r.Succeeded, err = s.listTasks(ctx, ended+`t.status = ?`+newest, micros(after), string(release.StatusSucceeded), limit)
	return r, err
}

// UnfinishedTasks gives the tasks that have not ended, the oldest first.
func (s *Store) UnfinishedTasks(ctx context.Context) ([]release.Task, error) {
	return s.listTasks(ctx, ` WHERE t.finished_at = 0 ORDER BY t.created_at, t.id`)
}

func (s *Store) listTasks(ctx context.Context, condition string, args ...any) ([]release.Task, error) {
	var rows []taskRow
	if err := s.read().list(ctx, &rows, selectTask+condition, args...); err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	counts, err := s.countTargets(ctx, ids)
	if err != nil {
		return nil, err
	}
	tasks := make([]release.Task, len(rows))
	for i := range rows {
		if tasks[i], err = rows[i].task(); err != nil {
			return nil, err
		}
		tasks[i].Counts = counts[rows[i].ID]
	}
	return tasks, nil
}

// Progress is where a task stands, as its workflow says.
type Progress struct {
	Status    release.Status
	Phase     release.Phase
	Wave      int
	Reason    string
	SoakUntil *time.Time
	At        time.Time // defaults to now
}

// SetProgress stores where a task stands. A status that cannot follow the present one gets release.ErrConflict. When
// the task ends, its pending targets become skipped, and steps that are still dispatched become unknown: nobody asks for
// them any more, but their results are taken when they come.
func (s *Store) SetProgress(ctx context.Context, taskID string, p Progress) error {
	return s.write(ctx, "store progress", func(tx conn) error {
		var status string
		err := tx.get(ctx, &status, `SELECT status FROM tasks WHERE id = ?`+tx.dialect.lock, taskID)
		if errors.Is(err, sql.ErrNoRows) {
			return release.NotFound("task", taskID)
		}
		if err != nil {
			return err
		}
		if !release.Status(status).CanBecome(p.Status) {
			return release.Conflict("task %s is %s and cannot become %s", taskID, status, p.Status)
		}
		at := micros(s.orNow(p.At))
		var soakUntil, finishedAt int64
		if p.SoakUntil != nil {
			soakUntil = micros(*p.SoakUntil)
		}
		if p.Status.Terminal() {
			finishedAt = at
		}
		if _, err := tx.exec(ctx, `UPDATE tasks SET status = ?, phase = ?, wave = ?, reason = ?, soak_until = ?, updated_at = ?,
			finished_at = CASE WHEN finished_at = 0 THEN ? ELSE finished_at END WHERE id = ?`,
			string(p.Status), string(p.Phase), p.Wave, p.Reason, soakUntil, at, finishedAt, taskID); err != nil {
			return err
		}
		if !p.Status.Terminal() {
			return nil
		}
		return leaveTargets(ctx, tx, taskID, fromMicros(at))
	})
}

// leftAtWork is why a step becomes unknown when its task ends.
const leftAtWork = "the task ended before the agent said how the step ended"

// leaveTargets decides what a task that ends leaves undecided.
func leaveTargets(ctx context.Context, tx conn, taskID string, at time.Time) error {
	// All at once, for the order of locks.
	if err := tx.lockTargets(ctx, taskID, `(state = 'pending' OR client_id IN
		(SELECT client_id FROM steps WHERE task_id = ? AND state = 'dispatched'))`, taskID); err != nil {
		return err
	}
	if _, err := tx.exec(ctx, `UPDATE task_targets SET state = 'skipped' WHERE task_id = ? AND state = 'pending'`, taskID); err != nil {
		return err
	}
	var steps []string
	if err := tx.list(ctx, &steps, `SELECT id FROM steps WHERE task_id = ? AND state = 'dispatched'`, taskID); err != nil {
		return err
	}
	_, err := settle(ctx, tx, steps, func(step *stepRow) (outcome, bool) {
		return outcome{state: release.StepUnknown, err: leftAtWork, exit: noExit, finished: at}, step.State == release.StepDispatched
	})
	return err
}

// SetHalt raises or lowers the fence of a task: once it is raised, no deploy step of the task is marked dispatched.
func (s *Store) SetHalt(ctx context.Context, taskID string, halted bool) error {
	return s.write(ctx, "set halt", func(tx conn) error {
		n, err := tx.exec(ctx, `UPDATE tasks SET halted = ? WHERE id = ?`, halted, taskID)
		if err == nil && n == 0 {
			return release.NotFound("task", taskID)
		}
		return err
	})
}
