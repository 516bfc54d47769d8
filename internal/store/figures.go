package store

import (
	"context"
	"fmt"

	"github.com/pressly/goose/v3"
)

// Figures is how large the database is, and what is in it.
type Figures struct {
	Driver        Driver
	Version       string // of the database
	Bytes         int64  // its size on disk, without SQLite's journal
	LogBytes      int64  `db:"log_bytes"` // of output that is kept
	Artifacts     int    `db:"artifacts"`
	ArtifactBytes int64  `db:"artifact_bytes"`
}

// Figures reads them. It counts what tasks and jobs keep by their heads, so it takes longer the more of those there are.
func (s *Store) Figures(ctx context.Context) (f Figures, err error) {
	if err := s.read().get(ctx, &f, `SELECT (SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM task_log_heads) AS log_bytes,
		(SELECT COUNT(*) FROM artifacts) AS artifacts, (SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM artifacts) AS artifact_bytes`); err != nil {
		return f, fmt.Errorf("read figures: %w", err)
	}
	f.Driver = s.config.Driver
	version, size := `SELECT sqlite_version()`, `SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()`
	if s.dialect.goose == goose.DialectPostgres {
		version, size = `SELECT current_setting('server_version')`, `SELECT pg_database_size(current_database())`
	}
	if err := s.read().get(ctx, &f.Version, version); err != nil {
		return f, fmt.Errorf("read the database's version: %w", err)
	}
	if err := s.read().get(ctx, &f.Bytes, size); err != nil {
		return f, fmt.Errorf("read the database's size: %w", err)
	}
	return f, nil
}

// AgentGroup is agents of one version, with a session at the same hub or with none.
type AgentGroup struct {
	NodeID  string `db:"node"` // "" without a session
	Version string `db:"agent_version"`
	Agents  int    `db:"agents"`
}

// AgentGroups counts agents that were not revoked, by the hub of their session and by version.
func (s *Store) AgentGroups(ctx context.Context) (groups []AgentGroup, err error) {
	err = s.read().list(ctx, &groups, `SELECT CASE WHEN connected THEN node_id ELSE '' END AS node, agent_version, COUNT(*) AS agents
		FROM clients WHERE revoked_at = 0 GROUP BY 1, 2 ORDER BY 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("count agents: %w", err)
	}
	return groups, nil
}
