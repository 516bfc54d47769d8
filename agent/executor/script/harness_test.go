package script_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/script"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

var errStopping = errors.New("the agent stops")

func TestMain(m *testing.M) {
	wrapper.MaybeRun(script.New())
	goleak.VerifyTestMain(m)
}

// host is where a step runs.
type host struct {
	t    *testing.T
	dir  string // the agent's data directory
	exec *executor.Set
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	labels := map[string]string{"port": "8080", "rack.row-id": "r1"}
	return &host{t: t, dir: dir, exec: executortest.NewSet(t, executor.Host{ClientID: "host-1", DataDir: dir, Labels: labels}, script.New())}
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) stepFile(name string) string { return filepath.Join(h.dir, "steps", "1", name) }

func (h *host) log() *spool.Writer { return spool.NewWriter(spool.Config{Path: h.stepFile("spool")}) }

// step gives a request with this main script, and what change makes of its configuration. $T in scripts is the test's directory.
func (h *host) step(text string, change ...func(*release.ScriptSpec)) *quicflowv1.StepRequest {
	h.t.Helper()
	spec := release.ScriptSpec{
		Install: text, Update: text, Rollback: text, Timeout: release.Duration(patience), Env: map[string]string{"T": h.dir, "PORT": "1"},
	}
	for _, f := range change {
		f(&spec)
	}
	config, err := json.Marshal(spec)
	require.NoError(h.t, err)
	return &quicflowv1.StepRequest{
		StepId: "task/deploy/host-1/0", TaskId: "task", Action: "update", Project: "web", Version: "2.0", PreviousVersion: "1.0",
		NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli(),
		Spec:           &quicflowv1.StepRequest_Deploy{Deploy: &quicflowv1.DeployStep{Type: "script", Config: config, ConfigId: "c1"}},
	}
}

// run runs a step to its end.
func (h *host) run(step *quicflowv1.StepRequest) *quicflowv1.StepResult {
	h.t.Helper()
	result := <-h.start(context.Background(), step)
	require.NotNil(h.t, result)
	return result
}

// start runs a step in the background. It ends at the latest with the test.
func (h *host) start(ctx context.Context, step *quicflowv1.StepRequest) <-chan *quicflowv1.StepResult {
	h.t.Helper()
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errStopping)
	results := make(chan *quicflowv1.StepResult, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if executor.Untouched(h.stepFile("")) {
			results <- h.exec.Run(ctx, step, h.log())
		} else {
			results <- h.exec.Resume(ctx, step, h.log())
		}
	}()
	h.t.Cleanup(func() {
		cancel()
		<-done
	})
	return results
}

// cancellable gives a context and the function that cancels a step.
func cancellable(reason string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	return ctx, func() { cancel(&executor.Cancelled{Reason: reason}) }
}

// output is what the spool holds of a stream.
func (h *host) output(stream quicflowv1.Stream) string {
	h.t.Helper()
	reader := spool.NewReader(h.stepFile("spool"), 0)
	defer reader.Close()
	var all strings.Builder
	for {
		records, err := reader.Next(1 << 20)
		require.NoError(h.t, err)
		if len(records) == 0 {
			return all.String()
		}
		for _, r := range records {
			if r.Stream == stream {
				all.Write(r.Data)
			}
		}
	}
}

func (h *host) stdout() string { return h.output(quicflowv1.Stream_STREAM_STDOUT) }

func (h *host) read(name string) string {
	text, _ := os.ReadFile(h.path(name))
	return string(text)
}

// await waits for a file with a line in it and gives that.
func (h *host) await(name string) string {
	h.t.Helper()
	require.Eventually(h.t, func() bool { return strings.HasSuffix(h.read(name), "\n") }, patience, 5*time.Millisecond, "%s", name)
	return strings.TrimSpace(h.read(name))
}

func (h *host) awaitPID(name string) int {
	h.t.Helper()
	pid, err := strconv.Atoi(h.await(name))
	require.NoError(h.t, err)
	return pid
}

// wrapperPID is the process of the wrapper, once it lives.
func (h *host) wrapperPID() int {
	h.t.Helper()
	var pid int
	require.Eventually(h.t, func() bool {
		text, _ := os.ReadFile(h.stepFile("wrapper.pid"))
		id, _, _ := strings.Cut(string(text), " ")
		pid, _ = strconv.Atoi(id)
		return pid > 1
	}, patience, 5*time.Millisecond)
	return pid
}

// alive says whether a process runs; a zombie does not.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// group lists the living processes of a process group.
func group(t *testing.T, id int) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !alive(pid) {
			continue
		}
		if g, err := syscall.Getpgid(pid); err == nil && g == id {
			pids = append(pids, pid)
		}
	}
	return pids
}

func gone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool { return !alive(pid) }, patience, 5*time.Millisecond, "process %d", pid)
}

func killLater(t *testing.T, pid int) {
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
}
