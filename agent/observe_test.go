package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/hub"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// observed is an executor that looks at what the test says runs.
type observed struct {
	executorFunc
	logs func(ctx context.Context, options executor.LogOptions, out io.Writer) error
}

func (observed) Describe(_ context.Context, what *quicflowv1.DescribeProject) executor.Running {
	return executor.Running{Project: what.Project, State: executor.RunOK, Version: "1.0"}
}

func (o observed) Logs(ctx context.Context, _ *quicflowv1.DescribeProject, options executor.LogOptions, out io.Writer) error {
	return o.logs(ctx, options, out)
}

func (w *world) connectObserved(logs func(ctx context.Context, options executor.LogOptions, out io.Writer) error) {
	w.t.Helper()
	cfg := w.config("a")
	cfg.Executor = observed{func(context.Context, *quicflowv1.StepRequest, *spool.Writer) *quicflowv1.StepResult {
		return succeeded()
	}, logs}
	w.connect(cfg)
}

func TestDescribe(t *testing.T) {
	w := newWorld(t)
	w.connectObserved(nil)
	answer := w.ask("a", &quicflowv1.Request{Body: &quicflowv1.Request_Describe{Describe: &quicflowv1.Describe{
		Projects: []*quicflowv1.DescribeProject{{Project: "web"}, {Project: "db"}}}}})
	require.Len(t, answer.GetDescribed().GetRunning(), 2, answer)
	require.JSONEq(t, `{"project":"db","type":"","state":"ok","version":"1.0"}`, string(answer.GetDescribed().Running[1]))

	many := &quicflowv1.Describe{Projects: make([]*quicflowv1.DescribeProject, 101)}
	for i := range many.Projects {
		many.Projects[i] = &quicflowv1.DescribeProject{}
	}
	answer = w.ask("a", &quicflowv1.Request{Body: &quicflowv1.Request_Describe{Describe: many}})
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_INVALID, answer.GetFailure().GetCode())

	w.connect(w.config("b")) // its executor cannot look
	answer = w.ask("b", &quicflowv1.Request{Body: &quicflowv1.Request_Describe{Describe: &quicflowv1.Describe{}}})
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, answer.GetFailure().GetCode())
	err := w.hub.TailLogs(t.Context(), "b", &quicflowv1.TailLogs{}, io.Discard)
	var says *hub.AgentError
	require.ErrorAs(t, err, &says)
}

func TestTailLogs(t *testing.T) {
	w := newWorld(t)
	large := strings.Repeat("0123456789abcdef", 20_000) // many frames
	w.connectObserved(func(_ context.Context, options executor.LogOptions, out io.Writer) error {
		_, _ = fmt.Fprintf(out, "%d %v %s\n", options.Tail, options.Follow, options.Since.UTC().Format(time.DateOnly))
		_, _ = io.WriteString(out, large)
		if options.Timestamps {
			return errors.New("no such container")
		}
		return nil
	})
	var out bytes.Buffer
	asked := &quicflowv1.TailLogs{What: &quicflowv1.DescribeProject{Project: "web"}, Tail: 7, SinceUnixMs: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC).UnixMilli()}
	require.NoError(t, w.hub.TailLogs(t.Context(), "a", asked, &out))
	require.Equal(t, "7 false 2026-01-02\n"+large, out.String())

	asked.Timestamps = true
	out.Reset()
	err := w.hub.TailLogs(t.Context(), "a", asked, &out)
	require.ErrorContains(t, err, "no such container")
	require.Contains(t, out.String(), large, "what came before the failure is passed on")
}

func TestTailLogsEndsWithItsReader(t *testing.T) {
	w := newWorld(t)
	var open atomic.Int32
	w.connectObserved(func(ctx context.Context, _ executor.LogOptions, out io.Writer) error {
		open.Add(1)
		defer open.Add(-1)
		_, _ = io.WriteString(out, "begin\n")
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	read := func() { ended <- w.hub.TailLogs(ctx, "a", &quicflowv1.TailLogs{Follow: true}, io.Discard) }
	for range 4 {
		go read()
	}
	w.eventually(func() bool { return open.Load() == 4 }, "four readers follow")
	require.ErrorIs(t, w.hub.TailLogs(ctx, "a", &quicflowv1.TailLogs{}, io.Discard), hub.ErrTooManyTails)
	cancel()
	for range 4 {
		require.ErrorIs(t, <-ended, context.Canceled)
	}
	w.eventually(func() bool { return open.Load() == 0 }, "the agent stops reading")

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	var again error
	w.eventually(func() bool {
		var out bytes.Buffer
		again = w.hub.TailLogs(ctx, "a", &quicflowv1.TailLogs{}, writerFunc(func(p []byte) (int, error) {
			out.Write(p)
			return 0, errors.New("the reader has gone")
		}))
		return !errors.Is(again, hub.ErrTooManyTails) && out.String() == "begin\n"
	}, "a place is free again")
	require.ErrorContains(t, again, "the reader has gone")
	require.ErrorIs(t, w.hub.TailLogs(ctx, "nobody", &quicflowv1.TailLogs{}, io.Discard), hub.ErrNotConnected)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
