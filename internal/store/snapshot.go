package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// putSnapshot stores a configuration, or notes that one is used again.
func putSnapshot(ctx context.Context, tx conn, c *release.Snapshot, at time.Time) error {
	secrets, err := json.Marshal(c.Secrets)
	if err != nil {
		return err
	}
	_, err = tx.exec(ctx, `INSERT INTO configs (id, type, project_id, version_id, environment_id, config, secrets, created_at, used_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at`,
		c.ID, string(c.Type), c.ProjectID, c.VersionID, c.EnvironmentID, string(c.Config), string(secrets), micros(at), micros(at))
	return err
}

// Snapshot gives a configuration by its id.
func (s *Store) Snapshot(ctx context.Context, id string) (release.Snapshot, error) {
	var row struct {
		ID            string `db:"id"`
		Type          string `db:"type"`
		ProjectID     string `db:"project_id"`
		Project       string `db:"project"`
		VersionID     string `db:"version_id"`
		Version       string `db:"version"`
		EnvironmentID string `db:"environment_id"`
		Environment   string `db:"environment"`
		Config        []byte `db:"config"`
		Secrets       []byte `db:"secrets"`
		CreatedAt     int64  `db:"created_at"`
	}
	err := s.read().get(ctx, &row, `SELECT c.id, c.type, c.project_id, `+formerName("p")+` AS project, c.version_id, COALESCE(`+formerName("v")+`, '') AS version,
		c.environment_id, COALESCE(e.name, '') AS environment, c.config, c.secrets, c.created_at
		FROM configs c JOIN projects p ON p.id = c.project_id LEFT JOIN versions v ON v.id = c.version_id LEFT JOIN environments e ON e.id = c.environment_id
		WHERE c.id = ?`, id)
	if errors.Is(err, sql.ErrNoRows) {
		return release.Snapshot{}, release.NotFound("configuration", id)
	}
	if err != nil {
		return release.Snapshot{}, fmt.Errorf("read configuration: %w", err)
	}
	c := release.Snapshot{ID: row.ID, Type: release.Type(row.Type), ProjectID: row.ProjectID, Project: row.Project, VersionID: row.VersionID, Version: row.Version,
		EnvironmentID: row.EnvironmentID, Environment: row.Environment, Config: row.Config, CreatedAt: fromMicros(row.CreatedAt)}
	if err := json.Unmarshal(row.Secrets, &c.Secrets); err != nil {
		return c, fmt.Errorf("read configuration %s: %w", id, err)
	}
	return c, nil
}

// liveConfigs are the ids that hosts run, or may return to, and those of tasks that have not ended.
const liveConfigs = `SELECT config_id FROM installations WHERE config_id <> '' UNION SELECT attempted_config_id FROM installations WHERE attempted_config_id <> ''
	UNION SELECT config_id FROM tasks WHERE finished_at = 0
	UNION SELECT previous_config_id FROM task_targets WHERE previous_config_id <> '' AND task_id IN (SELECT id FROM tasks WHERE finished_at = 0)
	UNION SELECT config_id FROM steps WHERE config_id <> '' AND task_id IN (SELECT id FROM tasks WHERE finished_at = 0)`

// RemoveConfigs removes the configurations that nothing needs, and no task was made with since a moment. It says how many.
func (s *Store) RemoveConfigs(ctx context.Context, before time.Time) (removed int, err error) {
	err = s.inPieces(ctx, func() (more bool, err error) {
		var n int64
		err = s.write(ctx, "remove configurations", func(tx conn) error {
			// Those to go are locked in the order of their keys, and the time of use is looked at again: a task may be using one at this moment.
			var ids []string
			if err := tx.list(ctx, &ids, `SELECT id FROM configs WHERE used_at < ? AND id NOT IN (`+liveConfigs+`) ORDER BY id LIMIT ?`+tx.dialect.lock,
				micros(before), tx.dialect.batch); err != nil || len(ids) == 0 {
				return err
			}
			n, err = tx.exec(ctx, `DELETE FROM configs WHERE id IN (?) AND used_at < ?`, ids, micros(before))
			return err
		})
		removed += int(n)
		return n > 0, err
	})
	return removed, err
}
