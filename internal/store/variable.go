package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/quicflow/quicflow/internal/release"
)

const selectVariable = `SELECT x.project_id, p.name AS project, x.environment_id, COALESCE(e.name, '') AS environment, x.name, x.value, x.secret, x.sealed,
	x.description, x.revision, x.created_at, x.updated_at
	FROM variables x JOIN projects p ON p.id = x.project_id LEFT JOIN environments e ON e.id = x.environment_id`

type variableRow struct {
	ProjectID     string `db:"project_id"`
	Project       string `db:"project"`
	EnvironmentID string `db:"environment_id"`
	Environment   string `db:"environment"`
	Name          string `db:"name"`
	Value         string `db:"value"`
	Secret        bool   `db:"secret"`
	Sealed        []byte `db:"sealed"`
	Description   string `db:"description"`
	Revision      int64  `db:"revision"`
	CreatedAt     int64  `db:"created_at"`
	UpdatedAt     int64  `db:"updated_at"`
}

// variable gives it without the value of a secret.
func (r *variableRow) variable() release.Variable {
	return release.Variable{Project: r.Project, Environment: r.Environment, Name: r.Name, Value: r.Value, Secret: r.Secret, Description: r.Description,
		Revision: r.Revision, CreatedAt: fromMicros(r.CreatedAt), UpdatedAt: fromMicros(r.UpdatedAt)}
}

// place is where a secret is kept.
func (r *variableRow) place() string { return r.ProjectID + "/" + r.EnvironmentID + "/" + r.Name }

// Scope is whose variables are meant: a project's own, or those of one of its environments.
type Scope struct {
	ProjectID     string
	EnvironmentID string // empty: the project's own
}

// Variables gives the variables of a scope in the order of their names, without the values of secrets.
func (s *Store) Variables(ctx context.Context, of Scope) ([]release.Variable, error) {
	return s.variables(ctx, ` WHERE x.project_id = ? AND x.environment_id = ? ORDER BY x.name`, of.ProjectID, of.EnvironmentID)
}

// VariablesFor gives the variables that count in an environment: its own and those of its project, without the values of secrets.
func (s *Store) VariablesFor(ctx context.Context, of Scope) ([]release.Variable, error) {
	return s.variables(ctx, ` WHERE x.project_id = ? AND x.environment_id IN ('', ?) ORDER BY x.name`, of.ProjectID, of.EnvironmentID)
}

func (s *Store) variables(ctx context.Context, condition string, args ...any) ([]release.Variable, error) {
	var rows []variableRow
	if err := s.read().list(ctx, &rows, selectVariable+condition, args...); err != nil {
		return nil, fmt.Errorf("list variables: %w", err)
	}
	variables := make([]release.Variable, len(rows))
	for i := range rows {
		variables[i] = rows[i].variable()
	}
	return variables, nil
}

// Variable gives one, without the value of a secret.
func (s *Store) Variable(ctx context.Context, of Scope, name string) (release.Variable, error) {
	row, err := variable(ctx, s.read(), of, name, "")
	if err != nil {
		return release.Variable{}, err
	}
	if row == nil {
		return release.Variable{}, release.NotFound("variable", name)
	}
	return row.variable(), nil
}

