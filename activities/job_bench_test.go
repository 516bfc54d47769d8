package activities

import (
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
	"github.com/quicflow/quicflow/workflows"
)

// BenchmarkJob has simulated agents run a job that does nothing, on a real hub and a real store, and compares that with bare
// requests for the same to the same agents, whose results are stored too, but which no one waits for. QUICFLOW_BENCH_AGENTS says how many agents; the default is 2,000.
func BenchmarkJob(b *testing.B) {
	agents, err := strconv.Atoi(os.Getenv("QUICFLOW_BENCH_AGENTS"))
	if err != nil {
		agents = 2000
	}
	f := newField(b, agents)
	run := func(b *testing.B, once func(b *testing.B)) {
		took, hosts := time.Duration(0), 0
		for b.Loop() {
			start := time.Now()
			once(b)
			took += time.Since(start)
			hosts += agents
		}
		b.ReportMetric(float64(hosts)/took.Seconds(), "hosts/s")
	}
	b.Run("ping", func(b *testing.B) {
		run(b, func(b *testing.B) {
			f.bare(b, func(string) *quicflowv1.Request {
				return &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: "ping"}}}
			})
		})
	})
	b.Run("step", func(b *testing.B) {
		run(b, func(b *testing.B) {
			j := f.job(job.Options{})
			f.bare(b, func(id string) *quicflowv1.Request {
				return &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: &quicflowv1.StepRequest{
					StepId: release.StepID(j.ID, job.StepCommand, id, 0), TaskId: j.ID, NotAfterUnixMs: time.Now().Add(time.Minute).UnixMilli(),
					Spec: &quicflowv1.StepRequest_Command{Command: &quicflowv1.CommandStep{Type: "ping"}}}}}
			})
		})
	})
	b.Run("job", func(b *testing.B) {
		run(b, func(b *testing.B) {
			j := f.job(job.Options{})
			require.Zero(b, f.round(j.ID, workflows.JobChunkSize, 5000))
			require.Equal(b, job.Counts{Total: agents, Succeeded: agents}, f.counts(j.ID))
		})
	})
}

// bare asks each agent once, 5,000 at a time.
func (f *field) bare(b *testing.B, request func(id string) *quicflowv1.Request) {
	var wg sync.WaitGroup
	places := make(chan struct{}, 5000)
	for _, id := range f.ids {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			if _, err := f.hub.Request(b.Context(), id, request(id)); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
}
