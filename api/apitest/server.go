// Package apitest runs the API for tests: over HTTP, on a real store, with rollouts and jobs that a test steers by hand, and
// agents where it wants some.
package apitest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/artifact"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/service"
	"github.com/quicflow/quicflow/internal/store"
)

// Admin is the name of the token that every Server has.
const Admin = "admin"

// MaxLogBytes is how much a log may have before Store.TrimLogs cuts it.
const MaxLogBytes = 9000

// MaxArtifact is how large an artifact may be, in bytes.
const MaxArtifact = 4 << 20

// Server is a running API.
type Server struct {
	URL       string
	Token     string
	Store     *store.Store
	Bus       *bus.Bus
	Rollouts  *Rollouts
	Jobs      *Jobs
	Schedules *Schedules
	Hub       *hub.Hub // does not listen before StartAgents

	t        testing.TB
	http     *httptest.Server
	end      func()
	ca       *pki.CA
	mu       sync.Mutex
	position map[string]uint64 // by step and stream: how much was logged
}

// Start runs an API on SQLite until the end of the test. change may change its configuration.
func Start(t testing.TB, change ...func(*api.Config)) *Server {
	t.Helper()
	return StartOn(t, store.SQLite, filepath.Join(t.TempDir(), "quicflow.db"), change...)
}

// StartOn is Start on an empty database.
func StartOn(t testing.TB, driver store.Driver, dsn string, change ...func(*api.Config)) *Server {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{
		Driver: driver, DSN: dsn, Logger: slog.New(slog.DiscardHandler),
		MaxLogBytes: MaxLogBytes, SecretKey: bytes.Repeat([]byte("k"), store.SecretKeySize),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	token, hash := auth.NewAPIToken()
	_, err = db.EnsureAdminToken(t.Context(), Admin, hash)
	require.NoError(t, err)

	s := &Server{Token: token, Store: db, Bus: bus.New(bus.Config{}), Rollouts: &Rollouts{}, Jobs: &Jobs{}, Schedules: &Schedules{store: db}, t: t, position: map[string]uint64{}}
	s.Hub = s.newHub()
	t.Cleanup(s.Jobs.running.Wait)
	artifacts, err := artifact.Open(artifact.Config{Dir: t.TempDir(), Index: db, MaxBytes: MaxArtifact, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	config := api.Config{
		Artifacts: artifacts,
		Store:     db, Rollouts: s.Rollouts, Jobs: s.Jobs, Schedules: s.Schedules, Messages: s.Hub, Bus: s.Bus, Joins: fingerprint{1, 2, 3}, Version: "test",
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&config)
	}
	handler, err := api.New(config)
	require.NoError(t, err)
	base, end := context.WithCancelCause(context.Background())
	srv := httptest.NewUnstartedServer(handler)
	srv.Config.BaseContext = func(net.Listener) context.Context { return base }
	srv.Start()
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		end(nil)
	})
	s.URL, s.http, s.end = srv.URL, srv, func() { end(service.ErrStopped) }
	return s
}

// Stop ends the API as the server does: requests first. It returns when all have been answered.
func (s *Server) Stop() {
	s.end()
	s.http.Close()
}

// Drain returns when all requests have been answered, or have found that nobody waits any more.
func (s *Server) Drain() { s.http.Close() }

// Cut ends all connections, as a restart of the server would.
func (s *Server) Cut() { s.http.CloseClientConnections() }

type fingerprint [32]byte

func (f fingerprint) Fingerprint() [32]byte { return f }

// Context ends with the test.
func (s *Server) Context() context.Context { return s.t.Context() }

// Request makes a request with the token.
func (s *Server) Request(method, path string, body io.Reader) *http.Request {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, body)
	require.NoError(s.t, err)
	r.Header.Set("Authorization", "Bearer "+s.Token)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// AddClients makes agents client-1 to client-n known, and online.
func (s *Server) AddClients(n int, labels map[string]string) []string {
	s.t.Helper()
	ctx := s.t.Context()
	join := auth.NewJoinToken([32]byte{})
	require.NoError(s.t, s.Store.CreateJoinToken(ctx, store.JoinToken{
		ID: join.Hash(), Hash: join.Hash(), Pattern: "*", Uses: n, CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	}))
	var ids []string
	var sessions []release.ClientSession
	for i := range n {
		id := fmt.Sprintf("client-%d", i+1)
		ids = append(ids, id)
		require.NoError(s.t, s.Store.RedeemJoinToken(ctx, auth.Redemption{TokenHash: join.Hash(), ClientID: id, PublicKeyHash: id, At: time.Now()}))
		sessions = append(sessions, release.ClientSession{
			ClientID: id, NodeID: "node", Hostname: "host-" + id, OS: "linux", Arch: "amd64", Labels: labels, JournalID: id, At: time.Now(),
		})
	}
	_, err := s.Store.ConnectClients(ctx, sessions)
	require.NoError(s.t, err)
	return ids
}

// CanDeploy has agents say that their hosts can do all deployment types.
func (s *Server) CanDeploy(ids ...string) {
	s.t.Helper()
	s.CanOnlyDeploy(release.Types, ids...)
}

// CanOnlyDeploy has agents say that their hosts can do these deployment types.
func (s *Server) CanOnlyDeploy(types []release.Type, ids ...string) {
	s.t.Helper()
	able := make([]string, len(types))
	for i, of := range types {
		able[i] = release.Capability(of)
	}
	text, err := json.Marshal(map[string]any{"capabilities": able})
	require.NoError(s.t, err)
	facts := make([]release.ClientFacts, len(ids))
	for i, id := range ids {
		facts[i] = release.ClientFacts{ClientID: id, Hash: 1, JSON: text}
	}
	require.NoError(s.t, s.Store.StoreFacts(s.t.Context(), facts))
}

