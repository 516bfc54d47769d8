package store_test

import (
	"database/sql"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/migrations"
)

// A log that is there already counts for logs.max_bytes, and the way back loses nothing but what is new.
func TestLogsAreCountedByTheMigration(t *testing.T) {
	for _, d := range []struct {
		driver, dsn, blob string
		dialect           goose.Dialect
		schema            fs.FS
	}{
		{"sqlite", filepath.Join(t.TempDir(), "db"), "BLOB", goose.DialectSQLite3, migrations.SQLite()},
		{"postgres", postgres.Database(t), "BYTEA", goose.DialectPostgres, migrations.Postgres()},
	} {
		t.Run(d.driver, func(t *testing.T) {
			db, err := sql.Open(d.driver, d.dsn)
			require.NoError(t, err)
			defer db.Close()
			db.SetMaxOpenConns(1)
			goTo, err := goose.NewProvider(d.dialect, db, d.schema)
			require.NoError(t, err)
			_, err = goTo.UpTo(t.Context(), 3)
			require.NoError(t, err)
			for _, statement := range []string{
				`INSERT INTO task_log_heads (task_id, seq) VALUES ('a', 2), ('b', 0)`,
				`INSERT INTO task_logs (task_id, seq, step_id, client_id, position, next, stream, stream_offset, at, data) VALUES
					('a', 1, 's', 'c', 0, 1, '', 0, 1, CAST('xxx' AS ` + d.blob + `)), ('a', 2, 's', 'c', 1, 2, '', 0, 1, CAST('yyyy' AS ` + d.blob + `))`,
			} {
				_, err := db.ExecContext(t.Context(), statement)
				require.NoError(t, err, statement)
			}
			for range 2 {
				_, err = goTo.UpTo(t.Context(), 4)
				require.NoError(t, err)
				var a, b int
				require.NoError(t, db.QueryRowContext(t.Context(), `SELECT (SELECT bytes FROM task_log_heads WHERE task_id = 'a'),
					(SELECT bytes FROM task_log_heads WHERE task_id = 'b')`).Scan(&a, &b))
				require.Equal(t, []int{7, 0}, []int{a, b})
				_, err = goTo.DownTo(t.Context(), 3)
				require.NoError(t, err)
			}
		})
	}
}
