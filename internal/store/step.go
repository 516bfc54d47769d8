package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

const stepColumns = `s.id, s.task_id, s.name, s.client_id, s.epoch, s.action, s.project_id, s.version_id, s.previous_version, s.state, s.config_id`

// stepColumnsRow is a step as the domain has it.
type stepColumnsRow struct {
	ID              string             `db:"id"`
	TaskID          string             `db:"task_id"`
	Name            release.StepName   `db:"name"`
	ClientID        string             `db:"client_id"`
	Epoch           int                `db:"epoch"`
	Action          release.StepAction `db:"action"`
	ProjectID       string             `db:"project_id"`
	VersionID       string             `db:"version_id"`
	PreviousVersion string             `db:"previous_version"`
	State           release.StepState  `db:"state"`
	ConfigID        string             `db:"config_id"`
}

func (r *stepColumnsRow) step() release.Step { return release.Step(*r) }

// ChunkSteps gives the steps of a chunk in the order of their client ids, whatever their state is by now.
func (s *Store) ChunkSteps(ctx context.Context, taskID string, step release.StepName, chunk int) ([]release.Step, error) {
	var rows []stepColumnsRow
	if err := s.read().list(ctx, &rows, `SELECT `+stepColumns+` FROM steps s WHERE s.task_id = ? AND s.name = ? AND s.chunk = ? ORDER BY s.client_id`,
		taskID, string(step), chunk); err != nil {
		return nil, fmt.Errorf("read steps of chunk: %w", err)
	}
	steps := make([]release.Step, len(rows))
	for i := range rows {
		steps[i] = rows[i].step()
	}
	return steps, nil
}

// MarkDispatched writes down that steps are about to be sent; nothing may be sent before. It gives the clients whose
// step is in state dispatched now, whether by this call or before, sorted. A step that was decided is not among them,
// nor one of a host whose target was.
//
// If the task is halted, or has ended, halted is true and no deploy step is marked: marked has only those that were
// dispatched before and are not decided.
func (s *Store) MarkDispatched(ctx context.Context, taskID string, step release.StepName, clientIDs []string) (marked []string, halted bool, err error) {
	undecided := `state IN ('pending', 'running')`
	if step == release.StepRollback {
		undecided = `state NOT IN ('rolled_back', 'rollback_failed')`
	}
	err = s.write(ctx, "mark steps as dispatched", func(tx conn) error {
		marked, halted = nil, false
		if step == release.StepDeploy {
			// Its lock makes SetHalt wait for this transaction, or this one see it.
			err := tx.get(ctx, &halted, `SELECT halted OR finished_at <> 0 FROM tasks WHERE id = ?`+tx.dialect.lock, taskID)
			if errors.Is(err, sql.ErrNoRows) {
				return release.NotFound("task", taskID)
			}
			if err != nil {
				return err
			}
		}
		now := micros(s.now())
		for ids := range slices.Chunk(slices.Compact(slices.Sorted(slices.Values(clientIDs))), tx.dialect.batch) {
			var open []string
			if err := tx.list(ctx, &open, `SELECT client_id FROM task_targets WHERE task_id = ? AND client_id IN (?) AND `+undecided+`
				ORDER BY client_id`+tx.dialect.lock, taskID, ids); err != nil {
				return err
			}
			if len(open) == 0 {
				continue
			}
			if !halted {
				if _, err := tx.exec(ctx, `UPDATE steps SET state = 'dispatched', dispatched_at = ?
					WHERE task_id = ? AND name = ? AND client_id IN (?) AND state = 'pending'`, now, taskID, string(step), open); err != nil {
					return err
				}
			}
			var some []string
			if err := tx.list(ctx, &some, `SELECT client_id FROM steps WHERE task_id = ? AND name = ? AND client_id IN (?) AND state = 'dispatched' ORDER BY client_id`,
				taskID, string(step), open); err != nil {
				return err
			}
			marked = append(marked, some...)
			if step != release.StepDeploy || len(some) == 0 {
				continue
			}
			if _, err := tx.exec(ctx, `UPDATE task_targets SET state = 'running', started_at = ?
				WHERE task_id = ? AND client_id IN (?) AND state = 'pending'`, now, taskID, some); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	return marked, halted, nil
}

// Conclusion is the server's own verdict on a step, where the agent gave none.
type Conclusion struct {
	StepID string
	Target release.TargetState // offline or failed: nothing was started there; unknown: that cannot be known
	Error  string
	At     time.Time // defaults to now
}

// ConcludeSteps stores verdicts of the server. Offline sets the step back to pending, failed makes it refused. A
// rollback step's target becomes rollback_failed by either. A step that its agent decided is left alone, and so is one
// that is unknown already.
func (s *Store) ConcludeSteps(ctx context.Context, conclusions []Conclusion) error {
	if len(conclusions) == 0 {
		return nil
	}
	byStep := make(map[string]Conclusion, len(conclusions))
	ids := make([]string, len(conclusions))
	for i, c := range conclusions {
		switch c.Target {
		case release.TargetOffline, release.TargetFailed, release.TargetUnknown:
		default:
			return fmt.Errorf("conclude step %s: %q is not a verdict", c.StepID, c.Target)
		}
		byStep[c.StepID] = c
		ids[i] = c.StepID
	}
	return s.write(ctx, "conclude steps", func(tx conn) error {
		_, err := settle(ctx, tx, ids, func(step *stepRow) (outcome, bool) {
			if step.State != release.StepPending && step.State != release.StepDispatched {
				return outcome{}, false
			}
			c := byStep[step.ID]
			o := outcome{target: c.Target, err: c.Error, exit: noExit, finished: s.orNow(c.At)}
			switch c.Target {
			case release.TargetOffline:
				o.state = release.StepPending
			case release.TargetFailed:
				o.state = release.StepRefused
			default:
				o.state = release.StepUnknown
			}
			return o, true
		})
		return err
	})
}