// AddVersion makes a project, unless it is there, and an active version of it.
func (s *Server) AddVersion(project, version string) release.Version {
	s.t.Helper()
	p, err := s.Store.Project(s.t.Context(), project)
	if err != nil {
		p = release.Project{Name: project, Type: release.TypeScript}
		require.NoError(s.t, s.Store.CreateProject(s.t.Context(), &p))
	}
	v := release.Version{
		ProjectID: p.ID, Project: p.Name, Name: version, Status: release.VersionActive,
		Spec: release.Spec{Script: &release.ScriptSpec{Install: "install " + version, Env: map[string]string{"V": version}}},
	}
	require.NoError(s.t, s.Store.CreateVersion(s.t.Context(), &v))
	return v
}

// AddTask makes a task for a version on some clients, and dispatches its deploy steps.
func (s *Server) AddTask(v release.Version, clients ...string) release.Task {
	s.t.Helper()
	task := release.Task{
		ProjectID: v.ProjectID, Project: v.Project, VersionID: v.ID, Version: v.Name, Action: release.ActionDeploy,
		Targets: release.Targets{Clients: clients}, Strategy: release.Strategy{}.WithDefaults(), CreatedBy: Admin,
	}
	require.NoError(s.t, s.Store.CreateTask(s.t.Context(), &task, clients))
	s.Dispatch(task, clients...)
	return task
}

// Dispatch does to the deploy steps of a stored task what a rollout does before it sends them.
func (s *Server) Dispatch(task release.Task, clients ...string) {
	s.t.Helper()
	for _, wave := range task.Waves {
		_, err := s.Store.PlanChunks(s.t.Context(), task.ID, release.StepDeploy, wave.Number, 100, "node")
		require.NoError(s.t, err)
	}
	_, _, err := s.Store.MarkDispatched(s.t.Context(), task.ID, release.StepDeploy, clients)
	require.NoError(s.t, err)
	s.Progress(task.ID, release.StatusRunning, release.PhaseWave)
}

// Log stores a piece of output of a deploy step.
func (s *Server) Log(taskID, client, text string) {
	s.t.Helper()
	step := release.StepID(taskID, release.StepDeploy, client, 0)
	from := s.position[step]
	s.position[step] += uint64(len(text))
	_, err := s.Store.AppendLogs(s.t.Context(), []release.LogRecord{{
		StepID: step, ClientID: client, Position: from, Next: s.position[step],
		Stream: release.StreamStdout, Offset: from, Time: time.Now(), Data: []byte(text),
	}})
	require.NoError(s.t, err)
	s.Bus.Notify(bus.Task(taskID))
}

// Finish ends a deploy step; missing is how much of its log has not come yet.
func (s *Server) Finish(taskID, client string, state release.StepState, why string, missing uint64) {
	s.t.Helper()
	step := release.StepID(taskID, release.StepDeploy, client, 0)
	_, err := s.Store.RecordResults(s.t.Context(), []release.StepResult{{
		StepID: step, ClientID: client, State: state, Error: why,
		StartedAt: time.Now(), FinishedAt: time.Now(), LogEnd: s.position[step] + missing,
	}})
	require.NoError(s.t, err)
	s.Bus.Notify(bus.Task(taskID))
}

// Progress puts a task into a status.
func (s *Server) Progress(taskID string, status release.Status, phase release.Phase) {
	s.t.Helper()
	require.NoError(s.t, s.Store.SetProgress(s.t.Context(), taskID, store.Progress{Status: status, Phase: phase, Wave: 1, At: time.Now()}))
	s.Bus.Notify(bus.Task(taskID))
}

// Rollouts records what it is asked for, and answers as a test says. It is safe for concurrent use.
type Rollouts struct {
	mu      sync.Mutex
	calls   []string
	answer  error
	started func(release.Task)
}

var _ api.Rollouts = (*Rollouts)(nil)

// Answer makes all further calls give err.
func (r *Rollouts) Answer(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = err
}

// OnStart makes f run for each task that starts.
func (r *Rollouts) OnStart(f func(release.Task)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started = f
}

// Calls gives what was asked for: "pause TASK admin the reason".
func (r *Rollouts) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.calls...)
}

func (r *Rollouts) call(text string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, text)
	return r.answer
}

// Start implements api.Rollouts.
func (r *Rollouts) Start(_ context.Context, task release.Task) error {
	err := r.call("start " + task.ID)
	r.mu.Lock()
	started := r.started
	r.mu.Unlock()
	if err == nil && started != nil {
		started(task)
	}
	return err
}

// Promote implements api.Rollouts.
func (r *Rollouts) Promote(_ context.Context, id, by, reason string) error {
	return r.call("promote " + id + " " + by + " " + reason)
}

// Pause implements api.Rollouts.
func (r *Rollouts) Pause(_ context.Context, id, by, reason string) error {
	return r.call("pause " + id + " " + by + " " + reason)
}

// Resume implements api.Rollouts.
func (r *Rollouts) Resume(_ context.Context, id, by, reason string) error {
	return r.call("resume " + id + " " + by + " " + reason)
}

// Abort implements api.Rollouts.
func (r *Rollouts) Abort(_ context.Context, id, by, reason string) error {
	return r.call("abort " + id + " " + by + " " + reason)
}

// Rollback implements api.Rollouts.
func (r *Rollouts) Rollback(_ context.Context, id, by, reason string) error {
	return r.call("rollback " + id + " " + by + " " + reason)
}
