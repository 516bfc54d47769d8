package telemetry

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicflow/quicflow/internal/release"
)

// scrapeTimeout bounds what a scrape may ask of the database.
const scrapeTimeout = 5 * time.Second

// RolloutSource knows the rollouts. Both methods may be called at any time, several at once.
type RolloutSource interface {
	TaskTotals(ctx context.Context) (map[release.Status]release.TaskTotal, error)
	// StepOutcomes counts since the start of the process.
	StepOutcomes() map[release.StepState]int
}

// Rollouts shows the numbers of a RolloutSource, as they are at each scrape. When the source fails its numbers are absent, and
// only they.
type Rollouts struct {
	source RolloutSource
	log    *slog.Logger

	tasks, duration, steps *prometheus.Desc
}

var _ prometheus.Collector = (*Rollouts)(nil)

// NewRollouts makes a collector.
func NewRollouts(source RolloutSource, log *slog.Logger) *Rollouts {
	return &Rollouts{
		source:   source,
		log:      log,
		tasks:    prometheus.NewDesc(Tasks, "Deployment tasks by status.", []string{LabelStatus}, nil),
		duration: prometheus.NewDesc(RolloutDuration, "Time from the request to the end of tasks that have ended, by status.", []string{LabelStatus}, nil),
		steps:    prometheus.NewDesc(StepsTotal, "Steps by outcome, since the server started.", []string{LabelOutcome}, nil),
	}
}

// Describe is of prometheus.Collector.
func (r *Rollouts) Describe(all chan<- *prometheus.Desc) {
	all <- r.tasks
	all <- r.duration
	all <- r.steps
}

// Collect is of prometheus.Collector.
func (r *Rollouts) Collect(all chan<- prometheus.Metric) {
	outcomes := r.source.StepOutcomes()
	for _, state := range []release.StepState{release.StepSucceeded, release.StepFailed, release.StepCancelled, release.StepUnknown, release.StepRefused} {
		all <- prometheus.MustNewConstMetric(r.steps, prometheus.CounterValue, float64(outcomes[state]), string(state))
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	totals, err := r.source.TaskTotals(ctx)
	if err != nil {
		r.log.Warn("metrics of rollouts are missing", "error", err)
		return
	}
	for _, status := range release.Statuses() {
		total := totals[status]
		all <- prometheus.MustNewConstMetric(r.tasks, prometheus.GaugeValue, float64(total.Tasks), string(status))
		if status.Terminal() {
			all <- prometheus.MustNewConstSummary(r.duration, uint64(total.Tasks), total.Took.Seconds(), nil, string(status))
		}
	}
}
