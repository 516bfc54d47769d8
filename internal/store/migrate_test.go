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

// TestMigrateJobs keeps the logs of tasks through the migration of jobs, up and down.
func TestMigrateJobs(t *testing.T) {
	for _, d := range []struct {
		driver, dsn string
		dialect     goose.Dialect
		schema      fs.FS
	}{
		{"sqlite", "file:" + filepath.Join(t.TempDir(), "db") + "?_pragma=foreign_keys(1)", goose.DialectSQLite3, migrations.SQLite()},
		{"postgres", postgres.Database(t), goose.DialectPostgres, migrations.Postgres()},
	} {
		t.Run(d.driver, func(t *testing.T) {
			db, err := sql.Open(d.driver, d.dsn)
			require.NoError(t, err)
			defer db.Close()
			db.SetMaxOpenConns(1)
			exec := func(statement string) {
				t.Helper()
				_, err := db.ExecContext(t.Context(), statement)
				require.NoError(t, err, statement)
			}
			heads := func() (text string) {
				rows, err := db.QueryContext(t.Context(), `SELECT task_id FROM task_log_heads ORDER BY task_id`)
				require.NoError(t, err)
				defer rows.Close()
				for rows.Next() {
					var id string
					require.NoError(t, rows.Scan(&id))
					text += id + " "
				}
				require.NoError(t, rows.Err())
				return text
			}
			goTo, err := goose.NewProvider(d.dialect, db, d.schema)
			require.NoError(t, err)
			_, err = goTo.UpTo(t.Context(), 2)
			require.NoError(t, err)
			exec(`INSERT INTO projects (id, name, description, type, spec, created_at, updated_at) VALUES ('p', 'p', '', '', '', 1, 1)`)
			for _, id := range []string{"t1", "t2"} {
				exec(`INSERT INTO tasks (id, project_id, action, targets, strategy, override, waves, status, phase, workflow_id, created_by, created_at, updated_at)
					VALUES ('` + id + `', 'p', '', '', '', '', '', '', '', '` + id + `', '', 1, 1)`)
				exec(`INSERT INTO task_log_heads (task_id, seq) VALUES ('` + id + `', 7)`)
				exec(`INSERT INTO step_logs (step_id, position) VALUES ('` + id + `/deploy/h/0', 7)`)
			}
			_, err = goTo.UpTo(t.Context(), 3)
			require.NoError(t, err)
			exec(`INSERT INTO jobs (id, kind, command_type, selector, options, status, created_by, created_at, updated_at, total, n_pending)
				VALUES ('j', '', '', '', '', '', '', 1, 1, 1, 1)`)
			exec(`INSERT INTO task_log_heads (task_id) VALUES ('j')`)
			exec(`INSERT INTO step_logs (step_id, position) VALUES ('j/command/h/0', 7)`)
			require.Equal(t, "j t1 t2 ", heads())
			exec(`DELETE FROM tasks WHERE id = 't1'`)
			require.Equal(t, "j t2 ", heads(), "no head without its task")

			_, err = goTo.DownTo(t.Context(), 2)
			require.NoError(t, err)
			require.Equal(t, "t2 ", heads())
			_, err = db.ExecContext(t.Context(), `INSERT INTO task_log_heads (task_id) VALUES ('none')`)
			require.Error(t, err, "a head needs its task again")
			var steps string
			require.NoError(t, db.QueryRowContext(t.Context(), `SELECT step_id FROM step_logs`).Scan(&steps))
			require.Equal(t, "t2/deploy/h/0", steps)
			_, err = goTo.Up(t.Context())
			require.NoError(t, err)
		})
	}
}
