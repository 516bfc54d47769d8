package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/quicflow/quicflow/internal/release"
)

// Guard says under what conditions something is written. The zero value means at once, whatever is there.
type Guard struct {
	Revision int64 // that is to be changed; another one is release.ErrStale. 0: any
	DryRun   bool  // do everything but keep it
}

func guardOf(given []Guard) Guard {
	if len(given) == 0 {
		return Guard{}
	}
	return given[0]
}

// errDryRun undoes a transaction that has done what was asked.
var errDryRun = errors.New("dry run")

// writeUnder is write that keeps nothing of a dry run.
func (s *Store) writeUnder(ctx context.Context, g Guard, what string, fn func(tx conn) error) error {
	err := s.write(ctx, what, func(tx conn) error {
		if err := fn(tx); err != nil {
			return err
		}
		if g.DryRun {
			return errDryRun
		}
		return nil
	})
	if errors.Is(err, errDryRun) {
		return nil
	}
	return err
}

// check compares the revision of what is there.
func (g Guard) check(kind, name string, revision int64) error {
	if g.Revision != 0 && g.Revision != revision {
		return release.Stale(kind, name, revision, g.Revision)
	}
	return nil
}

// formerName is what a joined project or version is, or was before it was deleted, called.
func formerName(table string) string {
	return "CASE WHEN " + table + ".deleted_at = 0 THEN " + table + ".name ELSE " + table + ".former_name END"
}

// buried is the name of what was deleted: none that a user may give, so that its own is free.
const buried = `'~' || id`

// search matches a part of a name, whatever its case.
func (w *where) search(column, text string) {
	if text == "" {
		return
	}
	w.add(`LOWER(`+column+`) LIKE ? ESCAPE '\'`, containing(text))
}

// namesShown is how many examples an error gives.
const namesShown = 3

// some writes examples out of a number of things.
func some(names []string, total int) string {
	if total > len(names) {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

// installedOn says on which hosts, but those that were revoked, something is installed, or was attempted to. condition is about
// installations as i; it is empty if on none.
func installedOn(ctx context.Context, tx conn, condition string, args ...any) (string, error) {
	from := ` FROM installations i JOIN clients c ON c.id = i.client_id WHERE c.revoked_at = 0 AND i.state IN ('installed', 'failed', 'unknown') AND ` + condition
	var total int
	if err := tx.get(ctx, &total, `SELECT COUNT(*)`+from, args...); err != nil || total == 0 {
		return "", err
	}
	var names []string
	if err := tx.list(ctx, &names, `SELECT i.client_id`+from+` ORDER BY i.client_id LIMIT ?`, append(args, namesShown)...); err != nil {
		return "", err
	}
	if total == 1 {
		return "it runs on " + names[0], nil
	}
	return fmt.Sprintf("it runs on %d hosts (%s)", total, some(names, total)), nil
}

// unfinished names a task that has not ended, by a condition on tasks as t; it is empty if there is none.
func unfinished(ctx context.Context, tx conn, condition string, args ...any) (string, error) {
	var ids []string
	if err := tx.list(ctx, &ids, `SELECT t.id FROM tasks t WHERE t.finished_at = 0 AND `+condition+` ORDER BY t.created_at LIMIT 1`, args...); err != nil || len(ids) == 0 {
		return "", err
	}
	return "task " + ids[0] + " has not ended", nil
}

// scheduled names a schedule whose task refers to something, by a condition on schedules as s; it is empty if there is none.
func scheduled(refers func(release.NewTask) bool) func(ctx context.Context, tx conn, condition string, args ...any) (string, error) {
	return func(ctx context.Context, tx conn, condition string, args ...any) (string, error) {
		var rows []struct {
			Name string `db:"name"`
			Task []byte `db:"task"`
		}
		if err := tx.list(ctx, &rows, `SELECT s.name, s.task FROM schedules s WHERE s.deleted_at = 0 AND `+condition+` ORDER BY s.name`, args...); err != nil {
			return "", err
		}
		for _, row := range rows {
			var task release.NewTask
			if err := json.Unmarshal(row.Task, &task); err != nil {
				return "", fmt.Errorf("read schedule %s: %w", row.Name, err)
			}
			if refers(task) {
				return "schedule " + row.Name + " deploys it", nil
			}
		}
		return "", nil
	}
}

// use is a way in which something may be in use.
type use struct {
	of   func(ctx context.Context, tx conn, condition string, args ...any) (string, error)
	when string
	args []any
}

// inUse gives release.ErrConflict if something is, with what to do.
func inUse(ctx context.Context, tx conn, what, remedy string, uses ...use) error {
	for _, u := range uses {
		by, err := u.of(ctx, tx, u.when, u.args...)
		if err != nil {
			return err
		}
		if by != "" {
			return release.Conflict("%s is in use: %s; %s", what, by, remedy)
		}
	}
	return nil
}
