package store

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// StepOutcomes counts the outcomes of steps that were stored since Open. A step that was unknown and then got its result
// counts as both.
func (s *Store) StepOutcomes() map[release.StepState]int {
	s.outcomes.mu.Lock()
	defer s.outcomes.mu.Unlock()
	return maps.Clone(s.outcomes.byState)
}

// outcomeCounts counts what was committed.
type outcomeCounts struct {
	mu      sync.Mutex
	byState map[release.StepState]int
}

func (o *outcomeCounts) add(counts map[release.StepState]int) {
	if len(counts) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byState == nil {
		o.byState = make(map[release.StepState]int)
	}
	for state, n := range counts {
		o.byState[state] += n
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
