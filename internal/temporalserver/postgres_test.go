package temporalserver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/pgtest"
)

func TestPostgres(t *testing.T) {
	pg, err := pgtest.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pg.Stop()) })
	cfg := testConfig(t)
	cfg.Postgres = pg.Database(t)

	// What an interrupted start left is in nobody's way.
	base, err := pgx.ParseConfig(cfg.Postgres)
	require.NoError(t, err)
	conn, err := pgx.ConnectConfig(t.Context(), base)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	_, err = conn.Exec(t.Context(), "CREATE DATABASE "+pgx.Identifier{base.Database + "_temporal_new"}.Sanitize())
	require.NoError(t, err)

	lost := make(chan error, 1)
	cfg.OnLost = func(err error) { lost <- err }
	s := start(t, cfg)
	runHello(t, dial(t, s), "release/shop/1")

	second := testConfig(t)
	second.Postgres = cfg.Postgres
	_, err = Start(t.Context(), second)
	require.ErrorIs(t, err, errLockHeld)
	require.ErrorContains(t, err, "temporal.address")

	stop(t, s)
	again := start(t, cfg)
	var out string
	require.NoError(t, dial(t, again).GetWorkflow(t.Context(), "release/shop/1", "").Get(t.Context(), &out))
	require.Equal(t, "hello, world", out)

	// The connection that holds the lock breaks, and it is taken again.
	held := func() (pid int) {
		err := conn.QueryRow(t.Context(), "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted").Scan(&pid)
		if !errors.Is(err, pgx.ErrNoRows) {
			require.NoError(t, err)
		}
		return pid
	}
	first := held()
	require.NotZero(t, first)
	_, err = conn.Exec(t.Context(), "SELECT pg_terminate_backend($1)", first)
	require.NoError(t, err)
	require.Eventually(t, func() bool { pid := held(); return pid != 0 && pid != first }, 20*time.Second, 50*time.Millisecond)
	require.Empty(t, lost)

	// It breaks again, and another server is faster.
	_, err = conn.Exec(t.Context(), "SELECT pg_terminate_backend($1)", held())
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		var locked bool
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT pg_try_advisory_lock($1)", int64(lockKey)).Scan(&locked))
		return locked
	}, 2*time.Second, 10*time.Millisecond)
	select {
	case err := <-lost:
		require.ErrorIs(t, err, errLockHeld)
	case <-time.After(30 * time.Second):
		t.Fatal("the server did not notice that it lost its lock")
	}
}
