package app

import (
	"log/slog"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/config"
	"github.com/quicflow/quicflow/internal/service"
)

// An empty host is loopback, for the API as for the metrics, and an empty metrics.addr is nowhere.
func TestListen(t *testing.T) {
	for addr, want := range map[string]string{":0": "127.0.0.1", "127.0.0.2:0": "127.0.0.2", "": ""} {
		c := config.Standard()
		c.Server.APIAddr, c.Metrics.Addr = ":0", addr
		require.NoError(t, c.Validate())
		a := &App{cfg: Config{Config: c}, services: service.Group{Logger: slog.New(slog.DiscardHandler)}}
		api, metrics, err := a.listen(t.Context())
		require.NoError(t, err)
		require.Equal(t, "127.0.0.1", api.Addr().(*net.TCPAddr).IP.String())
		if want == "" {
			require.Nil(t, metrics)
		} else {
			require.Equal(t, want, metrics.Addr().(*net.TCPAddr).IP.String())
		}
		require.NoError(t, a.services.Stop(t.Context()))
	}
}
