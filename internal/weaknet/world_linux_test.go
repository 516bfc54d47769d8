package weaknet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// patience bounds every wait of these tests.
const patience = 90 * time.Second

const client = "web-1"

// world is a hub on the real store in one namespace, and an agent in the other.
type world struct {
	*network
	hub   *hub.Hub
	store *store.Store
	diary diary

	mu       sync.Mutex
	ran      map[string]int           // how often the agent ran a step
	handled  map[string]int           // how often it handled a message
	gates    map[string]chan struct{} // steps that go on when theirs is closed
	prints   map[string][]byte        // what steps print, half of it before their gate
	sessions []time.Time              // when the agent was welcomed
	ended    []string                 // why its sessions ended
	projects int
}

func newWorld(t *testing.T, n *network, tune ...func(*hub.Config)) *world {
	t.Helper()
	ctx := t.Context()
	ca, err := pki.LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	s, err := store.Open(ctx, store.Config{Driver: store.SQLite, DSN: filepath.Join(t.TempDir(), "quicflow.db"), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	w := &world{
		network: n, store: s, ran: map[string]int{}, handled: map[string]int{}, gates: map[string]chan struct{}{},
		prints: map[string][]byte{},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.diary.text.String())
		}
	})
	cfg := hub.Config{Addr: hubIP + ":8474", NodeID: "node-1", CA: ca, Registry: s, Sink: s, Enroller: s, DrainTimeout: time.Second,
		Logger: w.diary.logger("hub")}
	for _, f := range tune {
		f(&cfg)
	}
	w.hub, err = hub.New(cfg)
	require.NoError(t, err)
	within(t, n.hub, func() { err = w.hub.Start(context.Background()) })
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, w.hub.Stop(ctx))
	})
	token := auth.NewJoinToken(ca.Fingerprint())
	require.NoError(t, s.CreateJoinToken(ctx, store.JoinToken{ID: "t", Hash: token.Hash(), Pattern: "*", Uses: 1, ExpiresAt: time.Now().Add(time.Hour)}))
	w.startAgent(token.String())
	return w
}

// diary is what hub and agent log; it is shown if the test fails.
type diary struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(p)
}

func (d *diary) logger(of string) *slog.Logger {
	return slog.New(slog.NewTextHandler(d, nil)).With("of", of)
}

// startAgent runs an agent as a host does: it joins by token, and opens its own sockets.
func (w *world) startAgent(token string) {
	t := w.t.(*testing.T)
	a, err := agent.New(agent.Config{
		Servers: []string{hubIP}, ClientID: client, DataDir: filepath.Join(t.TempDir(), "data"), Token: token, Executor: w,
		Handlers: map[string]agent.Handler{"count": w.count},
		Logger:   w.diary.logger("agent"),
		OnConnect: func(*quicflowv1.Welcome) {
			w.with(func() { w.sessions = append(w.sessions, time.Now()) })
		},
		OnDisconnect: func(cause error) { w.with(func() { w.ended = append(w.ended, cause.Error()) }) },
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so that the thread ends with the goroutine
		err := enter(w.network.agent)
		if err == nil {
			err = a.Run(ctx)
		}
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	w.online()
}

func (w *world) with(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	require.Eventually(w.t, condition, patience, 5*time.Millisecond, what)
}

func (w *world) online() {
	w.t.Helper()
	w.eventually("the agent is online", func() bool { return w.hub.Presence(client).Status == release.ClientOnline })
}

// count is a handler that answers what it was sent.
func (w *world) count(_ context.Context, m *quicflowv1.Message) (*quicflowv1.Message, error) {
	name, _, _ := strings.Cut(string(m.Payload[:min(len(m.Payload), 64)]), "\n")
	w.with(func() { w.handled[name]++ })
	return &quicflowv1.Message{Type: "counted", Payload: m.Payload}, nil
}

// ask has a message of known content handled, and checks the answer.
func (w *world) ask(ctx context.Context, name string, size int) error {
	payload := append([]byte(name+"\n"), bytes.Repeat([]byte{0, 255, 'x'}, size/3)...)
	answer, err := w.hub.Request(ctx, client, &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: "count", Payload: payload}}})
	if err != nil {
		return err
	}
	if !bytes.Equal(answer.GetMessage().GetPayload(), payload) {
		return fmt.Errorf("%s: the answer is not what was sent: %.200s", name, answer)
	}
	return nil
}

