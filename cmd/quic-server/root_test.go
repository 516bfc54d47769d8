package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/config"
)

func run(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRoot(&out, &errs)
	root.SetArgs(args)
	err = root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestGenconfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "server.yaml")
	for _, tc := range []struct {
		args []string
		want config.Config
	}{
		{nil, config.Standard()},
		{[]string{"--high-perf"}, config.HighPerformance()},
	} {
		_, err := run(t, append([]string{"genconfig", "-o", file}, tc.args...)...)
		require.NoError(t, err)
		got, err := config.Load(file, nil)
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(tc.want, got))

		out, err := run(t, append([]string{"genconfig"}, tc.args...)...)
		require.NoError(t, err)
		written, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(written), out)
	}
	_, err := run(t, "genconfig", "-o", filepath.Join(t.TempDir(), "none", "x.yaml"))
	require.ErrorContains(t, err, "write the configuration")
}

func TestVersion(t *testing.T) {
	out, err := run(t, "version")
	require.NoError(t, err)
	require.Contains(t, out, "quic-server dev\n")
	require.Contains(t, out, "temporal ")
}

func TestBadInput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "server.yaml")
	require.NoError(t, os.WriteFile(file, []byte("server: {adr: x}"), 0o600))
	_, err := run(t, "-c", file)
	require.ErrorContains(t, err, "server.adr: unknown key")
	_, err = run(t, "-c", file+".none")
	require.ErrorContains(t, err, "server.yaml.none")
	_, err = run(t, "--unknown")
	require.ErrorContains(t, err, "unknown flag")
	_, err = run(t, "start")
	require.Error(t, err)
	t.Setenv("QUIC_SERVER_ADR", "x")
	_, err = run(t)
	require.ErrorContains(t, err, "QUIC_SERVER_ADR: unknown environment variable")
}
