// Package store keeps what users said, what was decided and what happened: in PostgreSQL or in an SQLite file.
//
// The SQL is the same for both where it can be; dialect.go has the rest. Everything that comes in numbers (sessions,
// results, log records, dispatches) is written by a few statements a call, however many rows there are.
//
// Locks are taken in one order, so that PostgreSQL does not run into deadlocks: projects, versions, environments, clients, tasks, targets, installations, jobs;
// and several rows of a table in the order of their key. Whoever writes a target or a step of it holds the row of the
// target. Whoever writes a target of a job holds the row of the job, which is why it may count and number them. Logs are apart from
// all that: their only lock is the head of the task or job. So are artifacts, which are locked in the order of their SHA-256.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
)

// Driver names a kind of database.
type Driver string

// The databases.
const (
	SQLite   Driver = "sqlite"
	Postgres Driver = "postgres"
)

// connectTimeout bounds the wait for a PostgreSQL that does not answer, unless the DSN has a connect_timeout.
const connectTimeout = 10 * time.Second

// Config sets up a Store.
type Config struct {
	// Driver is the kind of database. Required.
	Driver Driver
	// DSN is the path of the file for SQLite, which is made if it is not there, and a URL or key=value text for
	// PostgreSQL. Required.
	DSN string
	// MaxOpenConns bounds the connections; with SQLite those that read, as just one writes. Defaults to 20.
	MaxOpenConns int
	// MaxIdleConns is how many connections are kept while there is nothing to do; a negative number means none. Defaults to
	// MaxOpenConns.
	MaxIdleConns int
	// ConnMaxLifetime closes connections of that age. Defaults to 0, which is never.
	ConnMaxLifetime time.Duration
	// OfflineGrace is how long a client without a session counts as reconnecting. Defaults to 90s.
	OfflineGrace time.Duration
	// MaxLogBytes is from how much data on a task's or job's log loses its oldest records; see Sweeper. Defaults to 0, which
	// is never.
	MaxLogBytes int64
	// SecretKey encrypts secret variables: 32 bytes, the same for all servers on one database. Defaults to none: secret variables
	// can be neither stored nor read then.
	SecretKey []byte
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() (Config, error) {
	if c.DSN == "" {
		return c, errors.New("store: DSN is empty")
	}
	if c.MaxLogBytes < 0 || c.MaxOpenConns < 0 || c.ConnMaxLifetime < 0 || c.OfflineGrace < 0 {
		return c, errors.New("store: connection limits and times must not be negative")
	}
	if len(c.SecretKey) != 0 && len(c.SecretKey) != SecretKeySize {
		return c, fmt.Errorf("store: SecretKey has %d bytes, not %d", len(c.SecretKey), SecretKeySize)
	}
	c.MaxOpenConns = cmp.Or(c.MaxOpenConns, 20)
	c.MaxIdleConns = cmp.Or(c.MaxIdleConns, c.MaxOpenConns)
	c.OfflineGrace = cmp.Or(c.OfflineGrace, 90*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

// Store is the database. It is safe for concurrent use. A method that returns an error has changed nothing.
type Store struct {
	config  Config
	dialect dialect
	writer  *sqlx.DB
	reader  *sqlx.DB // the same as writer with PostgreSQL
	group   group
	large   largeLogs
	secrets sealer

	outcomes outcomeCounts
}

// Open connects to the database and brings its schema up to date. It fails if the database cannot be
// reached (within 10 s, or the DSN's connect_timeout) and if its schema is newer than this program.
func Open(ctx context.Context, config Config) (*Store, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{config: config, large: newLargeLogs(), secrets: newSealer(config.SecretKey)}
	switch config.Driver {
	case SQLite:
		s.dialect = sqliteDialect()
		err = s.openSQLite(ctx)
	case Postgres:
		s.dialect = postgresDialect()
		err = s.openPostgres(ctx)
	default:
		return nil, fmt.Errorf("store: driver %q is neither %s nor %s", config.Driver, SQLite, Postgres)
	}
	if err == nil {
		err = s.migrate(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close closes all connections. Calls in flight fail.
func (s *Store) Close() error {
	var errs []error
	if s.reader != nil && s.reader != s.writer {
		errs = append(errs, s.reader.Close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.Close())
	}
	return errors.Join(errs...)
}

// Ping says whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.writer.PingContext(ctx); err != nil {
		return fmt.Errorf("reach the database: %w", err)
	}
	return nil
}

func (s *Store) migrate(ctx context.Context) error {
	migrations, err := goose.NewProvider(s.dialect.goose, s.writer.DB, s.dialect.schema, s.dialect.gooseOptions()...)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	current, err := migrations.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read the schema's version: %w", err)
	}
	sources := migrations.ListSources()
	if known := sources[len(sources)-1].Version; current > known {
		return fmt.Errorf("the database has schema version %d, and this program knows up to %d: it was used by a newer one", current, known)
	}
	applied, err := migrations.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	for _, m := range applied {
		s.config.Logger.InfoContext(ctx, "database migrated", "version", m.Source.Version, "duration", m.Duration)
	}
	return nil
}

func (s *Store) now() time.Time { return s.config.Now() }

// orNow gives t, or the present if t is not set.
func (s *Store) orNow(t time.Time) time.Time {
	if t.IsZero() {
		return s.now()
	}
	return t
}
