package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/command"
	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/script"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// commandStep is a request of a job's step for client a.
func commandStep(job, kind, payload string) *quicflowv1.StepRequest {
	return &quicflowv1.StepRequest{
		StepId: release.StepID(job, "command", "a", 0), TaskId: job, NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli(),
		Spec: &quicflowv1.StepRequest_Command{Command: &quicflowv1.CommandStep{
			Type: kind, Payload: []byte(payload), TimeoutMs: patience.Milliseconds(),
		}},
	}
}

// commands connects client a with some commands of its own.
func (w *world) commands(own map[string]command.Command) (*running, agent.Config) {
	w.t.Helper()
	cfg := w.config("a")
	cfg.Commands = own
	return w.connect(cfg), cfg
}

// finished sends a step whose first answer must have the result.
func (w *world) finished(s *quicflowv1.StepRequest) *quicflowv1.StepResult {
	w.t.Helper()
	response := w.request("a", s)
	require.Equal(w.t, quicflowv1.StepState_STEP_STATE_FINISHED, response.GetStep().GetState(), "%v", response)
	return response.GetStep().GetResult()
}

func TestQuickCommandsAreAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, cfg := w.commands(nil)
	result := w.finished(commandStep("1", "echo", `{"a": [1, "x"]}`))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome)
	require.JSONEq(t, `{"a":[1,"x"]}`, string(result.Result))
	require.Positive(t, result.StartedUnixMs)

	var pong agent.Pong
	require.NoError(t, json.Unmarshal(w.finished(commandStep("2", "ping", "")).Result, &pong))
	require.WithinDuration(t, time.Now(), pong.Time, time.Minute)

	var status agent.Status
	require.NoError(t, json.Unmarshal(w.finished(commandStep("3", "get_status", "{}")).Result, &status))
	require.Equal(t, "a", status.ClientID)
	require.Equal(t, "1.2.3", status.Version)
	require.Equal(t, 1, status.StepsRunning)
	require.Equal(t, "node-1", status.Session.NodeID)
	require.EqualValues(t, 1, status.Journal.Generation)
	require.Positive(t, status.Journal.Bytes)
	require.Equal(t, []string{"echo", "get_status", "ping"}, status.Commands)

	for _, job := range []string{"1", "2", "3"} {
		id := release.StepID(job, "command", "a", 0)
		require.Equal(t, release.StepSucceeded, w.result(id).State)
	}
	w.forgotten(cfg.DataDir)
	again := w.finished(commandStep("1", "echo", `{}`))
	require.JSONEq(t, `{"a":[1,"x"]}`, string(again.Result), "it is known, and does not run again")
	// A result that an answer carried is not sent once more.
	w.store.with(func() { require.Equal(t, 1, w.store.deliverd[release.StepID("2", "command", "a", 0)]) })
}

func TestCommandsThatAreNotAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	exec := executortest.NewSet(t, executor.Host{ClientID: "a", DataDir: t.TempDir()}, script.New())
	cfg := w.config("a")
	cfg.Executor = exec
	w.connect(cfg)
	failure := func(kind, payload string) *quicflowv1.Failure {
		return w.request("a", commandStep(kind, kind, payload)).GetFailure()
	}
	unknown := failure("dance", "{}")
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, unknown.GetCode())
	require.Equal(t, `unknown command type "dance"; this agent has echo, exec_shell, get_status, ping`, unknown.GetMessage())
	for kind, want := range map[string][2]string{
		"ping":       {`{"x":1}`, "payload.x: this command has no such field"},
		"get_status": {`[]`, "payload: it is not a JSON object"},
		"echo":       {`"x"`, "payload: it is not a JSON object"},
		"exec_shell": {`{"command":["ls"]}`, "payload.command: it is an array, not a string"},
	} {
		f := failure(kind, want[0])
		require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_INVALID, f.GetCode(), "%v", f)
		require.Equal(t, want[1], f.GetMessage())
	}
	// Nothing of them was kept.
	var status agent.Status
	require.NoError(t, json.Unmarshal(w.finished(commandStep("status", "get_status", "")).Result, &status))
	require.Zero(t, status.Journal.Entries+status.Journal.Remembered)
	require.Equal(t, 1, status.StepsRunning)

	late := commandStep("late", "ping", "")
	late.NotAfterUnixMs = time.Now().Add(-time.Second).UnixMilli()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, w.finished(late).Outcome)
	late = commandStep("none", "ping", "")
	late.NotAfterUnixMs = 0
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_INVALID, w.request("a", late).GetFailure().GetCode())
}

