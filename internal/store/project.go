package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/quicflow/quicflow/internal/release"
)

type projectRow struct {
	ID          string `db:"id"`
	Name        string `db:"name"`
	Description string `db:"description"`
	Type        string `db:"type"`
	Spec        []byte `db:"spec"`
	CreatedAt   int64  `db:"created_at"`
	UpdatedAt   int64  `db:"updated_at"`
}

func (r *projectRow) project() (release.Project, error) {
	p := release.Project{ID: r.ID, Name: r.Name, Description: r.Description, Type: release.Type(r.Type),
		CreatedAt: fromMicros(r.CreatedAt), UpdatedAt: fromMicros(r.UpdatedAt)}
	if err := p.Decode(p.Type, r.Spec); err != nil {
		return p, fmt.Errorf("read project %s: %w", r.Name, err)
	}
	return p, nil
}

// CreateProject stores a project, and fills its id and times where they are empty.
func (s *Store) CreateProject(ctx context.Context, p *release.Project) error {
	row := *p
	if err := fillID(&row.ID); err != nil {
		return err
	}
	row.CreatedAt = stored(s.orNow(row.CreatedAt))
	if row.UpdatedAt.IsZero() {
		row.UpdatedAt = row.CreatedAt
	}
	row.UpdatedAt = stored(row.UpdatedAt)
	spec, err := row.Encode(row.Type)
	if err != nil {
		return fmt.Errorf("write project: %w", err)
	}
	err = s.write(ctx, "create project", func(tx conn) error {
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
	var row projectRow
	err := s.read().get(ctx, &row, `SELECT * FROM projects WHERE id = ? OR name = ? ORDER BY id = ? DESC LIMIT 1`, ref, ref, ref)
	if errors.Is(err, sql.ErrNoRows) {
		return release.Project{}, release.NotFound("project", ref)
	}
	if err != nil {
		return release.Project{}, fmt.Errorf("read project: %w", err)
	}
	return row.project()
}

// Projects gives all projects in the order of their names.
func (s *Store) Projects(ctx context.Context) ([]release.Project, error) {
	var rows []projectRow
	if err := s.read().list(ctx, &rows, `SELECT * FROM projects ORDER BY name`); err != nil {
		return nil, fmt.Errorf("list projects: %w", err)
	}
	projects := make([]release.Project, len(rows))
	for i := range rows {
		var err error
		if projects[i], err = rows[i].project(); err != nil {
			return nil, err
		}
	}
	return projects, nil
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
