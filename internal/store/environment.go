package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/quicflow/quicflow/internal/release"
)

const selectEnvironment = `SELECT e.id, e.project_id, p.name AS project, e.name, e.description, e.selector, e.strategy, e.revision, e.created_at, e.updated_at
	FROM environments e JOIN projects p ON p.id = e.project_id`

type environmentRow struct {
	ID          string `db:"id"`
	ProjectID   string `db:"project_id"`
	Project     string `db:"project"`
	Name        string `db:"name"`
	Description string `db:"description"`
	Selector    string `db:"selector"`
	Strategy    []byte `db:"strategy"`
	Revision    int64  `db:"revision"`
	CreatedAt   int64  `db:"created_at"`
	UpdatedAt   int64  `db:"updated_at"`
}

func (r *environmentRow) environment() (release.Environment, error) {
	e := release.Environment{ID: r.ID, ProjectID: r.ProjectID, Project: r.Project, Name: r.Name, Description: r.Description, Selector: r.Selector,
		Revision: r.Revision, CreatedAt: fromMicros(r.CreatedAt), UpdatedAt: fromMicros(r.UpdatedAt)}
	if err := json.Unmarshal(r.Strategy, &e.Strategy); err != nil {
		return e, fmt.Errorf("read environment %s of %s: %w", r.Name, r.Project, err)
	}
	return e, nil
}

