package api_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/telemetry"
)

func TestSystemTellsItsParts(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	s := apitest.Start(t, func(c *api.Config) {
		c.System = api.SystemConfig{
			NodeID: "this", Started: at, HubAddr: "127.0.0.1:8474", SessionsMax: 10_000, TemporalVersion: "1.2.3",
			Disk: func() (uint64, uint64, error) { return 40, 100, nil },
			Samples: func() []telemetry.Sample {
				return []telemetry.Sample{{At: at, Agents: 3, Messages: 1.23456, Memory: 1 << 20}}
			},
		}
	})
	s.AddClients(3, nil)
	status, text := do(t, s, "GET", "/api/system", "")
	require.Equal(t, 200, status)
	got := read[api.System](t, text)
	require.Equal(t, "test", got.Server.Version)
	require.Equal(t, at, *got.Server.StartedAt)
	require.Equal(t, []api.SystemHub{{NodeID: "node", Sessions: 3}, {NodeID: "this", This: true, Address: "127.0.0.1:8474", SessionsMax: 10_000}}, got.Hubs)
	require.Equal(t, []api.AgentVersion{{Agents: 3, Online: 3}}, got.Agents)
	require.Equal(t, "sqlite", got.Database.Kind)
	require.Positive(t, got.Database.Bytes)
	require.Equal(t, api.SystemTemporal{BuiltIn: true, Version: "1.2.3"}, got.Temporal)
	require.Equal(t, &api.SystemDisk{Free: 40, Size: 100}, got.Disk)
	require.Equal(t, []api.SystemFigures{{At: at, Agents: 3, Messages: 1.23, Memory: 1 << 20}}, got.Figures)
}
