package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/script"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// patience bounds every wait of these tests.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	wrapper.MaybeRun(script.New(), executortest.Fake{Of: release.TypeGit}, executortest.Fake{Of: release.TypeContainer})
	if os.Getenv(processVariable) != "" {
		os.Exit(runProcess())
	}
	goleak.VerifyTestMain(m)
}

// store is what the hub writes to: a store in memory that keeps to the rules of the real one.
type store struct {
	mu        sync.Mutex
	tokens    map[string]error  // by hash; what redeeming it gives
	valid     map[string]bool   // certificates by serial
	epochs    map[string]int64  // by client
	goodbyes  map[string]int    // by client
	renewals  map[string]string // latest serial by client
	sessions  []release.ClientSession
	results   map[string]release.StepResult
	deliverd  map[string]int // how often the result of a step came
	positions map[string]uint64
	facts     map[string]release.ClientFacts
	records   []release.LogRecord
	gaps      int
	broken    bool // results cannot be stored
}

func newStore() *store {
	return &store{
		tokens: map[string]error{}, valid: map[string]bool{}, epochs: map[string]int64{}, goodbyes: map[string]int{},
		renewals: map[string]string{}, results: map[string]release.StepResult{}, deliverd: map[string]int{},
		positions: map[string]uint64{}, facts: map[string]release.ClientFacts{},
	}
}

func (s *store) ConnectClients(_ context.Context, sessions []release.ClientSession) (map[string]release.ClientEntry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := map[string]release.ClientEntry{}
	for _, c := range sessions {
		if !s.valid[c.Serial] {
			entries[c.ClientID] = release.ClientEntry{Revoked: true}
			continue
		}
		s.epochs[c.ClientID]++
		entries[c.ClientID] = release.ClientEntry{Epoch: s.epochs[c.ClientID], WantFacts: c.FactsHash != 0 && s.facts[c.ClientID].Hash != c.FactsHash}
		s.sessions = append(s.sessions, c)
	}
	return entries, nil
}

func (s *store) StoreFacts(_ context.Context, facts []release.ClientFacts) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range facts {
		s.facts[f.ClientID] = f
	}
	return nil
}

func (s *store) DisconnectClients(_ context.Context, ends []release.ClientEnd) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range ends {
		if e.Goodbye {
			s.goodbyes[e.ClientID]++
		}
	}
	return nil
}

func (s *store) TouchNode(context.Context, string, time.Time) error { return nil }

func (s *store) ReleaseNode(context.Context, string, time.Time) error { return nil }

func (s *store) CertificateValid(_ context.Context, _, serial string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.valid[serial], nil
}

func (s *store) RedeemJoinToken(_ context.Context, r auth.Redemption) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err, known := s.tokens[r.TokenHash]
	if !known {
		return auth.ErrTokenUnknown
	}
	return err
}

func (s *store) RecordCertificate(_ context.Context, clientID, serial string, _ time.Time, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.valid[serial] = true
	s.renewals[clientID] = serial
	return nil
}

func (s *store) RecordResults(_ context.Context, results []release.StepResult) ([]release.Step, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		s.deliverd[r.StepID]++
	}
	if s.broken {
		return nil, errors.New("out of order")
	}
	for _, r := range results {
		if _, known := s.results[r.StepID]; !known {
			s.results[r.StepID] = r
		}
	}
	return nil, nil
}

func (s *store) AppendLogs(_ context.Context, records []release.LogRecord) ([]release.LogAck, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]bool{}
	for _, r := range records {
		seen[r.StepID] = true
		switch position := s.positions[r.StepID]; {
		case r.Position == position:
			s.records = append(s.records, r)
			s.positions[r.StepID] = r.Next
		case r.Position > position:
			s.gaps++
		}
	}
	var acks []release.LogAck
	for id := range seen {
		acks = append(acks, release.LogAck{StepID: id, Position: s.positions[id]})
	}
	return acks, nil
}

