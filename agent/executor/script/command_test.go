package script_test

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// command gives a request for the shell. $T in it is the test's directory.
func (h *host) command(payload map[string]any) *quicflowv1.StepRequest {
	h.t.Helper()
	if payload["env"] == nil {
		payload["env"] = map[string]string{"T": h.dir}
	}
	text, err := json.Marshal(payload)
	require.NoError(h.t, err)
	return &quicflowv1.StepRequest{
		StepId: "job/command/host-1/0", TaskId: "job", NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli(),
		Spec: &quicflowv1.StepRequest_Command{Command: &quicflowv1.CommandStep{
			Type: "exec_shell", Payload: text, TimeoutMs: patience.Milliseconds(),
		}},
	}
}

func TestShellCommand(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	result := h.run(h.command(map[string]any{
		"command":  `pwd; echo "$GREETING $QUICFLOW_TARGET $QUICFLOW_LABEL_PORT"; echo oops >&2; exit 3`,
		"work_dir": h.dir, "env": map[string]string{"GREETING": "hello"},
	}))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.EqualValues(t, 3, result.ExitCode)
	require.Equal(t, "exit code 3: oops", result.Error)
	out := h.dir + "\nhello host-1 8080\n"
	require.Equal(t, out, string(result.StdoutTail))
	require.Equal(t, out, h.stdout())
	require.EqualValues(t, len(out), result.StdoutBytes)
	require.Equal(t, "oops\n", string(result.StderrTail))
	require.EqualValues(t, 5, result.StderrBytes)
	require.Empty(t, h.output(quicflowv1.Stream_STREAM_SYSTEM), "no lines of the agent's own")
	require.False(t, result.TimedOut || result.NotStarted)
	require.NoDirExists(t, h.path("projects"))
}

func TestShellCommandSaysHowMuchItPrinted(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	result := h.run(h.command(map[string]any{"command": `i=0; while [ $i -lt 2000 ]; do echo 0123456789; i=$((i+1)); done; printf end`}))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	all := strings.Repeat("0123456789\n", 2000) + "end"
	require.Equal(t, all, h.stdout())
	require.EqualValues(t, len(all), result.StdoutBytes)
	require.Equal(t, all[len(all)-4096:], string(result.StdoutTail))
	require.Empty(t, result.StderrTail)
	require.Zero(t, result.StderrBytes)
}

func TestShellCommandTimesOut(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.command(map[string]any{"command": `echo begun; sleep 100 & echo $$ > $T/pid; sleep 100`})
	step.GetCommand().TimeoutMs = 300
	result := h.run(step)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.True(t, result.TimedOut)
	require.Equal(t, "timed out after 300ms", result.Error)
	require.Equal(t, "begun\n", string(result.StdoutTail))
	pid := h.awaitPID("pid")
	require.Eventually(t, func() bool { return len(group(t, pid)) == 0 }, patience, 5*time.Millisecond)
}

func TestShellCommandOfAnotherInterpreter(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	result := h.run(h.command(map[string]any{"command": "false; echo reached", "interpreter": "/bin/sh -e"}))
	require.EqualValues(t, 1, result.ExitCode)
	require.Empty(t, h.stdout())
}

func TestShellCommandAsAnotherUser(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if os.Geteuid() != 0 {
		_, err := os.Stat("/root/.")
		require.Error(t, err)
		require.ErrorContains(t, h.exec.CheckCommand(h.command(map[string]any{"command": "id", "user": "nobody"}).GetCommand()), "does not run as root")
		return
	}
	result := h.run(h.command(map[string]any{"command": `id -un; echo $USER; cat "$T/steps/1/plan.json"`, "user": "nobody", "work_dir": "/"}))
	require.Equal(t, "nobody\nnobody\n", string(result.StdoutTail), result.Error)
	require.Contains(t, string(result.StderrTail), "ermission denied", "the step's files stay the agent's")
}

func TestShellCommandThatIsWrong(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for want, payload := range map[string]map[string]any{
		"payload.command: it is empty":                         {},
		"payload.comand: this command has no such field":       {"comand": "ls"},
		"payload.command: it is a number, not a string":        {"command": 1},
		`payload.work_dir: "tmp" is not an absolute path`:      {"command": "ls", "work_dir": "tmp"},
		`payload.user: this host has no user "no-such-user"`:   {"command": "ls", "user": "no-such-user"},
		`payload.env: "A=B" is not a variable that can be set`: {"command": "ls", "env": map[string]string{"A=B": "x"}},
		"payload.env: it is a number, not a string":            {"command": "ls", "env": map[string]int{"A": 1}},
	} {
		err := h.exec.CheckCommand(h.command(payload).GetCommand())
		require.ErrorIs(t, err, release.ErrInvalid)
		require.EqualError(t, err, want)
	}
	result := h.run(h.command(map[string]any{"command": "echo x", "work_dir": h.path("missing")}))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.True(t, result.NotStarted)
	require.Contains(t, result.Error, "payload.work_dir")
	require.Zero(t, result.StartedUnixMs)
	require.Empty(t, h.stdout())
}

// The agent goes away and comes back while a command runs.
func TestShellCommandGoesOn(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.command(map[string]any{"command": `echo x >> $T/runs; while [ ! -e $T/go ]; do sleep 0.01; done; echo end`})
	ctx, stop := context.WithCancelCause(context.Background())
	results := h.start(ctx, step)
	h.await("runs")
	stop(errStopping)
	require.Nil(t, <-results)
	require.NoError(t, os.WriteFile(h.path("go"), nil, 0o600))
	result := h.run(step)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.Equal(t, "x\n", h.read("runs"))
	require.EqualValues(t, 4, result.StdoutBytes)
}
