package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

// noLimit stands for a Limit of 0.
const noLimit = 1 << 31

// conn runs statements, on a pool or in a transaction. Placeholders are ? for either database, and a slice stands for
// as many as it has elements.
type conn struct {
	db      sqlx.ExtContext
	dialect dialect

	outcomes map[release.StepState]int // of steps that the transaction settles
	commands map[job.State]int         // of targets of jobs that it decides
	ended    map[job.Status]job.Total  // of jobs that it ends
}

func (s *Store) read() conn { return conn{db: s.reader, dialect: s.dialect} }

// write runs fn in a transaction. what names the work in errors.
func (s *Store) write(ctx context.Context, what string, fn func(tx conn) error) error {
	tx, err := s.writer.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	c := conn{db: tx, dialect: s.dialect, outcomes: make(map[release.StepState]int), commands: make(map[job.State]int),
		ended: make(map[job.Status]job.Total)}
	if err := fn(c); err != nil {
		if undo := tx.Rollback(); undo != nil && !errors.Is(undo, sql.ErrTxDone) {
			err = errors.Join(err, undo)
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%s: commit: %w", what, err)
	}
	s.outcomes.add(c)
	return nil
}

// analyzeRows is how many new rows make PostgreSQL's statistics worth renewing at once.
const analyzeRows = 2000

// grew renews the statistics of a table that many rows were added to. PostgreSQL does so by itself within minutes, and
// chooses plans until then that read whole tasks for a few hosts.
func (s *Store) grew(ctx context.Context, table string, rows int) {
	if s.dialect.goose != goose.DialectPostgres || rows < analyzeRows {
		return
	}
	if _, err := s.writer.ExecContext(ctx, "ANALYZE "+table); err != nil {
		s.config.Logger.WarnContext(ctx, "statistics not renewed", "table", table, "error", err)
	}
}

func (c conn) bind(query string, args []any) (string, []any, error) {
	query, args, err := sqlx.In(query, args...)
	if err != nil {
		return "", nil, fmt.Errorf("bind parameters: %w", err)
	}
	for i, arg := range args {
		if text, ok := arg.(string); ok {
			args[i] = clean(text)
		}
	}
	return sqlx.Rebind(c.dialect.bind, query), args, nil
}

// exec runs a statement and gives the number of rows that it changed.
func (c conn) exec(ctx context.Context, query string, args ...any) (int64, error) {
	query, args, err := c.bind(query, args)
	if err != nil {
		return 0, err
	}
	result, err := c.db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// get reads one row, or gives sql.ErrNoRows.
func (c conn) get(ctx context.Context, dest any, query string, args ...any) error {
	query, args, err := c.bind(query, args)
	if err != nil {
		return err
	}
	return sqlx.GetContext(ctx, c.db, dest, query, args...)
}

// query gives rows to read one by one; the caller closes them.
func (c conn) query(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	query, args, err := c.bind(query, args)
	if err != nil {
		return nil, err
	}
	return c.db.QueryxContext(ctx, query, args...)
}

// list reads all rows.
func (c conn) list(ctx context.Context, dest any, query string, args ...any) error {
	query, args, err := c.bind(query, args)
	if err != nil {
		return err
	}
	return sqlx.SelectContext(ctx, c.db, dest, query, args...)
}

// lockOf is the clause that locks the rows of one of the joined tables.
func (c conn) lockOf(table string) string {
	if c.dialect.lock == "" {
		return ""
	}
	return c.dialect.lock + " OF " + table
}

// input gives the head of a statement that joins with literal rows, as a table named input. columns is its declaration,
// such as "client TEXT, at BIGINT"; there must be a row. Names must differ from those of the tables it is joined with,
// as SQLite's RETURNING takes unqualified names only.
func (d dialect) input(columns string, rows [][]any) (with string, args []any) {
	var names, casts []string
	for column := range strings.SplitSeq(columns, ", ") {
		name, kind, _ := strings.Cut(column, " ")
		if kind == "BLOB" {
			kind = d.blob
		}
		names = append(names, name)
		casts = append(casts, "CAST(? AS "+kind+")") // the first row gives PostgreSQL the types of all
	}
	var b strings.Builder
	fmt.Fprintf(&b, "WITH input (%s) AS (VALUES (%s)", strings.Join(names, ", "), strings.Join(casts, ", "))
	rest := ", (" + placeholders(len(names)) + ")"
	args = make([]any, 0, len(rows)*len(names))
	for i, row := range rows {
		if i > 0 {
			b.WriteString(rest)
		}
		args = append(args, row...)
	}
	b.WriteString(") ")
	return b.String(), args
}

func placeholders(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// rowsOf gives the rows of an INSERT.
func rowsOf(rows, columns int) string {
	row := "(" + placeholders(columns) + ")"
	return row + strings.Repeat(", "+row, rows-1)
}

// where collects conditions that must all hold.
type where struct {
	conditions []string
	args       []any
}

func (w *where) add(condition string, args ...any) {
	w.conditions = append(w.conditions, condition)
	w.args = append(w.args, args...)
}

func (w *where) String() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

// page gives the arguments of LIMIT ? OFFSET ?, behind those of the conditions.
func (w *where) page(limit, offset int) []any {
	if limit <= 0 {
		limit = noLimit
	}
	return append(w.args[:len(w.args):len(w.args)], limit, max(0, offset))
}

// clean makes text that PostgreSQL accepts: valid UTF-8 without NUL. Agents send what scripts print.
func clean(text string) string {
	if utf8.ValidString(text) && !strings.ContainsRune(text, 0) {
		return text
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// micros is how times are stored.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func pointerFromMicros(us int64) *time.Time {
	if us == 0 {
		return nil
	}
	t := fromMicros(us)
	return &t
}

// stored gives a time as it will be read back.
func stored(t time.Time) time.Time { return fromMicros(micros(t)) }
