package script_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func TestScriptsRunInOrder(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.step("echo main; echo trouble >&2; echo ran >> $T/runs", func(s *release.ScriptSpec) {
		s.PreScript, s.PostScript = "echo pre", "echo post"
	})
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
			result := h.run(h.step(c.main, func(s *release.ScriptSpec) { s.PreScript, s.PostScript = c.pre, c.post }))
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
		"QUICFLOW_ENVIRONMENT=", "QUICFLOW_LABEL_PORT=8080", "QUICFLOW_LABEL_RACK_ROW_ID=r1", "PORT=1", workDir, h.stepFile("script"),
	} {
		require.Contains(t, lines, want)
	}
	require.Contains(t, h.stdout(), "\nPATH=")
	require.NotContains(t, h.stdout(), "SECRET_OF_THE_AGENT")
}

func TestInterpreterAndWorkDir(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.step("this is data\n", func(s *release.ScriptSpec) {
		s.Interpreter, s.WorkDir = "/bin/cat -n", h.path("made/on/demand")
	})
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, h.run(step).Outcome)
	require.Contains(t, h.stdout(), "1\tthis is data")
	require.DirExists(t, h.path("made/on/demand"))

	h = newHost(t)
	step = h.step("true", func(s *release.ScriptSpec) { s.Interpreter = "/no/such/interpreter" })
	result := h.run(step)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.EqualValues(t, -1, result.ExitCode)
	require.Contains(t, result.Error, "/no/such/interpreter")
}

// Each action runs the script that is for it, and no other.
func TestActionsHaveTheirScripts(t *testing.T) {
	t.Parallel()
	for _, action := range []release.StepAction{release.StepInstall, release.StepUpdate, release.StepRollbackTo, release.StepUninstall} {
		h := newHost(t)
		step := h.step("", func(s *release.ScriptSpec) {
			s.Install, s.Update, s.Rollback, s.Uninstall = "echo install", "echo update", "echo rollback", "echo uninstall"
		})
		step.Action = string(action)
		result := h.run(step)
		require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
		require.Equal(t, string(action)+"\n", h.stdout())
	}
}

func TestStepThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	health := func(check release.Health) func(*release.ScriptSpec) {
		return func(s *release.ScriptSpec) { s.Health = &check }
	}
	for name, c := range map[string]struct {
		spec    func(*release.ScriptSpec)
		request func(*quicflowv1.StepRequest)
		want    string
	}{
		"project":      {request: func(s *quicflowv1.StepRequest) { s.Project = "../../etc" }, want: "not the name of a project"},
		"no action":    {request: func(s *quicflowv1.StepRequest) { s.Action = "dance" }, want: `action: "dance" is not an action`},
		"config":       {request: func(s *quicflowv1.StepRequest) { s.GetDeploy().Config = []byte(`{"instal":"x"}`) }, want: `unknown field "instal"`},
		"work dir":     {spec: func(s *release.ScriptSpec) { s.WorkDir = "relative" }, want: "not an absolute path"},
		"user":         {spec: func(s *release.ScriptSpec) { s.User = "nobody" }, want: "script.user: another user cannot enter the agent's data directory"},
		"no script":    {spec: func(s *release.ScriptSpec) { s.Update = "" }, want: "no script for the action update"},
		"unknown name": {spec: health(release.Health{TCP: "localhost:${NO_SUCH}"}), want: "health: ${NO_SUCH} is not in the step's environment"},
		"bad url":      {spec: health(release.Health{HTTP: "ftp://${T}"}), want: "not an http or https URL"},
		"variable":     {spec: func(s *release.ScriptSpec) { s.WorkDir = "/${NO_SUCH}" }, want: "there is no variable NO_SUCH"},
		"limits": {spec: func(s *release.ScriptSpec) {
			s.Artifacts = []release.Artifact{{Name: "../x", SHA256: strings.Repeat("0", 64)}}
		}, want: `"../x" is not the name of a file`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			var changes []func(*release.ScriptSpec)
			if c.spec != nil {
				changes = append(changes, c.spec)
			}
			step := h.step("echo x >> $T/runs", changes...)
			if c.request != nil {
				c.request(step)
			}
			result := h.run(step)
			require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
			require.True(t, result.NotStarted)
			require.Contains(t, result.Error, c.want)
			require.Empty(t, h.read("runs"))
		})
	}
	h := newHost(t)
	step := h.step("true")
	step.GetDeploy().Type = "dance"
	require.ErrorIs(t, h.exec.CheckStep(step), executor.ErrUnsupported)
	step.Spec = nil
	require.ErrorIs(t, h.exec.CheckStep(step), executor.ErrUnsupported)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, h.run(step).Outcome)
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
		echo $$ > $T/pid; echo done`))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.Less(t, time.Since(begin), patience/2)
	require.Contains(t, h.stdout(), "done\n")
	leader := h.awaitPID("pid")
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
	result := h.run(h.step(`echo $$ > $T/pid; sleep 30 & head -c 60000 /dev/zero; exit 3`))
	t.Cleanup(func() { killGroup(h.awaitPID("pid")) })
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Len(t, h.stdout(), 60000)
}

func TestTimeoutKillsTheGroup(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	// Main process and child ignore SIGTERM, so only SIGKILL helps.
	step := h.step(`trap '' TERM; sh -c 'trap "" TERM; echo child; sleep 100; sleep 100' & echo $$ > $T/pid; echo last words >&2; sleep 100; sleep 100`, timeout(300*time.Millisecond))
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
	step := h.step(`trap 'echo cleaned > $T/clean; exit 0' TERM; echo x; sleep 100 & wait`, timeout(300*time.Millisecond))
	result := h.run(step)
	require.Equal(t, "timed out after 300ms", result.Error)
	require.Equal(t, "cleaned\n", h.read("clean"))
}

func TestTimeoutIsForAllScriptsTogether(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.step("sleep 100", timeout(400*time.Millisecond), func(s *release.ScriptSpec) { s.PreScript = "sleep 0.2" })
	require.Equal(t, "timed out after 400ms", h.run(step).Error)
}

func timeout(d time.Duration) func(*release.ScriptSpec) {
	return func(s *release.ScriptSpec) { s.Timeout = release.Duration(d) }
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
