package script_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func TestScriptsRunInOrder(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.step("echo main; echo trouble >&2; echo ran >> $T/runs")
	step.GetScript().PreScript, step.GetScript().PostScript = "echo pre", "echo post"
	result := h.run(step)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.Equal(t, step.StepId, result.StepId)
	require.Zero(t, result.ExitCode)
	require.Empty(t, result.Error)
	require.Equal(t, "pre\nmain\npost\n", h.stdout())
	require.Equal(t, "pre\nmain\npost\n", string(result.StdoutTail))
	require.Equal(t, "trouble\n", string(result.StderrTail))
	require.Equal(t, "pre_script begins\nscript begins\npost_script begins\n", h.output(quicflowv1.Stream_STREAM_SYSTEM))
	require.Positive(t, result.StartedUnixMs)
	require.GreaterOrEqual(t, result.FinishedUnixMs, result.StartedUnixMs)
	info, err := os.Stat(h.stepFile("spool"))
	require.NoError(t, err)
	require.EqualValues(t, info.Size(), result.LogEnd)

	require.Equal(t, result.StdoutTail, h.run(step).StdoutTail, "asked again, it gives the same result")
	require.Equal(t, "ran\n", h.read("runs"))
}

func TestFirstFailureEndsTheStep(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ pre, main, post, want string }{
		"pre":  {"echo no disk >&2; exit 4", "echo x >> $T/runs", "", "pre_script: exit code 4: no disk"},
		"main": {"echo old >&2", "echo boom >&2; echo >&2; exit 4", "echo x >> $T/runs", "exit code 4: boom"},
		"post": {"", "echo main >&2", "exit 4", "post_script: exit code 4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			step := h.step(c.main)
			step.GetScript().PreScript, step.GetScript().PostScript = c.pre, c.post
			result := h.run(step)
			require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
			require.EqualValues(t, 4, result.ExitCode)
			require.Equal(t, c.want, result.Error)
			require.Empty(t, h.read("runs"))
			require.Contains(t, h.output(quicflowv1.Stream_STREAM_SYSTEM), c.want)
		})
	}
}

func TestScriptKilledBySignal(t *testing.T) {
	t.Parallel()
	result := newHost(t).run(newHost(t).step("kill -9 $$"))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.EqualValues(t, 137, result.ExitCode)
}

func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET_OF_THE_AGENT", "x")
	h := newHost(t)
	result := h.run(h.step("env; pwd; echo $0"))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	lines := strings.Split(h.stdout(), "\n")
	workDir := h.path("projects/web")
	for _, want := range []string{
		"QUICFLOW_RELEASE=task", "QUICFLOW_VERSION=2.0", "QUICFLOW_PREVIOUS_VERSION=1.0", "QUICFLOW_PROJECT=web",
		"QUICFLOW_TARGET=host-1", "QUICFLOW_ACTION=update", "QUICFLOW_WORK_DIR=" + workDir,
		"QUICFLOW_LABEL_PORT=8080", "QUICFLOW_LABEL_RACK_ROW_ID=r1", "PORT=1", workDir, h.stepFile("script"),
	} {
		require.Contains(t, lines, want)
	}
	require.Contains(t, h.stdout(), "\nPATH=")
	require.NotContains(t, h.stdout(), "SECRET_OF_THE_AGENT")
}

func TestInterpreterAndWorkDir(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.step("this is data\n")
	step.GetScript().Interpreter = "/bin/cat -n"
	step.GetScript().WorkDir = h.path("made/on/demand")
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, h.run(step).Outcome)
	require.Contains(t, h.stdout(), "1\tthis is data")
	require.DirExists(t, h.path("made/on/demand"))

	h = newHost(t)
	step = h.step("true")
	step.GetScript().Interpreter = "/no/such/interpreter"
	result := h.run(step)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.EqualValues(t, -1, result.ExitCode)
	require.Contains(t, result.Error, "/no/such/interpreter")
}

func TestStepThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*quicflowv1.StepRequest)
		want   string
	}{
		"project":   {func(s *quicflowv1.StepRequest) { s.Project = "../../etc" }, "not the name of a project"},
		"work dir":  {func(s *quicflowv1.StepRequest) { s.GetScript().WorkDir = "relative" }, "not an absolute path"},
		"no spec":   {func(s *quicflowv1.StepRequest) { s.Spec = nil }, "not a script step"},
		"no script": {func(s *quicflowv1.StepRequest) { s.GetScript().Script = "" }, "no script for the action update"},
		"unknown name": {func(s *quicflowv1.StepRequest) {
			s.GetScript().Health = &quicflowv1.HealthCheck{Probe: &quicflowv1.HealthCheck_Tcp{Tcp: "localhost:${NO_SUCH}"}}
		}, "health check: ${NO_SUCH} is not in the step's environment"},
		"bad url": {func(s *quicflowv1.StepRequest) {
			s.GetScript().Health = &quicflowv1.HealthCheck{Probe: &quicflowv1.HealthCheck_Http{Http: "ftp://${T}"}}
		}, "not an http or https URL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			step := h.step("echo x >> $T/runs")
			c.change(step)
			result := h.run(step)
			require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, result.Outcome)
			require.Contains(t, result.Error, c.want)
			require.Empty(t, h.read("runs"))
		})
	}
}