// A command runs with a script, a shell and a store in between.
func TestShellCommandThroughTheAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	exec := executortest.NewSet(t, executor.Host{ClientID: "a", DataDir: cfg.DataDir}, script.New())
	cfg.Executor = exec
	w.connect(cfg)
	s := commandStep("1", "exec_shell", `{"command":"echo out; echo err >&2; exit 7"}`)
	w.accepted("a", s)
	result := w.result(s.StepId)
	require.Equal(t, release.StepFailed, result.State)
	require.Equal(t, 7, result.ExitCode)
	require.Equal(t, "exit code 7: err", result.Error)
	require.Equal(t, "out\n", string(result.StdoutTail))
	require.EqualValues(t, 4, result.StderrBytes)
	require.Equal(t, "out\n", w.output(s.StepId, release.StreamStdout))
	w.forgotten(cfg.DataDir)
}

// What a host prints beyond the limit is not kept; its end and how much there was are known all the same.
func TestOutputBeyondTheLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("a")
	cfg.MaxLog = 100_000
	cfg.Executor = executortest.NewSet(t, executor.Host{ClientID: "a", DataDir: cfg.DataDir}, script.New())
	cfg.Commands = map[string]command.Command{"chatty": {Run: func(_ context.Context, call *command.Call) (any, error) {
		out, err := call.Output(quicflowv1.Stream_STREAM_STDOUT)
		if err == nil {
			_, err = out.Write([]byte(strings.Repeat("0123456789", 10_001)))
		}
		return nil, err
	}}}
	w.connect(cfg)
	const cut = "the output is cut here: no more than 100000 bytes of it are kept\n"
	shell := commandStep("1", "exec_shell", `{"command":"yes | head -c 1000000; echo oops >&2; exit 7"}`)
	w.accepted("a", shell)
	result := w.result(shell.StepId)
	require.Equal(t, 7, result.ExitCode)
	require.EqualValues(t, 1_000_000, result.StdoutBytes)
	require.Equal(t, strings.Repeat("y\n", 2048), string(result.StdoutTail))
	require.Equal(t, "oops\n", string(result.StderrTail))
	require.Equal(t, strings.Repeat("y\n", 50_000), w.output(shell.StepId, release.StreamStdout))
	require.Equal(t, cut+"900005 bytes of the output were cut\n", w.output(shell.StepId, release.StreamSystem))

	chatty := commandStep("2", "chatty", "")
	ended := w.finished(chatty)
	require.EqualValues(t, 100_010, ended.StdoutBytes)
	require.Len(t, w.output(chatty.StepId, release.StreamStdout), 100_000)
	require.Equal(t, cut+"10 bytes of the output were cut\n", w.output(chatty.StepId, release.StreamSystem))
	w.forgotten(cfg.DataDir)
}

func TestLargeResultIsInTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	value := map[string]string{"x": strings.Repeat("0123456789", 2000)}
	_, cfg := w.commands(map[string]command.Command{
		"large": {ReadOnly: true, Run: func(context.Context, *command.Call) (any, error) { return value, nil }},
		"both": {ReadOnly: true, Run: func(_ context.Context, call *command.Call) (any, error) {
			out, err := call.Output(quicflowv1.Stream_STREAM_STDOUT)
			if err == nil {
				_, err = out.Write([]byte("hello\n"))
			}
			return value, err
		}},
	})
	want, err := json.Marshal(value)
	require.NoError(t, err)
	large := commandStep("1", "large", "")
	result := w.finished(large)
	require.True(t, result.ResultInLog)
	require.Empty(t, result.Result)
	require.EqualValues(t, len(want), result.StdoutBytes)
	require.Equal(t, string(want), w.output(large.StepId, release.StreamStdout))

	both := commandStep("2", "both", "")
	result = w.finished(both)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Contains(t, result.Error, "at most 8192 are allowed beside output")
	require.Equal(t, "hello\n", w.output(both.StepId, release.StreamStdout))
	require.Equal(t, "hello\n", string(result.StdoutTail))
	w.forgotten(cfg.DataDir)
}

// slow is a command that waits until it is opened.
type slow struct {
	runs atomic.Int32
	open chan struct{}
}

func newSlow() *slow { return &slow{open: make(chan struct{})} }

