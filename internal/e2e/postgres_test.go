package e2e

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/pgtest"
)

// postgresServer starts the PostgreSQL of this test binary when a test first wants it; TestMain stops it.
var postgresServer = sync.OnceValues(func() (*pgtest.Server, error) {
	s, err := pgtest.Start(context.Background())
	stopPostgres = func() error { return s.Stop() }
	if err != nil {
		stopPostgres = func() error { return nil }
	}
	return s, err
})

var stopPostgres = func() error { return nil }

// sharedPostgres gives the address of a new database.
func sharedPostgres(t *testing.T) string {
	t.Helper()
	s, err := postgresServer()
	require.NoError(t, err)
	return s.Database(t)
}
