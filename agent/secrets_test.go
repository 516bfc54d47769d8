package agent_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/script"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// secret is found nowhere by chance.
const secret = "hunter2-hunter2-hunter2"

// secretive is a step that fails unless it gets its secret. $D is a directory that is not the agent's.
func secretive(epoch, dir, text string) *quicflowv1.StepRequest {
	s := step("a", epoch, "x")
	deploy := deployOf(release.ScriptSpec{
		Install: `[ ${#TOKEN} = 23 ] || exit 9; ` + text,
		Env:     map[string]string{"D": dir, "TOKEN": "${APP_TOKEN}", "HOST": "${QUICFLOW_TARGET}"},
	})
	deploy.Secrets = map[string]string{"APP_TOKEN": secret}
	s.Spec = &quicflowv1.StepRequest_Deploy{Deploy: deploy}
	return s
}

// scripts is an agent that runs scripts.
func (w *world) scripts() agent.Config {
	w.t.Helper()
	cfg := w.config("a")
	cfg.NoSync = false
	cfg.Executor = executortest.NewSet(w.t, executor.Host{ClientID: "a", DataDir: cfg.DataDir}, script.New())
	return cfg
}

func TestSecretsAreGoneWithTheStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, dir := w.scripts(), t.TempDir()
	first := w.connect(cfg)
	s := secretive("0", dir, `touch $D/runs; n=0; while [ ! -e $D/go ] && [ $((n+=1)) -lt 3000 ]; do sleep 0.01; done; echo $HOST`)
	w.accepted("a", s)
	w.eventually(func() bool { _, err := os.Stat(filepath.Join(dir, "runs")); return err == nil }, "it runs")
	steps, err := filepath.Glob(filepath.Join(cfg.DataDir, "steps", "*"))
	require.NoError(t, err)
	require.Len(t, steps, 1)
	kept := filepath.Join(steps[0], "secrets.json")
	require.Equal(t, []string{kept}, executortest.FilesWith(t, cfg.DataDir, secret), "in its own file, and never in the journal")
	info, err := os.Stat(kept)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	// It goes on in the agent's next life, and its spool outlives the rest of it.
	first.stop()
	w.store.with(func() { w.store.broken = true })
	w.connect(cfg)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	w.eventually(func() (came bool) {
		w.store.with(func() { came = w.store.deliverd[s.StepId] > 0 })
		return came
	}, "the result comes")
	require.Empty(t, executortest.FilesWith(t, cfg.DataDir, secret))
	left, err := os.ReadDir(steps[0])
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.Equal(t, "spool", left[0].Name())
	w.store.with(func() { w.store.broken = false })
	require.Equal(t, release.StepSucceeded, w.result(s.StepId).State)
	require.Equal(t, "a\n", w.output(s.StepId, release.StreamStdout))
	w.forgotten(cfg.DataDir)
}

// The secrets of a step that never runs are gone, too.
func TestSecretsOfStepsThatDoNotRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, dir := w.scripts(), t.TempDir()
	cfg.MaxJournal = 3
	w.connect(cfg)
	late := secretive("0", dir, "true")
	late.NotAfterUnixMs = time.Now().Add(-time.Second).UnixMilli()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, w.request("a", late).GetStep().GetResult().GetOutcome())
	none := secretive("1", dir, "true")
	none.NotAfterUnixMs = 0
	require.NotNil(t, w.request("a", none).GetFailure())
	unknown := secretive("2", dir, "true")
	unknown.GetDeploy().Type = "dance"
	require.Equal(t, quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, w.request("a", unknown).GetFailure().GetCode())
	require.Empty(t, executortest.FilesWith(t, cfg.DataDir, secret))

	// One that waits for its turn has them, until it is cancelled.
	first := secretive("3", dir, "touch $D/runs; n=0; while [ ! -e $D/go ] && [ $((n+=1)) -lt 3000 ]; do sleep 0.01; done")
	second := secretive("4", dir, "touch $D/second")
	w.accepted("a", first)
	w.accepted("a", second)
	w.eventually(func() bool { _, err := os.Stat(filepath.Join(dir, "runs")); return err == nil }, "the first runs")
	require.Len(t, executortest.FilesWith(t, cfg.DataDir, secret), 2)
	w.cancelStep("a", second.StepId)
	require.Equal(t, release.StepRefused, w.result(second.StepId).State)
	require.Len(t, executortest.FilesWith(t, cfg.DataDir, secret), 1)
	w.cancelStep("a", first.StepId)
	require.Equal(t, release.StepCancelled, w.result(first.StepId).State)
	w.forgotten(cfg.DataDir)
	require.Empty(t, executortest.FilesWith(t, cfg.DataDir, secret))
	require.NoFileExists(t, filepath.Join(dir, "second"))
}

// An agent that is killed between intent and effect has them still.
func TestSecretsOutliveTheAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.victim(afterIntent)
	s := secretive("0", p.cfg.DataDir, "echo begin; echo ran >> $D/runs; echo end")
	w.accepted("a", s)
	w.eventually(func() bool { _, err := os.Stat(p.path("stands")); return err == nil }, "it stands")
	p.kill()
	require.Len(t, executortest.FilesWith(t, p.cfg.DataDir, secret), 1)
	p.again()
	w.requireOnce(p, s)
	require.Empty(t, executortest.FilesWith(t, p.cfg.DataDir, secret))
}

// A copy of a journal leaves none, as its steps are given up.
func TestSecretsOfARestoredAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, dir := w.scripts(), t.TempDir()
	first := w.connect(cfg)
	s := secretive("0", dir, "touch $D/runs; n=0; while [ ! -e $D/go ] && [ $((n+=1)) -lt 3000 ]; do sleep 0.01; done")
	w.accepted("a", s)
	w.eventually(func() bool { _, err := os.Stat(filepath.Join(dir, "runs")); return err == nil }, "it runs")
	first.stop()
	restored := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.CopyFS(restored, os.DirFS(cfg.DataDir)))
	require.NoError(t, filepath.Walk(restored, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			err = os.Chmod(path, info.Mode()&0o700)
		}
		return err
	}))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	w.eventually(func() bool {
		results, err := filepath.Glob(filepath.Join(cfg.DataDir, "steps", "*", "result"))
		return err == nil && len(results) == 1
	}, "the original ends it")
	require.Len(t, executortest.FilesWith(t, restored, secret), 1)
	cfg.DataDir = restored
	cfg.Executor = executortest.NewSet(t, executor.Host{ClientID: "a", DataDir: restored}, script.New())
	w.connect(cfg)
	require.Equal(t, release.StepUnknown, w.result(s.StepId).State)
	w.forgotten(restored)
	require.Empty(t, executortest.FilesWith(t, restored, secret))
}