// with reads or changes the store.
func (s *store) with(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// world is a hub with its store, and a place for agents.
type world struct {
	t     testing.TB
	ca    *pki.CA
	store *store
	hub   *hub.Hub
	addr  string
	tune  func(*hub.Config)
}

func newWorld(t testing.TB, tune ...func(*hub.Config)) *world {
	t.Helper()
	ca, err := pki.LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	w := &world{t: t, ca: ca, store: newStore(), addr: "127.0.0.1:0", tune: func(c *hub.Config) {
		for _, f := range tune {
			f(c)
		}
	}}
	w.startHub()
	t.Cleanup(func() {
		if w.hub != nil {
			w.stopHub()
		}
	})
	return w
}

func (w *world) startHub() {
	w.t.Helper()
	cfg := hub.Config{
		Addr: w.addr, NodeID: "node-1", CA: w.ca, Registry: w.store, Sink: w.store, Enroller: w.store,
		DrainTimeout: time.Second, Logger: slog.New(slog.DiscardHandler),
	}
	w.tune(&cfg)
	h, err := hub.New(cfg)
	require.NoError(w.t, err)
	require.NoError(w.t, h.Start(context.Background()))
	w.hub, w.addr = h, h.Addr().String()
}

func (w *world) stopHub() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(w.t, w.hub.Stop(ctx))
	w.hub = nil
}

// token mints a join token that redeems with this error.
func (w *world) token(err error) string {
	token := auth.NewJoinToken(w.ca.Fingerprint())
	w.store.with(func() { w.store.tokens[token.Hash()] = err })
	return token.String()
}

// config is that of an agent that joins and does nothing.
func (w *world) config(id string) agent.Config {
	return agent.Config{
		Servers: []string{w.addr}, ClientID: id, DataDir: filepath.Join(w.t.TempDir(), "data"), Token: w.token(nil),
		Executor: executorFunc(func(context.Context, *quicflowv1.StepRequest, *spool.Writer) *quicflowv1.StepResult {
			return succeeded()
		}),
		Backoff: agent.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond},
		Version: "1.2.3", NoSync: true, Logger: slog.New(slog.NewTextHandler(testWriter{w.t}, nil)),
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// executorFunc is an Executor in process that knows nothing after a restart.
type executorFunc func(context.Context, *quicflowv1.StepRequest, *spool.Writer) *quicflowv1.StepResult

func (f executorFunc) Run(ctx context.Context, step *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult {
	return f(ctx, step, log)
}

func succeeded() *quicflowv1.StepResult {
	return &quicflowv1.StepResult{Outcome: quicflowv1.Outcome_OUTCOME_SUCCEEDED}
}

// running is an agent in this process.
type running struct {
	*agent.Agent
	t      testing.TB
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// run starts an agent; it stops at the latest with the test.
func run(t testing.TB, cfg agent.Config) *running {
	t.Helper()
	a, err := agent.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Agent: a, t: t, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = a.Run(ctx)
	}()
	t.Cleanup(r.stop)
	return r
}

func (r *running) stop() {
	r.cancel()
	<-r.done
}

// wait gives what Run returned by itself.
func (r *running) wait() error {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		require.Fail(r.t, "the agent still runs")
	}
	return r.err
}

// connect runs an agent and waits for its session.
func (w *world) connect(cfg agent.Config) *running {
	w.t.Helper()
	connected, then := make(chan struct{}, 100), cfg.OnConnect
	cfg.OnConnect = func(welcome *quicflowv1.Welcome) {
		if then != nil {
			then(welcome)
		}
		connected <- struct{}{}
	}
	r := run(w.t, cfg)
	select {
	case <-connected:
	case <-time.After(patience):
		require.Fail(w.t, "the agent does not connect")
	}
	w.online(cfg.ClientID)
	return r
}

func (w *world) online(id string) {
	w.t.Helper()
	w.eventually(func() bool { return w.hub.Presence(id).Status == release.ClientOnline }, "%s is online", id)
}

func (w *world) eventually(condition func() bool, message string, args ...any) {
	w.t.Helper()
	require.Eventually(w.t, condition, patience, 2*time.Millisecond, append([]any{message}, args...)...)
}

// ask sends a request and gives the answer.
func (w *world) ask(id string, request *quicflowv1.Request) *quicflowv1.Response {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	response, err := w.hub.Request(ctx, id, request)
	require.NoError(w.t, err)
	return response
}

func stepID(client string, epoch string) string { return "task/deploy/" + client + "/" + epoch }

func deployOf(spec release.ScriptSpec) *quicflowv1.DeployStep {
	text, err := json.Marshal(spec)
	if err != nil {
		panic(err)
	}
	return &quicflowv1.DeployStep{Type: "script", Config: text}
}

// step is a request that runs a script.
func step(client, epoch, text string) *quicflowv1.StepRequest {
	return &quicflowv1.StepRequest{
		StepId: stepID(client, epoch), TaskId: "task", Action: "install", Project: "web", Version: "1.0",
		NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli(),
		Spec:           &quicflowv1.StepRequest_Deploy{Deploy: deployOf(release.ScriptSpec{Install: text})},
	}
}

func (w *world) request(client string, s *quicflowv1.StepRequest) *quicflowv1.Response {
	w.t.Helper()
	return w.ask(client, &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: s}})
}

