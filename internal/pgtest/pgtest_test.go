package pgtest

import (
	"database/sql"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

var server *Server

func TestMain(m *testing.M) {
	os.Exit(Main(m, &server, func() error { return goleak.Find() }, func() error {
		if _, err := os.Stat(server.dir); !os.IsNotExist(err) {
			return fmt.Errorf("%s is still there", server.dir)
		}
		return nil
	}))
}

func TestDatabasesAreSeparate(t *testing.T) {
	for range 2 {
		db, err := sql.Open("postgres", server.Database(t))
		require.NoError(t, err)
		_, err = db.Exec("CREATE TABLE things (id BIGINT)")
		require.NoError(t, err)
		require.NoError(t, db.Close())
	}
}

func TestDatabaseIsDroppedWhileInUse(t *testing.T) {
	var left *sql.DB
	var dsn string
	t.Run("test that leaves a connection open", func(t *testing.T) {
		dsn = server.Database(t)
		var err error
		left, err = sql.Open("postgres", dsn)
		require.NoError(t, err)
		require.NoError(t, left.Ping())
	})
	require.Error(t, left.Ping())
	require.NoError(t, left.Close())
}

// What was confirmed is there again after the server was killed, at the same address.
func TestCrashAndRestart(t *testing.T) {
	durable, err := Start(t.Context(), Durable...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, durable.Stop()) })
	db, err := sql.Open("postgres", durable.Database(t))
	require.NoError(t, err)
	defer db.Close()
	_, err = db.Exec("CREATE TABLE things (id BIGINT)")
	require.NoError(t, err)
	for i := range 200 {
		_, err = db.Exec("INSERT INTO things VALUES ($1)", i)
		require.NoError(t, err)
	}
	require.NoError(t, durable.Crash())
	require.Eventually(t, func() bool { return db.Ping() != nil }, 10*time.Second, 10*time.Millisecond, "its other processes end, too")
	require.NoError(t, durable.Restart(t.Context()))
	var n int
	require.NoError(t, db.QueryRow("SELECT COUNT(*) FROM things").Scan(&n))
	require.Equal(t, 200, n)
}
