package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const patience = time.Minute

var binary string // the program

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "loadtest")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "quic-loadtest")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		panic(string(out))
	}
	return m.Run()
}

// server is a hub on a store.
type server struct {
	t     *testing.T
	ca    *pki.CA
	store *store.Store
	max   int
	tune  []func(*hub.Config)
	addr  string
	hub   *hub.Hub // nil while it is stopped
}

func startServer(t *testing.T, maxClients int, tune ...func(*hub.Config)) *server {
	t.Helper()
	ca, err := pki.LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	s, err := store.Open(t.Context(), store.Config{Driver: store.SQLite, DSN: filepath.Join(t.TempDir(), "quicflow.db"),
		OfflineGrace: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	b := &server{t: t, ca: ca, store: s, max: maxClients, tune: tune, addr: "127.0.0.1:0"}
	b.start()
	t.Cleanup(func() {
		if b.hub != nil {
			b.stop()
		}
	})
	return b
}

func (b *server) start() {
	b.t.Helper()
	cfg := hub.Config{
		Addr: b.addr, NodeID: "node-1", CA: b.ca, Registry: b.store, Sink: b.store, Enroller: b.store, MaxClients: b.max,
		HeartbeatInterval: 500 * time.Millisecond, DrainTimeout: 200 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range b.tune {
		f(&cfg)
	}
	h, err := hub.New(cfg)
	require.NoError(b.t, err)
	require.NoError(b.t, h.Start(b.t.Context()))
	b.hub, b.addr = h, h.Addr().String()
}

func (b *server) stop() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(b.t, b.hub.Stop(ctx))
	b.hub = nil
}

func (b *server) token(uses int) string {
	b.t.Helper()
	token := auth.NewJoinToken(b.ca.Fingerprint())
	require.NoError(b.t, b.store.CreateJoinToken(context.Background(), store.JoinToken{
		ID: uuid.NewString(), Hash: token.Hash(), Pattern: "load-*", Uses: uses, ExpiresAt: time.Now().Add(time.Hour),
	}))
	return token.String()
}

// process is the program while it runs.
type process struct {
	t           *testing.T
	cmd         *exec.Cmd
	out, errout output
}

// output is a buffer that is read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func launch(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(binary, args...)}
	p.cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+t.TempDir())
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errout
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// wait gives the exit code.
func (p *process) wait() int {
	p.t.Helper()
	ended := make(chan struct{})
	go func() {
		_ = p.cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-ended
		require.FailNow(p.t, "the program does not end", p.errout.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) summary() (s summary) {
	p.t.Helper()
	require.NoError(p.t, json.Unmarshal([]byte(p.out.String()), &s), p.out.String())
	return s
}

func (p *process) signal(s os.Signal) { require.NoError(p.t, p.cmd.Process.Signal(s)) }

// says waits until the program has told how it goes.
func (p *process) says(text string) {
	p.t.Helper()
	eventually(p.t, text, func() bool { return strings.Contains(p.errout.String(), text) })
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 5*time.Millisecond, what)
}

func TestAllAreAccepted(t *testing.T) {
	b := startServer(t, 100)
	identities := t.TempDir()
	args := []string{"-s", b.addr, "-n", "30", "-p", "load", "-c", "8", "--identities", identities, "--keep-alive", "false"}
	p := launch(t, append(args, "--token", b.token(30), "--json")...)
	require.Zero(t, p.wait(), p.errout.String())
	s := p.summary()
	require.Equal(t, 30, s.EverAccepted)
	require.Equal(t, 30, s.Accepted)
	require.EqualValues(t, 30, s.Latency.Count)
	require.Positive(t, s.Latency.P50)
	require.LessOrEqual(t, s.Latency.P50, s.Latency.P99)
	require.LessOrEqual(t, s.Latency.P99, s.Took)
	require.InEpsilon(t, 30/s.Connecting.Seconds(), s.HandshakesPerSecond, 0.01)
	require.Positive(t, s.RSS)
	require.GreaterOrEqual(t, s.PeakRSS, s.RSS)
	eventually(t, "it took leave", func() bool { return b.hub.Connected() == 0 })

	// The second time they have joined already; the hub's certificate is checked, and the summary is for people.
	p = launch(t, append(args, "-k", "false")...)
	require.Zero(t, p.wait(), p.errout.String())
	for _, want := range []string{
		`accepted +30 of 30 agents \(30 sessions at the end\)`, `failed +0\n`, `dropped +0, 0 reconnected, 0 by their tickets$`, `handshakes +30 in .*: [1-9][0-9]*/s$`,
		`dial to acceptance +p50 .*, p90 .*, p99 .*, max `, `memory \(RSS\) +[1-9]`,
	} {
		require.Regexp(t, `(?m)^`+want, p.out.String())
	}

	p = launch(t, append(args, "-n", "31")...)
	require.Equal(t, 1, p.wait())
	require.Contains(t, p.errout.String(), "quic-ctl agent token --uses 31 --id 'load-*'")
}

// While it runs it tells how it goes, until it is told to stop.
func TestStaysConnected(t *testing.T) {
	b := startServer(t, 100)
	p := launch(t, "-s", b.addr, "-n", "10", "-p", "load", "--identities", t.TempDir(), "--token", b.token(10), "--report-interval", "0.05")
	p.says("accepted 10/10")
	require.Equal(t, 10, b.hub.Connected())
	p.signal(os.Interrupt)
	require.Zero(t, p.wait(), p.errout.String())
	require.Contains(t, p.out.String(), "10 of 10 agents")

	p = launch(t, "-s", b.addr, "-n", "10", "-p", "load", "--identities", t.TempDir(), "--duration", "1")
	require.Equal(t, 1, p.wait())
	require.Contains(t, p.errout.String(), "no identities")
}

func TestAFullHubIsAFailure(t *testing.T) {
	b := startServer(t, 5)
	p := launch(t, "-s", b.addr, "-n", "20", "-p", "load", "-c", "4", "--identities", t.TempDir(), "--token", b.token(20),
		"--connect-timeout", "8", "--duration", "100ms", "--json")
	require.Equal(t, 1, p.wait())
	s := p.summary()
	require.Equal(t, 5, s.EverAccepted)
	require.Equal(t, map[string]int{"full": 15}, s.Failed)
	require.Contains(t, p.errout.String(), "15 of 20 agents were not accepted")
}

// A session that was lost is a failure, even if the agent came back.
func TestADropIsAFailure(t *testing.T) {
	b := startServer(t, 100)
	p := launch(t, "-s", b.addr, "-n", "10", "-p", "load", "--identities", t.TempDir(), "--token", b.token(10), "--json", "--report-interval", "0.05")
	p.says("accepted 10/10")
	b.stop()
	b.start()
	eventually(t, "all are back", func() bool { return b.hub.Connected() == 10 })
	p.signal(syscall.SIGTERM)
	require.Equal(t, 1, p.wait())
	require.Equal(t, 10, p.summary().DroppedTotal())
	require.Contains(t, p.errout.String(), "10 sessions were dropped")
}

// printed is a Sink that counts what steps print.
type printed struct {
	*hub.Memory
	bytes atomic.Int64
}

func (p *printed) AppendLogs(ctx context.Context, records []release.LogRecord) ([]release.LogAck, error) {
	for _, r := range records {
		p.bytes.Add(int64(len(r.Data)))
	}
	return p.Memory.AppendLogs(ctx, records)
}

// What the flags say of steps is what steps do.
func TestStepsAreAsTheFlagsSay(t *testing.T) {
	sink := &printed{Memory: hub.NewMemory()}
	b := startServer(t, 100, func(c *hub.Config) { c.Sink = sink })
	p := launch(t, "-s", b.addr, "-n", "1", "-p", "load", "--identities", t.TempDir(), "--token", b.token(1), "--json", "--report-interval", "0.05",
		"--exec-time", "300ms-400ms", "--failure-rate", "1", "--log-bytes", "3000")
	p.says("accepted 1/1")
	ask := func() *quicflowv1.StepStatus {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		answer, err := b.hub.Request(ctx, "load-000000", &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: &quicflowv1.StepRequest{
			StepId: release.StepID("task", release.StepDeploy, "load-000000", 1), TaskId: "task", Action: "install", Project: "shop", Version: "1.0",
			NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli(),
			Spec:           &quicflowv1.StepRequest_Deploy{Deploy: &quicflowv1.DeployStep{Type: "script", Config: []byte(`{"install":"true"}`)}},
		}}})
		require.NoError(t, err)
		require.NotNil(t, answer.GetStep(), "%v", answer)
		return answer.GetStep()
	}
	require.Equal(t, quicflowv1.StepState_STEP_STATE_ACCEPTED, ask().State)
	var result *quicflowv1.StepResult
	eventually(t, "the step ends", func() bool { result = ask().Result; return result != nil })
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.GreaterOrEqual(t, result.FinishedUnixMs-result.StartedUnixMs, int64(300))
	eventually(t, "its output arrives", func() bool { return sink.bytes.Load() == 3000 })
	p.signal(os.Interrupt)
	require.Zero(t, p.wait(), p.errout.String())
	require.EqualValues(t, 1, p.summary().Steps)
	require.EqualValues(t, 3000, p.summary().LogBytes)
}

