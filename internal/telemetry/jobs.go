package telemetry

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicflow/quicflow/internal/job"
)

// JobSource knows the jobs. All methods may be called at any time, several at once.
type JobSource interface {
	OpenJobs(ctx context.Context) (map[job.Status]int, error)
	// EndedJobs and CommandOutcomes count since the start of the process.
	EndedJobs() map[job.Status]job.Total
	CommandOutcomes() map[job.State]int
}

// JobMetrics shows the numbers of a JobSource, as they are at each scrape. When the source fails the jobs that have not ended are absent,
// and only they.
type JobMetrics struct {
	source JobSource
	log    *slog.Logger

	jobs, duration, commands *prometheus.Desc
}

var _ prometheus.Collector = (*JobMetrics)(nil)

// NewJobs makes a collector.
func NewJobs(source JobSource, log *slog.Logger) *JobMetrics {
	return &JobMetrics{
		source:   source,
		log:      log,
		jobs:     prometheus.NewDesc(Jobs, "Commands and batch jobs that have not ended, by status.", []string{LabelStatus}, nil),
		duration: prometheus.NewDesc(JobDuration, "Time from the request to the end of jobs that ended since the server started, by status.", []string{LabelStatus}, nil),
		commands: prometheus.NewDesc(CommandsTotal, "Hosts of jobs by how their command ended, each try, since the server started.", []string{LabelOutcome}, nil),
	}
}

// Describe is of prometheus.Collector.
func (j *JobMetrics) Describe(all chan<- *prometheus.Desc) {
	all <- j.jobs
	all <- j.duration
	all <- j.commands
}

// Collect is of prometheus.Collector.
func (j *JobMetrics) Collect(all chan<- prometheus.Metric) {
	outcomes := j.source.CommandOutcomes()
	for _, state := range job.States() {
		if state.Decided() && state != job.StateSkipped { // those had no try
			all <- prometheus.MustNewConstMetric(j.commands, prometheus.CounterValue, float64(outcomes[state]), string(state))
		}
	}
	ended := j.source.EndedJobs()
	for _, status := range job.Statuses() {
		if status.Terminal() {
			all <- prometheus.MustNewConstSummary(j.duration, uint64(ended[status].Jobs), ended[status].Took.Seconds(), nil, string(status))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	open, err := j.source.OpenJobs(ctx)
	if err != nil {
		j.log.Warn("metrics of jobs are missing", "error", err)
		return
	}
	for _, status := range job.Statuses() {
		if !status.Terminal() {
			all <- prometheus.MustNewConstMetric(j.jobs, prometheus.GaugeValue, float64(open[status]), string(status))
		}
	}
}
