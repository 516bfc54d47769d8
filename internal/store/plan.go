package store

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/quicflow/quicflow/internal/release"
)

// planner plans one step of one task, whose row it has locked. It reads whole lists and puts them together itself: a
// join right after thousands of rows were inserted would be planned by statistics that do not know of them.
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
		ConfigID  string `db:"config_id"`
	}
	members []*member // who takes part, in the order of their ids
	plans   []ChunkPlan
	made    int // how many steps are new
}

// member is a host that takes part.
type member struct {
	ClientID          string              `db:"client_id"`
	State             release.TargetState `db:"state"`
	PreviousVersion   string              `db:"previous_version"`
	PreviousVersionID string              `db:"previous_version_id"`
	PreviousConfigID  string              `db:"previous_config_id"`

	step  release.Step // ID is empty until it is planned
	fresh bool         // the step is not stored yet
	chunk int
	node  string
}

// plannedStep is a step that is stored.
type plannedStep struct {
	ID       string            `db:"id"`
	ClientID string            `db:"client_id"`
	Name     release.StepName  `db:"name"`
	State    release.StepState `db:"state"`
}

// load locks the targets that a condition holds for, and reads them and the task's steps by client.
func (p *planner) load(ctx context.Context, condition string, args ...any) (deploy, rollback map[string]plannedStep, err error) {
	if err := p.tx.list(ctx, &p.members, `SELECT client_id, state, previous_version, previous_version_id, previous_config_id FROM task_targets
		WHERE task_id = ? AND `+condition+` ORDER BY client_id`+p.tx.dialect.lock, append([]any{p.task.ID}, args...)...); err != nil {
		return nil, nil, err
	}
	var steps []plannedStep
	if err := p.tx.list(ctx, &steps, `SELECT id, client_id, name, state FROM steps WHERE task_id = ?`, p.task.ID); err != nil {
		return nil, nil, err
	}
	deploy, rollback = map[string]plannedStep{}, map[string]plannedStep{}
	for _, s := range steps {
		if s.Name == release.StepRollback {
			rollback[s.ClientID] = s
		} else {
			deploy[s.ClientID] = s
		}
	}
	return deploy, rollback, nil
}

func (p *planner) planDeploy(ctx context.Context, wave int) error {
	deploy, _, err := p.load(ctx, `wave = ? AND state IN ('pending', 'running')`, wave)
	if err != nil {
		return err
	}
	fresh := map[string]*member{}
	for _, m := range p.members {
		if m.step.ID = deploy[m.ClientID].ID; m.step.ID == "" {
			fresh[m.ClientID] = m
		}
	}
	var changed []*member
	nothing := map[*member]bool{} // to uninstall
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(fresh)), p.tx.dialect.batch) {
		runs, err := p.installed(ctx, ids)
		if err != nil {
			return err
		}
		for _, id := range ids {
			m, now := fresh[id], runs[id]
			m.PreviousVersionID, m.PreviousVersion, m.PreviousConfigID = now.VersionID, now.Version, now.ConfigID
			switch {
			case release.Action(p.task.Action) == release.ActionDeploy:
				m.plan(release.StepInstall, p.task.VersionID, m.PreviousVersion, p.task.ConfigID)
				if m.PreviousVersionID != "" {
					m.step.Action = release.StepUpdate
				}
			case now.VersionID != "" || now.Attempted != "":
				// A first installation that failed part way leaves something to remove, too.
				config := now.ConfigID
				if now.VersionID == "" {
					config = now.AttemptedConfig
				}
				m.plan(release.StepUninstall, "", cmp.Or(now.Version, now.Attempted), config)
			default:
				nothing[m], m.State = true, release.TargetSucceeded
			}
			if m.PreviousVersionID != "" || nothing[m] {
				changed = append(changed, m)
			}
		}
	}
	p.members = slices.DeleteFunc(p.members, func(m *member) bool { return nothing[m] })
	return p.noteTargets(ctx, changed)
}

// plan makes the step of a host that has none.
func (m *member) plan(action release.StepAction, versionID, previousVersion, configID string) {
	m.fresh = true
	m.step = release.Step{Action: action, VersionID: versionID, PreviousVersion: previousVersion, ConfigID: configID}
}

type installed struct {
	ClientID  string `db:"client_id"`
	VersionID string `db:"version_id"`
	Version   string `db:"version"`
	Attempted string `db:"attempted"`

	ConfigID        string `db:"config_id"`
	AttemptedConfig string `db:"attempted_config_id"`
}

// installed gives what clients run of the project; those that run nothing are absent.
func (p *planner) installed(ctx context.Context, ids []string) (map[string]installed, error) {
	var rows []installed
	if err := p.tx.list(ctx, &rows, `SELECT i.client_id, i.version_id, COALESCE(v.name, '') AS version, COALESCE(a.name, '') AS attempted, i.config_id, i.attempted_config_id
		FROM installations i LEFT JOIN versions v ON v.id = i.version_id LEFT JOIN versions a ON a.id = i.attempted_id
		WHERE i.project_id = ? AND i.client_id IN (?)`, p.task.ProjectID, ids); err != nil {
		return nil, err
	}
	byClient := make(map[string]installed, len(rows))
	for _, row := range rows {
		byClient[row.ClientID] = row
	}
	return byClient, nil
}

