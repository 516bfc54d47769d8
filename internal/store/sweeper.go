package store

import (
	"cmp"
	"context"
	"log/slog"
	"time"
)

// SweeperConfig sets up a Sweeper.
type SweeperConfig struct {
	Store *Store // Required. Its MaxLogBytes bounds each log.
	// LogRetention is how long after its end a task or job keeps its log, and how long a configuration is kept that nothing needs. Defaults to 0, which is for ever.
	LogRetention time.Duration
	// JobRetention is how long after its end a job is kept, with its results. Defaults to 0, which is for ever.
	JobRetention time.Duration
	// Interval is the time between two rounds. Defaults to 10 min.
	Interval time.Duration
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// Sweeper removes what is no longer kept, in rounds. Several of them, on one database, do no harm.
type Sweeper struct {
	config SweeperConfig
	logsTo time.Time // all logs of tasks and jobs that finished up to this moment are gone
}

// NewSweeper makes one. Its methods are for one goroutine.
func NewSweeper(config SweeperConfig) *Sweeper {
	config.Interval = cmp.Or(config.Interval, 10*time.Minute)
	config.Logger = cmp.Or(config.Logger, slog.Default())
	return &Sweeper{config: config}
}

// Run sweeps at once and then every Interval, and cuts a log as soon as it has grown too large, until ctx ends.
func (s *Sweeper) Run(ctx context.Context) {
	s.trim(ctx, true)
	s.Sweep(ctx)
	ticker := time.NewTicker(s.config.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.config.Store.large.wake:
			s.trim(ctx, false)
		case <-ticker.C:
			s.trim(ctx, true)
			s.Sweep(ctx)
		}
	}
}

// Sweep removes what has been kept for long enough. What fails is logged, and done in the next round.
func (s *Sweeper) Sweep(ctx context.Context) {
	c := s.config
	began := time.Now()
	if c.JobRetention > 0 {
		deleted, removed, err := c.Store.DeleteOldJobs(ctx, c.Store.now().Add(-c.JobRetention))
		if deleted > 0 {
			c.Logger.InfoContext(ctx, "old jobs deleted", "jobs", deleted, "log_records", removed.Records, "took", time.Since(began))
		}
		s.failed(ctx, "jobs", err)
	}
	if c.LogRetention > 0 {
		began, upTo := time.Now(), c.Store.now().Add(-c.LogRetention)
		removed, err := c.Store.RemoveLogs(ctx, s.logsTo, upTo)
		if removed.Records > 0 {
			c.Logger.InfoContext(ctx, "old logs removed", "logs", removed.Logs, "records", removed.Records, "bytes", removed.Bytes, "took", time.Since(began))
		}
		if err == nil {
			s.logsTo = upTo
		}
		s.failed(ctx, "logs", err)
		configs, err := c.Store.RemoveConfigs(ctx, upTo)
		if configs > 0 {
			c.Logger.InfoContext(ctx, "configurations removed that nothing needs", "configurations", configs)
		}
		s.failed(ctx, "configurations", err)
	}
}

func (s *Sweeper) trim(ctx context.Context, all bool) {
	began := time.Now()
	removed, err := s.config.Store.TrimLogs(ctx, all)
	if removed.Records > 0 {
		s.config.Logger.WarnContext(ctx, "logs cut by logs.max_bytes", "logs", removed.Logs, "records", removed.Records, "bytes", removed.Bytes, "took", time.Since(began))
	}
	s.failed(ctx, "large logs", err)
}

func (s *Sweeper) failed(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		s.config.Logger.ErrorContext(ctx, "not removed; trying again in the next round", "what", what, "error", err)
	}
}
