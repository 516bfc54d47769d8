package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/quicflow/quicflow/internal/release"
)

// ChunkPlan is a number of steps that one dispatch carries out, all of hosts of one node.
type ChunkPlan struct {
	Chunk  int    // counts on through all plans of a task's step, so that no old chunk has the number of a new one
	NodeID string // the hub that holds, or last held, their sessions
	Size   int
}

// PlanChunks plans a step and cuts it into chunks of at most size hosts. A host that has never had a session counts to
// defaultNode.
//
// The deploy step is planned for the hosts of the wave that are not decided. The first plan of a host decides what is
// done there, by what it runs at that moment, and notes that as its previous version; an uninstall of what is not
// installed succeeds at once, without a step.
//
// The rollback step (wave is ignored) is planned for hosts where the deploy step may have changed something and that
// did not get to the end of a rollback.
//
// Planning again gives the same steps, less those that were decided, in chunks with new numbers.
func (s *Store) PlanChunks(ctx context.Context, taskID string, step release.StepName, wave int, size int, defaultNode string) ([]ChunkPlan, error) {
	if size < 1 {
		return nil, fmt.Errorf("plan chunks: size %d is less than 1", size)
	}
	p := planner{step: step, size: size, defaultNode: defaultNode, now: micros(s.now())}
	err := s.write(ctx, "plan chunks", func(tx conn) error {
		p.tx, p.members, p.plans, p.made = tx, nil, nil, 0
		err := tx.get(ctx, &p.task, `SELECT t.id, t.project_id, COALESCE(t.version_id, '') AS version_id, t.action, t.config_id, COALESCE(v.name, '') AS version
			FROM tasks t LEFT JOIN versions v ON v.id = t.version_id WHERE t.id = ?`+tx.lockOf("t"), taskID)
		if errors.Is(err, sql.ErrNoRows) {
			return release.NotFound("task", taskID)
		}
		if err != nil {
			return err
		}
		switch step {
		case release.StepDeploy:
			err = p.planDeploy(ctx, wave)
		case release.StepRollback:
			err = p.planRollback(ctx)
		default:
			err = fmt.Errorf("step %q is neither deploy nor rollback", step)
		}
		if err != nil {
			return err
		}
		return p.cut(ctx)
	})
	if err != nil {
		return nil, err
	}
	s.grew(ctx, "steps", p.made)
	return p.plans, nil
}
