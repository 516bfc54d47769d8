package store_test

import (
	"database/sql"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/store"
)

func TestOpenRefusesBadConfig(t *testing.T) {
	for _, config := range []store.Config{
		{},
		{Driver: "oracle", DSN: "x"},
		{Driver: store.SQLite},
		{Driver: store.SQLite, DSN: "x", MaxOpenConns: -1},
		{Driver: store.Postgres, DSN: "port=many"},
	} {
		s, err := store.Open(t.Context(), config)
		require.Error(t, err, "%+v", config)
		require.Nil(t, s)
	}
}

func TestOpenSaysWhyAFileCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "notes.txt")
	require.NoError(t, os.WriteFile(text, []byte(strings.Repeat("this is no database\n", 500)), 0o600))
	readOnly := filepath.Join(dir, "read-only")
	require.NoError(t, os.Mkdir(readOnly, 0o500))

	tests := map[string]string{
		text:                                "notes.txt is not an SQLite database",
		dir:                                 "is a directory",
		filepath.Join(dir, "none", "x.db"):  "no such file or directory",
		filepath.Join(text, "x.db"):         "not a directory",
		filepath.Join("/proc/self", "q.db"): "open database file: open /proc/self/q.db",
		filepath.Join(readOnly, "store.db"): "permission denied",
	}
	if os.Geteuid() == 0 {
		delete(tests, filepath.Join(readOnly, "store.db")) // root may write there
	}
	for path, want := range tests {
		_, err := store.Open(t.Context(), store.Config{Driver: store.SQLite, DSN: path})
		require.ErrorContains(t, err, want)
	}
}

func TestDatabaseFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := store.Open(t.Context(), store.Config{Driver: store.SQLite, DSN: path})
	require.NoError(t, err)
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(path + suffix)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
	}
	require.NoError(t, s.Close())
}

func TestOpenSaysThatPostgresIsUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	dsn := "postgres://me:secret@" + address + "/shop?sslmode=disable"

	// Someone is there who does not answer.
	_, err = store.Open(t.Context(), store.Config{Driver: store.Postgres, DSN: dsn + "&connect_timeout=1"})
	require.ErrorContains(t, err, `reach PostgreSQL at 127.0.0.1 port`)
	require.ErrorContains(t, err, "timeout")

	require.NoError(t, l.Close())
	_, err = store.Open(t.Context(), store.Config{Driver: store.Postgres, DSN: dsn})
	require.ErrorContains(t, err, `database "shop", as user "me"`)
	require.ErrorContains(t, err, "connection refused")
	require.NotContains(t, err.Error(), "secret")

	_, err = store.Open(t.Context(), store.Config{Driver: store.Postgres, DSN: strings.Replace(postgres.Database(t), "/test_", "/none_", 1)})
	require.ErrorContains(t, err, "does not exist")
}

func TestOpenRefusesANewerSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := store.Open(t.Context(), store.Config{Driver: store.SQLite, DSN: path})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	_, err = store.Open(t.Context(), store.Config{Driver: store.SQLite, DSN: path})
	require.ErrorContains(t, err, "schema version 999")
}

func TestServersMigrateOneAfterTheOther(t *testing.T) {
	dsn := postgres.Database(t)
	errs := together(4, func(int) error {
		s, err := store.Open(t.Context(), store.Config{Driver: store.Postgres, DSN: dsn})
		if err != nil {
			return err
		}
		return s.Close()
	})
	require.NoError(t, errors.Join(errs...))
}