// By default the server's certificate is not checked; with -k false it is, when the agents join and when they connect.
func TestInsecure(t *testing.T) {
	other, err := pki.LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	foreign, err := other.IssueServer(nil, time.Hour)
	require.NoError(t, err)
	b := startServer(t, 100, func(c *hub.Config) { c.Certificate = foreign })
	token := b.token(6)
	args := []string{"-s", b.addr, "-n", "3", "-p", "load", "--keep-alive", "false", "--connect-timeout", "0.5", "--json", "--token", token}
	p := launch(t, append(args, "-k", "false", "--identities", t.TempDir())...)
	require.Equal(t, 1, p.wait())
	require.Contains(t, p.errout.String(), "does not belong to the CA")

	identities := t.TempDir()
	p = launch(t, append(args, "--identities", identities)...)
	require.Zero(t, p.wait(), p.errout.String())
	require.Equal(t, 3, p.summary().EverAccepted)

	p = launch(t, append(args, "-k", "false", "--identities", identities)...)
	require.Equal(t, 1, p.wait())
	require.Equal(t, map[string]int{"tls": 3}, p.summary().Failed)
	require.Zero(t, p.summary().EverAccepted)
}

// Beside a server whose data directory it may read, the program makes its token itself, and finds the hub.
func TestLocalServer(t *testing.T) {
	b := startServer(t, 100)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if r.URL.Path != "/api/agent-tokens" || r.Header.Get("Authorization") != "Bearer qfa_secret" ||
			json.NewDecoder(r.Body).Decode(&body) != nil || body["id"] != "load-*" || body["uses"] != 7.0 || body["replace"] != true {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"token": b.token(7)})
	}))
	t.Cleanup(api.Close)
	dir := t.TempDir()
	endpoint, err := json.Marshal(map[string]string{"api": api.URL, "quic": b.addr})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "endpoint.json"), endpoint, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "admin.token"), []byte("qfa_secret\n"), 0o600))
	args := []string{"-n", "7", "-p", "load", "--identities", t.TempDir(), "--server-data-dir", dir, "--keep-alive=false"}
	p := launch(t, args...)
	require.Equal(t, 1, p.wait(), "no server runs: whoever listens there gets no token")
	require.Contains(t, p.errout.String(), "quic-ctl agent token")
	lock, err := os.Create(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = lock.Close() })
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	p = launch(t, args...)
	require.Zero(t, p.wait(), p.errout.String())
	require.Contains(t, p.out.String(), "7 of 7 agents")
}