// Run makes the world the agent's executor: it counts, prints, and waits at the gate.
func (w *world) Run(ctx context.Context, step *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult {
	var text []byte
	var gate chan struct{}
	w.with(func() {
		w.ran[step.StepId]++
		text, gate = w.prints[step.StepId], w.gates[step.StepId]
	})
	_ = log.Append(quicflowv1.Stream_STREAM_STDOUT, text[:len(text)/2])
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil
		}
	}
	_ = log.Append(quicflowv1.Stream_STREAM_STDOUT, text[len(text)/2:])
	return &quicflowv1.StepResult{Outcome: quicflowv1.Outcome_OUTCOME_SUCCEEDED}
}

// plan makes a task with one step for the agent, in a project of its own, and gives the request for it.
func (w *world) plan(text []byte, gate chan struct{}) *quicflowv1.StepRequest {
	t, ctx := w.t, w.t.Context()
	t.Helper()
	w.projects++
	name := fmt.Sprintf("project-%d", w.projects)
	require.NoError(t, w.store.CreateProject(ctx, &release.Project{Name: name, Type: release.TypeScript}))
	version := release.Version{Project: name, Name: "1.0", Status: release.VersionActive, Spec: release.Spec{Script: &release.ScriptSpec{Install: "true"}}}
	require.NoError(t, w.store.CreateVersion(ctx, &version))
	task := release.Task{ProjectID: version.ProjectID, VersionID: version.ID, Action: release.ActionDeploy, Targets: release.Targets{Clients: []string{client}}}
	require.NoError(t, w.store.CreateTask(ctx, &task, []string{client}))
	chunks, err := w.store.PlanChunks(ctx, task.ID, release.StepDeploy, task.Wave, 100, "node-1")
	require.NoError(t, err)
	require.Len(t, chunks, 1)
	steps, err := w.store.ChunkSteps(ctx, task.ID, release.StepDeploy, chunks[0].Chunk)
	require.NoError(t, err)
	_, _, err = w.store.MarkDispatched(ctx, task.ID, release.StepDeploy, []string{client})
	require.NoError(t, err)
	id := steps[0].ID
	w.with(func() { w.prints[id], w.gates[id] = text, gate })
	return &quicflowv1.StepRequest{
		StepId: id, TaskId: task.ID, Action: "install", Project: name, Version: "1.0", NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli(),
		Spec: &quicflowv1.StepRequest_Deploy{Deploy: &quicflowv1.DeployStep{Type: "script", Config: []byte(`{"install":"true"}`)}},
	}
}

// dispatch asks for a step until the agent has accepted it, as the dispatching activity does. It gives the number of times
// that it asked, and the outcomes that were no answer.
func (w *world) dispatch(ctx context.Context, step *quicflowv1.StepRequest) (asked int, outcomes []error) {
	for {
		asked++
		answer, err := w.hub.Request(ctx, client, &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: step}})
		if err == nil {
			if answer.GetStep() != nil {
				return asked, outcomes
			}
			err = errors.New(answer.GetFailure().GetMessage())
		}
		outcomes = append(outcomes, err)
		select {
		case <-ctx.Done():
			return asked, outcomes
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// settled waits for the results of steps and their whole logs, and checks that each ran once and that its log is what it
// printed, once.
func (w *world) settled(steps ...*quicflowv1.StepRequest) {
	t, ctx := w.t, w.t.Context()
	t.Helper()
	for _, step := range steps {
		w.eventually("result and log of "+step.StepId, func() bool {
			targets, _, err := w.store.Targets(ctx, step.TaskId, store.TargetFilter{})
			if err != nil || targets[0].State != release.TargetSucceeded {
				return false
			}
			complete, _, err := w.store.LogsComplete(ctx, step.TaskId)
			return err == nil && complete
		})
		records, err := w.store.Logs(ctx, step.TaskId, 0, store.LogFilter{}, 0)
		require.NoError(t, err)
		var text []byte
		for _, r := range records {
			if r.Stream == release.StreamStdout {
				text = append(text, r.Data...)
			}
		}
		w.with(func() {
			require.Equal(t, 1, w.ran[step.StepId], "how often %s ran", step.StepId)
			require.True(t, bytes.Equal(w.prints[step.StepId], text), "the log of %s has %d bytes and not the %d that were printed", step.StepId, len(text), len(w.prints[step.StepId]))
		})
	}
}

// lines is text in which nothing can be lost or doubled without a trace.
func lines(size int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "line %d of a log that must arrive whole\n", i)
	}
	return b.Bytes()
}
