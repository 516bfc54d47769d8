package script_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func killGroup(id int) {
	if id > 1 { // 0 would be the group that the tests run in
		_ = syscall.Kill(-id, syscall.SIGKILL)
	}
}

func TestCancelKillsTheGroup(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx, cancel := cancellable("someone said so")
	results := h.start(ctx, h.step(`sleep 100 & echo $$ > $T/pid; sleep 100`))
	pid := h.awaitPID("pid")
	cancel()
	result := <-results
	require.Equal(t, quicflowv1.Outcome_OUTCOME_CANCELLED, result.Outcome)
	require.Equal(t, "cancelled: someone said so", result.Error)
	require.Eventually(t, func() bool { return len(group(t, pid)) == 0 }, patience, 5*time.Millisecond)
}

func TestCancelBeforeTheStart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx, cancel := cancellable("too early")
	cancel()
	result := <-h.start(ctx, h.step("echo x >> $T/runs"))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, result.Outcome)
	require.Contains(t, result.Error, "before the start: cancelled: too early")
	require.Empty(t, h.read("runs"))
}

func TestNotAfterHolds(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.step("echo x >> $T/runs")
	step.NotAfterUnixMs = time.Now().Add(-time.Second).UnixMilli()
	result := h.run(step)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_REFUSED, result.Outcome)
	require.Contains(t, result.Error, "too late")
	require.Empty(t, h.read("runs"))
}

// The agent goes away and comes back, several times, while a script runs: it attaches, and the script runs once.
func TestReattach(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.step(`echo begin; echo x >> $T/runs; n=0; while [ ! -e $T/go ] && [ $((n+=1)) -lt 3000 ]; do sleep 0.01; done; echo end`)
	for range 3 {
		ctx, stop := context.WithCancelCause(context.Background())
		results := h.start(ctx, step)
		h.await("runs")
		stop(errStopping)
		require.Nil(t, <-results, "the step goes on without the agent")
	}
	results := h.start(context.Background(), step)
	require.NoError(t, os.WriteFile(h.path("go"), nil, 0o600))
	result := <-results
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.Equal(t, "x\n", h.read("runs"))
	require.Equal(t, "begin\nend\n", h.stdout())
}

func TestCancelAfterReattach(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.step(`echo $$ > $T/pid; sleep 100`)
	ctx, stop := context.WithCancelCause(context.Background())
	results := h.start(ctx, step)
	h.awaitPID("pid")
	stop(errStopping)
	require.Nil(t, <-results)
	ctx, cancel := cancellable("")
	results = h.start(ctx, step)
	cancel()
	require.Equal(t, quicflowv1.Outcome_OUTCOME_CANCELLED, (<-results).Outcome)
	gone(t, h.awaitPID("pid"))
}

// Several lives of an agent at once, as after a kill -9 at a bad moment, run the script once.
func TestManyWrappersRunOneScript(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.step(`echo x >> $T/runs; sleep 0.2`)
	var all []<-chan *quicflowv1.StepResult
	for range 6 {
		all = append(all, h.start(context.Background(), step))
	}
	for _, results := range all {
		require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, (<-results).Outcome)
	}
	require.Equal(t, "x\n", h.read("runs"))
}

func TestKilledWrapper(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	step := h.step(`echo x >> $T/runs; echo $$ > $T/pid; sleep 100`)
	results := h.start(context.Background(), step)
	pid := h.awaitPID("pid")
	require.NoError(t, syscall.Kill(h.wrapperPID(), syscall.SIGKILL))
	result := <-results
	require.Equal(t, quicflowv1.Outcome_OUTCOME_UNKNOWN, result.Outcome)
	require.Contains(t, result.Error, "cannot be known")
	require.Positive(t, result.StartedUnixMs)
	gone(t, pid)
	require.Equal(t, "x\n", h.read("runs"))
}

func TestTerminatedWrapper(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	results := h.start(context.Background(), h.step(`echo $$ > $T/pid; sleep 100`))
	pid := h.awaitPID("pid")
	require.NoError(t, syscall.Kill(h.wrapperPID(), syscall.SIGTERM))
	result := <-results
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Contains(t, result.Error, "SIGTERM")
	gone(t, pid)
}

// health gives a step whose script succeeds at once and whose check is fast.
func (h *host) healthStep(check release.Health, change ...func(*release.ScriptSpec)) *quicflowv1.StepRequest {
	check.Interval = release.Duration(10 * time.Millisecond)
	if check.Timeout == 0 {
		check.Timeout = release.Duration(500 * time.Millisecond)
	}
	if check.Retries == 0 {
		check.Retries = 2
	}
	return h.step("echo x >> $T/runs", append(change, func(s *release.ScriptSpec) { s.Health = &check })...)
}

