package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// hold is a hub's handler that holds its messages until it is opened or its context ends.
type hold struct {
	open    chan struct{}
	running chan struct{} // one for each that came
}

func newHold() *hold { return &hold{open: make(chan struct{}), running: make(chan struct{}, 100)} }

func (g *hold) handle(ctx context.Context, _ hub.Event, m *quicflowv1.Message) (*quicflowv1.Message, error) {
	g.running <- struct{}{}
	select {
	case <-g.open:
		return m, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func await[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		require.Fail(t, "did not happen")
	}
	return v
}

func note(kind string) *quicflowv1.Message { return &quicflowv1.Message{Type: kind} }

func TestSendMessage(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 1)
	w := newWorld(t, func(c *hub.Config) {
		c.Handlers = map[string]hub.Handler{
			"who": func(_ context.Context, from hub.Event, _ *quicflowv1.Message) (*quicflowv1.Message, error) {
				return &quicflowv1.Message{Type: "you", Payload: []byte(from.ClientID)}, nil
			},
			"fail": func(context.Context, hub.Event, *quicflowv1.Message) (*quicflowv1.Message, error) {
				return nil, errors.New("disk full")
			},
			"note": func(_ context.Context, _ hub.Event, m *quicflowv1.Message) (*quicflowv1.Message, error) {
				seen <- string(m.Payload)
				return nil, errors.New("no one will know")
			},
		}
	})
	a := w.connect(w.config("a"))

	answer, err := a.SendMessage(t.Context(), note("who"), true, patience)
	require.NoError(t, err)
	require.Equal(t, "you", answer.Type)
	require.Equal(t, "a", string(answer.Payload))

	payload := []byte("first")
	answer, err = a.SendMessage(t.Context(), &quicflowv1.Message{Type: "note", Payload: payload}, false, 0)
	require.NoError(t, err)
	require.Nil(t, answer)
	copy(payload, "later") // it is the caller's again
	require.Equal(t, "first", await(t, seen))

	largest := bytes.Repeat([]byte{0xff, 0}, agent.MaxMessage)[:agent.MaxMessage-len("echo")]
	answer, err = a.SendMessage(t.Context(), &quicflowv1.Message{Type: "echo", Payload: largest}, true, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(largest, answer.Payload))

	_, err = a.SendMessage(t.Context(), note("fail"), true, patience)
	var failed *agent.HandlerError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, "disk full", failed.Text)
	_, err = a.SendMessage(t.Context(), note("other"), true, patience)
	require.ErrorIs(t, err, agent.ErrUnsupported)
	require.ErrorContains(t, err, `no handler for "other"`)

	for _, wrong := range []*quicflowv1.Message{nil, note("\xff"), {Type: "echo", Payload: append(largest, 0)}} {
		_, err = a.SendMessage(t.Context(), wrong, true, patience)
		require.ErrorIs(t, err, agent.ErrInvalidMessage)
	}
	_, err = a.SendMessage(t.Context(), note("who"), true, patience)
	require.NoError(t, err, "the session has suffered none of it")
}

func TestSendMessageTimesOut(t *testing.T) {
	t.Parallel()
	g := newHold()
	w := newWorld(t, func(c *hub.Config) {
		c.Handlers, c.HandlerTimeout = map[string]hub.Handler{"work": g.handle}, time.Second
	})
	a := w.connect(w.config("a"))

	began := time.Now()
	_, err := a.SendMessage(t.Context(), note("work"), true, 20*time.Millisecond)
	require.ErrorIs(t, err, agent.ErrTimeout)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.GreaterOrEqual(t, time.Since(began), 20*time.Millisecond)

	_, err = a.SendMessage(t.Context(), note("work"), true, 0)
	require.ErrorIs(t, err, agent.ErrTimeout)
	require.ErrorContains(t, err, "did not end within 1s")

	ctx, cancel := context.WithCancelCause(t.Context())
	cancelled := errors.New("the user went away")
	done := make(chan error, 1)
	go func() {
		_, err := a.SendMessage(ctx, note("work"), true, patience)
		done <- err
	}()
	for range 3 {
		await(t, g.running)
	}
	cancel(cancelled)
	require.ErrorIs(t, await(t, done), cancelled)
	_, err = a.SendMessage(ctx, note("ping"), false, 0)
	require.ErrorIs(t, err, cancelled)
	_, err = a.SendMessage(t.Context(), note("ping"), true, patience)
	require.NoError(t, err)
}

func TestSendMessageToAnOverloadedHub(t *testing.T) {
	t.Parallel()
	g := newHold()
	w := newWorld(t, func(c *hub.Config) {
		c.Handlers, c.WorkerCount, c.QueueSize = map[string]hub.Handler{"work": g.handle}, 1, 1
	})
	a := w.connect(w.config("a"))
	done := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := a.SendMessage(t.Context(), note("work"), true, patience)
			done <- err
		}()
	}
	require.ErrorIs(t, await(t, done), agent.ErrOverloaded)
	close(g.open)
	require.NoError(t, await(t, done))
	require.NoError(t, await(t, done))
}

func TestSendMessageNeedsASession(t *testing.T) {
	t.Parallel()
	g := newHold()
	w := newWorld(t, func(c *hub.Config) { c.Handlers = map[string]hub.Handler{"work": g.handle} })
	idle, err := agent.New(w.config("idle"))
	require.NoError(t, err)
	_, err = idle.SendMessage(t.Context(), note("ping"), true, patience)
	require.ErrorIs(t, err, agent.ErrNotConnected)

	a := w.connect(w.config("a"))
	done := make(chan error, 1)
	go func() {
		_, err := a.SendMessage(t.Context(), note("work"), true, 0)
		done <- err
	}()
	await(t, g.running)
	a.stop()
	err = await(t, done)
	require.ErrorIs(t, err, agent.ErrSessionLost)
	require.ErrorIs(t, err, agent.ErrStopping)
	_, err = a.SendMessage(t.Context(), note("ping"), false, 0)
	require.ErrorIs(t, err, agent.ErrNotConnected)
	close(g.open)
}

func TestMessagesOfManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.connect(w.config("a"))
	var group sync.WaitGroup
	for n := range 50 {
		group.Go(func() {
			for i := range 20 {
				payload := fmt.Sprintf("%d/%d", n, i)
				answer, err := a.SendMessage(t.Context(), &quicflowv1.Message{Type: "echo", Payload: []byte(payload)}, true, patience)
				if err != nil || string(answer.Payload) != payload {
					t.Errorf("%s was answered by %s, %v", payload, answer.GetPayload(), err)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestAgentWithoutExecutor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	cfg.Executor = executorFunc(func(ctx context.Context, _ *quicflowv1.StepRequest, _ *spool.Writer) *quicflowv1.StepResult {
		<-ctx.Done()
		return nil
	})
	before := w.connect(cfg)
	w.accepted("a", step("a", "1", ""))
	before.stop()
	cfg.Executor = nil
	w.connect(cfg)
	require.Equal(t, release.StepUnknown, w.result(stepID("a", "1")).State)
	response := w.request("a", step("a", "2", ""))
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, response.GetFailure().GetCode(), "%v", response)
	require.NotNil(t, w.ask("a", message("ping", nil)).GetMessage())
}
