package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

const selectArtifact = `SELECT a.sha256, a.size, a.name, a.created_at, a.created_by, a.last_used,
	(SELECT COUNT(*) FROM version_artifacts v WHERE v.sha256 = a.sha256) AS versions FROM artifacts a`

type artifactRow struct {
	SHA256    string `db:"sha256"`
	Size      int64  `db:"size"`
	Name      string `db:"name"`
	CreatedAt int64  `db:"created_at"`
	CreatedBy string `db:"created_by"`
	LastUsed  int64  `db:"last_used"`
	Versions  int    `db:"versions"`
}

func (r artifactRow) artifact() release.StoredArtifact {
	return release.StoredArtifact{SHA256: r.SHA256, Size: r.Size, Name: r.Name, CreatedAt: fromMicros(r.CreatedAt), CreatedBy: r.CreatedBy,
		LastUsed: fromMicros(r.LastUsed), Versions: r.Versions}
}

// PutArtifact adds an artifact, or, if there is one of its SHA-256, takes over its name, unless that is empty. It fills in what
// the store has.
func (s *Store) PutArtifact(ctx context.Context, a *release.StoredArtifact) error {
	now := micros(s.now())
	var row artifactRow
	err := s.write(ctx, "store artifact", func(tx conn) error {
		_, err := tx.exec(ctx, `INSERT INTO artifacts (sha256, size, name, created_at, created_by, last_used) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (sha256) DO UPDATE SET size = excluded.size, last_used = excluded.last_used,
			name = CASE excluded.name WHEN '' THEN artifacts.name ELSE excluded.name END`,
			a.SHA256, a.Size, a.Name, now, a.CreatedBy, now)
		if err != nil {
			return err
		}
		return tx.get(ctx, &row, selectArtifact+` WHERE a.sha256 = ?`, a.SHA256)
	})
	if err == nil {
		*a = row.artifact()
	}
	return err
}

// Artifact gives an artifact, or release.ErrNotFound.
func (s *Store) Artifact(ctx context.Context, sha256 string) (release.StoredArtifact, error) {
	var row artifactRow
	err := s.read().get(ctx, &row, selectArtifact+` WHERE a.sha256 = ?`, sha256)
	if errors.Is(err, sql.ErrNoRows) {
		return release.StoredArtifact{}, release.NotFound("artifact", sha256)
	}
	if err != nil {
		return release.StoredArtifact{}, fmt.Errorf("read artifact: %w", err)
	}
	return row.artifact(), nil
}

// ArtifactFilter says which artifacts are wanted.
type ArtifactFilter struct {
	Search string // part of a name, or the beginning of a SHA-256. Defaults to all.
	Unused bool   // only those that no version uses
	Limit  int    // Defaults to 0, all.
	Offset int
}

// Artifacts lists artifacts, the newest first, and counts all that match.
func (s *Store) Artifacts(ctx context.Context, filter ArtifactFilter) (artifacts []release.StoredArtifact, total int, err error) {
	var w where
	if filter.Search != "" {
		w.add(`(LOWER(a.name) LIKE ? ESCAPE '\' OR a.sha256 LIKE ? ESCAPE '\')`,
			containing(filter.Search), beginning(filter.Search))
	}
	if filter.Unused {
		w.add(`NOT EXISTS (SELECT 1 FROM version_artifacts v WHERE v.sha256 = a.sha256)`)
	}
	if err := s.read().get(ctx, &total, `SELECT COUNT(*) FROM artifacts a`+w.String(), w.args...); err != nil {
		return nil, 0, fmt.Errorf("count artifacts: %w", err)
	}
	var rows []artifactRow
	err = s.read().list(ctx, &rows, selectArtifact+w.String()+` ORDER BY a.created_at DESC, a.sha256 LIMIT ? OFFSET ?`, w.page(filter.Limit, filter.Offset)...)
	if err != nil {
		return nil, 0, fmt.Errorf("list artifacts: %w", err)
	}
	for _, row := range rows {
		artifacts = append(artifacts, row.artifact())
	}
	return artifacts, total, nil
}

// UseArtifact notes that an artifact was used now. One that there is not is passed over.
func (s *Store) UseArtifact(ctx context.Context, sha256 string) error {
	return s.write(ctx, "note the use of an artifact", func(tx conn) error {
		_, err := tx.exec(ctx, `UPDATE artifacts SET last_used = ? WHERE sha256 = ?`, micros(s.now()), sha256)
		return err
	})
}