func TestOutputIsExact(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	data := make([]byte, 300_000)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	require.NoError(t, os.WriteFile(h.path("data"), data, 0o600))
	result := h.run(h.step(`cat $T/data; i=0; while [ $i -lt 500 ]; do echo $i >&2; i=$((i+1)); done`))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.True(t, string(data) == h.stdout(), "binary bytes")
	var numbers strings.Builder
	for i := range 500 {
		fmt.Fprintln(&numbers, i)
	}
	require.Equal(t, numbers.String(), h.output(quicflowv1.Stream_STREAM_STDERR))
	require.Equal(t, data[len(data)-4096:], result.StdoutTail)
}

func TestBackgroundChildDoesNotHoldTheStep(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	begin := time.Now()
	// The child keeps both pipes and goes on writing to them after the step, and the wrapper, have ended.
	result := h.run(h.step(`
		(i=0; while [ $i -lt 6000 ]; do echo from the background; i=$((i+1)); sleep 0.01; echo $i > $T/count; done) &
		echo done`))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.Less(t, time.Since(begin), patience/2)
	require.Contains(t, h.stdout(), "done\n")
	leader := scriptGroup(t, h)
	t.Cleanup(func() { killGroup(leader) })
	gone(t, h.wrapperPID())
	before := h.await("count")
	require.Eventually(t, func() bool { c := h.read("count"); return c != "" && strings.TrimSpace(c) != before }, patience, 5*time.Millisecond,
		"the child lives on, though nobody keeps what it writes")
	require.NotEmpty(t, group(t, leader))
}

func TestOutputWrittenBeforeTheEndIsKept(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	// 60,000 bytes fit the pipe, so the script ends before they are read; the child keeps the pipe open.
	result := h.run(h.step(`sleep 30 & head -c 60000 /dev/zero; exit 3`))
	t.Cleanup(func() { killGroup(scriptGroup(t, h)) })
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Len(t, h.stdout(), 60000)
}

func TestTimeoutKillsTheGroup(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	// Main process and child ignore SIGTERM, so only SIGKILL helps.
	step := h.step(`trap '' TERM; sh -c 'trap "" TERM; echo child; sleep 100; sleep 100' & echo $$ > $T/pid; echo last words >&2; sleep 100; sleep 100`)
	step.GetScript().TimeoutMs = 300
	begin := time.Now()
	result := h.run(step)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Equal(t, "timed out after 300ms", result.Error)
	require.EqualValues(t, -1, result.ExitCode)
	require.Equal(t, "last words\n", string(result.StderrTail))
	require.Less(t, time.Since(begin), patience/2)
	require.Eventually(t, func() bool { return len(group(t, h.awaitPID("pid"))) == 0 }, patience, 5*time.Millisecond)
}

func TestTimeoutLetsTheScriptCleanUp(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.step(`trap 'echo cleaned > $T/clean; exit 0' TERM; echo x; sleep 100 & wait`)
	step.GetScript().TimeoutMs = 300
	result := h.run(step)
	require.Equal(t, "timed out after 300ms", result.Error)
	require.Equal(t, "cleaned\n", h.read("clean"))
}

func TestTimeoutIsForAllScriptsTogether(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.step("sleep 100")
	step.GetScript().PreScript = "sleep 0.2"
	step.GetScript().TimeoutMs = 400
	require.Equal(t, "timed out after 400ms", h.run(step).Error)
}

// scriptGroup reads the process group of the script that ran last.
func scriptGroup(t *testing.T, h *host) (id int) {
	t.Helper()
	text, err := os.ReadFile(h.stepFile("group"))
	require.NoError(t, err)
	_, err = fmt.Sscan(string(text), &id)
	require.NoError(t, err)
	return id
}

func TestScriptFilesArePrivate(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.run(h.step("true"))
	err := filepath.Walk(h.stepFile(""), func(path string, info os.FileInfo, err error) error {
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, path)
		return nil
	})
	require.NoError(t, err)
}
