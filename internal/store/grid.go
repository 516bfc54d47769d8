package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// TargetGrid is where every host of a task stands, in the order of Targets.
type TargetGrid struct {
	States   []release.TargetState
	Finished int // within the window that was asked for
}

// TargetGrid reads the states of all targets of a task, without anything else of them, and counts those that finished
// after since.
func (s *Store) TargetGrid(ctx context.Context, taskID string, since time.Time) (grid TargetGrid, err error) {
	if err := s.read().list(ctx, &grid.States, `SELECT state FROM task_targets WHERE task_id = ? ORDER BY client_id`, taskID); err != nil {
		return grid, fmt.Errorf("read states of targets: %w", err)
	}
	if err := s.read().get(ctx, &grid.Finished, `SELECT COUNT(*) FROM task_targets WHERE task_id = ? AND finished_at > ?`, taskID, micros(since)); err != nil {
		return grid, fmt.Errorf("count finished targets: %w", err)
	}
	return grid, nil
}

// FailureGroup is hosts that did not do it for one and the same reason.
type FailureGroup struct {
	State  string `db:"state"`
	Reason string `db:"reason"`
	Hosts  int    `db:"hosts"`
	First  string `db:"first"` // its client id
}

// TaskFailures groups the targets of a task that did not succeed by state and reason, the largest group first, and says how
// many groups there are.
func (s *Store) TaskFailures(ctx context.Context, taskID string, limit int) (groups []FailureGroup, total int, err error) {
	const of = ` FROM task_targets WHERE task_id = ? AND state IN ('failed', 'unknown', 'offline', 'cancelled', 'rollback_failed')`
	return s.failures(ctx, of, taskID, limit)
}

// JobFailures does so for the targets of a job.
func (s *Store) JobFailures(ctx context.Context, jobID string, limit int) (groups []FailureGroup, total int, err error) {
	num, err := s.read().jobNumber(ctx, jobID)
	if err != nil {
		return nil, 0, err
	}
	const of = ` FROM job_targets WHERE job = ? AND state NOT IN ('pending', 'running', 'succeeded', 'skipped')`
	return s.failures(ctx, of, num, limit)
}

func (s *Store) failures(ctx context.Context, of string, id any, limit int) (groups []FailureGroup, total int, err error) {
	if err := s.read().get(ctx, &total, `SELECT COUNT(*) FROM (SELECT 1`+of+` GROUP BY state, error) AS groups`, id); err != nil {
		return nil, 0, fmt.Errorf("count failures: %w", err)
	}
	if err := s.read().list(ctx, &groups, `SELECT state, error AS reason, COUNT(*) AS hosts, MIN(client_id) AS first`+of+`
		GROUP BY state, error ORDER BY hosts DESC, state, error LIMIT ?`, id, limit); err != nil {
		return nil, 0, fmt.Errorf("group failures: %w", err)
	}
	return groups, total, nil
}
