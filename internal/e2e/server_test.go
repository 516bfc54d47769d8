package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The databases that a server can run on.
const (
	sqlite   = "sqlite"
	postgres = "postgres"
)

// server is a quic-server in a data directory of its own, which it is started in again and again.
type server struct {
	t     *testing.T
	dir   string
	addr  string // where agents connect to
	api   string
	token string
	env   []string
	proc  *process
}

// serverConfig says how a server differs from an installed one. The zero value is SQLite and short heartbeats.
type serverConfig struct {
	database     string // sqlite, postgres
	dsn          string // of PostgreSQL. Defaults to a new database on the server that all tests share
	offlineGrace int    // seconds. Defaults to 60: longer than any restart here
	heartbeat    int    // seconds. Defaults to 1
}

// startServer starts a server on free ports and waits until it is ready.
func startServer(t *testing.T, c serverConfig) *server {
	t.Helper()
	s := newServer(t, c)
	s.start()
	return s
}

// newServer prepares a server without starting it.
func newServer(t *testing.T, c serverConfig) *server {
	t.Helper()
	if c.offlineGrace == 0 {
		c.offlineGrace = 60
	}
	if c.heartbeat == 0 {
		c.heartbeat = 1
	}
	s := &server{t: t, dir: t.TempDir(), addr: freeUDP(t), api: freeTCP(t)}
	settings := fmt.Sprintf(`
session:
  heartbeat_interval: %d
  heartbeat_timeout: %d
  heartbeat_check_interval: %[1]d
  offline_grace: %[3]d
`, c.heartbeat, 3*c.heartbeat, c.offlineGrace)
	if c.database == postgres {
		if c.dsn == "" {
			c.dsn = sharedPostgres(t)
		}
		settings += fmt.Sprintf("database:\n  dsn: %q\n", c.dsn)
	}
	config := filepath.Join(s.dir, "server.yaml")
	require.NoError(t, os.WriteFile(config, []byte(settings), 0o600))
	s.env = []string{
		"QUIC_SERVER_ADDR=" + s.addr,
		"QUIC_SERVER_API_ADDR=" + s.api,
		"QUIC_METRICS_ADDR=" + freeTCP(t),
	}
	return s
}

// start starts the server, or starts it again, and waits until it is ready.
func (s *server) start(env ...string) {
	s.t.Helper()
	s.launch(env...)
	s.ready()
}

// launch starts the server and does not wait.
func (s *server) launch(env ...string) {
	s.t.Helper()
	s.proc = start(s.t, "quic-server", filepath.Join(s.dir, "server.log"), append(env, s.env...),
		program("quic-server"), "-c", filepath.Join(s.dir, "server.yaml"), "--data-dir", s.data())
}

// ready waits until the server takes requests.
func (s *server) ready() {
	s.t.Helper()
	eventually(s.t, 90*time.Second, "the server is ready", func() (bool, any) {
		require.True(s.t, s.proc.running(), "the server ended")
		resp, err := http.Get(s.url("/ready"))
		if err != nil {
			return false, err
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, resp.Status
	})
	token, err := os.ReadFile(filepath.Join(s.data(), "admin.token"))
	require.NoError(s.t, err)
	s.token = strings.TrimSpace(string(token))
}

// crash kills the server as a power cut would.
func (s *server) crash() {
	s.t.Helper()
	s.proc.kill9()
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

func (s *server) url(path string) string { return "http://" + s.api + path }

// ctl runs quic-ctl against the server.
func (s *server) ctl(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	return run(s.t, []string{"QUICFLOW_SERVER=" + s.url(""), "QUICFLOW_TOKEN=" + s.token}, program("quic-ctl"), args...)
}

// joinToken makes a join token with quic-ctl.
func (s *server) joinToken(args ...string) string {
	s.t.Helper()
	out, errs, code := s.ctl(append([]string{"agent", "token"}, args...)...)
	require.Zero(s.t, code, errs)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

func freeTCP(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func freeUDP(t *testing.T) string {
	t.Helper()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.LocalAddr().String()
}
