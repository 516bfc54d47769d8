package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/schedule"
)

type fireRow struct {
	ScheduleID  string `db:"schedule_id"`
	DueAt       int64  `db:"due_at"`
	State       string `db:"state"`
	Reason      string `db:"reason"`
	TriggeredBy string `db:"triggered_by"`
	TaskID      string `db:"task_id"`
	TaskStatus  string `db:"task_status"`
	TaskEnd     int64  `db:"task_end"`
	RecordedAt  int64  `db:"recorded_at"`
}

func (r *fireRow) fire() release.Fire {
	return release.Fire{ScheduleID: r.ScheduleID, Due: fromMicros(r.DueAt), State: release.FireState(r.State), Reason: r.Reason, By: r.TriggeredBy,
		TaskID: r.TaskID, TaskStatus: release.Status(r.TaskStatus), Ended: pointerFromMicros(r.TaskEnd), At: fromMicros(r.RecordedAt)}
}

// fires reads fires from a table like schedule_fires.
func (s *Store) fires(ctx context.Context, condition, table string, args ...any) ([]release.Fire, error) {
	return readFires(ctx, s.read(), condition, table, args...)
}

func readFires(ctx context.Context, c conn, condition, table string, args ...any) ([]release.Fire, error) {
	var rows []fireRow
	if err := c.list(ctx, &rows, `SELECT f.schedule_id, f.due_at, f.state, f.reason, f.triggered_by, f.task_id,
		COALESCE(t.status, '') AS task_status, COALESCE(t.finished_at, 0) AS task_end, f.recorded_at
		FROM `+table+` f LEFT JOIN tasks t ON t.id = f.task_id `+condition, args...); err != nil {
		return nil, fmt.Errorf("read fires: %w", err)
	}
	fires := make([]release.Fire, len(rows))
	for i := range rows {
		fires[i] = rows[i].fire()
	}
	return fires, nil
}

// FireFilter picks fires of a schedule. Zero fields pick all.
type FireFilter struct {
	State         release.FireState
	Limit, Offset int
}

// Fires gives the fires of a schedule, the latest first, and how many match on all pages.
func (s *Store) Fires(ctx context.Context, scheduleID string, f FireFilter) (fires []release.Fire, total int, err error) {
	var w where
	w.add(`f.schedule_id = ?`, scheduleID)
	if f.State != "" {
		w.add(`f.state = ?`, string(f.State))
	}
	if err := s.read().get(ctx, &total, `SELECT COUNT(*) FROM schedule_fires f`+w.String(), w.args...); err != nil {
		return nil, 0, fmt.Errorf("count fires: %w", err)
	}
	fires, err = s.fires(ctx, w.String()+` ORDER BY f.due_at DESC LIMIT ? OFFSET ?`, `schedule_fires`, w.page(f.Limit, f.Offset)...)
	return fires, total, err
}

// Fire gives the fire of a schedule that was due at a time, or release.ErrNotFound.
func (s *Store) Fire(ctx context.Context, scheduleID string, due time.Time) (release.Fire, error) {
	found, err := s.fires(ctx, `WHERE f.schedule_id = ? AND f.due_at = ?`, `schedule_fires`, scheduleID, micros(due))
	if err != nil {
		return release.Fire{}, err
	}
	if len(found) == 0 {
		return release.Fire{}, release.NotFound("fire", due.Format(time.RFC3339))
	}
	return found[0], nil
}

// RequestFire stores that a person wants a schedule to fire. A second that has a fire gets release.ErrConflict.
func (s *Store) RequestFire(ctx context.Context, f release.Fire) error {
	return s.write(ctx, "request fire", func(tx conn) error {
		_, err := tx.exec(ctx, `INSERT INTO schedule_fires (schedule_id, due_at, state, triggered_by, recorded_at) VALUES (?, ?, ?, ?, ?)`,
			f.ScheduleID, micros(f.Due), string(release.FireRequested), f.By, micros(s.now()))
		if isDuplicate(err) {
			return release.Conflict("it has a fire at that second already")
		}
		return err
	})
}

// RequestedFires gives the fires of all schedules that persons want and that have not come about, the oldest first.
func (s *Store) RequestedFires(ctx context.Context) ([]release.Fire, error) {
	return s.fires(ctx, `WHERE f.state = 'requested' ORDER BY f.due_at, f.schedule_id`, `schedule_fires`)
}

// RunningFires gives the fires of a schedule whose rollouts are at work.
func (s *Store) RunningFires(ctx context.Context, scheduleID string) ([]release.Fire, error) {
	return s.fires(ctx, `WHERE f.schedule_id = ? AND f.state = 'started' AND t.finished_at = 0 ORDER BY f.due_at`, `schedule_fires`, scheduleID)
}

// RecordFire stores what became of a fire. A final state stays; another gives way to a final one.
func (s *Store) RecordFire(ctx context.Context, f release.Fire) error {
	return s.write(ctx, "record fire", func(tx conn) error {
		if err := insertFire(ctx, tx, f, s.now()); err != nil {
			return err
		}
		return trimFires(ctx, tx, f.ScheduleID)
	})
}

