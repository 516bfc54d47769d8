package fleet_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/fleet"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// What the steps printed is stored, to the byte, also where the hub went away in between.
func TestLogsAreComplete(t *testing.T) {
	const n, size = 20, 100_000
	b := startServer(t)
	f := b.fleet(n, func(c *fleet.Config) { c.LogBytes = size })
	require.NoError(t, b.connect(f))
	task, steps := b.plan(ids(n))
	for client, id := range steps {
		require.NotNil(t, b.ask(client, stepRequest(id)).GetStep())
	}
	b.stop()
	b.start()
	eventually(t, "all results are stored", func() bool { return b.states(task)[release.TargetSucceeded] == n })
	eventually(t, "all logs are stored", func() bool {
		complete, _, err := b.store.LogsComplete(t.Context(), task)
		return err == nil && complete
	})
	records, err := b.store.Logs(t.Context(), task, 0, store.LogFilter{}, 0)
	require.NoError(t, err)
	stored := map[string]int{}
	for _, r := range records {
		stored[r.ClientID] += len(r.Data)
	}
	require.Len(t, stored, n)
	for client, bytes := range stored {
		require.Equal(t, size, bytes, client)
	}
	require.GreaterOrEqual(t, f.Snapshot().LogBytes, uint64(n*size))
}
