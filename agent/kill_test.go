package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/command"
	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/script"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// processVariable turns the test's binary into an agent; it holds a processConfig.
const processVariable = "QUICFLOW_TEST_AGENT"

// processConfig is what an agent in a process of its own is told.
type processConfig struct {
	Server, ID, DataDir, Token string
	Stop                       string // where it stands still: "intent", "effect", or nowhere
}

// The places where an agent can be made to stand still, to be killed there.
const (
	afterIntent = "intent" // the intent is on disk, the effect has not begun
	afterEffect = "effect" // the step has ended, the result is not on disk
)

// standstill is a script executor that stops the world at one place of a first run.
type standstill struct {
	*executor.Set
	cfg processConfig
}

func (s standstill) Run(ctx context.Context, step *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult {
	if s.cfg.Stop == afterIntent {
		s.stand()
	}
	result := s.Set.Run(ctx, step, log)
	if s.cfg.Stop == afterEffect {
		s.stand()
	}
	return result
}

func (s standstill) stand() {
	_ = os.WriteFile(filepath.Join(s.cfg.DataDir, "stands"), nil, 0o600)
	select {}
}

func runProcess() int {
	var p processConfig
	if err := json.Unmarshal([]byte(os.Getenv(processVariable)), &p); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	x, err := wrapper.New(wrapper.Config{Worker: script.New()})
	var e *executor.Set
	if err == nil {
		e, err = executor.NewSet(executor.Host{ClientID: p.ID, DataDir: p.DataDir}, x)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	a, err := agent.New(agent.Config{
		Servers: []string{p.Server}, ClientID: p.ID, DataDir: p.DataDir, Token: p.Token, Executor: standstill{e, p},
		Commands: map[string]command.Command{"stand": {Run: func(context.Context, *command.Call) (any, error) {
			standstill{e, p}.stand()
			return nil, nil
		}}},
		Backoff: agent.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond},
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := a.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process is an agent in a process of its own.
type process struct {
	t   testing.TB
	cfg processConfig
	cmd *exec.Cmd
}

// victim starts an agent that stands still at a place.
func (w *world) victim(stop string) *process {
	w.t.Helper()
	p := &process{t: w.t, cfg: processConfig{Server: w.addr, ID: "a", DataDir: w.t.TempDir(), Token: w.token(nil), Stop: stop}}
	p.start()
	w.online("a")
	w.t.Cleanup(p.kill)
	return p
}

func (p *process) start() {
	p.t.Helper()
	program, err := os.Executable()
	require.NoError(p.t, err)
	cfg, err := json.Marshal(p.cfg)
	require.NoError(p.t, err)
	p.cmd = exec.Command(program)
	p.cmd.Env = append(os.Environ(), processVariable+"="+string(cfg))
	p.cmd.Stderr = testWriter{p.t}
	p.cmd.WaitDelay = time.Second
	require.NoError(p.t, p.cmd.Start())
}

// kill is kill -9.
func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// again starts the agent anew, with nothing in its way.
func (p *process) again() {
	p.t.Helper()
	p.kill()
	p.cfg.Stop = ""
	p.start()
}

func (p *process) path(name string) string { return filepath.Join(p.cfg.DataDir, name) }

func (p *process) read(name string) string {
	text, _ := os.ReadFile(p.path(name))
	return string(text)
}

// traced is a step that leaves a line in the file "runs" and then runs text. $D is the agent's data directory.
func (p *process) traced(text string) *quicflowv1.StepRequest {
	return p.step("0", "echo begin; echo ran >> $D/runs; "+text+"; echo end")
}

// step is a step with the agent's data directory as $D.
func (p *process) step(epoch, text string) *quicflowv1.StepRequest {
	s := step("a", epoch, text)
	s.Spec = &quicflowv1.StepRequest_Deploy{Deploy: deployOf(release.ScriptSpec{Install: text, Env: map[string]string{"D": p.cfg.DataDir}})}
	return s
}

// requireOnce checks that the step succeeded, ran once and left its whole log.
func (w *world) requireOnce(p *process, s *quicflowv1.StepRequest) {
	w.t.Helper()
	result := w.result(s.StepId)
	require.Equal(w.t, release.StepSucceeded, result.State, result.Error)
	require.Equal(w.t, "ran\n", p.read("runs"))
	require.Equal(w.t, "begin\nend\n", w.output(s.StepId, release.StreamStdout))
	require.Equal(w.t, "script begins\n", w.output(s.StepId, release.StreamSystem))
	w.forgotten(p.cfg.DataDir)
	w.online("a")
	require.Equal(w.t, quicflowv1.StepState_STEP_STATE_FINISHED, w.request("a", s).GetStep().GetState())
	require.Equal(w.t, "ran\n", p.read("runs"))
}

func TestKilledBetweenIntentAndEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.victim(afterIntent)
	s := p.traced("true")
	w.accepted("a", s)
	w.eventually(func() bool { _, err := os.Stat(p.path("stands")); return err == nil }, "it stands")
	p.kill()
	require.Empty(t, p.read("runs"))
	p.again()
	w.requireOnce(p, s)
}

// What a command changes begins only when its intent is on disk: it is never taken for new again.
func TestKilledWhileACommandRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.victim("")
	s := commandStep("1", "stand", "")
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, _ = w.hub.Request(ctx, "a", &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: s}})
	}()
	w.eventually(func() bool { _, err := os.Stat(p.path("stands")); return err == nil }, "it stands")
	p.kill() // before anyone was told that it is accepted
	require.NoError(t, os.Remove(p.path("stands")))
	p.again()
	require.Equal(t, release.StepUnknown, w.result(s.StepId).State)
	require.NoFileExists(t, p.path("stands"))
	<-asked
}

func TestKilledWhileTheScriptRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.victim("")
	s := p.traced("n=0; while [ ! -e $D/go ] && [ $((n+=1)) -lt 3000 ]; do sleep 0.01; done")
	w.accepted("a", s)
	w.eventually(func() bool { return p.read("runs") != "" }, "it runs")
	p.again()
	w.eventually(func() (second bool) {
		w.store.with(func() { second = w.store.epochs["a"] == 2 })
		return second
	}, "the agent is back")
	w.online("a")
	w.accepted("a", s)
	require.NoError(t, os.WriteFile(p.path("go"), nil, 0o600))
	w.requireOnce(p, s)
}

// The script ends while there is no agent.
func TestKilledAndTheScriptEndsMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.victim("")
	s := p.traced("n=0; while [ ! -e $D/go ] && [ $((n+=1)) -lt 3000 ]; do sleep 0.01; done")
	w.accepted("a", s)
	w.eventually(func() bool { return p.read("runs") != "" }, "it runs")
	p.kill()
	require.NoError(t, os.WriteFile(p.path("go"), nil, 0o600))
	w.eventually(func() bool {
		results, err := filepath.Glob(p.path("steps/*/result"))
		return err == nil && len(results) == 1
	}, "the wrapper leaves the result")
	p.again()
	w.requireOnce(p, s)
}

func TestKilledBetweenEffectAndResult(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.victim(afterEffect)
	s := p.traced("true")
	w.accepted("a", s)
	w.eventually(func() bool { _, err := os.Stat(p.path("stands")); return err == nil }, "it stands")
	p.again()
	w.requireOnce(p, s)
}

func TestKilledBetweenResultAndAcknowledgement(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.victim("")
	w.store.with(func() { w.store.broken = true })
	s := p.traced("true")
	w.accepted("a", s)
	w.eventually(func() (came bool) {
		w.store.with(func() { came = w.store.deliverd[s.StepId] > 0 })
		return came
	}, "the result comes")
	p.kill()
	w.store.with(func() { w.store.broken = false })
	p.again()
	w.requireOnce(p, s)
}

// A stop that is asked for leaves running scripts alone, too.
func TestStoppedWhileTheScriptRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.victim("")
	s := p.traced("n=0; while [ ! -e $D/go ] && [ $((n+=1)) -lt 3000 ]; do sleep 0.01; done")
	w.accepted("a", s)
	w.eventually(func() bool { return p.read("runs") != "" }, "it runs")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.cmd.Wait())
	p.cmd = nil
	w.eventually(func() (said bool) {
		w.store.with(func() { said = w.store.goodbyes["a"] == 1 })
		return said
	}, "its goodbye is stored")
	p.again()
	require.NoError(t, os.WriteFile(p.path("go"), nil, 0o600))
	w.requireOnce(p, s)
}

// Kill after kill, at any moment, while steps come in: each runs once, and no line is lost or doubled.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.victim("")
	const steps = 12
	for i := range steps {
		s := p.step(itoa(i), fmt.Sprintf(`for n in 1 2 3 4 5; do echo $n; sleep 0.0%d; done; echo %d >> $D/runs`, i%3, i))
		w.online("a")
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		for {
			// The answer may get lost with the agent; then the same step is sent again.
			response, err := w.hub.Request(ctx, "a", &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: s}})
			if err == nil {
				require.NotNil(t, response.GetStep(), "%v", response)
				break
			}
			require.NoError(t, ctx.Err())
			w.online("a")
		}
		cancel()
		if i%2 == 1 {
			p.again()
		}
	}
	for i := range steps {
		require.Equal(t, release.StepSucceeded, w.result(stepID("a", itoa(i))).State)
		require.Equal(t, "1\n2\n3\n4\n5\n", w.output(stepID("a", itoa(i)), release.StreamStdout))
	}
	lines := strings.Fields(p.read("runs"))
	require.Len(t, lines, steps)
	require.Len(t, uniq(lines), steps)
	w.store.with(func() { require.Zero(t, w.store.gaps) })
}

func uniq(lines []string) map[string]bool {
	set := map[string]bool{}
	for _, line := range lines {
		set[line] = true
	}
	return set
}

// A big binary output through wrapper, spool, kill and reconnect.
func TestKilledWhileOutputFlows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.victim("")
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(i >> 7 * i)
	}
	require.NoError(t, os.WriteFile(p.path("data"), data, 0o600))
	s := p.step("0", `for i in 1 2; do cat $D/data; n=0; while [ ! -e $D/go ] && [ $((n+=1)) -lt 3000 ]; do sleep 0.01; done; done`)
	w.accepted("a", s)
	w.eventually(func() (some bool) {
		w.store.with(func() { some = w.store.positions[s.StepId] > 200_000 })
		return some
	}, "output")
	p.again()
	require.NoError(t, os.WriteFile(p.path("go"), nil, 0o600))
	require.True(t, string(bytes.Repeat(data, 2)) == w.output(s.StepId, release.StreamStdout))
	w.forgotten(p.cfg.DataDir)
}
