package store

import (
	"context"
	"fmt"

	"github.com/quicflow/quicflow/internal/release"
)

type targetRow struct {
	TaskID          string `db:"task_id"`
	ClientID        string `db:"client_id"`
	Wave            int    `db:"wave"`
	State           string `db:"state"`
	PreviousVersion string `db:"previous_version"`
	Error           string `db:"error"`
	ExitCode        *int   `db:"exit_code"`
	StartedAt       int64  `db:"started_at"`
	FinishedAt      int64  `db:"finished_at"`
}

// TargetFilter picks targets of a task. Its zero value picks all.
type TargetFilter struct {
	Wave   *int
	State  release.TargetState
	Error  *string // exactly this one
	Search string  // part of the client id, in either case
	Limit  int     // 0: no limit
	Offset int
}

// Targets gives a page of a task's targets, in the order of their client ids, which is that of the waves too, and the
// number of all of them.
func (s *Store) Targets(ctx context.Context, taskID string, f TargetFilter) (targets []release.Target, total int, err error) {
	w := &where{}
	w.add(`task_id = ?`, taskID)
	if f.Wave != nil {
		w.add(`wave = ?`, *f.Wave)
	}
	if f.State != "" {
		w.add(`state = ?`, string(f.State))
	}
	if f.Error != nil {
		w.add(`error = ?`, *f.Error)
	}
	w.search("client_id", f.Search)
	if err := s.read().get(ctx, &total, `SELECT COUNT(*) FROM task_targets`+w.String(), w.args...); err != nil {
		return nil, 0, fmt.Errorf("count targets: %w", err)
	}
	var rows []targetRow
	if err := s.read().list(ctx, &rows, `SELECT task_id, client_id, wave, state, previous_version, error, exit_code, started_at, finished_at
		FROM task_targets`+w.String()+` ORDER BY client_id LIMIT ? OFFSET ?`, w.page(f.Limit, f.Offset)...); err != nil {
		return nil, 0, fmt.Errorf("list targets: %w", err)
	}
	targets = make([]release.Target, len(rows))
	for i, r := range rows {
		targets[i] = release.Target{
			TaskID: r.TaskID, ClientID: r.ClientID, Wave: r.Wave, State: release.TargetState(r.State),
			PreviousVersion: r.PreviousVersion, Error: r.Error, ExitCode: r.ExitCode,
			StartedAt: pointerFromMicros(r.StartedAt), FinishedAt: pointerFromMicros(r.FinishedAt),
		}
	}
	return targets, total, nil
}

// WaveCounts counts the targets of a task by wave and state.
func (s *Store) WaveCounts(ctx context.Context, taskID string) (byWave map[int]release.Counts, err error) {
	var rows []struct {
		Wave  int    `db:"wave"`
		State string `db:"state"`
		N     int    `db:"n"`
	}
	if err := s.read().list(ctx, &rows, `SELECT wave, state, COUNT(*) AS n FROM task_targets WHERE task_id = ? GROUP BY wave, state`, taskID); err != nil {
		return nil, fmt.Errorf("count targets by wave: %w", err)
	}
	byWave = map[int]release.Counts{}
	for _, r := range rows {
		counts := byWave[r.Wave]
		counts.Add(release.TargetState(r.State), r.N)
		byWave[r.Wave] = counts
	}
	return byWave, nil
}

// countTargets counts the targets of tasks by state.
func (s *Store) countTargets(ctx context.Context, taskIDs []string) (map[string]release.Counts, error) {
	counts := make(map[string]release.Counts, len(taskIDs))
	if len(taskIDs) == 0 {
		return counts, nil
	}
	var rows []struct {
		TaskID string `db:"task_id"`
		State  string `db:"state"`
		N      int    `db:"n"`
	}
	if err := s.read().list(ctx, &rows, `SELECT task_id, state, COUNT(*) AS n FROM task_targets WHERE task_id IN (?) GROUP BY task_id, state`, taskIDs); err != nil {
		return nil, fmt.Errorf("count targets: %w", err)
	}
	for _, r := range rows {
		c := counts[r.TaskID]
		c.Add(release.TargetState(r.State), r.N)
		counts[r.TaskID] = c
	}
	return counts, nil
}

// lockTargets locks the targets of a task that a condition on task_targets holds for.
func (c conn) lockTargets(ctx context.Context, taskID, condition string, args ...any) error {
	if c.dialect.lock == "" {
		return nil
	}
	var locked int
	return c.get(ctx, &locked, `SELECT COUNT(*) FROM (SELECT 1 FROM task_targets WHERE task_id = ? AND `+condition+`
		ORDER BY client_id`+c.dialect.lock+`) AS locked`, append([]any{taskID}, args...)...)
}
