package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	// SampleEvery is the time between two samples.
	SampleEvery = 10 * time.Second
	// maxSamples is how many are kept: of an hour.
	maxSamples = int(time.Hour / SampleEvery)
)

// Sample is what a server was at a time, and did since the sample before.
type Sample struct {
	At           time.Time
	Agents       float64 // with a session
	Reconnecting float64
	Messages     float64 // control frames a second, both ways
	Requests     float64 // to agents, a second
	LatencyP50   float64 // ms from a request to its answer, in the last minute
	LatencyP99   float64
	Steps        float64 // of rollouts that were settled, a second
	Commands     float64 // hosts whose command was settled, a second
	LogBytes     float64 // stored, a second
	Memory       float64 // bytes, resident
	CPU          float64 // cores that were busy
}

// SamplerConfig sets up a Sampler.
type SamplerConfig struct {
	// Gatherer has the metrics of the hub and of the process. It is asked every 10 s, so it should not ask a database. Required.
	Gatherer prometheus.Gatherer
	// Settled gives how many steps and commands were settled since the start of the process. Required.
	Settled func() (steps, commands int)
	// Sampled is called after each sample. Defaults to nothing.
	Sampled func()
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// Sampler keeps the figures of the last hour, for those who have no Prometheus. It is safe for concurrent use.
type Sampler struct {
	config SamplerConfig

	mu      sync.Mutex
	samples []Sample // the oldest first
	before  counted
}

// counted is what only grows, at a time.
type counted struct {
	at                                                time.Time
	messages, requests, steps, commands, bytes, spent float64
}

// NewSampler makes a Sampler, which does nothing before Run.
func NewSampler(config SamplerConfig) *Sampler {
	if config.Sampled == nil {
		config.Sampled = func() {}
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	return &Sampler{config: config}
}

// Run takes a sample every 10 s until ctx ends, the first at once.
func (s *Sampler) Run(ctx context.Context) {
	ticker := time.NewTicker(SampleEvery)
	defer ticker.Stop()
	for {
		s.sample(time.Now())
		s.config.Sampled()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Samples gives those that are kept, the oldest first.
func (s *Sampler) Samples() []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Sample(nil), s.samples...)
}

func (s *Sampler) sample(at time.Time) {
	families, err := s.config.Gatherer.Gather()
	if err != nil {
		s.config.Logger.Warn("figures of the server are missing in part", "error", err)
	}
	value := make(map[string]float64, len(families))
	for _, f := range families {
		for _, m := range f.GetMetric() {
			value[f.GetName()] += numberOf(m)
		}
	}
	steps, commands := s.config.Settled()
	now := counted{
		at: at, messages: value[MessagesSentTotal] + value[MessagesReceivedTotal], requests: value[PromiseCreatedTotal],
		steps: float64(steps), commands: float64(commands), bytes: value[LogBytesStoredTotal], spent: value["process_cpu_seconds_total"],
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.before
	s.before = now
	took := at.Sub(before.at).Seconds()
	rate := func(now, before float64) float64 {
		if took <= 0 || now < before {
			return 0
		}
		return (now - before) / took
	}
	if before.at.IsZero() {
		before = now // there is nothing yet to compare with
	}
	s.samples = append(s.samples, Sample{
		At: at, Agents: value[ConnectedClients], Reconnecting: value[SessionsReconnecting],
		Messages: rate(now.messages, before.messages), Requests: rate(now.requests, before.requests),
		LatencyP50: value[LatencyP50], LatencyP99: value[LatencyP99],
		Steps: rate(now.steps, before.steps), Commands: rate(now.commands, before.commands), LogBytes: rate(now.bytes, before.bytes),
		Memory: value["process_resident_memory_bytes"], CPU: rate(now.spent, before.spent),
	})
	if len(s.samples) > maxSamples {
		s.samples = s.samples[len(s.samples)-maxSamples:]
	}
}

func numberOf(m *dto.Metric) float64 {
	switch {
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	}
	return 0
}