// trimFires removes all but the latest fires of a schedule.
func trimFires(ctx context.Context, tx conn, scheduleID string) error {
	_, err := tx.exec(ctx, `DELETE FROM schedule_fires WHERE schedule_id = ? AND due_at <= (SELECT due_at FROM schedule_fires
		WHERE schedule_id = ? ORDER BY due_at DESC LIMIT 1 OFFSET ?)`, scheduleID, scheduleID, release.MaxFires)
	return err
}

func insertFire(ctx context.Context, tx conn, f release.Fire, now time.Time) error {
	_, err := tx.exec(ctx, `INSERT INTO schedule_fires (schedule_id, due_at, state, reason, triggered_by, task_id, recorded_at)
		VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (schedule_id, due_at) DO UPDATE SET state = excluded.state, reason = excluded.reason, task_id = excluded.task_id,
			recorded_at = excluded.recorded_at
		WHERE schedule_fires.state NOT IN ('started', 'failed')
			AND (excluded.state IN ('started', 'failed') OR schedule_fires.state = 'requested')`,
		f.ScheduleID, micros(f.Due), string(f.State), f.Reason, f.By, f.TaskID, micros(now))
	return err
}

// FireGrace is how long after the last moment at which it may start a fire is waited for before it counts as missed.
const FireGrace = 15 * time.Second

// SettleFires looks at the fires of a schedule that were due and of which nothing was heard: those that an earlier rollout kept from
// starting become skipped, those whose time is over missed. It gives how many were missed.
func (s *Store) SettleFires(ctx context.Context, scheduleID string) (missed int, err error) {
	err = s.write(ctx, "settle fires", func(tx conn) error {
		row, err := lockSchedule(ctx, tx, scheduleID)
		if errors.Is(err, release.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		found, err := row.schedule()
		if err != nil {
			return err
		}
		to := &reckoning{tx: tx, row: row, schedule: found, now: s.now()}
		if missed, err = to.run(ctx); err != nil || to.upTo == row.AccountedTo {
			return err
		}
		if _, err = tx.exec(ctx, `UPDATE schedules SET accounted_to = ? WHERE id = ?`, to.upTo, scheduleID); err != nil {
			return err
		}
		return trimFires(ctx, tx, scheduleID)
	})
	return missed, err
}

// reckoning decides what became of the fires that were due and of which nothing was heard.
type reckoning struct {
	tx       conn
	row      *scheduleRow // locked
	schedule release.Schedule
	now      time.Time
	changed  bool // the times are about to change: what has not started by now will not

	upTo int64 // result: how far all is decided
}

func (st *reckoning) run(ctx context.Context) (missed int, err error) {
	st.upTo = st.row.AccountedTo
	if st.schedule.Paused {
		return 0, nil
	}
	spec, err := schedule.Parse(st.schedule.When)
	if err != nil {
		return 0, fmt.Errorf("read the times of schedule %s: %w", st.schedule.ID, err)
	}
	after := fromMicros(st.upTo)
	due := spec.Between(after, st.now, release.MaxFires)
	if len(due) == 0 {
		return 0, nil
	}
	// A fire that comes late may be the reason why those after it were skipped.
	fires, err := readFires(ctx, st.tx, `WHERE f.schedule_id = ? AND (f.due_at > ? OR f.state = 'started' AND t.status IS NOT NULL
		AND (t.finished_at = 0 OR t.finished_at >= ?)) ORDER BY f.due_at`, `schedule_fires`, st.schedule.ID, st.upTo, st.upTo)
	if err != nil {
		return 0, err
	}
	known := map[int64]bool{}
	for _, f := range fires {
		known[micros(f.Due)] = true
	}
	for _, at := range due {
		if !known[micros(at)] {
			fire := release.Fire{ScheduleID: st.schedule.ID, Due: at}
			if !st.decide(&fire, fires) {
				return missed, nil
			}
			if err := insertFire(ctx, st.tx, fire, st.now); err != nil {
				return missed, err
			}
			if fire.State == release.FireMissed {
				missed++
			}
		}
		st.upTo = micros(at)
	}
	return missed, nil
}

// decide says what became of a fire, if that is sure.
func (st *reckoning) decide(fire *release.Fire, fires []release.Fire) bool {
	should := fire.Due.Add(st.schedule.Jitter.Std())
	for _, other := range fires {
		if st.schedule.Overlap == release.OverlapAllow || other.TaskStatus == "" || !other.Due.Before(fire.Due) {
			continue
		}
		if !other.Running() && (other.Ended == nil || other.Ended.Before(fire.Due)) {
			continue
		}
		if st.schedule.Overlap == release.OverlapBufferOne && !st.changed && (other.Running() || st.now.Sub(*other.Ended) < FireGrace) {
			return false // it may be the one that waits
		}
		if st.changed || st.now.Sub(should) > FireGrace {
			fire.State = release.FireSkipped
			fire.Reason = "the rollout of the fire of " + other.Due.UTC().Format(time.RFC3339) + " was still at work"
			return true
		}
		return false
	}
	switch over := should.Add(st.schedule.CatchupWindow.Std()).Add(FireGrace); {
	case over.Before(st.now):
		fire.State = release.FireMissed
		fire.Reason = "nothing ran at its time, nor within " + st.schedule.CatchupWindow.String() + " after it"
	case st.changed:
		fire.State = release.FireSkipped
		fire.Reason = "the schedule was changed before it started"
	default:
		return false
	}
	return true
}