func TestFlags(t *testing.T) {
	flags := newCommand().Flags()
	for name, want := range map[string][2]string{ // letter, default
		"server": {"s", "127.0.0.1:8474"}, "count": {"n", "10000"}, "prefix": {"p", "load-client"}, "concurrency": {"c", "100"},
		"insecure": {"k", "true"}, "keep-alive": {"", "true"}, "report-interval": {"", "5s"}, "log-level": {"", "warn"},
		"duration": {"", "0s"}, "token": {"", ""},
	} {
		flag := flags.Lookup(name)
		require.NotNil(t, flag, name)
		require.Equal(t, want, [2]string{flag.Shorthand, flag.DefValue}, name)
	}
	require.Equal(t, []string{"-k=false", "--keep-alive=true", "--insecure=true", "-s", "x", "true"},
		normalize([]string{"-k", "false", "--keep-alive", "true", "--insecure", "true", "-s", "x", "true"}))
}

func TestBadFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"--count":           {"-n", "0"},
		"--prefix":          {"-p", "a/b"},
		"--concurrency":     {"-c", "0"},
		"--log-level":       {"--log-level", "loud"},
		"--failure-rate":    {"--failure-rate", "2"},
		"--exec-time":       {"--exec-time", "5s-1s"},
		"--log-bytes":       {"--log-bytes", "-1"},
		"--report-interval": {"--report-interval", "0"},
		"--duration":        {"--duration", "soon"},
		"--token":           {"--token", "rubbish"},
		"\"false\"":         {"generate", "false"},
	} {
		p := launch(t, args...)
		require.Equal(t, 1, p.wait())
		require.Contains(t, p.errout.String(), want)
		require.Empty(t, p.out.String())
	}
}

func TestGenerate(t *testing.T) {
	p := launch(t, "generate", "-n", "3", "-p", "web")
	require.Zero(t, p.wait())
	require.Equal(t, "web-000000\nweb-000001\nweb-000002\n", p.out.String())
	file := filepath.Join(t.TempDir(), "targets")
	p = launch(t, "generate", "-o", file)
	require.Zero(t, p.wait())
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	lines := strings.Fields(string(text))
	require.Len(t, lines, 10_000)
	require.Equal(t, "load-client-009999", lines[9999])
	p = launch(t, "generate", "-o", filepath.Join(file, "none"))
	require.Equal(t, 1, p.wait())
	require.Contains(t, p.errout.String(), "--output")
}

func TestVersion(t *testing.T) {
	p := launch(t, "version")
	require.Zero(t, p.wait())
	require.Contains(t, p.out.String(), "quic-loadtest dev")
}
