package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/quicflow/quicflow/internal/release"
)

const selectProject = `SELECT id, name, description, type, spec, revision, created_at, updated_at FROM projects`

type projectRow struct {
	ID          string `db:"id"`
	Name        string `db:"name"`
	Description string `db:"description"`
	Type        string `db:"type"`
	Spec        []byte `db:"spec"`
	Revision    int64  `db:"revision"`
	CreatedAt   int64  `db:"created_at"`
	UpdatedAt   int64  `db:"updated_at"`
}

func (r *projectRow) project() (release.Project, error) {
	p := release.Project{ID: r.ID, Name: r.Name, Description: r.Description, Type: release.Type(r.Type),
		Revision: r.Revision, CreatedAt: fromMicros(r.CreatedAt), UpdatedAt: fromMicros(r.UpdatedAt)}
	if err := p.Decode(p.Type, r.Spec); err != nil {
		return p, fmt.Errorf("read project %s: %w", r.Name, err)
	}
	return p, nil
}

// CreateProject stores a project, and fills its id, revision and times where they are empty.
func (s *Store) CreateProject(ctx context.Context, p *release.Project, g ...Guard) error {
	row := *p
	if err := fillID(&row.ID); err != nil {
		return err
	}
	row.Revision = 1
	row.CreatedAt = stored(s.orNow(row.CreatedAt))
	if row.UpdatedAt.IsZero() {
		row.UpdatedAt = row.CreatedAt
	}
	row.UpdatedAt = stored(row.UpdatedAt)
	spec, err := row.Encode(row.Type)
	if err != nil {
		return fmt.Errorf("write project: %w", err)
	}
	err = s.writeUnder(ctx, guardOf(g), "create project", func(tx conn) error {
		_, err := tx.exec(ctx, `INSERT INTO projects (id, name, description, type, spec, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			row.ID, row.Name, row.Description, string(row.Type), string(spec), micros(row.CreatedAt), micros(row.UpdatedAt))
		if isDuplicate(err) {
			return release.Conflict("project %q exists already", row.Name)
		}
		return err
	})
	if err == nil {
		*p = row
	}
	return err
}

// Project gives a project by its name or id.
func (s *Store) Project(ctx context.Context, ref string) (release.Project, error) {
	return project(ctx, s.read(), ref, "")
}

func project(ctx context.Context, c conn, ref, lock string) (release.Project, error) {
	var row projectRow
	err := c.get(ctx, &row, selectProject+` WHERE (id = ? OR name = ?) AND deleted_at = 0 ORDER BY id = ? DESC LIMIT 1`+lock, ref, ref, ref)
	if errors.Is(err, sql.ErrNoRows) {
		return release.Project{}, release.NotFound("project", ref)
	}
	if err != nil {
		return release.Project{}, fmt.Errorf("read project: %w", err)
	}
	return row.project()
}

// ProjectFilter picks projects. Its zero value picks all.
type ProjectFilter struct {
	Search string // a part of the name
	Type   release.Type
	Limit  int // 0: no limit
	Offset int
}

// Projects gives a page of projects in the order of their names, and the number of all that the filter picks.
func (s *Store) Projects(ctx context.Context, f ProjectFilter) (projects []release.Project, total int, err error) {
	w := &where{}
	w.add(`deleted_at = 0`)
	w.search("name", f.Search)
	if f.Type != "" {
		w.add(`type = ?`, string(f.Type))
	}
	if err := s.read().get(ctx, &total, `SELECT COUNT(*) FROM projects`+w.String(), w.args...); err != nil {
		return nil, 0, fmt.Errorf("count projects: %w", err)
	}
	var rows []projectRow
	if err := s.read().list(ctx, &rows, selectProject+w.String()+` ORDER BY name LIMIT ? OFFSET ?`, w.page(f.Limit, f.Offset)...); err != nil {
		return nil, 0, fmt.Errorf("list projects: %w", err)
	}
	projects = make([]release.Project, len(rows))
	for i := range rows {
		if projects[i], err = rows[i].project(); err != nil {
			return nil, 0, err
		}
	}
	return projects, total, nil
}

// UpdateProject changes name, description and configuration of the project with p's id, and fills the rest of p. An empty name leaves
// it that which it has. What changes nothing leaves the revision. One that is in use keeps its name, as its hosts know it by that.
func (s *Store) UpdateProject(ctx context.Context, p *release.Project, g Guard) error {
	next := *p
	err := s.writeUnder(ctx, g, "change project", func(tx conn) error {
		now, err := project(ctx, tx, p.ID, tx.dialect.lock)
		if err != nil {
			return err
		}
		if err := g.check("project", now.Name, now.Revision); err != nil {
			return err
		}
		next.Name = cmp.Or(p.Name, now.Name)
		next.Type, next.Revision, next.CreatedAt, next.UpdatedAt = now.Type, now.Revision, now.CreatedAt, now.UpdatedAt
		was, err := now.Encode(now.Type)
		if err != nil {
			return err
		}
		is, err := next.Encode(now.Type)
		if err != nil {
			return err
		}
		if next.Name == now.Name && clean(next.Description) == now.Description && clean(string(is)) == string(was) {
			return nil
		}
		if next.Name != now.Name {
			if err := projectInUse(ctx, tx, now, "so it cannot get another name"); err != nil {
				return err
			}
		}
		next.Revision, next.UpdatedAt = now.Revision+1, stored(s.now())
		_, err = tx.exec(ctx, `UPDATE projects SET name = ?, description = ?, spec = ?, revision = ?, updated_at = ? WHERE id = ?`,
			next.Name, next.Description, string(is), next.Revision, micros(next.UpdatedAt), next.ID)
		if isDuplicate(err) {
			return release.Conflict("project %q exists already", next.Name)
		}
		return err
	})
	if err == nil {
		*p = next
	}
	return err
}

// DeleteProject deletes a project with its versions, environments and variables, unless it is in use. Its tasks stay, as history.
func (s *Store) DeleteProject(ctx context.Context, id string, g Guard) error {
	return s.writeUnder(ctx, g, "delete project", func(tx conn) error {
		p, err := project(ctx, tx, id, tx.dialect.lock)
		if err != nil {
			return err
		}
		if err := g.check("project", p.Name, p.Revision); err != nil {
			return err
		}
		if err := projectInUse(ctx, tx, p, "uninstall it there, and let its tasks end, before it is deleted"); err != nil {
			return err
		}
		now := micros(s.now())
		for _, statement := range []string{
			`UPDATE projects SET deleted_at = ?, former_name = name, name = ` + buried + ` WHERE id = ?`,
			`UPDATE versions SET deleted_at = ?, former_name = name, name = ` + buried + ` WHERE project_id = ? AND deleted_at = 0`,
			`UPDATE environments SET deleted_at = ? WHERE project_id = ? AND deleted_at = 0`,
		} {
			if _, err := tx.exec(ctx, statement, now, p.ID); err != nil {
				return err
			}
		}
		if _, err := tx.exec(ctx, `DELETE FROM version_artifacts WHERE version_id IN (SELECT id FROM versions WHERE project_id = ?)`, p.ID); err != nil {
			return err
		}
		_, err = tx.exec(ctx, `DELETE FROM variables WHERE project_id = ?`, p.ID)
		return err
	})
}

func projectInUse(ctx context.Context, tx conn, p release.Project, remedy string) error {
	return inUse(ctx, tx, "project "+p.Name, remedy,
		use{unfinished, `t.project_id = ?`, []any{p.ID}}, use{installedOn, `i.project_id = ?`, []any{p.ID}},
		use{scheduled(func(release.NewTask) bool { return true }), `s.project_id = ?`, []any{p.ID}})
}

// fillID gives an id to what has none.
func fillID(id *string) error {
	if *id != "" {
		return nil
	}
	made, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	*id = made.String()
	return nil
}
