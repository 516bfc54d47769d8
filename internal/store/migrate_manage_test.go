package store_test

import (
	"database/sql"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/migrations"
)

// What was there before has revision 1, and installations without a configuration.
func TestMigrateManage(t *testing.T) {
	for _, d := range []struct {
		name    string
		driver  store.Driver
		dsn     string
		dialect goose.Dialect
		schema  fs.FS
	}{
		{"sqlite", store.SQLite, filepath.Join(t.TempDir(), "db"), goose.DialectSQLite3, migrations.SQLite()},
		{"postgres", store.Postgres, postgres.Database(t), goose.DialectPostgres, migrations.Postgres()},
	} {
		t.Run(d.name, func(t *testing.T) {
			db, err := sql.Open(d.name, d.dsn)
			require.NoError(t, err)
			defer db.Close()
			db.SetMaxOpenConns(1)
			goTo, err := goose.NewProvider(d.dialect, db, d.schema)
			require.NoError(t, err)
			_, err = goTo.UpTo(t.Context(), 4)
			require.NoError(t, err)
			for _, statement := range []string{
				`INSERT INTO projects (id, name, description, type, spec, created_at, updated_at) VALUES ('p', 'shop', '', 'script', '{}', 1, 1)`,
				`INSERT INTO versions (id, project_id, name, status, spec, created_at, updated_at) VALUES ('v', 'p', '1.0', 'active', '{"install":"true"}', 1, 1)`,
				`INSERT INTO installations (project_id, client_id, version_id, state, task_id, as_of, updated_at) VALUES ('p', 'c', 'v', 'installed', 't', 1, 1)`,
			} {
				_, err := db.ExecContext(t.Context(), statement)
				require.NoError(t, err, statement)
			}
			for range 2 {
				_, err = goTo.UpTo(t.Context(), 5)
				require.NoError(t, err)
				_, err = goTo.DownTo(t.Context(), 4)
				require.NoError(t, err)
			}
			s, err := store.Open(t.Context(), store.Config{Driver: d.driver, DSN: d.dsn})
			require.NoError(t, err)
			defer s.Close()
			p, err := s.Project(t.Context(), "shop")
			require.NoError(t, err)
			require.EqualValues(t, 1, p.Revision)
			v, err := s.Version(t.Context(), "shop", "1.0")
			require.NoError(t, err)
			require.EqualValues(t, 1, v.Revision)
			list, _, err := s.Installations(t.Context(), store.InstallationFilter{})
			require.NoError(t, err)
			require.Len(t, list, 1)
			require.Equal(t, release.Installation{ProjectID: "p", Project: "shop", ClientID: "c", VersionID: "v", Version: "1.0",
				State: release.InstallationInstalled, TaskID: "t", UpdatedAt: list[0].UpdatedAt, InstalledAt: &list[0].UpdatedAt, InstalledBy: "t"}, list[0])
		})
	}
}
