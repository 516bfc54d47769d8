package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the presets to config/")

func load(t *testing.T, text string, environ ...string) (Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "server.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return Load(file, environ)
}

func TestPresets(t *testing.T) {
	for file, want := range map[string]Config{"server.yaml": Standard(), "server-highperf.yaml": HighPerformance()} {
		t.Run(file, func(t *testing.T) {
			require.NoError(t, want.Validate())
			session := want.Session
			require.Greater(t, want.QUIC.MaxIdleTimeout.Std(),
				session.HeartbeatTimeout.Std()+time.Duration(session.MaxTimeoutCount+1)*session.HeartbeatCheckInterval.Std(),
				"the heartbeat check comes first")

			var written bytes.Buffer
			require.NoError(t, Write(&written, want))
			path := filepath.Join("..", "..", "config", file)
			if *update {
				require.NoError(t, os.WriteFile(path, written.Bytes(), 0o644))
			}
			kept, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, written.String(), string(kept), "run: go test ./internal/config -update")

			got, err := Load(path, nil)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(want, got))
		})
	}
}

// What both presets promise, to the letter; windows of the second are chosen by measurement, and idle timeouts come after the heartbeat check.
func TestValuesOfThePresets(t *testing.T) {
	promised := map[string][2]string{
		"server.addr": {":8474", ":8474"}, "server.api_addr": {":8475", ":8475"}, "server.high_perf": {"false", "true"}, "server.max_clients": {"10000", "150000"},
		"tls.cert_file": {"", ""}, "tls.key_file": {"", ""},
		"quic.max_incoming_streams": {"1000", "10000"}, "quic.max_incoming_uni_streams": {"100", "1000"},
		"quic.initial_stream_receive_window": {"524288", ""}, "quic.max_stream_receive_window": {"6291456", ""},
		"quic.initial_connection_receive_window": {"1048576", ""}, "quic.max_connection_receive_window": {"15728640", ""},
		"session.heartbeat_interval": {"15", "30"}, "session.heartbeat_timeout": {"45", "90"}, "session.heartbeat_check_interval": {"5", "10"},
		"session.max_timeout_count": {"3", "3"}, "session.offline_grace": {"90", "90"},
		"message.worker_count": {"20", "200"}, "message.task_queue_size": {"2000", "100000"}, "message.handler_timeout": {"30", "60"},
		"message.max_promises": {"50000", "150000"}, "message.promise_warn_threshold": {"40000", "120000"}, "message.default_message_timeout": {"30", "60"},
		"batch.enabled": {"true", "true"}, "batch.max_concurrency": {"5000", "5000"}, "batch.task_timeout": {"60", "60"}, "batch.job_timeout": {"600", "1800"},
		"batch.max_retries": {"2", "2"}, "batch.retry_interval": {"1", "1"},
		"log.level": {"info", "info"}, "log.format": {"text", "text"}, "log.file": {"", ""},
		"database.max_idle_conns": {"10", "10"}, "database.max_open_conns": {"100", "100"}, "database.conn_max_lifetime": {"3600", "3600"},
		"logs.max_buffered_bytes": {"268435456", "268435456"},
	}
	for i, c := range []Config{Standard(), HighPerformance()} {
		found := 0
		for _, f := range c.fields() {
			want, ok := promised[f.path]
			if !ok {
				continue
			}
			found++
			if i == 0 || want[1] != "" || want[0] == "" {
				require.Equal(t, want[i], fmt.Sprint(f.value.Interface()), f.path)
			}
		}
		require.Equal(t, len(promised), found)
		require.Equal(t, "127.0.0.1:9090", Loopback(c.Metrics.Addr))
		require.GreaterOrEqual(t, c.QUIC.MaxIdleTimeout.Std(), []time.Duration{60 * time.Second, 120 * time.Second}[i])
	}
}

// Every key is documented, has its own variable, and is in the written file.
func TestEveryKey(t *testing.T) {
	c := Standard()
	var written bytes.Buffer
	require.NoError(t, Write(&written, c))
	var tree map[string]any
	require.NoError(t, yaml.Unmarshal(written.Bytes(), &tree))
	for _, f := range c.fields() {
		require.NotEmpty(t, f.doc, f.path)
		at := any(tree)
		for part := range strings.SplitSeq(f.path, ".") {
			require.Contains(t, at, part)
			at = at.(map[string]any)[part]
		}
	}
}

