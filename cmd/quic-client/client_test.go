package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor/wrapper"
)

func TestMain(m *testing.M) {
	wrapper.MaybeRun(workers()...)
	if os.Getenv(clientVariable) != "" {
		runClient()
		return
	}
	os.Exit(m.Run())
}

// execute runs the program's command line.
func execute(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(normalize(args))
	err := cmd.ExecuteContext(context.Background())
	return out.String(), err
}

func TestNormalize(t *testing.T) {
	require.Equal(t,
		[]string{"--server", "a:1", "--id=x", "--insecure", "-s", "b", "-k", "--", "-id"},
		normalize([]string{"-server", "a:1", "-id=x", "-insecure", "-s", "b", "-k", "--", "-id"}))
}

func TestVersion(t *testing.T) {
	out, err := execute(t, "version")
	require.NoError(t, err)
	require.Contains(t, out, "quic-client dev")
}

func TestFlags(t *testing.T) {
	flags := newCommand().PersistentFlags()
	for name, want := range map[string][2]string{ // letter, default
		"server": {"s", "[localhost:8474]"}, "id": {"i", "client-001"}, "insecure": {"k", "false"}, "label": {"", "[]"}, "token": {"", ""},
		"data-dir": {"", ""}, "retry-limit": {"", "0"},
	} {
		flag := flags.Lookup(name)
		require.NotNil(t, flag, name)
		require.Equal(t, want, [2]string{flag.Shorthand, flag.DefValue}, name)
	}
}

// Who does not check the server is warned each time.
func TestInsecureWarns(t *testing.T) {
	stderr := os.Stderr
	defer func() { os.Stderr = stderr }()
	for flag, warned := range map[string]bool{"--insecure": true, "-insecure": true, "-k": true, "--insecure=false": false} {
		file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
		require.NoError(t, err)
		os.Stderr = file
		_, err = execute(t, flag, "--token", "rubbish", "--data-dir", t.TempDir())
		require.ErrorContains(t, err, "token")
		require.NoError(t, file.Close())
		text, err := os.ReadFile(file.Name())
		require.NoError(t, err)
		require.Equal(t, warned, bytes.Contains(text, []byte("the server's certificate is not checked")), "%s: %s", flag, text)
	}
}

func TestBadFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"--log-level":      {"--log-level", "loud"},
		"client_id":        {"--id", "a/b", "--token", "x"},
		"server":           {"--server", ":1", "--token", "x"},
		"unknown command":  {"rubbish"},
		"token":            {"--token", "rubbish"},
		"--token-file":     {"--token-file", "/no/such/file"},
		"--retry-limit":    {"--retry-limit", "-1", "--token", "x"},
		"--max-steps":      {"--max-steps", "-1", "--token", "x"},
		"--max-journal":    {"--max-journal", "-1", "--token", "x"},
		"--artifact-cache": {"--artifact-cache", "-1", "--token", "x"},
	} {
		_, err := execute(t, append(args, "--data-dir", t.TempDir())...)
		require.ErrorContains(t, err, want)
	}
}

// Without an identity, a token and a local server, the error says how to make a token.
func TestNoToken(t *testing.T) {
	none := t.TempDir()
	for _, args := range [][]string{{}, {"--server", "hub.example.com:8474"}, {"-server", "127.0.0.1"}} {
		_, err := execute(t, append(args, "-id", "web-7", "--data-dir", t.TempDir(), "--server-data-dir", none)...)
		require.ErrorContains(t, err, "quic-ctl agent token --id web-7")
	}
}

// Beside a server whose data directory it may read, the agent makes its token itself.
func TestLocalServer(t *testing.T) {
	var status int
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if r.Method != http.MethodPost || r.URL.Path != "/api/agent-tokens" || r.Header.Get("Authorization") != "Bearer qfa_secret" ||
			json.NewDecoder(r.Body).Decode(&body) != nil || body["id"] != "web-7" || body["uses"] != 1.0 || body["ttl"] != "5m" {
			status = http.StatusTeapot
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"token":"minted","detail":"because"}`))
	}))
	t.Cleanup(api.Close)
	dir := t.TempDir()
	endpoint, err := json.Marshal(map[string]string{"api": api.URL, "quic": "127.0.0.1:8474"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "endpoint.json"), endpoint, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "admin.token"), []byte("qfa_secret\n"), 0o600))
	o := &options{id: "web-7", serverDataDir: dir}
	_, err = o.localServer()
	require.ErrorContains(t, err, "quic-ctl agent token --id web-7", "no server runs: whoever listens there gets no token")
	lock, err := os.Create(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = lock.Close() })
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	s, err := o.localServer()
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:8474", s.QUIC)

	status = http.StatusCreated
	token, err := mint(context.Background(), s, "web-7")
	require.NoError(t, err)
	require.Equal(t, "minted", token)

	status = http.StatusForbidden
	_, err = mint(context.Background(), s, "web-7")
	require.ErrorContains(t, err, "403")
	require.ErrorContains(t, err, "because")
	require.NotContains(t, err.Error(), "secret")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "endpoint.json"), []byte("{"), 0o600))
	_, err = o.localServer()
	require.ErrorContains(t, err, "endpoint.json")
}

func TestTokenSources(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(" from-file\n"), 0o600))
	t.Setenv(tokenVariable, "from-environment")
	for want, o := range map[string]options{
		"from-flag": {token: "from-flag", tokenFile: file}, "from-file": {tokenFile: file}, "from-environment": {},
	} {
		token, err := o.joinToken()
		require.NoError(t, err)
		require.Equal(t, want, token)
	}
}

// An agent that has joined finds its server again, without being told where it is.
func TestServersAreRemembered(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	require.NoError(t, os.Mkdir(dir, 0o700))
	o := &options{servers: []string{defaultServer}}
	require.Equal(t, []string{defaultServer}, o.remembered(dir))
	o.remember(dir, []string{"10.0.0.1:1"})
	o.remember(dir, []string{"127.0.0.1:9", "hub:8474"})
	require.Equal(t, []string{"127.0.0.1:9", "hub:8474"}, o.remembered(dir))
	o = &options{servers: []string{"other:1"}, serverGiven: true}
	require.Equal(t, []string{"other:1"}, o.remembered(dir), "what is given goes before")
}