func TestHealthHTTP(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/nowhere", http.StatusFound)
		case r.URL.Path != "/third" || hits.Add(1) < 3:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	check := func(path string, retries int) (*host, *quicflowv1.StepResult) {
		h := newHost(t)
		return h, h.run(h.healthStep(release.Health{HTTP: "${BASE}" + path, Retries: retries}, func(s *release.ScriptSpec) { s.Env["BASE"] = server.URL }))
	}
	h, result := check("/third", 3)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	lines := h.output(quicflowv1.Stream_STREAM_SYSTEM)
	require.Contains(t, lines, "health check 2 of 3 failed: GET "+server.URL+"/third: 503 Service Unavailable\n")
	require.Contains(t, lines, "health check passed")

	_, result = check("/moved", 1)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)

	h, result = check("/never", 2)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Equal(t, "health check failed: GET "+server.URL+"/never: 503 Service Unavailable", result.Error)
	require.EqualValues(t, -1, result.ExitCode)
	require.Equal(t, "x\n", h.read("runs"))
}

func TestHealthTCP(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	h := newHost(t)
	result := h.run(h.healthStep(release.Health{TCP: listener.Addr().String()}))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)

	require.NoError(t, listener.Close())
	h = newHost(t)
	result = h.run(h.healthStep(release.Health{TCP: "127.0.0.1:${PORT}"}))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Contains(t, result.Error, "health check failed: TCP 127.0.0.1:1:")
}

func TestHealthExec(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	check := release.Health{Exec: `echo p >> ${T}/probes; [ $(wc -l < "$T/probes") -ge 3 ] || { echo not yet; exit 7; }`}
	check.StartPeriod = release.Duration(patience) // its failures do not count
	result := h.run(h.healthStep(check))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.Contains(t, h.output(quicflowv1.Stream_STREAM_SYSTEM), "health check failed, not counted yet: exit code 7: not yet")
	require.Equal(t, "p\np\np\n", h.read("probes"))

	h = newHost(t)
	check = release.Health{Exec: `echo $$ > $T/pid; sleep 100`, Retries: 1}
	check.Timeout = release.Duration(200 * time.Millisecond)
	result = h.run(h.healthStep(check))
	require.Equal(t, "health check failed: exec: no answer within 200ms", result.Error)
	gone(t, h.awaitPID("pid"))
}

// Between two checks is the interval, and no more checks are made than it takes.
func TestHealthInterval(t *testing.T) {
	t.Parallel()
	const interval = 400 * time.Millisecond
	h := newHost(t)
	began := time.Now()
	result := h.run(h.step("true", func(s *release.ScriptSpec) {
		s.Health = &release.Health{Exec: `echo p >> $T/probes; [ $(wc -l < "$T/probes") -ge 4 ]`, Interval: release.Duration(interval), Retries: 10}
	}))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.GreaterOrEqual(t, time.Since(began), 3*interval)
	require.Equal(t, "p\np\np\np\n", h.read("probes"))
}

// Agent and wrapper die during the health check: the check goes on, the script does not run again.
func TestHealthCheckGoesOn(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	check := release.Health{Exec: `echo p >> $T/probes; [ -e $T/healthy ]`, Retries: 100_000}
	step := h.healthStep(check)
	results := h.start(context.Background(), step)
	h.await("probes")
	require.NoError(t, syscall.Kill(h.wrapperPID(), syscall.SIGKILL))
	require.NoError(t, os.WriteFile(h.path("healthy"), nil, 0o600))
	result := <-results
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.Equal(t, "x\n", h.read("runs"))
	require.Equal(t, 1, strings.Count(h.output(quicflowv1.Stream_STREAM_SYSTEM), "script begins"))
}

func TestCancelDuringHealthCheck(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ctx, cancel := cancellable("enough")
	check := release.Health{Exec: `echo p >> $T/probes; exit 1`, Retries: 100_000}
	results := h.start(ctx, h.healthStep(check))
	h.await("probes")
	cancel()
	result := <-results
	require.Equal(t, quicflowv1.Outcome_OUTCOME_CANCELLED, result.Outcome)
	require.Equal(t, "cancelled: enough", result.Error)
}

// A daemon that a script leaves behind lives on when the step has succeeded, though it still has the script's pipes.
func TestDaemonOutlivesTheStep(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	result := h.run(h.step(`nohup sh -c 'echo $$ > $T/pid; while :; do echo noise; echo noise >&2; echo tick > $T/tick; sleep 0.01; done' &
		while [ ! -s $T/pid ]; do sleep 0.01; done`))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	pid := h.awaitPID("pid")
	killLater(t, pid)
	gone(t, h.wrapperPID())
	for range 3 {
		require.NoError(t, os.Remove(h.path("tick")))
		h.await("tick")
	}
	require.True(t, alive(pid))
}