// DeleteArtifact forgets an artifact: release.ErrConflict while a version uses it, release.ErrNotFound.
func (s *Store) DeleteArtifact(ctx context.Context, sha256 string) error {
	return s.write(ctx, "delete artifact", func(tx conn) error {
		if _, err := tx.lockArtifact(ctx, sha256); err != nil {
			return err
		}
		// A statement of its own, behind the lock: it sees every version that was made before.
		var versions []struct {
			Project string `db:"project"`
			Name    string `db:"name"`
		}
		err := tx.list(ctx, &versions, `SELECT p.name AS project, v.name FROM version_artifacts a JOIN versions v ON v.id = a.version_id
			JOIN projects p ON p.id = v.project_id WHERE a.sha256 = ? ORDER BY v.created_at DESC`, sha256)
		if err != nil {
			return err
		}
		if n := len(versions); n > 0 {
			more := ""
			if n > 1 {
				more = fmt.Sprintf(" and %d more", n-1)
			}
			return release.Conflict("version %s of %s%s needs it", versions[0].Name, versions[0].Project, more)
		}
		_, err = tx.exec(ctx, `DELETE FROM artifacts WHERE sha256 = ?`, sha256)
		return err
	})
}

// lockArtifact gives when an artifact was last used, or release.ErrNotFound.
func (c conn) lockArtifact(ctx context.Context, sha256 string) (lastUsed time.Time, err error) {
	var used int64
	// FOR UPDATE, as a version that begins to use it has a share of the row.
	lock := strings.Replace(c.dialect.lock, "NO KEY ", "", 1)
	err = c.get(ctx, &used, `SELECT last_used FROM artifacts WHERE sha256 = ?`+lock, sha256)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, release.NotFound("artifact", sha256)
	}
	return fromMicros(used), err
}

// UnusedArtifacts gives those that no version uses and that were not used since.
func (s *Store) UnusedArtifacts(ctx context.Context, since time.Time) (sha256 []string, err error) {
	err = s.read().list(ctx, &sha256, `SELECT a.sha256 FROM artifacts a WHERE a.last_used < ?
		AND NOT EXISTS (SELECT 1 FROM version_artifacts v WHERE v.sha256 = a.sha256) ORDER BY a.sha256`, micros(since))
	if err != nil {
		return nil, fmt.Errorf("look for unused artifacts: %w", err)
	}
	return sha256, nil
}

// DeleteUnusedArtifact forgets an artifact if no version uses it and it was not used since, and reports whether it did.
func (s *Store) DeleteUnusedArtifact(ctx context.Context, sha256 string, since time.Time) (deleted bool, err error) {
	err = s.write(ctx, "delete unused artifact", func(tx conn) error {
		used, err := tx.lockArtifact(ctx, sha256)
		if errors.Is(err, release.ErrNotFound) || err == nil && !used.Before(since) {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := tx.exec(ctx, `DELETE FROM artifacts WHERE sha256 = ? AND NOT EXISTS (SELECT 1 FROM version_artifacts WHERE sha256 = ?)`, sha256, sha256)
		deleted = n > 0
		return err
	})
	return deleted, err
}

// KnownArtifacts gives which of these there are.
func (s *Store) KnownArtifacts(ctx context.Context, sha256 []string) (map[string]bool, error) {
	known := make(map[string]bool)
	for some := range slices.Chunk(sha256, s.dialect.batch) {
		var found []string
		if err := s.read().list(ctx, &found, `SELECT sha256 FROM artifacts WHERE sha256 IN (?)`, some); err != nil {
			return nil, fmt.Errorf("look for artifacts: %w", err)
		}
		for _, sum := range found {
			known[sum] = true
		}
	}
	return known, nil
}

// useArtifacts notes which artifacts a version needs, in place of what was noted before. One that was not uploaded is
// release.ErrInvalid.
func (c conn) useArtifacts(ctx context.Context, versionID string, spec release.Spec, now time.Time) error {
	if _, err := c.exec(ctx, `DELETE FROM version_artifacts WHERE version_id = ?`, versionID); err != nil {
		return err
	}
	uploaded := spec.UploadedArtifacts()
	sums := make(map[string]string) // where each is named
	for _, field := range slices.Sorted(maps.Keys(uploaded)) {
		sum := strings.ToLower(uploaded[field].SHA256)
		if sums[sum] == "" {
			sums[sum] = field
		}
	}
	for _, sum := range slices.Sorted(maps.Keys(sums)) { // in this order, as rows are locked
		n, err := c.exec(ctx, `UPDATE artifacts SET last_used = ? WHERE sha256 = ?`, micros(now), sum)
		if err != nil {
			return err
		}
		if n == 0 {
			return release.Invalid(sums[sum]+".sha256", "no artifact with SHA-256 %.80q was uploaded: quic-ctl artifact upload FILE, or give its url", sum)
		}
		if _, err := c.exec(ctx, `INSERT INTO version_artifacts (version_id, sha256) VALUES (?, ?)`, versionID, sum); err != nil {
			return err
		}
	}
	return nil
}
