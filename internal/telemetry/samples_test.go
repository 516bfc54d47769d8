package telemetry

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestSamplerKeepsAnHourOfFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		agents := prometheus.NewGauge(prometheus.GaugeOpts{Name: ConnectedClients})
		sent := prometheus.NewCounter(prometheus.CounterOpts{Name: MessagesSentTotal})
		received := prometheus.NewCounter(prometheus.CounterOpts{Name: MessagesReceivedTotal})
		stored := prometheus.NewCounter(prometheus.CounterOpts{Name: LogBytesStoredTotal})
		registry.MustRegister(agents, sent, received, stored)
		sent.Add(1e6) // what was before the first sample is no rate
		var steps, told atomic.Int64
		s := NewSampler(SamplerConfig{Gatherer: registry, Settled: func() (int, int) { return int(steps.Load()), 0 }, Sampled: func() { told.Add(1) }})
		require.Empty(t, s.Samples())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()

		synctest.Wait()
		first := s.Samples()
		require.Len(t, first, 1)
		require.Zero(t, first[0].Messages)

		agents.Set(7)
		sent.Add(30)
		received.Add(20)
		stored.Add(4096)
		steps.Store(20)
		<-time.After(SampleEvery) // virtual
		synctest.Wait()
		second := s.Samples()[1]
		require.InDelta(t, 7, second.Agents, 0)
		require.InDelta(t, 5, second.Messages, 1e-9)
		require.InDelta(t, 409.6, second.LogBytes, 1e-9)
		require.InDelta(t, 2, second.Steps, 1e-9)
		require.Equal(t, SampleEvery, second.At.Sub(first[0].At))

		<-time.After(2 * time.Hour)
		synctest.Wait()
		all := s.Samples()
		require.Len(t, all, 360)
		require.Equal(t, time.Hour-SampleEvery, all[359].At.Sub(all[0].At))
		require.EqualValues(t, 722, told.Load())
		cancel()
		<-done
	})
}
