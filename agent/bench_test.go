package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/script"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// BenchmarkCommand asks one agent, whose journal is on a disk, for commands through a hub, some at a time, and waits for
// their results.
func BenchmarkCommand(b *testing.B) {
	for _, kind := range []string{"ping", "exec_shell"} {
		for _, concurrent := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s-%d", kind, concurrent), func(b *testing.B) { benchmarkCommand(b, kind, concurrent) })
		}
	}
}

func benchmarkCommand(b *testing.B, kind string, concurrent int) {
	w := newWorld(b)
	cfg := w.config("a")
	exec := executortest.NewSet(b, executor.Host{ClientID: "a", DataDir: cfg.DataDir}, script.New())
	cfg.Executor, cfg.NoSync, cfg.MaxSteps, cfg.Logger = exec, false, 2*concurrent, slog.New(slog.DiscardHandler)
	w.connect(cfg)
	payload := map[string]string{"exec_shell": `{"command":"true"}`}[kind]
	var next atomic.Int64
	var group sync.WaitGroup
	b.ResetTimer()
	for range concurrent {
		group.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				job := fmt.Sprint(n)
				response, err := w.hub.Request(context.Background(), "a",
					&quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: commandStep(job, kind, payload)}})
				if err != nil || response.GetStep() == nil {
					b.Error(err, response)
					return
				}
				if response.GetStep().GetResult() == nil {
					w.result(release.StepID(job, "command", "a", 0))
				}
			}
		})
	}
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
}
