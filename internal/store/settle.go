package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// noExit stands for an exit code that there is none of.
const noExit = -1

// outcome is what came of a step, by its agent's word or by the server's.
type outcome struct {
	state          release.StepState
	target         release.TargetState // of a deploy step; empty: follows from state
	err            string
	exit           int
	stdout, stderr []byte
	started        time.Time
	finished       time.Time
	logEnd         uint64
	running        string // JSON of what its agent reported to run; empty if it did not
	final          bool   // the agent decided it
}

// stepRow is a step with all that its outcome touches.
type stepRow struct {
	stepColumnsRow
	DispatchedAt   int64               `db:"dispatched_at"`
	RecordedAt     int64               `db:"recorded_at"`
	TargetState    release.TargetState `db:"target_state"`
	TargetError    string              `db:"target_error"`
	TargetExit     *int                `db:"target_exit"`
	TargetStarted  int64               `db:"target_started"`
	TargetFinished int64               `db:"target_finished"`
	Ended          bool                `db:"ended"` // the task was stopped, or has ended; one that is paused was not
}

type targetKey struct{ taskID, clientID string }

func compareTargets(a, b targetKey) int {
	return cmp.Or(cmp.Compare(a.taskID, b.taskID), cmp.Compare(a.clientID, b.clientID))
}

// settle writes outcomes to steps, to their targets and to what their hosts run. decide is asked for each step that
// exists, once, with the locks held; it gives false for one to leave alone. The steps that changed are returned.
func settle(ctx context.Context, tx conn, stepIDs []string, decide func(*stepRow) (outcome, bool)) ([]release.Step, error) {
	rows, err := lockSteps(ctx, tx, stepIDs)
	if err != nil {
		return nil, err
	}
	b := settlement{targets: map[targetKey]*stepRow{}}
	for i := range rows {
		if o, ok := decide(&rows[i]); ok {
			b.add(&rows[i], o)
		}
	}
	if err := b.write(ctx, tx); err != nil {
		return nil, err
	}
	tx.settled(b.changed)
	return b.changed, nil
}

// lockSteps locks the targets of the steps, and reads the steps in the order of their targets, deploy before rollback.
func lockSteps(ctx context.Context, tx conn, stepIDs []string) ([]stepRow, error) {
	var keys []targetKey
	var known []string
	for _, id := range stepIDs {
		if taskID, _, clientID, _, err := release.ParseStepID(id); err == nil {
			keys = append(keys, targetKey{taskID, clientID})
			known = append(known, id)
		}
	}
	slices.SortFunc(keys, compareTargets)
	slices.Sort(known)
	keys, known = slices.Compact(keys), slices.Compact(known)

	if tx.dialect.lock != "" {
		for some := range slices.Chunk(keys, tx.dialect.batch) {
			pairs := make([][]any, len(some))
			for i, key := range some {
				pairs[i] = []any{key.taskID, key.clientID}
			}
			with, args := tx.dialect.input("task TEXT, client TEXT", pairs)
			var locked []string
			if err := tx.list(ctx, &locked, with+`SELECT t.client_id FROM task_targets t JOIN input ON t.task_id = task AND t.client_id = client
				ORDER BY t.task_id, t.client_id`+tx.lockOf("t"), args...); err != nil {
				return nil, err
			}
		}
	}
	var rows []stepRow
	for some := range slices.Chunk(known, tx.dialect.batch) {
		var batch []stepRow
		if err := tx.list(ctx, &batch, `SELECT `+stepColumns+`, s.dispatched_at, s.recorded_at, t.state AS target_state, t.error AS target_error,
			t.exit_code AS target_exit, t.started_at AS target_started, t.finished_at AS target_finished, (k.halted AND k.status <> 'paused') OR k.finished_at <> 0 AS ended
			FROM steps s JOIN task_targets t ON t.task_id = s.task_id AND t.client_id = s.client_id JOIN tasks k ON k.id = s.task_id
			WHERE s.id IN (?)`, some); err != nil {
			return nil, err
		}
		rows = append(rows, batch...)
	}
	slices.SortFunc(rows, func(a, b stepRow) int {
		return cmp.Or(compareTargets(targetKey{a.TaskID, a.ClientID}, targetKey{b.TaskID, b.ClientID}),
			cmp.Compare(a.Name, b.Name), cmp.Compare(a.Epoch, b.Epoch))
	})
	return rows, nil
}

