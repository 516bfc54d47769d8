package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/quicflow/quicflow/internal/release"
)

const selectVersion = `SELECT v.id, v.project_id, p.name AS project, p.type, v.name, v.status, v.spec, v.created_at, v.updated_at
	FROM versions v JOIN projects p ON p.id = v.project_id`

type versionRow struct {
	ID        string `db:"id"`
	ProjectID string `db:"project_id"`
	Project   string `db:"project"`
	Type      string `db:"type"`
	Name      string `db:"name"`
	Status    string `db:"status"`
	Spec      []byte `db:"spec"`
	CreatedAt int64  `db:"created_at"`
	UpdatedAt int64  `db:"updated_at"`
}

func (r *versionRow) version() (release.Version, error) {
	v := release.Version{ID: r.ID, ProjectID: r.ProjectID, Project: r.Project, Name: r.Name, Status: release.VersionStatus(r.Status),
		CreatedAt: fromMicros(r.CreatedAt), UpdatedAt: fromMicros(r.UpdatedAt)}
	if err := v.Decode(release.Type(r.Type), r.Spec); err != nil {
		return v, fmt.Errorf("read version %s of %s: %w", r.Name, r.Project, err)
	}
	return v, nil
}

// CreateVersion stores a version of the project that ProjectID, or else Project, names. It fills both of these, and the
// id and times where they are empty. A version with an artifact that was not uploaded, and has no URL, is release.ErrInvalid.
func (s *Store) CreateVersion(ctx context.Context, v *release.Version) error {
	row := *v
	ref := row.ProjectID
	if ref == "" {
		ref = row.Project
	}
	project, err := s.Project(ctx, ref)
	if err != nil {
		return err
	}
	row.ProjectID, row.Project = project.ID, project.Name
	if err := fillID(&row.ID); err != nil {
		return err
	}
	row.CreatedAt = stored(s.orNow(row.CreatedAt))
	if row.UpdatedAt.IsZero() {
		row.UpdatedAt = row.CreatedAt
	}
	row.UpdatedAt = stored(row.UpdatedAt)
	spec, err := row.Encode(project.Type)
	if err != nil {
		return fmt.Errorf("write version: %w", err)
	}
	err = s.write(ctx, "create version", func(tx conn) error {
		_, err := tx.exec(ctx, `INSERT INTO versions (id, project_id, name, status, spec, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			row.ID, row.ProjectID, row.Name, string(row.Status), string(spec), micros(row.CreatedAt), micros(row.UpdatedAt))
		if isDuplicate(err) {
			return release.Conflict("version %q of %s exists already", row.Name, row.Project)
		}
		if err != nil {
			return err
		}
		return tx.useArtifacts(ctx, row.ID, row.Spec, s.now())
	})
	if err == nil {
		*v = row
	}
	return err
}

// VersionByID gives a version.
func (s *Store) VersionByID(ctx context.Context, id string) (release.Version, error) {
	return s.version(ctx, s.read(), id, ` WHERE v.id = ?`, id)
}

// Version gives a version by name or id, of a project by name or id.
func (s *Store) Version(ctx context.Context, projectRef, ref string) (release.Version, error) {
	project, err := s.Project(ctx, projectRef)
	if err != nil {
		return release.Version{}, err
	}
	return s.version(ctx, s.read(), ref, ` WHERE v.project_id = ? AND (v.id = ? OR v.name = ?) ORDER BY v.id = ? DESC LIMIT 1`, project.ID, ref, ref, ref)
}

func (s *Store) version(ctx context.Context, c conn, ref, condition string, args ...any) (release.Version, error) {
	var row versionRow
	err := c.get(ctx, &row, selectVersion+condition, args...)
	if errors.Is(err, sql.ErrNoRows) {
		return release.Version{}, release.NotFound("version", ref)
	}
	if err != nil {
		return release.Version{}, fmt.Errorf("read version: %w", err)
	}
	return row.version()
}

// Versions gives the versions of a project, the newest first.
func (s *Store) Versions(ctx context.Context, projectRef string) ([]release.Version, error) {
	project, err := s.Project(ctx, projectRef)
	if err != nil {
		return nil, err
	}
	var rows []versionRow
	if err := s.read().list(ctx, &rows, selectVersion+` WHERE v.project_id = ? ORDER BY v.created_at DESC, v.id DESC`, project.ID); err != nil {
		return nil, fmt.Errorf("list versions: %w", err)
	}
	versions := make([]release.Version, len(rows))
	for i := range rows {
		if versions[i], err = rows[i].version(); err != nil {
			return nil, err
		}
	}
	return versions, nil
}

// SetVersionStatus sets a version's status.
func (s *Store) SetVersionStatus(ctx context.Context, id string, status release.VersionStatus) (version release.Version, err error) {
	switch status {
	case release.VersionDraft, release.VersionActive, release.VersionDeprecated:
	default:
		return release.Version{}, release.Invalid("status", "%q is none of draft, active, deprecated", status)
	}
	err = s.write(ctx, "set version status", func(tx conn) error {
		if _, err := tx.exec(ctx, `UPDATE versions SET status = ?, updated_at = ? WHERE id = ?`, string(status), micros(s.now()), id); err != nil {
			return err
		}
		version, err = s.version(ctx, tx, id, ` WHERE v.id = ?`, id)
		return err
	})
	return version, err
}
