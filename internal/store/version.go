package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/quicflow/quicflow/internal/release"
)

const selectVersion = `SELECT v.id, v.project_id, p.name AS project, p.type, v.name, v.status, v.spec, v.revision, v.created_at, v.updated_at
	FROM versions v JOIN projects p ON p.id = v.project_id`

type versionRow struct {
	ID        string `db:"id"`
	ProjectID string `db:"project_id"`
	Project   string `db:"project"`
	Type      string `db:"type"`
	Name      string `db:"name"`
	Status    string `db:"status"`
	Spec      []byte `db:"spec"`
	Revision  int64  `db:"revision"`
	CreatedAt int64  `db:"created_at"`
	UpdatedAt int64  `db:"updated_at"`
}

func (r *versionRow) version() (release.Version, error) {
	v := release.Version{ID: r.ID, ProjectID: r.ProjectID, Project: r.Project, Name: r.Name, Status: release.VersionStatus(r.Status),
		Revision: r.Revision, CreatedAt: fromMicros(r.CreatedAt), UpdatedAt: fromMicros(r.UpdatedAt)}
	if err := v.Decode(release.Type(r.Type), r.Spec); err != nil {
		return v, fmt.Errorf("read version %s of %s: %w", r.Name, r.Project, err)
	}
	return v, nil
}