// settlement collects the rows to write.
type settlement struct {
	changed       []release.Step
	steps         [][]any
	order         []targetKey
	targets       map[targetKey]*stepRow // the target part holds what is to be written
	installations []installationChange
}

func (b *settlement) add(step *stepRow, o outcome) {
	before := step.State
	step.State = o.state
	b.changed = append(b.changed, step.step())

	var exit any
	if o.exit != noExit {
		exit = o.exit
	}
	var recorded int64
	if o.final {
		recorded = max(1, micros(o.finished))
	}
	b.steps = append(b.steps, []any{step.ID, string(o.state), o.err, exit, o.stdout, o.stderr,
		micros(o.started), micros(o.finished), int64(o.logEnd), recorded})

	key := targetKey{step.TaskID, step.ClientID}
	target := b.targets[key]
	if target == nil {
		target = step
		b.targets[key] = target
		b.order = append(b.order, key)
	}
	target.applyToTarget(step, o)
	if change, ok := installationAfter(step, before, o); ok {
		b.installations = append(b.installations, change)
	}
}

// applyToTarget changes r's target by the outcome of one of its steps.
func (r *stepRow) applyToTarget(step *stepRow, o outcome) {
	state := o.target
	switch {
	case step.Name == release.StepRollback && o.state == release.StepSucceeded:
		// Why it was rolled back stays.
		r.TargetState, r.TargetFinished = release.TargetRolledBack, micros(o.finished)
		return
	case step.Name == release.StepRollback:
		state = release.TargetRollbackFailed
		o.err = "rollback: " + cmp.Or(o.err, string(o.state))
	case r.TargetState == release.TargetRolledBack || r.TargetState == release.TargetRollbackFailed:
		return // the deploy step's result comes late
	case o.state == release.StepPending && r.TargetState.Decided():
		return
	case state == "":
		state = targetAfter(o.state, r.Ended)
	}
	r.TargetState, r.TargetError, r.TargetExit, r.TargetFinished = state, o.err, nil, micros(o.finished)
	if o.exit != noExit {
		r.TargetExit = &o.exit
	}
	if r.TargetStarted == 0 {
		r.TargetStarted = micros(o.started)
	}
}

// targetAfter gives a target's state after its deploy step.
func targetAfter(step release.StepState, ended bool) release.TargetState {
	switch step {
	case release.StepSucceeded:
		return release.TargetSucceeded
	case release.StepCancelled:
		return release.TargetCancelled
	case release.StepUnknown:
		return release.TargetUnknown
	case release.StepRefused:
		if ended {
			return release.TargetCancelled
		}
	}
	return release.TargetFailed
}

func (b *settlement) write(ctx context.Context, tx conn) error {
	for some := range slices.Chunk(b.steps, tx.dialect.batch) {
		with, args := tx.dialect.input("step TEXT, outcome TEXT, why TEXT, code BIGINT, out_tail BLOB, err_tail BLOB, "+
			"began BIGINT, ended BIGINT, spool BIGINT, recorded BIGINT", some)
		if _, err := tx.exec(ctx, with+`UPDATE steps SET state = outcome, error = why, exit_code = code,
			stdout_tail = out_tail, stderr_tail = err_tail, started_at = began, finished_at = ended, log_end = spool, recorded_at = recorded
			FROM input WHERE id = step`, args...); err != nil {
			return err
		}
	}
	for keys := range slices.Chunk(b.order, tx.dialect.batch) {
		rows := make([][]any, len(keys))
		for i, key := range keys {
			t := b.targets[key]
			rows[i] = []any{t.TaskID, t.ClientID, string(t.TargetState), t.TargetError, t.TargetExit, t.TargetStarted, t.TargetFinished}
		}
		with, args := tx.dialect.input("task TEXT, client TEXT, outcome TEXT, why TEXT, code BIGINT, began BIGINT, ended BIGINT", rows)
		if _, err := tx.exec(ctx, with+`UPDATE task_targets SET state = outcome, error = why, exit_code = code,
			started_at = began, finished_at = ended FROM input WHERE task_id = task AND client_id = client`, args...); err != nil {
			return err
		}
	}
	return writeInstallations(ctx, tx, b.installations)
}