// accepted sends a step that must be accepted.
func (w *world) accepted(client string, s *quicflowv1.StepRequest) {
	w.t.Helper()
	response := w.request(client, s)
	require.Equal(w.t, quicflowv1.StepState_STEP_STATE_ACCEPTED, response.GetStep().GetState(), "%v", response)
}

func (w *world) cancelStep(client, id string) *quicflowv1.Response {
	w.t.Helper()
	return w.ask(client, &quicflowv1.Request{Body: &quicflowv1.Request_CancelStep{
		CancelStep: &quicflowv1.CancelStep{StepId: id, Reason: "because"}}})
}

// result waits for the result of a step in the store.
func (w *world) result(id string) (result release.StepResult) {
	w.t.Helper()
	w.eventually(func() (ok bool) {
		w.store.with(func() { result, ok = w.store.results[id] })
		return ok
	}, "result of %s", id)
	return result
}

// output waits until a finished step's log is complete and gives one stream of it.
func (w *world) output(id string, stream release.Stream) string {
	w.t.Helper()
	end := w.result(id).LogEnd
	w.eventually(func() (complete bool) {
		w.store.with(func() { complete = w.store.positions[id] >= end })
		return complete
	}, "log of %s", id)
	var all strings.Builder
	w.store.with(func() {
		require.Equal(w.t, end, w.store.positions[id])
		for _, r := range w.store.records {
			if r.StepID == id && r.Stream == stream {
				require.EqualValues(w.t, all.Len(), r.Offset)
				all.Write(r.Data)
			}
		}
	})
	return all.String()
}

// forgotten waits until an agent has nothing left of its steps on its disk.
func (w *world) forgotten(dataDir string) {
	w.t.Helper()
	w.eventually(func() bool {
		names, err := os.ReadDir(filepath.Join(dataDir, "steps"))
		return err == nil && len(names) == 0
	}, "steps in %s", dataDir)
}

// relay is a network between agents and hub that can be cut. What was on its way when it was cut never arrives.
type relay struct {
	addr string
	mu   sync.Mutex
	cuts int // odd: it is cut now
}

// flow is what the hub sees of one agent between two cuts.
type flow struct {
	from string
	cuts int
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	front, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{addr: front.LocalAddr().String()}
	var group sync.WaitGroup
	group.Go(func() {
		backs := map[flow]net.Conn{}
		buffer := make([]byte, 2000)
		for {
			n, from, err := front.ReadFrom(buffer)
			if err != nil {
				break
			}
			f := flow{from.String(), r.state()}
			if f.cuts%2 == 1 {
				continue
			}
			if backs[f] == nil {
				back, err := net.Dial("udp", target)
				if err != nil {
					continue
				}
				backs[f] = back
				group.Go(func() { r.back(front, back, from, f.cuts) })
			}
			_, _ = backs[f].Write(buffer[:n])
		}
		for _, back := range backs {
			_ = back.Close()
		}
	})
	t.Cleanup(func() {
		_ = front.Close()
		group.Wait()
	})
	return r
}

// back carries what the hub answers in one flow.
func (r *relay) back(front net.PacketConn, back net.Conn, to net.Addr, cuts int) {
	buffer := make([]byte, 2000)
	for {
		n, err := back.Read(buffer)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return
		}
		if err == nil && r.state() == cuts {
			_, _ = front.WriteTo(buffer[:n], to)
		}
	}
}

func (r *relay) state() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cuts
}

// setCut cuts the network, or mends it.
func (r *relay) setCut(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cut != (r.cuts%2 == 1) {
		r.cuts++
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