// CreateVersion stores a version of the project that ProjectID, or else Project, names. It fills both of these, and the
// id, revision and times where they are empty. A version with an artifact that was not uploaded, and has no URL, is release.ErrInvalid.
func (s *Store) CreateVersion(ctx context.Context, v *release.Version, g ...Guard) error {
	row := *v
	ref := row.ProjectID
	if ref == "" {
		ref = row.Project
	}
	if err := fillID(&row.ID); err != nil {
		return err
	}
	row.Revision = 1
	row.CreatedAt = stored(s.orNow(row.CreatedAt))
	if row.UpdatedAt.IsZero() {
		row.UpdatedAt = row.CreatedAt
	}
	row.UpdatedAt = stored(row.UpdatedAt)
	err := s.writeUnder(ctx, guardOf(g), "create version", func(tx conn) error {
		p, err := project(ctx, tx, ref, tx.dialect.lock)
		if err != nil {
			return err
		}
		row.ProjectID, row.Project = p.ID, p.Name
		spec, err := row.Encode(p.Type)
		if err != nil {
			return fmt.Errorf("write version: %w", err)
		}
		_, err = tx.exec(ctx, `INSERT INTO versions (id, project_id, name, status, spec, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
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
	return versionByID(ctx, s.read(), id, "")
}

func versionByID(ctx context.Context, c conn, id, lock string) (release.Version, error) {
	return version(ctx, c, id, ` WHERE v.id = ? AND v.deleted_at = 0`+lock, id)
}

// Version gives a version by name or id, of a project by name or id.
func (s *Store) Version(ctx context.Context, projectRef, ref string) (release.Version, error) {
	project, err := s.Project(ctx, projectRef)
	if err != nil {
		return release.Version{}, err
	}
	return versionOf(ctx, s.read(), project.ID, ref, "")
}

// versionOf gives one of a project, by name or id.
func versionOf(ctx context.Context, c conn, projectID, ref, lock string) (release.Version, error) {
	return version(ctx, c, ref, ` WHERE v.project_id = ? AND (v.id = ? OR v.name = ?) AND v.deleted_at = 0 ORDER BY v.id = ? DESC LIMIT 1`+lock,
		projectID, ref, ref, ref)
}

func version(ctx context.Context, c conn, ref, condition string, args ...any) (release.Version, error) {
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

// VersionFilter picks versions of a project. Its zero value picks all.
type VersionFilter struct {
	Name   string // exactly
	Search string // a part of the name
	Status release.VersionStatus
	Limit  int // 0: no limit
	Offset int
}

// Versions gives a page of the versions of a project, the newest first, and the number of all that the filter picks.
func (s *Store) Versions(ctx context.Context, projectRef string, f VersionFilter) (versions []release.Version, total int, err error) {
	project, err := s.Project(ctx, projectRef)
	if err != nil {
		return nil, 0, err
	}
	w := &where{}
	w.add(`v.project_id = ? AND v.deleted_at = 0`, project.ID)
	if f.Name != "" {
		w.add(`v.name = ?`, f.Name)
	}
	w.search("v.name", f.Search)
	if f.Status != "" {
		w.add(`v.status = ?`, string(f.Status))
	}
	if err := s.read().get(ctx, &total, `SELECT COUNT(*) FROM versions v`+w.String(), w.args...); err != nil {
		return nil, 0, fmt.Errorf("count versions: %w", err)
	}
	var rows []versionRow
	if err := s.read().list(ctx, &rows, selectVersion+w.String()+` ORDER BY v.created_at DESC, v.id DESC LIMIT ? OFFSET ?`, w.page(f.Limit, f.Offset)...); err != nil {
		return nil, 0, fmt.Errorf("list versions: %w", err)
	}
	versions = make([]release.Version, len(rows))
	for i := range rows {
		if versions[i], err = rows[i].version(); err != nil {
			return nil, 0, err
		}
	}
	return versions, total, nil
}

// SetVersionStatus sets a version's status.
func (s *Store) SetVersionStatus(ctx context.Context, id string, status release.VersionStatus, g ...Guard) (release.Version, error) {
	switch status {
	case release.VersionDraft, release.VersionActive, release.VersionDeprecated:
	default:
		return release.Version{}, release.Invalid("status", "%q is none of draft, active, deprecated", status)
	}
	return s.changeVersion(ctx, id, guardOf(g), func(v *release.Version) { v.Status = status })
}

// UpdateVersion changes name, status and configuration of the version with v's id, and fills the rest of v. A name or a status that is
// empty stays. What changes nothing leaves the revision. Of one that was ever deployed only the status can be changed, and one that a
// schedule names keeps its name.
func (s *Store) UpdateVersion(ctx context.Context, v *release.Version, g Guard) error {
	next, err := s.changeVersion(ctx, v.ID, g, func(now *release.Version) {
		now.Name, now.Spec = cmp.Or(v.Name, now.Name), v.Spec
		if v.Status != "" {
			now.Status = v.Status
		}
	})
	if err == nil {
		*v = next
	}
	return err
}

func (s *Store) changeVersion(ctx context.Context, id string, g Guard, change func(*release.Version)) (next release.Version, err error) {
	err = s.writeUnder(ctx, g, "change version", func(tx conn) error {
		now, err := versionByID(ctx, tx, id, tx.lockOf("v"))
		if err != nil {
			return err
		}
		if err := g.check("version", now.Name+" of "+now.Project, now.Revision); err != nil {
			return err
		}
		next = now
		change(&next)
		var of string
		if err := tx.get(ctx, &of, `SELECT type FROM projects WHERE id = ?`, now.ProjectID); err != nil {
			return err
		}
		was, err := now.Encode(release.Type(of))
		if err != nil {
			return err
		}
		is, err := next.Encode(release.Type(of))
		if err != nil {
			return err
		}
		same := next.Name == now.Name && clean(string(is)) == string(was)
		if same && next.Status == now.Status {
			return nil
		}
		if !same {
			var tasks []string
			if err := tx.list(ctx, &tasks, `SELECT id FROM tasks WHERE version_id = ? ORDER BY created_at DESC LIMIT 1`, id); err != nil {
				return err
			}
			if len(tasks) > 0 {
				return release.Conflict("version %s of %s was deployed (task %s), so nothing but its status can be changed; make a new version", now.Name, now.Project, tasks[0])
			}
		}
		if next.Name != now.Name {
			named := scheduled(func(t release.NewTask) bool { return t.Version == now.Name })
			if err := inUse(ctx, tx, "version "+now.Name+" of "+now.Project, "so it cannot get another name", use{named, `s.project_id = ?`, []any{now.ProjectID}}); err != nil {
				return err
			}
		}
		next.Revision, next.UpdatedAt = now.Revision+1, stored(s.now())
		_, err = tx.exec(ctx, `UPDATE versions SET name = ?, status = ?, spec = ?, revision = ?, updated_at = ? WHERE id = ?`,
			next.Name, string(next.Status), string(is), next.Revision, micros(next.UpdatedAt), id)
		if isDuplicate(err) {
			return release.Conflict("version %q of %s exists already", next.Name, now.Project)
		}
		if err != nil || same {
			return err
		}
		return tx.useArtifacts(ctx, id, next.Spec, s.now())
	})
	return next, err
}

// DeleteVersion deletes a version, unless it is in use. Its tasks stay, as history.
func (s *Store) DeleteVersion(ctx context.Context, id string, g Guard) error {
	return s.writeUnder(ctx, g, "delete version", func(tx conn) error {
		v, err := versionByID(ctx, tx, id, tx.lockOf("v"))
		if err != nil {
			return err
		}
		name := v.Name + " of " + v.Project
		if err := g.check("version", name, v.Revision); err != nil {
			return err
		}
		err = inUse(ctx, tx, "version "+name, "deprecate it instead, or delete it when nothing needs it any more",
			use{unfinished, `(t.version_id = ? OR t.id IN (SELECT task_id FROM task_targets WHERE previous_version_id = ?))`, []any{id, id}},
			use{installedOn, `i.project_id = ? AND (i.version_id = ? OR i.attempted_id = ?)`, []any{v.ProjectID, id, id}},
			use{scheduled(func(t release.NewTask) bool { return t.Version == v.ID || t.Version == v.Name }), `s.project_id = ?`, []any{v.ProjectID}})
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `DELETE FROM version_artifacts WHERE version_id = ?`, id); err != nil {
			return err
		}
		_, err = tx.exec(ctx, `UPDATE versions SET deleted_at = ?, former_name = name, name = `+buried+` WHERE id = ?`, micros(s.now()), id)
		return err
	})
}