// What Write writes, Load reads back equal, whatever the values.
func TestWriteLoad(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		want := Standard()
		for _, f := range want.fields() {
			switch p := f.target().(type) {
			case *string:
				*p = rapid.StringMatching(`[ -~äß]{0,20}`).Draw(t, f.path)
			case *bool:
				*p = rapid.Bool().Draw(t, f.path)
			case *int:
				*p = rapid.IntRange(-10, 1<<40).Draw(t, f.path)
			case *Duration:
				*p = Duration(rapid.Int64Range(0, int64(100*24*time.Hour)).Draw(t, f.path))
			}
		}
		var written bytes.Buffer
		require.NoError(t, Write(&written, want))
		root, err := parse(written.Bytes())
		require.NoError(t, err)
		got := Standard()
		require.NoError(t, apply(&got, filepath.Join(dir, "x"), root, nil))
		require.Empty(t, cmp.Diff(want, got))
	})
}

func TestLoad(t *testing.T) {
	c, err := Load("", nil)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(Standard(), c))

	c, err = load(t, "")
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(Standard(), c))

	c, err = load(t, `
server:
  addr: "[::]:9000"
session:
  heartbeat_interval: 2
  heartbeat_timeout: "6s"
  heartbeat_check_interval: 0.5
database: # nothing given
temporal:
  address: temporal.example:7233
  tls: {enabled: true, server_name: frontend}
`, "QUIC_SERVER_MAX_CLIENTS=77", "QUIC_MESSAGE_WORKER_COUNT=30", "QUIC_LOG_LEVEL=debug", "QUIC_SESSION_OFFLINE_GRACE=1m30s",
		"QUIC_BATCH_RETRY_INTERVAL=5", "QUIC_TEMPORAL_TLS_SERVER_NAME=other", "QUIC_LOG_FILE=", "PATH=/bin")
	require.NoError(t, err)
	want := Standard()
	want.Server.Addr = "[::]:9000"
	want.Server.MaxClients = 77
	want.Session.HeartbeatInterval = seconds(2)
	want.Session.HeartbeatTimeout = seconds(6)
	want.Session.HeartbeatCheckInterval = Duration(500 * time.Millisecond)
	want.Session.OfflineGrace = seconds(90)
	want.Message.WorkerCount = 30
	want.Batch.RetryInterval = seconds(5)
	want.Log.Level = "debug"
	want.Temporal.Address = "temporal.example:7233"
	want.Temporal.TLS = TemporalTLS{Enabled: true, ServerName: "other"}
	require.Empty(t, cmp.Diff(want, c))
}

func TestHighPerfChoosesThePreset(t *testing.T) {
	want := HighPerformance()
	want.Server.MaxClients = 5
	c, err := load(t, "server: {high_perf: true, max_clients: 5}")
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(want, c))

	c, err = load(t, "server: {max_clients: 5}", "QUIC_SERVER_HIGH_PERF=true")
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(want, c))

	c, err = load(t, "server: {high_perf: true}", "QUIC_SERVER_HIGH_PERF=false")
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(Standard(), c))
}

