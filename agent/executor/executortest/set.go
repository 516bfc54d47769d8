// Package executortest is for tests of executors: a conformance suite that each of them passes, and one that does what it is told.
package executortest

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
)

// KillGrace is that of the executors of tests.
const KillGrace = 2 * time.Second

// NewSet makes a set of workers for a host. TestMain has called wrapper.MaybeRun with them.
func NewSet(t testing.TB, host executor.Host, workers ...executor.Worker) *executor.Set {
	t.Helper()
	var all []executor.Executor
	for _, w := range workers {
		all = append(all, NewExecutor(t, wrapper.Config{Worker: w}))
	}
	set, err := executor.NewSet(host, all...)
	require.NoError(t, err)
	return set
}

// NewExecutor makes an executor that notices soon what happens.
func NewExecutor(t testing.TB, cfg wrapper.Config) *wrapper.Executor {
	t.Helper()
	cfg.KillGrace, cfg.Poll = KillGrace, 10*time.Millisecond
	cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	x, err := wrapper.New(cfg)
	require.NoError(t, err)
	return x
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}
