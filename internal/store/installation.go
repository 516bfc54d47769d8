package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/quicflow/quicflow/internal/release"
)

// The states of an installation that are the store's own.
const (
	installationRemoved   = "removed"   // nothing is installed
	installationUntouched = "untouched" // a change that was in doubt never began
)

// installationChange is what a step's outcome says about what its host runs.
type installationChange struct {
	projectID, clientID, taskID string
	state, versionID, attempted string
	config, attemptedConfig     string
	running                     string
	asOf, at                    int64
}

// installationAfter gives the change by an outcome, and false if there is none.
func installationAfter(step *stepRow, before release.StepState, o outcome) (installationChange, bool) {
	c := installationChange{
		projectID: step.ProjectID, clientID: step.ClientID, taskID: step.TaskID,
		asOf: step.DispatchedAt, at: micros(o.finished),
	}
	if c.asOf == 0 {
		c.asOf = c.at
	}
	switch o.state {
	case release.StepSucceeded:
		c.state, c.versionID, c.config, c.running = string(release.InstallationInstalled), step.VersionID, step.ConfigID, o.running
		if step.VersionID == "" {
			c.state, c.config, c.running = installationRemoved, "", ""
		}
	case release.StepFailed, release.StepCancelled:
		c.state, c.attempted = string(release.InstallationFailed), step.VersionID
	case release.StepUnknown:
		c.state, c.attempted = string(release.InstallationUnknown), step.VersionID
	case release.StepRefused:
		c.state = installationUntouched
		return c, before == release.StepUnknown
	default:
		return c, false
	}
	if c.attempted != "" {
		c.attemptedConfig = step.ConfigID
	}
	return c, true
}

func writeInstallations(ctx context.Context, tx conn, changes []installationChange) error {
	// One statement cannot change a row twice, so a second change of a row waits for a second round. That locks no new
	// rows, so the order of locks holds.
	slices.SortStableFunc(changes, func(a, b installationChange) int {
		return cmp.Or(cmp.Compare(a.projectID, b.projectID), cmp.Compare(a.clientID, b.clientID))
	})
	for len(changes) > 0 {
		var round, later []installationChange
		for i, c := range changes {
			if i > 0 && c.projectID == changes[i-1].projectID && c.clientID == changes[i-1].clientID {
				later = append(later, c)
			} else {
				round = append(round, c)
			}
		}
		for some := range slices.Chunk(round, tx.dialect.batch) {
			if err := upsertInstallations(ctx, tx, some); err != nil {
				return err
			}
		}
		changes = later
	}
	return nil
}

func upsertInstallations(ctx context.Context, tx conn, changes []installationChange) error {
	rows := make([][]any, len(changes))
	for i, c := range changes {
		rows[i] = []any{c.projectID, c.clientID, c.versionID, c.state, c.attempted, c.taskID, c.asOf, c.at, c.config, c.attemptedConfig, c.running}
	}
	with, args := tx.dialect.input("project TEXT, client TEXT, version TEXT, how TEXT, tried TEXT, task TEXT, dispatched BIGINT, at BIGINT, config TEXT, tried_config TEXT, running TEXT", rows)
	_, err := tx.exec(ctx, with+`INSERT INTO installations (project_id, client_id, version_id, state, attempted_id, task_id, as_of, updated_at,
			config_id, attempted_config_id, running, installed_at, installed_by)
		SELECT project, client, version, how, tried, task, dispatched, at, config, tried_config, running,
			CASE WHEN how = 'installed' THEN at ELSE 0 END, CASE WHEN how = 'installed' THEN task ELSE '' END FROM input WHERE TRUE
		ON CONFLICT (project_id, client_id) DO UPDATE SET
			version_id = CASE WHEN excluded.state IN ('installed', 'removed') THEN excluded.version_id ELSE installations.version_id END,
			state = CASE WHEN excluded.state <> 'untouched' THEN excluded.state WHEN installations.version_id = '' THEN 'removed' ELSE 'installed' END,
			config_id = CASE WHEN excluded.state IN ('installed', 'removed') THEN excluded.config_id ELSE installations.config_id END,
			running = CASE WHEN excluded.state IN ('installed', 'removed') THEN excluded.running ELSE installations.running END,
			installed_at = CASE WHEN excluded.state IN ('installed', 'removed') THEN excluded.installed_at ELSE installations.installed_at END,
			installed_by = CASE WHEN excluded.state IN ('installed', 'removed') THEN excluded.installed_by ELSE installations.installed_by END,
			-- An uninstall that went wrong attempts no version: what was there in part still is.
			attempted_id = CASE WHEN excluded.state IN ('failed', 'unknown') AND excluded.attempted_id = '' THEN installations.attempted_id ELSE excluded.attempted_id END,
			attempted_config_id = CASE WHEN excluded.state IN ('failed', 'unknown') AND excluded.attempted_id = '' THEN installations.attempted_config_id
				ELSE excluded.attempted_config_id END,
			task_id = excluded.task_id, as_of = excluded.as_of, updated_at = excluded.updated_at
		WHERE installations.as_of <= excluded.as_of`, args...)
	return err
}

