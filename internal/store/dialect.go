package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/quicflow/quicflow/migrations"
)

// dialect is what differs between the databases.
type dialect struct {
	bind   int // sqlx's placeholder style
	goose  goose.Dialect
	schema fs.FS
	// lock, behind a SELECT, locks its rows in the order they come. SQLite needs none: its transactions that write
	// come one after the other.
	lock string
	blob string // type of a column of bytes
	json string // type of a column of JSON
	// label is the expression for the value of a client's label, whose key is its parameter.
	label string
}

func sqliteDialect() dialect {
	return dialect{
		bind: sqlx.QUESTION, goose: goose.DialectSQLite3, schema: migrations.SQLite(), blob: "BLOB", json: "TEXT",
		label: `(SELECT value FROM json_each(labels) WHERE key = ?)`,
	}
}

func postgresDialect() dialect {
	return dialect{
		bind: sqlx.DOLLAR, goose: goose.DialectPostgres, schema: migrations.Postgres(), blob: "BYTEA", json: "JSONB",
		// NO KEY, so that foreign keys to the row may still be written.
		lock:  " FOR NO KEY UPDATE",
		label: `(labels ->> CAST(? AS TEXT))`,
	}
}

func (d dialect) gooseOptions() []goose.ProviderOption {
	if d.goose != goose.DialectPostgres {
		return nil
	}
	// Several servers may start at the same moment.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		panic(err) // the options are constant
	}
	return []goose.ProviderOption{goose.WithSessionLocker(locker)}
}

// isDuplicate says whether a unique column or key has that value already.
func isDuplicate(err error) bool {
	if e, ok := errors.AsType[*pq.Error](err); ok {
		return e.Code == "23505"
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	}
	return false
}

func (s *Store) openSQLite(ctx context.Context) error {
	path, err := filepath.Abs(s.config.DSN)
	if err != nil {
		return fmt.Errorf("find database file: %w", err)
	}
	// Made here for its mode, and for an error that says more than SQLite's.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open database file: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("close database file: %w", err)
	}

	uri := func(settings url.Values, pragmas ...string) string {
		settings["_pragma"] = append([]string{"busy_timeout(10000)", "foreign_keys(1)"}, pragmas...)
		return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + settings.Encode()
	}
	writer := uri(url.Values{"_txlock": {"immediate"}}, "journal_mode(WAL)", "synchronous(FULL)")
	if s.writer, err = s.connect("sqlite", writer); err != nil {
		return err
	}
	s.writer.SetMaxOpenConns(1)
	s.writer.SetConnMaxLifetime(0)
	if err := s.writer.PingContext(ctx); err != nil {
		return explainSQLite(path, err)
	}
	if s.reader, err = s.connect("sqlite", uri(url.Values{}, "query_only(1)")); err != nil {
		return err
	}
	return nil
}

func explainSQLite(path string, err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return fmt.Errorf("open database %s: %w", path, err)
	}
	switch e.Code() & 0xff { // the rest of the code is detail
	case sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%s is not an SQLite database: %w", path, err)
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY:
		return fmt.Errorf("open database %s; its directory must be writable too: %w", path, err)
	case sqlite3.SQLITE_BUSY:
		return fmt.Errorf("open database %s; another process is using it: %w", path, err)
	}
	return fmt.Errorf("open database %s: %w", path, err)
}

func (s *Store) openPostgres(ctx context.Context) error {
	config, err := pq.NewConfig(s.config.DSN)
	if err != nil {
		return fmt.Errorf("read the PostgreSQL data source: %w", err)
	}
	if s.writer, err = s.connect("postgres", s.config.DSN); err != nil {
		return err
	}
	s.reader = s.writer
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, errors.New("no answer"))
	defer cancel()
	if err := s.writer.PingContext(ctx); err != nil {
		return fmt.Errorf("reach PostgreSQL at %s port %d, database %q, as user %q: %w",
			config.Host, config.Port, config.Database, config.User, errors.Join(err, context.Cause(ctx)))
	}
	return nil
}

func (s *Store) connect(driver, dsn string) (*sqlx.DB, error) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db.SetMaxOpenConns(s.config.MaxOpenConns)
	db.SetMaxIdleConns(s.config.MaxIdleConns)
	db.SetConnMaxLifetime(s.config.ConnMaxLifetime)
	return sqlx.NewDb(db, driver), nil
}