func (s *slow) run(ctx context.Context, _ *command.Call) (any, error) {
	s.runs.Add(1)
	select {
	case <-s.open:
		return map[string]int32{"runs": s.runs.Load()}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func TestCommandsRunAtTheSameTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	held := newSlow()
	cfg := w.config("a")
	cfg.Commands, cfg.MaxSteps = map[string]command.Command{"slow": {Run: held.run, ReadOnly: true}}, 3
	w.connect(cfg)
	var group sync.WaitGroup
	for i := range 3 {
		group.Go(func() { w.accepted("a", commandStep(itoa(i), "slow", "")) })
	}
	group.Wait()
	require.EqualValues(t, 3, held.runs.Load(), "they take no turns")
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, w.request("a", commandStep("9", "slow", "")).GetFailure().GetCode())
	for _, kind := range []string{"ping", "echo", "get_status"} {
		w.finished(commandStep(kind, kind, "")) // it needs no place
	}
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, w.request("a", commandStep("9", "slow", "")).GetFailure().GetCode(), "nor makes it one")
	w.accepted("a", commandStep("1", "slow", "")) // known
	close(held.open)
	for i := range 3 {
		require.JSONEq(t, `{"runs":3}`, string(w.result(release.StepID(itoa(i), "command", "a", 0)).Result))
	}
	w.finished(commandStep("9", "ping", ""))
}

func TestCommandIsCancelledOrTimesOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	held := newSlow()
	w.commands(map[string]command.Command{"slow": {Run: held.run}, "read": {Run: held.run, ReadOnly: true}})
	for _, kind := range []string{"slow", "read"} {
		s := commandStep(kind, kind, "")
		w.accepted("a", s)
		w.cancelStep("a", s.StepId)
		result := w.result(s.StepId)
		require.Equal(t, release.StepCancelled, result.State)
		require.Equal(t, "cancelled: because", result.Error)

		s = commandStep(kind+"2", kind, "")
		s.GetCommand().TimeoutMs = 50
		late := w.finished(s)
		require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, late.Outcome)
		require.True(t, late.TimedOut)
		require.Equal(t, "timed out after 50ms", late.Error)
	}
}

func TestCommandThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commands(map[string]command.Command{
		"fail":  {Run: func(context.Context, *command.Call) (any, error) { return nil, errors.New("disk full") }},
		"panic": {Run: func(context.Context, *command.Call) (any, error) { panic("oops") }},
		"wrong": {Run: func(_ context.Context, call *command.Call) (any, error) { return nil, call.Decode(new(struct{})) }},
		"nan":   {ReadOnly: true, Run: func(context.Context, *command.Call) (any, error) { return make(chan int), nil }},
	})
	for kind, want := range map[string]string{
		"fail": "disk full", "panic": "the command panicked: oops", "wrong": "payload.x: this command has no such field",
		"nan": "encode result: json: unsupported type: chan int",
	} {
		result := w.finished(commandStep(kind, kind, `{"x":1}`))
		require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
		require.EqualValues(t, -1, result.ExitCode)
		require.Equal(t, want, result.Error)
		require.Equal(t, kind == "wrong", result.NotStarted)
	}
}

// What changes something is not repeated after a restart; what only reads is.
func TestCommandsAfterARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	effect, read, printed := newSlow(), newSlow(), newSlow()
	first, cfg := w.commands(map[string]command.Command{
		"effect": {Run: effect.run}, "read": {Run: read.run, ReadOnly: true},
		"printed": {ReadOnly: true, Run: func(ctx context.Context, call *command.Call) (any, error) {
			out, err := call.Output(quicflowv1.Stream_STREAM_STDOUT)
			if err != nil {
				return nil, err
			}
			fmt.Fprintln(out, "part")
			return printed.run(ctx, call)
		}},
	})
	for _, kind := range []string{"effect", "read", "printed"} {
		w.accepted("a", commandStep(kind, kind, ""))
	}
	first.stop()
	close(effect.open)
	close(read.open)
	close(printed.open)
	w.connect(cfg)
	result := func(kind string) release.StepResult { return w.result(release.StepID(kind, "command", "a", 0)) }
	require.Equal(t, release.StepUnknown, result("effect").State)
	require.EqualValues(t, 1, effect.runs.Load())
	require.Equal(t, release.StepSucceeded, result("read").State)
	require.EqualValues(t, 2, read.runs.Load())
	require.Equal(t, release.StepFailed, result("printed").State)
	require.Contains(t, result("printed").Error, "restarted")
	require.EqualValues(t, 1, printed.runs.Load())
	require.Equal(t, "part\n", w.output(release.StepID("printed", "command", "a", 0), release.StreamStdout))
	w.forgotten(cfg.DataDir)
}

// One that nobody was told of leaves nothing: it is asked for again.
func TestStoppedBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	held := newSlow()
	first, cfg := w.commands(map[string]command.Command{"read": {Run: held.run, ReadOnly: true}})
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, _ = w.hub.Request(ctx, "a", &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: commandStep("1", "read", "")}})
	}()
	w.eventually(func() bool { return held.runs.Load() == 1 }, "it runs")
	first.stop()
	<-answered
	close(held.open)
	w.connect(cfg)
	result := w.finished(commandStep("1", "read", ""))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome)
}
