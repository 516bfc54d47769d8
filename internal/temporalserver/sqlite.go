package temporalserver

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.temporal.io/server/common/config"
	tlog "go.temporal.io/server/common/log"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	sqliteschema "go.temporal.io/server/schema/sqlite"

	"github.com/quicflow/quicflow/internal/durable"
)

// persistence is where the server keeps its state.
type persistence struct {
	main       *config.SQL
	visibility *config.SQL
	close      func()
}

// openSQLite prepares <data dir>/temporal.db. A file of another server version is refused: it would open without
// complaint and fail later, in places.
func openSQLite(cfg Config, _ tlog.Logger) (*persistence, error) {
	file := filepath.Join(cfg.DataDir, "temporal.db")
	record := file + ".version"

	written, err := os.ReadFile(record)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the version of the Temporal database: %w", err)
	}
	version := strings.TrimSpace(string(written))
	_, err = os.Stat(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for the Temporal database: %w", err)
	}
	switch exists := err == nil; {
	case exists && version != Version:
		if version == "" {
			version = "an unknown version"
		}
		return nil, fmt.Errorf("%s was made by %s of the Temporal server and this program has %s built in: "+
			"use the quic-server that made it, or move the file away (workflows in progress are lost with it)", file, version, Version)
	case !exists:
		if err := createSQLite(file, record); err != nil {
			return nil, err
		}
	}
	both := sqliteConfig(file)
	return &persistence{main: both, visibility: both, close: func() {}}, nil
}

// createSQLite makes the database under another name first, so that one with half a schema is never found; and the
// version record before it, so that a database without one is a stranger's.
func createSQLite(file, record string) error {
	if err := durable.WriteFile(record, []byte(Version+"\n"), 0o600); err != nil {
		return fmt.Errorf("record the version of the Temporal database: %w", err)
	}
	unfinished := file + ".new"
	for _, leftover := range []string{unfinished, unfinished + "-wal", unfinished + "-shm", file + "-wal", file + "-shm"} {
		if err := os.Remove(leftover); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what an earlier start left: %w", err)
		}
	}
	if err := setupSchema(unfinished); err != nil {
		return fmt.Errorf("create the Temporal database: %w", err)
	}
	if err := os.Chmod(unfinished, 0o600); err != nil {
		return fmt.Errorf("protect the Temporal database: %w", err)
	}
	if err := os.Rename(unfinished, file); err != nil {
		return fmt.Errorf("create the Temporal database: %w", err)
	}
	return durable.SyncDir(filepath.Dir(file))
}

// setupSchema uses a connection of its own and closes it: Temporal's pool never closes one, and a database that is renamed
// while it is open loses its log.
func setupSchema(file string) error {
	db, err := sql.Open("sqlite", "file:"+uriPath(file)+"?_pragma=synchronous=full")
	if err != nil {
		return err
	}
	return errors.Join(sqliteschema.SetupSchemaOnDB(schemaTarget{db: db}), db.Close())
}

// schemaTarget is the little of a sqlplugin.AdminDB that a schema needs.
type schemaTarget struct {
	sqlplugin.AdminDB
	db *sql.DB
}

// Exec runs a statement.
func (t schemaTarget) Exec(statement string, args ...any) error {
	_, err := t.db.Exec(statement, args...)
	return err
}

// uriPath escapes a file name for a file: URI, into which Temporal puts it as it is.
func uriPath(file string) string {
	return strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(file)
}

func sqliteConfig(file string) *config.SQL {
	return &config.SQL{
		PluginName:   sqliteplugin.PluginName,
		DatabaseName: uriPath(file),
		MaxConns:     1, // with more, SQLite answers SQLITE_BUSY by the hundred
		MaxIdleConns: 1,
		ConnectAttributes: map[string]string{
			"mode":         "rwc",
			"journal_mode": "wal",
			"synchronous":  "full",
			"busy_timeout": "10000",
		},
	}
}