func variable(ctx context.Context, c conn, of Scope, name, lock string) (*variableRow, error) {
	var rows []variableRow
	if lock != "" {
		lock = c.lockOf("x")
	}
	if err := c.list(ctx, &rows, selectVariable+` WHERE x.project_id = ? AND x.environment_id = ? AND x.name = ?`+lock, of.ProjectID, of.EnvironmentID, name); err != nil {
		return nil, fmt.Errorf("read variable: %w", err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	return &rows[0], nil
}

// PutVariable makes a variable or changes it, and says whether it is new; it fills the rest of v and removes the value of a secret from it. keep is for
// a secret whose value stays as it is. What changes nothing leaves the revision.
func (s *Store) PutVariable(ctx context.Context, of Scope, v *release.Variable, keep bool, g Guard) (created bool, err error) {
	next := variableRow{ProjectID: of.ProjectID, EnvironmentID: of.EnvironmentID, Name: v.Name, Value: clean(v.Value), Secret: v.Secret, Description: clean(v.Description)}
	err = s.writeUnder(ctx, g, "store variable", func(tx conn) error {
		p, err := project(ctx, tx, of.ProjectID, tx.dialect.lock)
		if err != nil {
			return err
		}
		next.Project, created = p.Name, false
		if of.EnvironmentID != "" {
			e, err := environment(ctx, tx, of.ProjectID, of.EnvironmentID, tx.dialect.lock)
			if err != nil {
				return err
			}
			next.Environment = e.Name
		}
		now, err := variable(ctx, tx, of, v.Name, tx.dialect.lock)
		if err != nil {
			return err
		}
		switch {
		case now == nil && g.Revision != 0:
			return release.Stale("variable", v.Name, 0, g.Revision)
		case keep && (now == nil || !now.Secret):
			return release.Invalid("value", "give the value of the secret; there is none yet")
		case now == nil:
			var n int
			if err := tx.get(ctx, &n, `SELECT COUNT(*) FROM variables WHERE project_id = ? AND environment_id = ?`, of.ProjectID, of.EnvironmentID); err != nil {
				return err
			}
			if n >= release.MaxVariables {
				return release.Conflict("there are %d variables already, which is the limit", n)
			}
			created = true
			now = &variableRow{CreatedAt: micros(s.now())}
		default:
			if err := g.check("variable", v.Name, now.Revision); err != nil {
				return err
			}
		}
		same, err := s.sealVariable(&next, now, keep)
		if err != nil {
			return err
		}
		next.Revision, next.CreatedAt, next.UpdatedAt = now.Revision, now.CreatedAt, now.UpdatedAt
		if same && !created {
			return nil
		}
		next.Revision, next.UpdatedAt = now.Revision+1, micros(s.now())
		_, err = tx.exec(ctx, `INSERT INTO variables (project_id, environment_id, name, value, secret, sealed, description, revision, created_at, updated_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (project_id, environment_id, name) DO UPDATE SET value = excluded.value, secret = excluded.secret,
			sealed = excluded.sealed, description = excluded.description, revision = excluded.revision, updated_at = excluded.updated_at`,
			next.ProjectID, next.EnvironmentID, next.Name, next.Value, next.Secret, next.Sealed, next.Description, next.Revision, next.CreatedAt, next.UpdatedAt)
		return err
	})
	if err == nil {
		*v = next.variable()
	}
	return created, err
}

// sealVariable moves the value of a secret to where it is encrypted, and says whether all is as it was.
func (s *Store) sealVariable(next, now *variableRow, keep bool) (same bool, err error) {
	same = next.Secret == now.Secret && next.Description == now.Description
	switch {
	case !next.Secret:
		return same && next.Value == now.Value, nil
	case keep:
		next.Value, next.Sealed = "", now.Sealed
		return same, nil
	}
	value := next.Value
	next.Value = ""
	if same && len(now.Sealed) > 0 {
		if was, err := s.secrets.open(now.Sealed, now.place()); err == nil && was == value {
			next.Sealed = now.Sealed
			return true, nil
		}
	}
	if next.Sealed, err = s.secrets.seal(value, next.place()); err != nil {
		return false, release.Unavailable(err, "secret variables cannot be stored: the server has no key for them")
	}
	return false, nil
}

// DeleteVariable deletes a variable, unless it is a secret that a configuration refers to which runs somewhere, or which an unfinished task
// may deploy or return to.
func (s *Store) DeleteVariable(ctx context.Context, of Scope, name string, g Guard) error {
	return s.writeUnder(ctx, g, "delete variable", func(tx conn) error {
		if _, err := project(ctx, tx, of.ProjectID, tx.dialect.lock); err != nil {
			return err
		}
		v, err := variable(ctx, tx, of, name, tx.dialect.lock)
		if err != nil {
			return err
		}
		if v == nil {
			return release.NotFound("variable", name)
		}
		if err := g.check("variable", name, v.Revision); err != nil {
			return err
		}
		if v.Secret {
			if err := secretInUse(ctx, tx, v); err != nil {
				return err
			}
		}
		_, err = tx.exec(ctx, `DELETE FROM variables WHERE project_id = ? AND environment_id = ? AND name = ?`, of.ProjectID, of.EnvironmentID, name)
		return err
	})
}

func secretInUse(ctx context.Context, tx conn, v *variableRow) error {
	w := &where{}
	w.add(`c.project_id = ? AND c.id IN (`+liveConfigs+`)`, v.ProjectID)
	if v.EnvironmentID != "" {
		// Without it, the project's of the same name would count.
		w.add(`c.environment_id = ?`, v.EnvironmentID)
	} else {
		w.add(`NOT EXISTS (SELECT 1 FROM variables o WHERE o.project_id = c.project_id AND o.environment_id = c.environment_id AND c.environment_id <> '' AND o.name = ?)`, v.Name)
	}
	var rows []struct {
		Version string `db:"version"`
		Secrets []byte `db:"secrets"`
	}
	if err := tx.list(ctx, &rows, `SELECT COALESCE(v.name, '') AS version, c.secrets FROM configs c LEFT JOIN versions v ON v.id = c.version_id`+w.String(), w.args...); err != nil {
		return err
	}
	for _, row := range rows {
		var names []string
		if err := json.Unmarshal(row.Secrets, &names); err != nil {
			return err
		}
		if slices.Contains(names, v.Name) {
			return release.Conflict("variable %s is in use: version %s, which runs somewhere or is being deployed, refers to it; uninstall it there, or deploy a version without it", v.Name, row.Version)
		}
	}
	return nil
}

// SecretValues gives the values that variables have in an environment, for a step that is about to be sent. One that does not exist any more, and
// one that cannot be decrypted, is release.ErrInvalid.
func (s *Store) SecretValues(ctx context.Context, of Scope, names []string) (map[string]string, error) {
	values := make(map[string]string, len(names))
	if len(names) == 0 {
		return values, nil
	}
	var rows []variableRow
	for some := range slices.Chunk(names, s.dialect.batch) {
		var batch []variableRow
		if err := s.read().list(ctx, &batch, selectVariable+` WHERE x.project_id = ? AND x.environment_id IN ('', ?) AND x.name IN (?)`,
			of.ProjectID, of.EnvironmentID, some); err != nil {
			return nil, fmt.Errorf("read secrets: %w", err)
		}
		rows = append(rows, batch...)
	}
	// The project's own first, so that the environment's replace them.
	slices.SortFunc(rows, func(a, b variableRow) int { return cmp.Compare(a.EnvironmentID, b.EnvironmentID) })
	size := 0
	for _, row := range rows {
		value := row.Value
		if row.Secret {
			opened, err := s.secrets.open(row.Sealed, row.place())
			if err != nil {
				return nil, release.Invalid("", "secret variable %s cannot be read: %v", row.Name, err)
			}
			value = opened
		}
		values[row.Name] = value
	}
	for _, name := range names {
		value, ok := values[name]
		if !ok {
			return nil, release.Invalid("", "variable %s, which the configuration refers to, does not exist any more", name)
		}
		if size += len(value); size > release.MaxSecretBytes {
			return nil, release.Invalid("", "the secrets that the configuration refers to take more than %d bytes together", release.MaxSecretBytes)
		}
	}
	return values, nil
}

// UnreadableSecrets counts the secrets that cannot be decrypted with the store's key.
func (s *Store) UnreadableSecrets(ctx context.Context) (unreadable int, err error) {
	var rows []variableRow
	if err := s.read().list(ctx, &rows, selectVariable+` WHERE x.secret`); err != nil {
		return 0, fmt.Errorf("read secrets: %w", err)
	}
	for _, row := range rows {
		if _, err := s.secrets.open(row.Sealed, row.place()); err != nil {
			unreadable++
		}
	}
	return unreadable, nil
}
