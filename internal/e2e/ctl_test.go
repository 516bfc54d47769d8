package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// A release manager does everything with quic-ctl, beside the server, with no address or token given. The exit code
// tells how a rollout went.
func TestCtl(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	var agents []*agent
	for _, id := range []string{"web-1", "web-2"} {
		a := &agent{t: t, id: id, dir: t.TempDir(), server: s.addr}
		a.start("--server-data-dir", s.data()) // beside the server it needs no token
		s.await(id, release.ClientOnline)
		agents = append(agents, a)
	}

	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	ctl := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		stdout, stderr, code := run(t, nil, program("quic-ctl"), append([]string{"--data-dir", s.data()}, args...)...)
		require.Equal(t, want, code, "%v: %s %s", args, stdout, stderr)
		return stdout, stderr
	}

	ctl(0, "project", "create", "-f", write("project.yaml", "name: motd\n"))
	ctl(0, "version", "create", "-f", write("1.yaml", `
project: motd
version: "1.0"
status: active
script:
  install: echo "$QUICFLOW_VERSION" > motd; echo hello from "$QUICFLOW_TARGET"
  uninstall: rm motd
  health: {exec: test -s motd}
`))
	ctl(0, "version", "create", "-f", write("2.yaml", `{project: motd, version: "2.0", script: {install: '[ "$QUICFLOW_TARGET" = web-1 ]'}}`))
	ctl(0, "version", "set-status", "motd", "2.0", "active")

	out, _ := ctl(0, "preview", "--project", "motd", "--version", "1.0", "--selector", "*")
	require.Contains(t, out, "hello from")
	out, errs := ctl(0, "task", "create", "--project", "motd", "--version", "1.0", "--selector", "*", "--watch")
	require.Contains(t, out+errs, "hello from web-1")
	file := filepath.Join(agents[1].data(), "projects", "motd", "motd")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "1.0\n", string(text))
	out, _ = ctl(0, "installations", "--project", "motd")
	require.Regexp(t, `web-1\s.*1\.0`, out)

	out, _ = ctl(3, "task", "create", "--project", "motd", "--version", "2.0", "--selector", "*", "--wait")
	require.Contains(t, out, "failed")
	out, _ = ctl(4, "task", "create", "--project", "motd", "--version", "2.0", "--selector", "*", "--wait", "--max-failures", "50%")
	require.Contains(t, out, "partial")

	out, _ = ctl(0, "task", "create", "--project", "motd", "--uninstall", "--targets", "web-2", "-o", "json")
	var task release.Task
	require.NoError(t, json.Unmarshal([]byte(out), &task))
	ctl(0, "task", "watch", task.ID)
	require.NoFileExists(t, file)

	_, errs = ctl(1, "task", "promote", task.ID)
	require.Contains(t, errs, "succeeded")
	_, errs = ctl(1, "task", "create", "--project", "shop", "--version", "1.0", "--selector", "*")
	require.Contains(t, errs, "shop")
	ctl(2, "task", "create", "--no-such-flag")
	out, _ = ctl(0, "task", "list", "-o", "json")
	var tasks []release.Task
	require.NoError(t, json.Unmarshal([]byte(out), &tasks), out)
	require.Len(t, tasks, 4)
}

// A server that cannot start says why, soon, and leaves nothing behind.
func TestServerRefusesToStart(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	says := func(t *testing.T, want string, env []string, args ...string) {
		t.Helper()
		p := start(t, "quic-server", filepath.Join(t.TempDir(), "log"), env, program("quic-server"), args...)
		require.NotZero(t, p.wait(30*time.Second))
		require.Contains(t, p.printed(), want)
	}
	elsewhere := []string{"QUIC_SERVER_ADDR=127.0.0.1:0", "QUIC_SERVER_API_ADDR=127.0.0.1:0", "QUIC_METRICS_ADDR=127.0.0.1:0"}
	config := filepath.Join(s.dir, "server.yaml")

	t.Run("on a data directory in use", func(t *testing.T) {
		says(t, s.data(), elsewhere, "-c", config, "--data-dir", s.data())
	})
	t.Run("on an API port in use", func(t *testing.T) {
		says(t, s.api, []string{elsewhere[0], "QUIC_SERVER_API_ADDR=" + s.api, elsewhere[2]}, "-c", config, "--data-dir", t.TempDir())
	})
	t.Run("on an agents' port in use", func(t *testing.T) {
		says(t, s.addr, []string{"QUIC_SERVER_ADDR=" + s.addr, elsewhere[1], elsewhere[2]}, "-c", config, "--data-dir", t.TempDir())
	})
	t.Run("with an unknown key", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "server.yaml")
		require.NoError(t, os.WriteFile(file, []byte("server:\n  addrs: \":1\"\n"), 0o600))
		says(t, "server.addrs", nil, "-c", file, "--data-dir", t.TempDir())
	})
	t.Run("with an unknown variable", func(t *testing.T) {
		says(t, "QUIC_SERVER_ADDRS", []string{"QUIC_SERVER_ADDRS=:1"}, "-c", config, "--data-dir", t.TempDir())
	})

	out, _, code := run(t, nil, program("quic-server"), "version")
	require.Zero(t, code)
	require.True(t, strings.HasPrefix(out, "quic-server "), out)
}
