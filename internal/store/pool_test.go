package store_test

import (
	"database/sql"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/store"
)

// backends are the processes of PostgreSQL that serve others than the one who asks, in their order.
func backends(t *testing.T, db *sql.DB) (pids []int) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT pid FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid`)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var pid int
		require.NoError(t, rows.Scan(&pid))
		pids = append(pids, pid)
	}
	require.NoError(t, rows.Err())
	return pids
}

// The keys of the pool, as PostgreSQL sees them: so many connections at a time, so many of them kept, each for so long.
func TestPoolOfPostgres(t *testing.T) {
	for name, c := range map[string]struct {
		idle, kept int
		lifetime   time.Duration
	}{
		"two are kept":          {2, 2, time.Hour},
		"none is kept":          {-1, 0, time.Hour},
		"none is kept for ever": {4, 0, 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := postgres.Database(t)
			s, err := store.Open(t.Context(), store.Config{Driver: store.Postgres, DSN: dsn, MaxOpenConns: 4, MaxIdleConns: c.idle,
				ConnMaxLifetime: c.lifetime, Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			defer func() { require.NoError(t, s.Close()) }()
			other, err := sql.Open("postgres", dsn)
			require.NoError(t, err)
			defer other.Close()
			other.SetMaxOpenConns(2) // one that locks, and one that looks

			lock, err := other.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			_, err = lock.ExecContext(t.Context(), "LOCK TABLE clients IN ACCESS EXCLUSIVE MODE")
			require.NoError(t, err)
			var readers sync.WaitGroup
			for range 12 {
				readers.Go(func() {
					if _, err := s.ClientByID(t.Context(), "web-1"); err == nil {
						t.Error("there is no such client")
					}
				})
			}
			require.Eventually(t, func() bool { return len(backends(t, other)) == 4+1 }, 10*time.Second, 5*time.Millisecond, "with that of the lock")
			require.NoError(t, lock.Rollback())
			readers.Wait()
			other.SetMaxOpenConns(1)
			require.Eventually(t, func() bool { return len(backends(t, other)) == c.kept }, 10*time.Second, 5*time.Millisecond)
			require.NoError(t, s.Ping(t.Context()))
		})
	}
}
