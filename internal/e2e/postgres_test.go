package e2e

import (
	"context"
	"fmt"
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

// postgresSettings gives a server configuration on a new database.
func postgresSettings(t *testing.T) string {
	t.Helper()
	s, err := postgresServer()
	require.NoError(t, err)
	return fmt.Sprintf("database:\n  dsn: %q\n", s.Database(t))
}
