package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
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
	bind int // sqlx's placeholder style
	// batch is how many rows one statement reads or writes at most. With PostgreSQL, fewer statements are better, up to
	// its limit of 65,535 parameters; the driver for SQLite takes time in the square of their number.
	batch  int
	goose  goose.Dialect
	schema fs.FS
	// lock, behind a SELECT, locks its rows in the order they come. SQLite needs none: its transactions that write
	// come one after the other.
	lock string
	blob string // type of a column of bytes
	json string // type of a column of JSON
	// label is the expression for the value of a client's label, whose key is its parameter.
	label string
	// hasLabel gives a quick condition that holds for every client with that value of a label, and for few others.
	hasLabel func(key, value string) (condition string, args []any)
}

func sqliteDialect() dialect {
	return dialect{
		bind: sqlx.QUESTION, batch: 50, goose: goose.DialectSQLite3, schema: migrations.SQLite(), blob: "BLOB", json: "TEXT",
		label: `(SELECT value FROM json_each(labels) WHERE key = ?)`,
		// The text is json.Marshal's, without blanks.
		hasLabel: func(key, value string) (string, []any) {
			pair, _ := json.Marshal(map[string]string{clean(key): clean(value)}) // cannot fail
			return `INSTR(labels, ?) > 0`, []any{string(pair[1 : len(pair)-1])}
		},
	}
}

func postgresDialect() dialect {
	return dialect{
		bind: sqlx.DOLLAR, batch: 1000, goose: goose.DialectPostgres, schema: migrations.Postgres(), blob: "BYTEA", json: "JSONB",
		// NO KEY, so that foreign keys to the row may still be written.
		lock:  " FOR NO KEY UPDATE",
		label: `(labels ->> CAST(? AS TEXT))`,
		hasLabel: func(key, value string) (string, []any) {
			return `labels ->> CAST(? AS TEXT) = ?`, []any{key, value}
		},
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
	writer, err := sql.Open("sqlite", uri(url.Values{"_txlock": {"immediate"}}, "journal_mode(WAL)", "synchronous(FULL)"))
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	s.writer = s.pool("sqlite", writer)
	s.writer.SetMaxOpenConns(1)
	s.writer.SetConnMaxLifetime(0)
	if err := s.writer.PingContext(ctx); err != nil {
		return explainSQLite(path, err)
	}
	reader, err := sql.Open("sqlite", uri(url.Values{}, "query_only(1)"))
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	s.reader = s.pool("sqlite", reader)
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
	// The driver does not look at the context while the server greets it; only this bounds that.
	config.ConnectTimeout = cmp.Or(config.ConnectTimeout, connectTimeout)
	connector, err := pq.NewConnectorConfig(config)
	if err != nil {
		return fmt.Errorf("read the PostgreSQL data source: %w", err)
	}
	s.writer = s.pool("postgres", sql.OpenDB(connector))
	s.reader = s.writer
	if err := s.writer.PingContext(ctx); err != nil {
		return fmt.Errorf("reach PostgreSQL at %s port %d, database %q, as user %q: %w",
			config.Host, config.Port, config.Database, config.User, err)
	}
	return nil
}

func (s *Store) pool(driver string, db *sql.DB) *sqlx.DB {
	db.SetMaxOpenConns(s.config.MaxOpenConns)
	db.SetMaxIdleConns(s.config.MaxIdleConns)
	db.SetConnMaxLifetime(s.config.ConnMaxLifetime)
	return sqlx.NewDb(db, driver)
}