// noteTargets writes what ran on hosts before, and that some are done.
func (p *planner) noteTargets(ctx context.Context, members []*member) error {
	for some := range slices.Chunk(members, p.tx.dialect.batch) {
		rows := make([][]any, len(some))
		for i, m := range some {
			var finished int64
			if m.State == release.TargetSucceeded {
				finished = p.now
			}
			rows[i] = []any{m.ClientID, m.PreviousVersion, m.PreviousVersionID, m.PreviousConfigID, string(m.State), finished}
		}
		with, args := p.tx.dialect.input("client TEXT, version TEXT, version_key TEXT, config_key TEXT, outcome TEXT, ended BIGINT", rows)
		if _, err := p.tx.exec(ctx, with+`UPDATE task_targets SET previous_version = version, previous_version_id = version_key, previous_config_id = config_key,
			state = outcome, finished_at = ended FROM input WHERE task_id = ? AND client_id = client`, append(args, p.task.ID)...); err != nil {
			return err
		}
	}
	return nil
}

func (p *planner) planRollback(ctx context.Context) error {
	deploy, rollback, err := p.load(ctx, `state IN ('running', 'succeeded', 'failed', 'unknown', 'cancelled')`)
	if err != nil {
		return err
	}
	p.members = slices.DeleteFunc(p.members, func(m *member) bool {
		switch deploy[m.ClientID].State {
		case "", release.StepPending, release.StepRefused:
			return true // nothing ran there
		}
		if release.Action(p.task.Action) == release.ActionUninstall && m.PreviousVersionID == "" {
			return true // nothing to return to
		}
		return rollback[m.ClientID].State.Final()
	})
	for _, m := range p.members {
		m.step.ID = rollback[m.ClientID].ID
		switch {
		case m.step.ID != "":
		// What the task deployed is what its rollback finds, wholly or in part.
		case m.PreviousVersionID == "":
			m.plan(release.StepUninstall, "", p.task.Version, p.task.ConfigID)
		default:
			m.plan(release.StepRollbackTo, m.PreviousVersionID, p.task.Version, m.PreviousConfigID)
		}
	}
	return nil
}

// cut gives chunk numbers to the members, and stores their steps.
func (p *planner) cut(ctx context.Context) error {
	var chunk int
	if err := p.tx.get(ctx, &chunk, `SELECT COALESCE(MAX(chunk), 0) FROM steps WHERE task_id = ? AND name = ?`, p.task.ID, string(p.step)); err != nil {
		return err
	}
	if err := p.findNodes(ctx); err != nil {
		return err
	}
	byNode := map[string][]*member{}
	for _, m := range p.members {
		byNode[m.node] = append(byNode[m.node], m)
	}
	for _, node := range slices.Sorted(maps.Keys(byNode)) {
		for some := range slices.Chunk(byNode[node], p.size) {
			chunk++
			for _, m := range some {
				m.chunk = chunk
			}
			p.plans = append(p.plans, ChunkPlan{Chunk: chunk, NodeID: node, Size: len(some)})
		}
	}
	return p.storeSteps(ctx)
}

func (p *planner) findNodes(ctx context.Context) error {
	for some := range slices.Chunk(p.members, p.tx.dialect.batch) {
		ids := make([]string, len(some))
		for i, m := range some {
			ids[i] = m.ClientID
		}
		var rows []struct {
			ID     string `db:"id"`
			NodeID string `db:"node_id"`
		}
		if err := p.tx.list(ctx, &rows, `SELECT id, node_id FROM clients WHERE id IN (?)`, ids); err != nil {
			return err
		}
		nodes := make(map[string]string, len(rows))
		for _, row := range rows {
			nodes[row.ID] = row.NodeID
		}
		for _, m := range some {
			m.node = cmp.Or(nodes[m.ClientID], p.defaultNode)
		}
	}
	return nil
}

func (p *planner) storeSteps(ctx context.Context) error {
	for some := range slices.Chunk(p.members, p.tx.dialect.batch) {
		var fresh, old [][]any
		for _, m := range some {
			if m.fresh {
				fresh = append(fresh, []any{release.StepID(p.task.ID, p.step, m.ClientID, 0), m.ClientID, string(m.step.Action),
					m.step.VersionID, m.step.PreviousVersion, m.step.ConfigID, m.chunk})
			} else {
				old = append(old, []any{m.step.ID, m.chunk})
			}
		}
		if p.made += len(fresh); len(fresh) > 0 {
			with, args := p.tx.dialect.input("step TEXT, client TEXT, does TEXT, version TEXT, previous TEXT, config TEXT, number BIGINT", fresh)
			if _, err := p.tx.exec(ctx, with+`INSERT INTO steps (id, task_id, name, client_id, epoch, action, project_id, version_id, previous_version, config_id, chunk)
				SELECT step, CAST(? AS TEXT), CAST(? AS TEXT), client, 0, does, CAST(? AS TEXT), version, previous, config, number FROM input`,
				append(args, p.task.ID, string(p.step), p.task.ProjectID)...); err != nil {
				return err
			}
		}
		if len(old) > 0 {
			with, args := p.tx.dialect.input("step TEXT, number BIGINT", old)
			if _, err := p.tx.exec(ctx, with+`UPDATE steps SET chunk = number FROM input WHERE id = step`, args...); err != nil {
				return err
			}
		}
	}
	return nil
}
