package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

const selectSchedule = `SELECT s.id, s.name, s.project_id, COALESCE(p.name, '') AS project, s.task, s.at, s.cron, s.timezone, s.overlap,
	s.catchup, s.jitter, s.paused, s.note, s.revision, s.in_effect, s.since, s.accounted_to, s.created_by, s.created_at, s.updated_at, s.deleted_at
	FROM schedules s LEFT JOIN projects p ON p.id = s.project_id`

type scheduleRow struct {
	ID          string `db:"id"`
	Name        string `db:"name"`
	ProjectID   string `db:"project_id"`
	Project     string `db:"project"`
	Task        []byte `db:"task"`
	At          int64  `db:"at"`
	Cron        string `db:"cron"`
	Timezone    string `db:"timezone"`
	Overlap     string `db:"overlap"`
	Catchup     int64  `db:"catchup"`
	Jitter      int64  `db:"jitter"`
	Paused      bool   `db:"paused"`
	Note        string `db:"note"`
	Revision    int64  `db:"revision"`
	InEffect    int64  `db:"in_effect"`
	Since       int64  `db:"since"`
	AccountedTo int64  `db:"accounted_to"`
	CreatedBy   string `db:"created_by"`
	CreatedAt   int64  `db:"created_at"`
	UpdatedAt   int64  `db:"updated_at"`
	DeletedAt   int64  `db:"deleted_at"`
}

func (r *scheduleRow) schedule() (release.Schedule, error) {
	s := release.Schedule{
		ID: r.ID, Name: r.Name, ProjectID: r.ProjectID, Project: r.Project,
		Plan: release.Plan{
			When:    release.When{At: pointerFromMicros(r.At), Cron: r.Cron, Timezone: r.Timezone},
			Overlap: release.Overlap(r.Overlap), CatchupWindow: release.Duration(r.Catchup), Jitter: release.Duration(r.Jitter),
			Paused: r.Paused, Note: r.Note,
		},
		Next: []time.Time{}, Last: []release.Fire{}, Missed: []release.Fire{},
		InEffect: r.InEffect == r.Revision, Revision: r.Revision, Since: fromMicros(r.Since),
		CreatedBy: r.CreatedBy, CreatedAt: fromMicros(r.CreatedAt), UpdatedAt: fromMicros(r.UpdatedAt),
	}
	if err := json.Unmarshal(r.Task, &s.Task); err != nil {
		return s, fmt.Errorf("read schedule %s: %w", r.Name, err)
	}
	return s, nil
}