// CreateEnvironment stores an environment of the project with its ProjectID, and fills the rest.
func (s *Store) CreateEnvironment(ctx context.Context, e *release.Environment, g ...Guard) error {
	row := *e
	if err := fillID(&row.ID); err != nil {
		return err
	}
	row.Revision, row.CreatedAt = 1, stored(s.now())
	row.UpdatedAt = row.CreatedAt
	strategy, err := json.Marshal(row.Strategy)
	if err != nil {
		return fmt.Errorf("write environment: %w", err)
	}
	err = s.writeUnder(ctx, guardOf(g), "create environment", func(tx conn) error {
		p, err := project(ctx, tx, row.ProjectID, tx.dialect.lock)
		if err != nil {
			return err
		}
		row.Project = p.Name
		_, err = tx.exec(ctx, `INSERT INTO environments (id, project_id, name, description, selector, strategy, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			row.ID, row.ProjectID, row.Name, row.Description, row.Selector, string(strategy), micros(row.CreatedAt), micros(row.UpdatedAt))
		if isDuplicate(err) {
			return release.Conflict("environment %q of %s exists already", row.Name, row.Project)
		}
		return err
	})
	if err == nil {
		*e = row
	}
	return err
}

// Environment gives an environment by name or id, of a project by name or id.
func (s *Store) Environment(ctx context.Context, projectRef, ref string) (release.Environment, error) {
	p, err := s.Project(ctx, projectRef)
	if err != nil {
		return release.Environment{}, err
	}
	return environment(ctx, s.read(), p.ID, ref, "")
}

// environment gives one of a project, by name or id.
func environment(ctx context.Context, c conn, projectID, ref, lock string) (release.Environment, error) {
	if lock != "" {
		lock = c.lockOf("e")
	}
	var row environmentRow
	err := c.get(ctx, &row, selectEnvironment+` WHERE e.project_id = ? AND (e.id = ? OR e.name = ?) AND e.deleted_at = 0 ORDER BY e.id = ? DESC LIMIT 1`+lock,
		projectID, ref, ref, ref)
	if errors.Is(err, sql.ErrNoRows) {
		return release.Environment{}, release.NotFound("environment", ref)
	}
	if err != nil {
		return release.Environment{}, fmt.Errorf("read environment: %w", err)
	}
	return row.environment()
}

// Environments gives a page of the environments of a project, in the order of their names, and the number of all of them.
func (s *Store) Environments(ctx context.Context, projectRef string, limit, offset int) (environments []release.Environment, total int, err error) {
	p, err := s.Project(ctx, projectRef)
	if err != nil {
		return nil, 0, err
	}
	w := &where{}
	w.add(`e.project_id = ? AND e.deleted_at = 0`, p.ID)
	if err := s.read().get(ctx, &total, `SELECT COUNT(*) FROM environments e`+w.String(), w.args...); err != nil {
		return nil, 0, fmt.Errorf("count environments: %w", err)
	}
	var rows []environmentRow
	if err := s.read().list(ctx, &rows, selectEnvironment+w.String()+` ORDER BY e.name LIMIT ? OFFSET ?`, w.page(limit, offset)...); err != nil {
		return nil, 0, fmt.Errorf("list environments: %w", err)
	}
	environments = make([]release.Environment, len(rows))
	for i := range rows {
		if environments[i], err = rows[i].environment(); err != nil {
			return nil, 0, err
		}
	}
	return environments, total, nil
}

// UpdateEnvironment changes the environment with e's ProjectID and id, and fills the rest of e. An empty name leaves it that which it
// has. What changes nothing leaves the revision. One that is in use keeps its name, which its configurations have.
func (s *Store) UpdateEnvironment(ctx context.Context, e *release.Environment, g Guard) error {
	next := *e
	strategy, err := json.Marshal(next.Strategy)
	if err != nil {
		return fmt.Errorf("write environment: %w", err)
	}
	err = s.writeUnder(ctx, g, "change environment", func(tx conn) error {
		now, err := environment(ctx, tx, e.ProjectID, e.ID, tx.dialect.lock)
		if err != nil {
			return err
		}
		if err := g.check("environment", now.Name+" of "+now.Project, now.Revision); err != nil {
			return err
		}
		next.Name = cmp.Or(e.Name, now.Name)
		next.Project, next.Revision, next.CreatedAt, next.UpdatedAt = now.Project, now.Revision, now.CreatedAt, now.UpdatedAt
		was, err := json.Marshal(now.Strategy)
		if err != nil {
			return err
		}
		if next.Name == now.Name && clean(next.Description) == now.Description && clean(next.Selector) == now.Selector && string(strategy) == string(was) {
			return nil
		}
		if next.Name != now.Name {
			if err := environmentInUse(ctx, tx, now, "so it cannot get another name"); err != nil {
				return err
			}
		}
		next.Revision, next.UpdatedAt = now.Revision+1, stored(s.now())
		_, err = tx.exec(ctx, `UPDATE environments SET name = ?, description = ?, selector = ?, strategy = ?, revision = ?, updated_at = ? WHERE id = ?`,
			next.Name, next.Description, next.Selector, string(strategy), next.Revision, micros(next.UpdatedAt), next.ID)
		if isDuplicate(err) {
			return release.Conflict("environment %q of %s exists already", next.Name, now.Project)
		}
		return err
	})
	if err == nil {
		*e = next
	}
	return err
}

// DeleteEnvironment deletes an environment of a project with its variables, unless it is in use.
func (s *Store) DeleteEnvironment(ctx context.Context, projectID, id string, g Guard) error {
	return s.writeUnder(ctx, g, "delete environment", func(tx conn) error {
		e, err := environment(ctx, tx, projectID, id, tx.dialect.lock)
		if err != nil {
			return err
		}
		if err := g.check("environment", e.Name+" of "+e.Project, e.Revision); err != nil {
			return err
		}
		if err := environmentInUse(ctx, tx, e, "uninstall it there, and let its tasks end, before it is deleted"); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `DELETE FROM variables WHERE project_id = ? AND environment_id = ?`, e.ProjectID, e.ID); err != nil {
			return err
		}
		_, err = tx.exec(ctx, `UPDATE environments SET deleted_at = ? WHERE id = ?`, micros(s.now()), e.ID)
		return err
	})
}

func environmentInUse(ctx context.Context, tx conn, e release.Environment, remedy string) error {
	return inUse(ctx, tx, "environment "+e.Name+" of "+e.Project, remedy,
		use{unfinished, `t.environment_id = ?`, []any{e.ID}},
		use{installedOn, `i.project_id = ? AND EXISTS (SELECT 1 FROM configs k WHERE k.id IN (i.config_id, i.attempted_config_id) AND k.environment_id = ?)`,
			[]any{e.ProjectID, e.ID}},
		use{scheduled(func(t release.NewTask) bool { return t.Environment == e.ID || t.Environment == e.Name }), `s.project_id = ?`, []any{e.ProjectID}})
}
