package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestServiceDryRun(t *testing.T) {
	program, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	out, err := execute(t, "service", "install", "--dry-run", "-server", "hub:1", "-s", "b:2", "--id", "web-1", "--data-dir", dir,
		"--label", `note=50% "off" $HOME`, "--label", "zone=eu", "--max-steps", "3", "--max-log", "1000000", "--artifact-cache", "5000000")
	require.NoError(t, err)
	require.Contains(t, out, "# /etc/systemd/system/quicflow-agent.service\n")
	require.Contains(t, out, fmt.Sprintf("\nExecStart=%s --server hub:1 --server b:2 --id web-1 --data-dir %s", program, dir)+
		` --label "note=50%% \"off\" $$HOME" --label zone=eu --max-steps 3 --max-log 1000000 --artifact-cache 5000000`+"\n")
	require.Contains(t, out, "\nKillMode=process\n")
	require.Contains(t, out, "systemctl enable --now quicflow-agent.service\n")

	out, err = execute(t, "service", "uninstall", "--dry-run", "--unit", "other")
	require.NoError(t, err)
	require.Equal(t, "# systemctl disable --now other.service\n# rm /etc/systemd/system/other.service\n# systemctl daemon-reload\n", out)

	_, err = execute(t, "service", "install", "--dry-run", "--token", "secret")
	require.ErrorContains(t, err, "join first")
	require.NotContains(t, err.Error(), "secret")
	_, err = execute(t, "service", "uninstall", "--unit", "no-such-unit-of-this-test")
	require.ErrorContains(t, err, "does not exist")
}

// The unit that packages take is the one that install writes, for the usual place and this host's name.
func TestServiceFileInDeploy(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "systemd", "quicflow-agent.service"))
	require.NoError(t, err)
	_, body, _ := strings.Cut(string(text), "[Unit]")
	_, want, _ := strings.Cut(fmt.Sprintf(unit, "/usr/local/bin/quic-client --id %H"), "[Unit]")
	require.Equal(t, want, body)
}
