package app

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/server/temporaltest"
)

// A Temporal that is not ours: the server registers what it needs there, and starts none of its own.
func TestServerOnExternalTemporal(t *testing.T) {
	cluster := temporaltest.NewServer(temporaltest.WithT(t))
	cfg, _ := testConfig(t, t.TempDir())
	cfg.Temporal.Address = cluster.GetFrontendHostPort()
	cfg.Temporal.Namespace = cluster.GetDefaultNamespace()
	cfg.Temporal.UIURL = "https://temporal.example.com"
	a := start(t, cfg)

	status, body := get(t, a.Endpoint().API+"/ready", "")
	require.Equal(t, http.StatusOK, status, body)
	require.Nil(t, a.temporalUI)
	require.True(t, a.searchAttributes)
	known, err := cluster.GetDefaultClient().OperatorService().ListSearchAttributes(t.Context(),
		&operatorservice.ListSearchAttributesRequest{Namespace: cfg.Temporal.Namespace})
	require.NoError(t, err)
	for name, kind := range attributeTypes() {
		require.Equal(t, kind, known.GetCustomAttributes()[name], name)
	}

	missing, _ := testConfig(t, t.TempDir())
	missing.Temporal.Address, missing.Temporal.Namespace = cfg.Temporal.Address, "nowhere"
	_, err = Start(t.Context(), missing)
	require.ErrorContains(t, err, "temporal.namespace")
	nobody, _ := testConfig(t, t.TempDir())
	nobody.Temporal.Address = "127.0.0.1:1"
	_, err = Start(t.Context(), nobody)
	require.ErrorContains(t, err, "temporal.address")
}
