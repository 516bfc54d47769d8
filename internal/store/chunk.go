package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

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
	var plans []ChunkPlan
	err := s.write(ctx, "plan chunks", func(tx conn) error {
		p := planner{tx: tx, step: step, size: size, defaultNode: defaultNode, now: micros(s.now())}
		err := tx.get(ctx, &p.task, `SELECT t.id, t.project_id, COALESCE(t.version_id, '') AS version_id, t.action, COALESCE(v.name, '') AS version
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
		plans, err = p.cut(ctx)
		return err
	})
	return plans, err
}

// lockOf is the clause that locks the rows of one of the joined tables.
func (c conn) lockOf(table string) string {
	if c.dialect.lock == "" {
		return ""
	}
	return c.dialect.lock + " OF " + table
}

// planner plans one step of one task, whose row it has locked.
type planner struct {
	tx          conn
	step        release.StepName
	size        int
	defaultNode string
	now         int64
	task        struct {
		ID        string `db:"id"`
		ProjectID string `db:"project_id"`
		VersionID string `db:"version_id"`
		Version   string `db:"version"`
		Action    string `db:"action"`
	}
	targets     string // condition on task_targets: who takes part
	targetsArgs []any
}

// withoutStep holds for a target that has no step of that name yet.
const withoutStep = `NOT EXISTS (SELECT 1 FROM steps s WHERE s.task_id = task_targets.task_id AND s.name = ? AND s.client_id = task_targets.client_id)`

func (p *planner) planDeploy(ctx context.Context, wave int) error {
	p.targets, p.targetsArgs = `wave = ? AND state IN ('pending', 'running')`, []any{wave}
	if err := p.tx.lockTargets(ctx, p.task.ID, p.targets, p.targetsArgs...); err != nil {
		return err
	}
	if _, err := p.tx.exec(ctx, `UPDATE task_targets SET
		previous_version_id = COALESCE((SELECT i.version_id FROM installations i
			WHERE i.project_id = ? AND i.client_id = task_targets.client_id), ''),
		previous_version = COALESCE((SELECT v.name FROM installations i JOIN versions v ON v.id = i.version_id
			WHERE i.project_id = ? AND i.client_id = task_targets.client_id), '')
		WHERE task_id = ? AND wave = ? AND state = 'pending' AND `+withoutStep,
		p.task.ProjectID, p.task.ProjectID, p.task.ID, wave, string(p.step)); err != nil {
		return err
	}
	if release.Action(p.task.Action) == release.ActionDeploy {
		return p.insertSteps(ctx, `CASE WHEN previous_version_id = '' THEN 'install' ELSE 'update' END`, `?`, `previous_version`, p.task.VersionID)
	}

	// A first installation that failed part way leaves something to remove, too.
	if _, err := p.tx.exec(ctx, `UPDATE task_targets SET state = 'succeeded', finished_at = ?
		WHERE task_id = ? AND wave = ? AND state = 'pending' AND previous_version_id = '' AND `+withoutStep+`
		AND NOT EXISTS (SELECT 1 FROM installations i WHERE i.project_id = ? AND i.client_id = task_targets.client_id AND i.attempted_id <> '')`,
		p.now, p.task.ID, wave, string(p.step), p.task.ProjectID); err != nil {
		return err
	}
	return p.insertSteps(ctx, `'uninstall'`, `''`, `COALESCE(NULLIF(previous_version, ''),
		(SELECT v.name FROM installations i JOIN versions v ON v.id = i.attempted_id WHERE i.project_id = ? AND i.client_id = task_targets.client_id), '')`,
		p.task.ProjectID)
}

func (p *planner) planRollback(ctx context.Context) error {
	p.targets = `state IN ('running', 'succeeded', 'failed', 'unknown', 'cancelled')
		AND EXISTS (SELECT 1 FROM steps s WHERE s.task_id = task_targets.task_id AND s.name = 'deploy' AND s.client_id = task_targets.client_id
			AND s.state IN ('dispatched', 'succeeded', 'failed', 'unknown', 'cancelled'))
		AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.task_id = task_targets.task_id AND s.name = 'rollback' AND s.client_id = task_targets.client_id
			AND s.state IN ('succeeded', 'failed', 'cancelled', 'refused'))`
	if release.Action(p.task.Action) == release.ActionUninstall {
		p.targets += ` AND previous_version_id <> ''` // else there is nothing to return to
	}
	if err := p.tx.lockTargets(ctx, p.task.ID, p.targets); err != nil {
		return err
	}
	// What the task deployed is what its rollback finds, wholly or in part.
	return p.insertSteps(ctx, `CASE WHEN previous_version_id = '' THEN 'uninstall' ELSE 'rollback' END`, `previous_version_id`, `?`, p.task.Version)
}

// insertSteps makes the steps that are missing. The expressions are over task_targets; args fill their placeholders.
func (p *planner) insertSteps(ctx context.Context, action, versionID, previousVersion string, args ...any) error {
	before, after, _ := strings.Cut(release.StepID(p.task.ID, p.step, "*", 0), "*")
	all := []any{before, after, string(p.step), p.task.ProjectID}
	all = append(all, args...)
	all = append(all, p.task.ID)
	all = append(all, p.targetsArgs...)
	all = append(all, string(p.step))
	text := func(expression string) string { return strings.ReplaceAll(expression, "?", "CAST(? AS TEXT)") }
	_, err := p.tx.exec(ctx, `INSERT INTO steps (id, task_id, name, client_id, epoch, action, project_id, version_id, previous_version)
		SELECT CAST(? AS TEXT) || client_id || CAST(? AS TEXT), task_id, CAST(? AS TEXT), client_id, 0, `+text(action)+`, CAST(? AS TEXT), `+
		text(versionID)+`, `+text(previousVersion)+` FROM task_targets WHERE task_id = ? AND `+p.targets+` AND `+withoutStep, all...)
	return err
}

// cut gives chunk numbers to the steps of those who take part.
func (p *planner) cut(ctx context.Context) ([]ChunkPlan, error) {
	var last int
	if err := p.tx.get(ctx, &last, `SELECT COALESCE(MAX(chunk), 0) FROM steps WHERE task_id = ? AND name = ?`, p.task.ID, string(p.step)); err != nil {
		return nil, err
	}
	args := append([]any{p.defaultNode, p.task.ID, string(p.step), p.task.ID}, p.targetsArgs...)
	args = append(args, p.size, last)
	if _, err := p.tx.exec(ctx, `WITH
		members AS (
			SELECT s.id AS member, s.client_id, COALESCE(NULLIF(c.node_id, ''), CAST(? AS TEXT)) AS node
			FROM steps s LEFT JOIN clients c ON c.id = s.client_id
			WHERE s.task_id = ? AND s.name = ? AND s.client_id IN (SELECT client_id FROM task_targets WHERE task_id = ? AND `+p.targets+`)),
		numbered AS (
			SELECT member, node, ROW_NUMBER() OVER (PARTITION BY node ORDER BY client_id) - 1 AS n FROM members),
		chunks AS (
			SELECT member, node, DENSE_RANK() OVER (ORDER BY node, n / CAST(? AS BIGINT)) AS number FROM numbered)
		UPDATE steps SET chunk = CAST(? AS BIGINT) + number, node_id = node FROM chunks WHERE id = member`, args...); err != nil {
		return nil, err
	}
	var rows []struct {
		Chunk  int    `db:"chunk"`
		NodeID string `db:"node_id"`
		Size   int    `db:"size"`
	}
	if err := p.tx.list(ctx, &rows, `SELECT chunk, node_id, COUNT(*) AS size FROM steps
		WHERE task_id = ? AND name = ? AND chunk > ? GROUP BY chunk, node_id ORDER BY chunk`, p.task.ID, string(p.step), last); err != nil {
		return nil, err
	}
	plans := make([]ChunkPlan, len(rows))
	for i, r := range rows {
		plans[i] = ChunkPlan(r)
	}
	return plans, nil
}
