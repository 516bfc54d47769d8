package store

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

// StepOutcomes counts the outcomes of steps that were stored since Open. A step that was unknown and then got its result
// counts as both.
func (s *Store) StepOutcomes() map[release.StepState]int {
	s.outcomes.mu.Lock()
	defer s.outcomes.mu.Unlock()
	return maps.Clone(s.outcomes.byState)
}

// CommandOutcomes counts how hosts ended for jobs, as was stored since Open by results or one by one by the server. One that was
// unknown and then got its result counts as both.
func (s *Store) CommandOutcomes() map[job.State]int {
	s.outcomes.mu.Lock()
	defer s.outcomes.mu.Unlock()
	return maps.Clone(s.outcomes.commands)
}

// EndedJobs counts the jobs that ended since Open, by how they did.
func (s *Store) EndedJobs() map[job.Status]job.Total {
	s.outcomes.mu.Lock()
	defer s.outcomes.mu.Unlock()
	return maps.Clone(s.outcomes.jobs)
}

// OpenJobs counts the jobs that have not ended by their status.
func (s *Store) OpenJobs(ctx context.Context) (map[job.Status]int, error) {
	var rows []struct {
		Status job.Status `db:"status"`
		Jobs   int        `db:"jobs"`
	}
	if err := s.read().list(ctx, &rows, `SELECT status, COUNT(*) AS jobs FROM jobs WHERE finished_at = 0 GROUP BY status`); err != nil {
		return nil, fmt.Errorf("count jobs: %w", err)
	}
	open := make(map[job.Status]int, len(rows))
	for _, r := range rows {
		open[r.Status] = r.Jobs
	}
	return open, nil
}

// outcomeCounts counts what was committed.
type outcomeCounts struct {
	mu       sync.Mutex
	jobs     map[job.Status]job.Total
	byState  map[release.StepState]int
	commands map[job.State]int
}

func (o *outcomeCounts) add(c conn) {
	if len(c.outcomes) == 0 && len(c.commands) == 0 && len(c.ended) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byState == nil {
		o.byState, o.commands = make(map[release.StepState]int), make(map[job.State]int)
		o.jobs = make(map[job.Status]job.Total)
	}
	for state, n := range c.outcomes {
		o.byState[state] += n
	}
	for state, n := range c.commands {
		o.commands[state] += n
	}
	for status, more := range c.ended {
		total := o.jobs[status]
		o.jobs[status] = job.Total{Jobs: total.Jobs + more.Jobs, Took: total.Took + more.Took}
	}
}

// settled counts outcomes, for when the transaction is committed.
func (c conn) settled(steps []release.Step) {
	for _, step := range steps {
		if step.State.Final() || step.State == release.StepUnknown {
			c.outcomes[step.State]++
		}
	}
}

// TaskTotals counts all tasks by their status, with the time that those took which have ended. It reads the tasks alone, not
// their targets.
func (s *Store) TaskTotals(ctx context.Context) (map[release.Status]release.TaskTotal, error) {
	var rows []struct {
		Status release.Status `db:"status"`
		Tasks  int            `db:"tasks"`
		Took   int64          `db:"took"`
	}
	err := s.read().list(ctx, &rows, `SELECT status, COUNT(*) AS tasks,
		CAST(SUM(CASE WHEN finished_at <> 0 THEN finished_at - created_at ELSE 0 END) AS BIGINT) AS took FROM tasks GROUP BY status`)
	if err != nil {
		return nil, fmt.Errorf("count tasks: %w", err)
	}
	totals := make(map[release.Status]release.TaskTotal, len(rows))
	for _, r := range rows {
		totals[r.Status] = release.TaskTotal{Tasks: r.Tasks, Took: time.Duration(r.Took) * time.Microsecond}
	}
	return totals, nil
}