func TestWrongFiles(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"unknown key":          {"server:\n  adr: x\n", "server.yaml:2: server.adr: unknown key (did you mean server.addr?)"},
		"unknown section":      {"serverr: {}\n", "server.yaml:1: serverr: unknown key (did you mean server?)"},
		"nothing alike":        {"frobnicate: 1\n", "server.yaml:1: frobnicate: unknown key\n"},
		"word for number":      {"server:\n  max_clients: many\n", "server.yaml:2: server.max_clients: wants a whole number, not many"},
		"fraction":             {"server: {max_clients: 1.5}", "server.max_clients: wants a whole number, not 1.5"},
		"quoted number":        {"server: {max_clients: \"15\"}", "server.max_clients: wants a whole number"},
		"huge number":          {"server: {max_clients: 99999999999999999999}", "server.max_clients: wants a whole number"},
		"number for text":      {"database: {password: 1234, host: h}", "database.password: wants text (in quotes"},
		"word for bool":        {"server: {high_perf: yes}", "server.high_perf: wants true or false, not yes"},
		"bad duration":         {"session: {offline_grace: soon}", `session.offline_grace: "soon" is neither a number of seconds`},
		"list":                 {"server: {addr: [a]}", "server.addr: wants text (in quotes if it looks like something else), not a list"},
		"section as value":     {"server: 5\n", `server.yaml:1: server: wants keys, not "5"`},
		"value as section":     {"server: {addr: {host: x}}", "server.addr: wants text"},
		"no value":             {"server:\n  addr:\n", "server.yaml:2: server.addr: has no value"},
		"twice":                {"server:\n  addr: :1\n  addr: :2\n", "server.yaml:3: server.addr: given twice"},
		"alias":                {"server: {addr: &a \":1\", api_addr: *a}", "server.api_addr: YAML aliases"},
		"list at the top":      {"- a\n", "server.yaml:1: the file: wants keys, not a list"},
		"two documents":        {"server: {}\n---\nserver: {}\n", "more than one YAML document"},
		"malformed":            {"server: {addr: \n", "server.yaml: yaml: line"},
		"out of range":         {"message: {worker_count: 5}", "message.worker_count: 5 is not between 10 and 200"},
		"negative":             {"session: {offline_grace: -5}", "session.offline_grace: -5s is not between"},
		"not an address":       {"server: {addr: localhost}", `server.addr: "localhost" is not host:port`},
		"not a port":           {"server: {api_addr: \":http\"}", `server.api_addr: "http" is not a port`},
		"API for all":          {"server: {api_addr: \"0.0.0.0:8475\"}", "server.api_addr: \"0.0.0.0:8475\" can be reached from other machines"},
		"metrics for all":      {"metrics: {addr: \"10.0.0.1:9090\"}", "metrics.addr: \"10.0.0.1:9090\" can be reached from other machines"},
		"certificate, no key":  {"tls: {cert_file: a.pem}", "tls.key_file: is needed with tls.cert_file"},
		"level":                {"log: {level: loud}", `log.level: "loud" is not one of debug, info, warn, error`},
		"two databases":        {"database: {dsn: x, host: y}", "database.dsn: and database.host are both given"},
		"sqlite with host":     {"database: {driver: sqlite, host: y}", "database.driver: is sqlite, but database.host is given"},
		"postgres without":     {"database: {driver: postgres}", "database.host: is needed"},
		"UI without a cluster": {"temporal: {ui_url: \"http://x\"}", "temporal.ui_url: is for a Temporal cluster"},
		"windows":              {"quic: {max_stream_receive_window: 20000}", "quic.max_stream_receive_window: 20000 is not between 524288"},
		"credit too small":     {"logs: {credit_bytes: 65535}", "logs.credit_bytes: 65535 is not between 65536 and 7864319"},
		"credit and window":    {"logs: {credit_bytes: 7864320}", "logs.credit_bytes: 7864320 is not between"},
		"credit and memory":    {"logs: {max_buffered_bytes: 1048576, credit_bytes: 1048577}", "logs.credit_bytes: 1048577 is not between 65536 and 1048576"},
		"timeout":              {"session: {heartbeat_timeout: 1}", "session.heartbeat_timeout: 1s is not between 15.001s"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tc.text)
			require.Error(t, err)
			require.Contains(t, err.Error()+"\n", tc.want)
		})
	}
}

func TestEverythingWrongIsReported(t *testing.T) {
	_, err := load(t, "server:\n  adr: x\nlog: {level: 5}\n", "QUIC_SERVER_ADR=:1", "QUIC_MESSAGE_WORKER_COUNT=many")
	for _, want := range []string{
		"server.adr: unknown key", "log.level: wants text",
		"QUIC_SERVER_ADR: unknown environment variable (did you mean QUIC_SERVER_ADDR?)",
		`QUIC_MESSAGE_WORKER_COUNT (message.worker_count): "many" is not a whole number`,
	} {
		require.ErrorContains(t, err, want)
	}
}

func TestOtherVariables(t *testing.T) {
	_, err := Load("", []string{"QUIC_JOIN_TOKEN=x", "QUIC_GO_DISABLE_GSO=true", "QUICFLOW_TOKEN=x"})
	require.NoError(t, err)
	kubernetes := []string{"QUIC_SERVER_SERVICE_HOST=10.0.0.1", "QUIC_SERVER_PORT=tcp://10.0.0.1:8475", "QUIC_SERVER_PORT_8475_TCP_ADDR=10.0.0.1"}
	_, err = Load("", kubernetes)
	require.ErrorContains(t, err, "QUIC_SERVER_SERVICE_HOST: unknown environment variable")
	_, err = Load("", append(kubernetes, "KUBERNETES_SERVICE_HOST=10.0.0.1"))
	require.NoError(t, err)
	_, err = Load("", []string{"KUBERNETES_SERVICE_HOST=10.0.0.1", "QUIC_SERVER_ADR=:1"})
	require.Error(t, err)
}

func TestMissingFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil)
	require.ErrorContains(t, err, "none.yaml")
}

// Without a name the file is looked for where the program is started, and a directory of that name is none.
func TestFind(t *testing.T) {
	t.Chdir(t.TempDir())
	elsewhere := Find() // what this machine has
	require.NotEqual(t, filepath.Join("config", "server.yaml"), elsewhere)
	require.NoError(t, os.MkdirAll(filepath.Join("config", "server.yaml"), 0o700))
	require.Equal(t, elsewhere, Find())
	require.NoError(t, os.Remove(filepath.Join("config", "server.yaml")))
	require.NoError(t, os.WriteFile(filepath.Join("config", "server.yaml"), nil, 0o600))
	require.Equal(t, filepath.Join("config", "server.yaml"), Find())

	// A program is beside its configuration, wherever it is started.
	root := t.TempDir()
	exe, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(exe)
	require.NoError(t, err)
	beside := filepath.Join(root, "bin", "program")
	for _, dir := range []string{"bin", "config"} {
		require.NoError(t, os.Mkdir(filepath.Join(root, dir), 0o700))
	}
	require.NoError(t, os.WriteFile(beside, program, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(root, "config", "server.yaml"), nil, 0o600))
	find := exec.CommandContext(t.Context(), beside, "-test.run", "^$")
	find.Dir, find.Env = t.TempDir(), append(os.Environ(), findVariable+"=1")
	output, err := find.Output()
	require.NoError(t, err)
	require.Equal(t, filepath.Join(root, "config", "server.yaml"), string(output))
}

// findVariable turns the test's binary into a program that says what it finds.
const findVariable = "TEST_CONFIG_FIND"

func TestMain(m *testing.M) {
	if os.Getenv(findVariable) != "" {
		_, _ = os.Stdout.WriteString(Find())
		return
	}
	os.Exit(m.Run())
}

func TestLoopback(t *testing.T) {
	require.Equal(t, "127.0.0.1:8475", Loopback(":8475"))
	require.Equal(t, "0.0.0.0:8475", Loopback("0.0.0.0:8475"))
	for addr, want := range map[string]bool{
		":1": true, "localhost:1": true, "127.0.0.9:1": true, "[::1]:1": true,
		"0.0.0.0:1": false, "[::]:1": false, "example.com:1": false, "10.0.0.1:1": false,
	} {
		require.Equal(t, want, IsLoopback(addr), addr)
	}
	c := Standard()
	c.Server.APIAddr, c.Metrics.Addr = "0.0.0.0:8475", "0.0.0.0:9090"
	require.Error(t, c.Validate())
	c.Server.APITLSCertFile, c.Server.APITLSKeyFile = "a", "b"
	require.NoError(t, c.Validate())
}

func TestConnString(t *testing.T) {
	d := Standard().Database
	require.False(t, d.Postgres())
	d.Host = "db.example"
	require.True(t, d.Postgres())
	d.Password = "p@ss/:?w"
	require.Equal(t, "postgres://quicflow:p%40ss%2F%3A%3Fw@db.example:5432/quicflow?sslmode=require", d.ConnString())
	d.Host = "127.0.0.1"
	require.Contains(t, d.ConnString(), "sslmode=disable")
	d.Host, d.Password = "/run/postgresql", ""
	require.Equal(t, "postgres://quicflow@/quicflow?host=%2Frun%2Fpostgresql&port=5432&sslmode=disable", d.ConnString())
	d = Database{DSN: "host=x user=y"}
	require.True(t, d.Postgres())
	require.Equal(t, "host=x user=y", d.ConnString())
}

func TestDataDir(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/state")
	dir, err := DataDir()
	require.NoError(t, err)
	if os.Geteuid() == 0 {
		require.Equal(t, "/var/lib/quicflow/server", dir)
	} else {
		require.Equal(t, "/state/quicflow/server", dir)
	}
}
