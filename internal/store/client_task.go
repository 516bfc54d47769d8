package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// clientTaskDepth is how many of the latest tasks are looked through for one client: targets have no index by client.
const clientTaskDepth = 1000

// ClientTask is what one host did for a task.
type ClientTask struct {
	TaskID     string
	Project    string
	Version    string
	Action     release.Action
	State      release.TargetState
	Error      string
	CreatedAt  time.Time // of the task
	StartedAt  *time.Time
	FinishedAt *time.Time
}

// ClientTasks gives what a client did for the latest 1000 tasks, the newest first, at most limit.
func (s *Store) ClientTasks(ctx context.Context, clientID string, limit int) ([]ClientTask, error) {
	var rows []struct {
		TaskID     string `db:"id"`
		Project    string `db:"project"`
		Version    string `db:"version"`
		Action     string `db:"action"`
		State      string `db:"state"`
		Error      string `db:"error"`
		CreatedAt  int64  `db:"created_at"`
		StartedAt  int64  `db:"started_at"`
		FinishedAt int64  `db:"finished_at"`
	}
	if err := s.read().list(ctx, &rows, `SELECT t.id, p.name AS project, COALESCE(v.name, '') AS version, t.action, g.state, g.error,
		t.created_at, g.started_at, g.finished_at
		FROM (SELECT id, project_id, version_id, action, created_at FROM tasks ORDER BY created_at DESC, id DESC LIMIT ?) t
		JOIN task_targets g ON g.task_id = t.id AND g.client_id = ?
		JOIN projects p ON p.id = t.project_id LEFT JOIN versions v ON v.id = t.version_id
		ORDER BY t.created_at DESC, t.id DESC LIMIT ?`, clientTaskDepth, clientID, limit); err != nil {
		return nil, fmt.Errorf("list tasks of client: %w", err)
	}
	tasks := make([]ClientTask, len(rows))
	for i, r := range rows {
		tasks[i] = ClientTask{
			TaskID: r.TaskID, Project: r.Project, Version: r.Version, Action: release.Action(r.Action), State: release.TargetState(r.State),
			Error: r.Error, CreatedAt: fromMicros(r.CreatedAt), StartedAt: pointerFromMicros(r.StartedAt), FinishedAt: pointerFromMicros(r.FinishedAt),
		}
	}
	return tasks, nil
}