// CreateSchedule stores a schedule. Of s it wants Name, ProjectID, a valid Plan with its defaults and CreatedBy; it fills the rest. What
// its task names has to exist.
func (s *Store) CreateSchedule(ctx context.Context, schedule *release.Schedule) error {
	made := *schedule
	if err := fillID(&made.ID); err != nil {
		return err
	}
	made.CreatedAt = stored(s.now())
	made.UpdatedAt, made.Since, made.Revision, made.InEffect = made.CreatedAt, made.CreatedAt, 1, false
	made.Next, made.Last, made.Missed = []time.Time{}, []release.Fire{}, []release.Fire{}
	task, err := json.Marshal(made.Task)
	if err != nil {
		return fmt.Errorf("write schedule: %w", err)
	}
	err = s.write(ctx, "create schedule", func(tx conn) error {
		if err := lockScheduled(ctx, tx, &made); err != nil {
			return err
		}
		_, err := tx.exec(ctx, `INSERT INTO schedules (id, name, project_id, task, at, cron, timezone, overlap, catchup, jitter, paused, note,
			revision, since, accounted_to, created_by, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			made.ID, made.Name, made.ProjectID, string(task), atOf(made.When), made.Cron, made.Timezone, string(made.Overlap),
			int64(made.CatchupWindow), int64(made.Jitter), made.Paused, made.Note, made.Revision, micros(made.Since), micros(made.Since),
			made.CreatedBy, micros(made.CreatedAt), micros(made.UpdatedAt))
		return sameName(err, made.Name)
	})
	if err == nil {
		*schedule = made
	}
	return err
}

// lockScheduled finds what a schedule is to deploy. The locks make whoever deletes one of them wait, or this one see it.
func lockScheduled(ctx context.Context, tx conn, s *release.Schedule) error {
	p, err := project(ctx, tx, s.ProjectID, tx.dialect.lock)
	if err != nil {
		return err
	}
	s.ProjectID, s.Project = p.ID, p.Name
	if s.Task.Version != "" {
		if _, err := versionOf(ctx, tx, p.ID, s.Task.Version, tx.lockOf("v")); err != nil {
			return err
		}
	}
	if s.Task.Environment != "" {
		if _, err := environment(ctx, tx, p.ID, s.Task.Environment, tx.dialect.lock); err != nil {
			return err
		}
	}
	return nil
}

func atOf(w release.When) int64 {
	if w.At == nil {
		return 0
	}
	return micros(*w.At)
}

func sameName(err error, name string) error {
	if isDuplicate(err) {
		return release.Conflict("schedule %q exists already", name)
	}
	return err
}

// UpdateSchedule stores what a user may change of a schedule: its name, project and plan. A revision other than 0 must be the present
// one, or it gets release.ErrConflict. Where the times of the schedule change, what was due before is settled first. What its task names
// has to exist if that changes.
func (s *Store) UpdateSchedule(ctx context.Context, schedule *release.Schedule, revision int64) error {
	changed := *schedule
	task, err := json.Marshal(changed.Task)
	if err != nil {
		return fmt.Errorf("write schedule: %w", err)
	}
	err = s.write(ctx, "update schedule", func(tx conn) error {
		row, err := lockSchedule(ctx, tx, changed.ID)
		if err != nil {
			return err
		}
		before, err := row.schedule()
		if err != nil {
			return err
		}
		if revision != 0 && revision != before.Revision {
			return release.Conflict("schedule %q was changed meanwhile (it is at revision %d, not %d)", before.Name, before.Revision, revision)
		}
		if changed.ProjectID != before.ProjectID || !reflect.DeepEqual(changed.Task, before.Task) {
			if err := lockScheduled(ctx, tx, &changed); err != nil {
				return err
			}
		}
		changed.UpdatedAt, changed.Since, changed.Revision = stored(s.now()), before.Since, before.Revision+1
		accounted := row.AccountedTo
		if !changed.SameTimes(before.Plan) {
			if _, err := (&reckoning{tx: tx, row: row, schedule: before, now: changed.UpdatedAt, changed: true}).run(ctx); err != nil {
				return err
			}
			changed.Since, accounted = changed.UpdatedAt, micros(changed.UpdatedAt)
		}
		_, err = tx.exec(ctx, `UPDATE schedules SET name = ?, project_id = ?, task = ?, at = ?, cron = ?, timezone = ?, overlap = ?, catchup = ?,
			jitter = ?, paused = ?, note = ?, revision = ?, since = ?, accounted_to = ?, updated_at = ? WHERE id = ?`,
			changed.Name, changed.ProjectID, string(task), atOf(changed.When), changed.Cron, changed.Timezone, string(changed.Overlap),
			int64(changed.CatchupWindow), int64(changed.Jitter), changed.Paused, changed.Note, changed.Revision, micros(changed.Since), accounted,
			micros(changed.UpdatedAt), changed.ID)
		return sameName(err, changed.Name)
	})
	if err != nil {
		return err
	}
	*schedule, err = s.Schedule(ctx, changed.ID)
	return err
}

func lockSchedule(ctx context.Context, tx conn, id string) (*scheduleRow, error) {
	var row scheduleRow
	err := tx.get(ctx, &row, selectSchedule+` WHERE s.id = ? AND s.deleted_at = 0`+tx.lockOf("s"), id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, release.NotFound("schedule", id)
	}
	return &row, err
}

// DeleteSchedule lets a schedule fire no more and gives its name free. The rest is removed by ForgetSchedule.
func (s *Store) DeleteSchedule(ctx context.Context, id string) error {
	return s.write(ctx, "delete schedule", func(tx conn) error {
		n, err := tx.exec(ctx, `UPDATE schedules SET deleted_at = ? WHERE id = ? AND deleted_at = 0`, micros(s.now()), id)
		if err == nil && n == 0 {
			return release.NotFound("schedule", id)
		}
		return err
	})
}

// ForgetSchedule removes a schedule that was deleted, and its fires. Its tasks stay.
func (s *Store) ForgetSchedule(ctx context.Context, id string) error {
	return s.write(ctx, "forget schedule", func(tx conn) error {
		_, err := tx.exec(ctx, `DELETE FROM schedules WHERE id = ? AND deleted_at > 0`, id)
		return err
	})
}

// Schedule gives a schedule by its name or id.
func (s *Store) Schedule(ctx context.Context, ref string) (release.Schedule, error) {
	found, err := s.listSchedules(ctx, ` WHERE s.deleted_at = 0 AND (s.id = ? OR s.name = ?) ORDER BY s.id = ? DESC LIMIT 1`, ref, ref, ref)
	if err != nil {
		return release.Schedule{}, err
	}
	if len(found) == 0 {
		return release.Schedule{}, release.NotFound("schedule", ref)
	}
	return found[0], nil
}

// ScheduleFilter picks schedules. Zero fields pick all.
type ScheduleFilter struct {
	Project       string // id or name
	Limit, Offset int
}

// Schedules gives schedules in the order of their names, and how many match on all pages.
func (s *Store) Schedules(ctx context.Context, f ScheduleFilter) (schedules []release.Schedule, total int, err error) {
	var w where
	w.add(`s.deleted_at = 0`)
	if f.Project != "" {
		w.add(`(s.project_id = ? OR p.name = ?)`, f.Project, f.Project)
	}
	if err := s.read().get(ctx, &total, `SELECT COUNT(*) FROM schedules s LEFT JOIN projects p ON p.id = s.project_id`+w.String(), w.args...); err != nil {
		return nil, 0, fmt.Errorf("count schedules: %w", err)
	}
	schedules, err = s.listSchedules(ctx, w.String()+` ORDER BY s.name LIMIT ? OFFSET ?`, w.page(f.Limit, f.Offset)...)
	return schedules, total, err
}

// shownFires is how many fires a schedule shows of itself.
const shownFires = 10

func (s *Store) listSchedules(ctx context.Context, condition string, args ...any) ([]release.Schedule, error) {
	var rows []scheduleRow
	if err := s.read().list(ctx, &rows, selectSchedule+condition, args...); err != nil {
		return nil, fmt.Errorf("read schedules: %w", err)
	}
	schedules := make([]release.Schedule, len(rows))
	ids := make([]string, len(rows))
	place := map[string]*release.Schedule{}
	for i := range rows {
		var err error
		if schedules[i], err = rows[i].schedule(); err != nil {
			return nil, err
		}
		ids[i], place[rows[i].ID] = rows[i].ID, &schedules[i]
	}
	if len(ids) == 0 {
		return schedules, nil
	}
	for _, which := range []struct {
		condition string
		into      func(*release.Schedule) *[]release.Fire
	}{
		{`schedule_id IN (?)`, func(s *release.Schedule) *[]release.Fire { return &s.Last }},
		{`schedule_id IN (?) AND state = 'missed'`, func(s *release.Schedule) *[]release.Fire { return &s.Missed }},
	} {
		fires, err := s.fires(ctx, `WHERE f.place <= ? ORDER BY f.schedule_id, f.due_at DESC`, `(SELECT schedule_fires.*,
			ROW_NUMBER() OVER (PARTITION BY schedule_id ORDER BY due_at DESC) AS place FROM schedule_fires WHERE `+which.condition+`)`, ids, shownFires)
		if err != nil {
			return nil, err
		}
		for _, fire := range fires {
			list := which.into(place[fire.ScheduleID])
			*list = append(*list, fire)
		}
	}
	return schedules, nil
}

// StoredSchedule is a schedule as its reconciler sees it.
type StoredSchedule struct {
	release.Schedule
	Deleted     bool
	AccountedTo time.Time // up to then it is known of each fire that was due what became of it
}

// StoredSchedules gives all schedules, also those that are to be forgotten.
func (s *Store) StoredSchedules(ctx context.Context) ([]StoredSchedule, error) {
	var rows []scheduleRow
	if err := s.read().list(ctx, &rows, selectSchedule+` ORDER BY s.id`); err != nil {
		return nil, fmt.Errorf("read schedules: %w", err)
	}
	all := make([]StoredSchedule, len(rows))
	for i := range rows {
		schedule, err := rows[i].schedule()
		if err != nil {
			return nil, err
		}
		all[i] = StoredSchedule{schedule, rows[i].DeletedAt > 0, fromMicros(rows[i].AccountedTo)}
	}
	return all, nil
}

// SetScheduleInEffect notes that Temporal has a revision of a schedule.
func (s *Store) SetScheduleInEffect(ctx context.Context, id string, revision int64) error {
	return s.write(ctx, "note that a schedule is in effect", func(tx conn) error {
		_, err := tx.exec(ctx, `UPDATE schedules SET in_effect = ? WHERE id = ?`, revision, id)
		return err
	})
}