// InstallationFilter picks installations. Its zero value picks all.
type InstallationFilter struct {
	Project  string // name or id
	ClientID string
	Clients  []string // any of these, however many; nil: any
	Limit    int      // 0: no limit
	Offset   int
}

// Installations gives a page of what hosts run, in the order of projects and clients, and the number of all that the
// filter picks.
func (s *Store) Installations(ctx context.Context, f InstallationFilter) (installations []release.Installation, total int, err error) {
	w := &where{}
	w.add(`i.state IN ('installed', 'failed', 'unknown')`)
	if f.Project != "" {
		w.add(`i.project_id IN (SELECT id FROM projects WHERE id = ? OR name = ?)`, f.Project, f.Project)
	}
	if f.ClientID != "" {
		w.add(`i.client_id = ?`, f.ClientID)
	}
	if f.Clients != nil {
		in, list := s.dialect.in(f.Clients)
		w.add(`i.client_id `+in, list)
	}
	if f.Limit > 0 || f.Offset > 0 {
		if err := s.read().get(ctx, &total, `SELECT COUNT(*) FROM installations i`+w.String(), w.args...); err != nil {
			return nil, 0, fmt.Errorf("count installations: %w", err)
		}
	}
	var rows []struct {
		ProjectID string `db:"project_id"`
		Project   string `db:"project"`
		ClientID  string `db:"client_id"`
		VersionID string `db:"version_id"`
		Version   string `db:"version"`
		State     string `db:"state"`
		Attempted string `db:"attempted"`
		TaskID    string `db:"task_id"`
		ConfigID  string `db:"config_id"`
		UpdatedAt int64  `db:"updated_at"`

		InstalledAt int64  `db:"installed_at"`
		InstalledBy string `db:"installed_by"`
		Running     string `db:"running"`
	}
	if err := s.read().list(ctx, &rows, `SELECT i.project_id, p.name AS project, i.client_id, i.version_id, COALESCE(v.name, '') AS version,
		i.state, COALESCE(a.name, '') AS attempted, i.task_id, i.config_id, i.updated_at, i.installed_at, i.installed_by, i.running
		FROM installations i JOIN projects p ON p.id = i.project_id
		LEFT JOIN versions v ON v.id = i.version_id LEFT JOIN versions a ON a.id = i.attempted_id`+w.String()+`
		ORDER BY p.name, i.client_id LIMIT ? OFFSET ?`, w.page(f.Limit, f.Offset)...); err != nil {
		return nil, 0, fmt.Errorf("list installations: %w", err)
	}
	if f.Limit <= 0 && f.Offset <= 0 {
		total = len(rows)
	}
	installations = make([]release.Installation, len(rows))
	for i, r := range rows {
		installations[i] = release.Installation{
			ProjectID: r.ProjectID, Project: r.Project, ClientID: r.ClientID, VersionID: r.VersionID, Version: r.Version,
			State: release.InstallationState(r.State), Attempted: r.Attempted, TaskID: r.TaskID, ConfigID: r.ConfigID, UpdatedAt: fromMicros(r.UpdatedAt),
			InstalledBy: r.InstalledBy,
		}
		if r.InstalledAt != 0 {
			at := fromMicros(r.InstalledAt)
			installations[i].InstalledAt = &at
		}
		if running := new(release.Running); r.Running != "" && json.Unmarshal([]byte(r.Running), running) == nil {
			installations[i].Running = running
		}
	}
	return installations, total, nil
}

// RecordRunning keeps what agents found to run of installations, each of which has it in Running. One that a step has changed since it
// was read keeps what that step's agent reported.
func (s *Store) RecordRunning(ctx context.Context, found []release.Installation) error {
	rows := make([][]any, 0, len(found))
	for _, i := range found {
		text, err := json.Marshal(i.Running)
		if err != nil {
			return fmt.Errorf("write what runs: %w", err)
		}
		rows = append(rows, []any{i.ProjectID, i.ClientID, i.TaskID, micros(i.UpdatedAt), string(text)})
	}
	slices.SortFunc(rows, func(a, b []any) int {
		return cmp.Or(cmp.Compare(a[0].(string), b[0].(string)), cmp.Compare(a[1].(string), b[1].(string)))
	})
	for some := range slices.Chunk(rows, s.dialect.batch) {
		with, args := s.dialect.input("project TEXT, client TEXT, task TEXT, at BIGINT, found TEXT", some)
		err := s.write(ctx, "keep what runs", func(tx conn) error {
			if tx.dialect.lock != "" { // in the order of whoever writes installations
				var locked []string
				if err := tx.list(ctx, &locked, with+`SELECT i.client_id FROM installations i JOIN input ON i.project_id = project AND i.client_id = client
					ORDER BY i.project_id, i.client_id`+tx.lockOf("i"), args...); err != nil {
					return err
				}
			}
			_, err := tx.exec(ctx, with+`UPDATE installations SET running = found FROM input
				WHERE project_id = project AND client_id = client AND task_id = task AND updated_at = at AND state IN ('installed', 'failed', 'unknown')`, args...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
