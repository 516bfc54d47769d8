package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/config"
	"github.com/quicflow/quicflow/internal/pgtest"
)

func testConfig(t *testing.T, dir string) (Config, *bytes.Buffer) {
	c := config.Standard()
	c.Server.DataDir = dir
	c.Server.Addr = "127.0.0.1:0"
	c.Server.APIAddr, c.Metrics.Addr = ":0", ":0"
	require.NoError(t, c.Validate())
	greeting := &bytes.Buffer{}
	return Config{Config: c, Version: "1.2.3", Greeting: greeting, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}, greeting
}

func start(t *testing.T, cfg Config) *App {
	t.Helper()
	a, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Stop(context.WithoutCancel(t.Context()))) })
	return a
}

func get(t *testing.T, url, token string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(text)
}

// One test for what wants a whole server, because each start costs seconds.
func TestServer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg, greeting := testConfig(t, dir)
	a := start(t, cfg)

	text, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	require.NoError(t, err)
	token := strings.TrimSpace(string(text))
	require.Contains(t, greeting.String(), token)
	require.Contains(t, greeting.String(), dir)

	var endpoint Endpoint
	text, err = os.ReadFile(filepath.Join(dir, "endpoint.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &endpoint))
	require.Equal(t, a.Endpoint(), endpoint)
	require.Regexp(t, `^http://127\.0\.0\.1:\d+$`, endpoint.API)
	require.Equal(t, endpoint.API+"/temporal/", endpoint.UI)

	status, body := get(t, endpoint.API+"/ready", "")
	require.Equal(t, http.StatusOK, status, body)
	require.Contains(t, body, `"1.2.3"`)
	status, _ = get(t, endpoint.API+"/api/clients", "")
	require.Equal(t, http.StatusUnauthorized, status)
	status, _ = get(t, endpoint.API+"/api/clients", token)
	require.Equal(t, http.StatusOK, status)
	status, _ = get(t, endpoint.UI+"api/v1/namespaces", "")
	require.Equal(t, http.StatusUnauthorized, status)
	status, body = get(t, endpoint.UI+"api/v1/namespaces", token)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, `"default"`)
	status, body = get(t, a.metricsURL, "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "quic_backbone_connected_clients 0")

	for _, name := range []string{".", "admin.token", "endpoint.json", "session.key", "ca.key", "quicflow.db", "temporal.db"} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, "%s can be read by others", name)
	}

	_, err = Start(t.Context(), cfg)
	require.ErrorContains(t, err, "another quic-server (process ")

	for key, change := range map[string]func(*config.Config){
		"server.api_addr": func(c *config.Config) { c.Server.APIAddr = strings.TrimPrefix(endpoint.API, "http://") },
		"server.addr":     func(c *config.Config) { c.Server.Addr = endpoint.QUIC },
	} {
		other, _ := testConfig(t, filepath.Join(t.TempDir(), "data"))
		change(&other.Config)
		_, err = Start(t.Context(), other)
		require.ErrorContains(t, err, key)
		require.ErrorContains(t, err, "is taken by another program")
	}

	// A part that fails ends Run; what it left is taken up by the next start.
	require.NoError(t, a.Stop(t.Context()))
	broken := errors.New("a part failed")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	cfg, greeting = testConfig(t, dir)
	require.Error(t, Run(ctx, cfg)) // a start that is interrupted
	again := start(t, cfg)
	require.NotContains(t, greeting.String(), token, "shown once")
	status, _ = get(t, again.Endpoint().API+"/api/clients", token)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, a.nodeID, again.nodeID)
}

func TestServerOnPostgres(t *testing.T) {
	pg, err := pgtest.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pg.Stop()) })
	cfg, _ := testConfig(t, t.TempDir())
	cfg.Database.DSN = pg.Database(t)
	a := start(t, cfg)
	status, body := get(t, a.Endpoint().API+"/ready", "")
	require.Equal(t, http.StatusOK, status, body)

	other, _ := testConfig(t, t.TempDir())
	other.Database.DSN = cfg.Database.DSN
	_, err = Start(t.Context(), other)
	require.ErrorContains(t, err, "temporal.address")
}
