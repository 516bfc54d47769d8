package store_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// testKey encrypts the secrets of all tests.
var testKey = bytes.Repeat([]byte("k"), store.SecretKeySize)

var manageTests = map[string]func(*fixture){
	"a project is changed by its revision": func(f *fixture) {
		f.project("shop")
		f.project("other")
		p, err := f.Project(f.ctx(), "shop")
		require.NoError(f, err)
		require.EqualValues(f, 1, p.Revision)
		f.advance(time.Second)

		same := p
		require.NoError(f, f.UpdateProject(f.ctx(), &same, store.Guard{}))
		require.Empty(f, cmp.Diff(p, same), "what changes nothing leaves the revision")

		next := p
		next.Description, next.Script = "new", &release.ScriptSpec{WorkDir: "/srv"}
		dry := next
		require.NoError(f, f.UpdateProject(f.ctx(), &dry, store.Guard{DryRun: true}))
		require.EqualValues(f, 2, dry.Revision)
		got, err := f.Project(f.ctx(), "shop")
		require.NoError(f, err)
		require.Empty(f, cmp.Diff(p, got), "a dry run keeps nothing")

		require.NoError(f, f.UpdateProject(f.ctx(), &next, store.Guard{Revision: 1}))
		require.EqualValues(f, 2, next.Revision)
		require.Equal(f, f.now(), next.UpdatedAt)
		got, err = f.Project(f.ctx(), "shop")
		require.NoError(f, err)
		require.Empty(f, cmp.Diff(next, got))

		stale := p
		stale.Description = "mine"
		err = f.UpdateProject(f.ctx(), &stale, store.Guard{Revision: 1})
		require.ErrorIs(f, err, release.ErrStale)
		require.Contains(f, err.Error(), "has revision 2, and the change was meant for 1; read it again")
		stale.Name = "other"
		require.ErrorIs(f, f.UpdateProject(f.ctx(), &stale, store.Guard{}), release.ErrConflict)
		require.ErrorIs(f, f.UpdateProject(f.ctx(), &release.Project{ID: "none"}, store.Guard{}), release.ErrNotFound)

		// One of two at the same time.
		errs := together(4, func(i int) error {
			mine := got
			mine.Description = fmt.Sprint("by ", i)
			return f.UpdateProject(f.ctx(), &mine, store.Guard{Revision: 2})
		})
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else {
				require.ErrorIs(f, err, release.ErrStale)
			}
		}
		require.Equal(f, 1, won)
	},
	"lists are filtered and paged": func(f *fixture) {
		for i := range 5 {
			f.project(fmt.Sprintf("shop-%d", i), "1.0", "1.1", "2.0")
		}
		require.NoError(f, f.CreateProject(f.ctx(), &release.Project{Name: "image_x", Type: release.TypeContainer}))
		names := func(filter store.ProjectFilter) string {
			list, total, err := f.Projects(f.ctx(), filter)
			require.NoError(f, err)
			text := fmt.Sprint(total)
			for _, p := range list {
				text += " " + p.Name
			}
			return text
		}
		require.Equal(f, "5 shop-1 shop-2", names(store.ProjectFilter{Search: "SHOP", Limit: 2, Offset: 1}))
		require.Equal(f, "1 image_x", names(store.ProjectFilter{Type: release.TypeContainer}))
		require.Equal(f, "1 image_x", names(store.ProjectFilter{Search: "_"}))
		require.Equal(f, "0", names(store.ProjectFilter{Search: "%"}))
		list, total, err := f.Versions(f.ctx(), "shop-1", store.VersionFilter{Search: "1.", Limit: 1})
		require.NoError(f, err)
		require.Equal(f, 2, total)
		require.Equal(f, "1.1", list[0].Name)
		list, total, err = f.Versions(f.ctx(), "shop-1", store.VersionFilter{Name: "1.0", Status: release.VersionActive})
		require.NoError(f, err)
		require.Equal(f, 1, total)
		require.Equal(f, "1.0", list[0].Name)
	},
	"a deleted project's name is free, and its history stays": func(f *fixture) {
		ids := f.join(1)
		v := f.project("shop", "1.0")["1.0"]
		old, err := f.Project(f.ctx(), "shop")
		require.NoError(f, err)
		require.NoError(f, f.CreateEnvironment(f.ctx(), &release.Environment{ProjectID: old.ID, Name: "prod"}))
		_, err = f.PutVariable(f.ctx(), store.Scope{ProjectID: old.ID}, &release.Variable{Name: "A", Value: "x"}, false, store.Guard{})
		require.NoError(f, err)

		task := f.deploy("shop", &v, ids...)
		err = f.DeleteProject(f.ctx(), old.ID, store.Guard{})
		require.ErrorIs(f, err, release.ErrConflict)
		require.Contains(f, err.Error(), "project shop is in use: task "+task.ID+" has not ended")
		f.report(f.dispatch(task, release.StepDeploy, ids...)["h000"], release.StepSucceeded)
		f.end(task, release.StatusSucceeded)
		err = f.DeleteProject(f.ctx(), old.ID, store.Guard{})
		require.ErrorIs(f, err, release.ErrConflict)
		require.Contains(f, err.Error(), "it runs on h000; uninstall it there")
		renamed := old
		renamed.Name = "store"
		require.ErrorIs(f, f.UpdateProject(f.ctx(), &renamed, store.Guard{}), release.ErrConflict)

		gone := f.deploy("shop", nil, ids...)
		f.report(f.dispatch(gone, release.StepDeploy, ids...)["h000"], release.StepSucceeded)
		f.end(gone, release.StatusSucceeded)
		require.ErrorIs(f, f.DeleteProject(f.ctx(), old.ID, store.Guard{Revision: 7}), release.ErrStale)
		require.NoError(f, f.DeleteProject(f.ctx(), old.ID, store.Guard{DryRun: true}))
		require.NoError(f, f.DeleteProject(f.ctx(), old.ID, store.Guard{Revision: 1}))
		require.ErrorIs(f, f.DeleteProject(f.ctx(), old.ID, store.Guard{}), release.ErrNotFound)
		_, err = f.VersionByID(f.ctx(), v.ID)
		require.ErrorIs(f, err, release.ErrNotFound)
		_, err = f.Environment(f.ctx(), old.ID, "prod")
		require.ErrorIs(f, err, release.ErrNotFound)
		require.ErrorIs(f, f.CreateTask(f.ctx(), &release.Task{ProjectID: old.ID, Action: release.ActionUninstall}, ids), release.ErrNotFound)

		got, err := f.Task(f.ctx(), task.ID)
		require.NoError(f, err)
		require.Equal(f, "shop 1.0", got.Project+" "+got.Version)
		f.project("shop", "1.0")
		list, total, err := f.Projects(f.ctx(), store.ProjectFilter{})
		require.NoError(f, err)
		require.Equal(f, 1, total)
		require.NotEqual(f, old.ID, list[0].ID)
		variables, err := f.Variables(f.ctx(), store.Scope{ProjectID: list[0].ID})
		require.NoError(f, err)
		require.Empty(f, variables)
	},
	"an agent that was shut out keeps nothing in use": func(f *fixture) {
		ids := f.join(2)
		v := f.project("shop", "1.0")["1.0"]
		f.end(f.release("shop", &v, ids...), release.StatusSucceeded)
		p, err := f.Project(f.ctx(), "shop")
		require.NoError(f, err)
		require.ErrorContains(f, f.DeleteProject(f.ctx(), p.ID, store.Guard{}), "it runs on 2 hosts (h000, h001)")
		for _, id := range ids {
			require.NoError(f, f.RevokeClient(f.ctx(), id))
		}
		require.NoError(f, f.DeleteProject(f.ctx(), p.ID, store.Guard{}))
	},
	"a change that leaves the name out leaves it": func(f *fixture) {
		v := f.project("shop", "1.0")["1.0"]
		p, err := f.Project(f.ctx(), "shop")
		require.NoError(f, err)
		e := release.Environment{ProjectID: p.ID, Name: "prod"}
		require.NoError(f, f.CreateEnvironment(f.ctx(), &e))
		p.Name, p.Description = "", "sells"
		require.NoError(f, f.UpdateProject(f.ctx(), &p, store.Guard{}))
		require.Equal(f, "shop", p.Name)
		e.Name, e.Description = "", "live"
		require.NoError(f, f.UpdateEnvironment(f.ctx(), &e, store.Guard{}))
		require.Equal(f, "prod", e.Name)
		v.Name, v.Spec.Script = "", &release.ScriptSpec{Install: "false"}
		require.NoError(f, f.UpdateVersion(f.ctx(), &v, store.Guard{}))
		require.Equal(f, "1.0", v.Name)
		for _, got := range []string{p.Description, e.Description, v.Script.Install} {
			require.Contains(f, []string{"sells", "live", "false"}, got)
		}
		stored, err := f.Version(f.ctx(), "shop", "1.0")
		require.NoError(f, err)
		require.Equal(f, "false", stored.Script.Install)
	},
	"what was deployed keeps its content": func(f *fixture) {
		ids := f.join(1)
		versions := f.project("shop", "1.0", "2.0")
		v := versions["1.0"]
		change := func(script string, status release.VersionStatus, g store.Guard) (release.Version, error) {
			next := release.Version{ID: v.ID, Name: "1.0", Status: status, Spec: release.Spec{Script: &release.ScriptSpec{Install: script}}}
			return next, f.UpdateVersion(f.ctx(), &next, g)
		}
		next, err := change("echo two", "", store.Guard{Revision: 1})
		require.NoError(f, err)
		require.EqualValues(f, 2, next.Revision)
		require.Equal(f, release.VersionActive, next.Status, "left out, it stays")
		_, err = change("echo three", "", store.Guard{Revision: 1})
		require.ErrorIs(f, err, release.ErrStale)

		task := f.release("shop", &v, ids...)
		_, err = change("echo three", "", store.Guard{})
		require.ErrorIs(f, err, release.ErrConflict)
		require.Contains(f, err.Error(), "version 1.0 of shop was deployed (task "+task.ID+"), so nothing but its status can be changed; make a new version")
		next, err = change("echo two", release.VersionDeprecated, store.Guard{Revision: 2})
		require.NoError(f, err)
		require.EqualValues(f, 3, next.Revision)
		next, err = f.SetVersionStatus(f.ctx(), v.ID, release.VersionDeprecated, store.Guard{Revision: 3})
		require.NoError(f, err)
		require.EqualValues(f, 3, next.Revision)
		_, err = f.SetVersionStatus(f.ctx(), v.ID, release.VersionActive, store.Guard{Revision: 2})
		require.ErrorIs(f, err, release.ErrStale)

		err = f.DeleteVersion(f.ctx(), v.ID, store.Guard{})
		require.ErrorContains(f, err, "version 1.0 of shop is in use: task "+task.ID+" has not ended; deprecate it instead")
		f.end(task, release.StatusSucceeded)
		require.ErrorContains(f, f.DeleteVersion(f.ctx(), v.ID, store.Guard{}), "it runs on h000")
		two := versions["2.0"]
		update := f.deploy("shop", &two, ids...)
		f.report(f.dispatch(update, release.StepDeploy, ids...)["h000"], release.StepSucceeded)
		require.ErrorContains(f, f.DeleteVersion(f.ctx(), v.ID, store.Guard{}), "task "+update.ID+" has not ended", "it may return to it")
		f.end(update, release.StatusSucceeded)
		require.NoError(f, f.DeleteVersion(f.ctx(), v.ID, store.Guard{Revision: 3}))
		_, err = f.Version(f.ctx(), "shop", "1.0")
		require.ErrorIs(f, err, release.ErrNotFound)
		got, err := f.Task(f.ctx(), task.ID)
		require.NoError(f, err)
		require.Equal(f, "1.0", got.Version)
		again := release.Version{Project: "shop", Name: "1.0"}
		require.NoError(f, f.CreateVersion(f.ctx(), &again))
		again.Name = "2.0"
		require.ErrorIs(f, f.UpdateVersion(f.ctx(), &again, store.Guard{}), release.ErrConflict)
	},
	"environments": func(f *fixture) {
		ids := f.join(1)
		v := f.project("shop", "1.0")["1.0"]
		e := release.Environment{ProjectID: v.ProjectID, Name: "prod", Description: "all", Selector: "env=prod",
			Strategy: release.Strategy{Canary: &release.Canary{Percent: 5}, MaxFailures: release.Limit{Percent: 10, IsShare: true}}}
		require.NoError(f, f.CreateEnvironment(f.ctx(), &e))
		require.Equal(f, "shop", e.Project)
		for _, ref := range []string{"prod", e.ID} {
			got, err := f.Environment(f.ctx(), "shop", ref)
			require.NoError(f, err)
			require.Empty(f, cmp.Diff(e, got))
		}
		require.ErrorIs(f, f.CreateEnvironment(f.ctx(), &release.Environment{ProjectID: v.ProjectID, Name: "prod"}), release.ErrConflict)
		require.NoError(f, f.CreateEnvironment(f.ctx(), &release.Environment{ProjectID: v.ProjectID, Name: "dev"}))
		list, total, err := f.Environments(f.ctx(), "shop", 1, 0)
		require.NoError(f, err)
		require.Equal(f, 2, total)
		require.Equal(f, "dev", list[0].Name)

		next := e
		require.NoError(f, f.UpdateEnvironment(f.ctx(), &next, store.Guard{}))
		require.EqualValues(f, 1, next.Revision)
		next.Strategy.MaxParallel = 3
		require.NoError(f, f.UpdateEnvironment(f.ctx(), &next, store.Guard{Revision: 1}))
		require.EqualValues(f, 2, next.Revision)
		require.ErrorIs(f, f.UpdateEnvironment(f.ctx(), &next, store.Guard{Revision: 1}), release.ErrStale)

		snapshot := f.snapshot(v, e.ID, "x")
		task := release.Task{ProjectID: v.ProjectID, VersionID: v.ID, EnvironmentID: e.ID, Action: release.ActionDeploy, Snapshot: &snapshot}
		require.NoError(f, f.CreateTask(f.ctx(), &task, ids))
		got, err := f.Task(f.ctx(), task.ID)
		require.NoError(f, err)
		require.Equal(f, "prod", got.Environment)
		_, total, err = f.Tasks(f.ctx(), store.TaskFilter{Environment: "prod"})
		require.NoError(f, err)
		require.Equal(f, 1, total)
		_, total, err = f.Tasks(f.ctx(), store.TaskFilter{Environment: "dev"})
		require.NoError(f, err)
		require.Zero(f, total)
		require.ErrorContains(f, f.DeleteEnvironment(f.ctx(), v.ProjectID, e.ID, store.Guard{}), "environment prod of shop is in use: task "+task.ID)
		f.report(f.dispatch(task, release.StepDeploy, ids...)["h000"], release.StepSucceeded)
		f.end(task, release.StatusSucceeded)
		require.ErrorContains(f, f.DeleteEnvironment(f.ctx(), v.ProjectID, e.ID, store.Guard{}), "it runs on h000")
		next.Name = "production"
		require.ErrorIs(f, f.UpdateEnvironment(f.ctx(), &next, store.Guard{}), release.ErrConflict)
		f.end(f.release("shop", nil, ids...), release.StatusSucceeded)
		require.NoError(f, f.DeleteEnvironment(f.ctx(), v.ProjectID, e.ID, store.Guard{Revision: 2}))
		require.NoError(f, f.CreateEnvironment(f.ctx(), &release.Environment{ProjectID: v.ProjectID, Name: "prod"}))
	},
	"variables, and secrets that nobody can read": func(f *fixture) {
		v := f.project("shop", "1.0")["1.0"]
		e := release.Environment{ProjectID: v.ProjectID, Name: "prod"}
		require.NoError(f, f.CreateEnvironment(f.ctx(), &e))
		own, prod := store.Scope{ProjectID: v.ProjectID}, store.Scope{ProjectID: v.ProjectID, EnvironmentID: e.ID}
		put := func(of store.Scope, name, value string, secret bool) release.Variable {
			x := release.Variable{Name: name, Value: value, Secret: secret}
			_, err := f.PutVariable(f.ctx(), of, &x, false, store.Guard{})
			require.NoError(f, err)
			return x
		}
		put(own, "HOST", "db", false)
		put(prod, "HOST", "db.prod", false)
		secret := put(own, "TOKEN", "hunter2-own", true)
		require.Empty(f, secret.Value)
		put(prod, "TOKEN", "hunter2-prod", true)
		put(own, "OTHER", "hunter2-other", true)

		list, err := f.VariablesFor(f.ctx(), prod)
		require.NoError(f, err)
		require.Len(f, list, 5)
		require.NotContains(f, fmt.Sprint(list), "hunter2")
		for of, want := range map[store.Scope]map[string]string{
			own:  {"HOST": "db", "TOKEN": "hunter2-own", "OTHER": "hunter2-other"},
			prod: {"HOST": "db.prod", "TOKEN": "hunter2-prod", "OTHER": "hunter2-other"},
		} {
			values, err := f.SecretValues(f.ctx(), of, []string{"HOST", "TOKEN", "OTHER"})
			require.NoError(f, err)
			require.Equal(f, want, values)
		}
		_, err = f.SecretValues(f.ctx(), own, []string{"NONE"})
		require.ErrorIs(f, err, release.ErrInvalid)
		require.NotContains(f, f.dump("variables"), "hunter2")
		require.Contains(f, f.dump("variables"), "db.prod")

		// The same again changes nothing; another value does; none keeps it.
		require.EqualValues(f, 1, put(own, "TOKEN", "hunter2-own", true).Revision)
		require.EqualValues(f, 2, put(own, "TOKEN", "hunter3", true).Revision)
		keep := release.Variable{Name: "TOKEN", Secret: true, Description: "of the registry"}
		created, err := f.PutVariable(f.ctx(), own, &keep, true, store.Guard{Revision: 2})
		require.NoError(f, err)
		require.False(f, created)
		values, err := f.SecretValues(f.ctx(), own, []string{"TOKEN"})
		require.NoError(f, err)
		require.Equal(f, "hunter3", values["TOKEN"])
		_, err = f.PutVariable(f.ctx(), own, &keep, true, store.Guard{Revision: 2})
		require.ErrorIs(f, err, release.ErrStale)
		_, err = f.PutVariable(f.ctx(), own, &release.Variable{Name: "NEW", Secret: true}, true, store.Guard{})
		require.ErrorIs(f, err, release.ErrInvalid)
		_, err = f.PutVariable(f.ctx(), own, &release.Variable{Name: "NEW", Value: "x"}, false, store.Guard{DryRun: true})
		require.NoError(f, err)
		_, err = f.Variable(f.ctx(), own, "NEW")
		require.ErrorIs(f, err, release.ErrNotFound)

		// Of a server with another key, and of one with none.
		config := f.config
		for key, why := range map[string]string{strings.Repeat("x", 32): "encrypted with another key", "": "no key for secrets"} {
			config.SecretKey = []byte(key)
			other, err := store.Open(f.ctx(), config)
			require.NoError(f, err)
			_, err = other.SecretValues(f.ctx(), own, []string{"TOKEN"})
			require.ErrorIs(f, err, release.ErrInvalid)
			require.ErrorContains(f, err, why)
			unreadable, err := other.UnreadableSecrets(f.ctx())
			require.NoError(f, err)
			require.Equal(f, 3, unreadable)
			if key == "" {
				_, err = other.PutVariable(f.ctx(), own, &release.Variable{Name: "X", Value: "y", Secret: true}, false, store.Guard{})
				require.ErrorIs(f, err, release.ErrUnavailable)
			}
			require.NoError(f, other.Close())
		}
		config.SecretKey = []byte("short")
		_, err = store.Open(f.ctx(), config)
		require.Error(f, err)

		// A sealed value is of no use in another place.
		f.sql(`UPDATE variables SET sealed = (SELECT sealed FROM variables WHERE name = 'OTHER') WHERE name = 'TOKEN'`)
		_, err = f.SecretValues(f.ctx(), own, []string{"TOKEN"})
		require.ErrorIs(f, err, release.ErrInvalid)
		require.NoError(f, f.DeleteVariable(f.ctx(), own, "OTHER", store.Guard{Revision: 1}))
		require.ErrorIs(f, f.DeleteVariable(f.ctx(), own, "OTHER", store.Guard{}), release.ErrNotFound)
	},
	"a secret that something refers to stays": func(f *fixture) {
		ids := f.join(1)
		v := f.project("shop", "1.0")["1.0"]
		own := store.Scope{ProjectID: v.ProjectID}
		_, err := f.PutVariable(f.ctx(), own, &release.Variable{Name: "TOKEN", Value: "x", Secret: true}, false, store.Guard{})
		require.NoError(f, err)
		snapshot := f.snapshot(v, "", "${TOKEN}")
		require.Equal(f, []string{"TOKEN"}, snapshot.Secrets)
		task := f.deployed(v, &snapshot, ids...)
		f.end(task, release.StatusSucceeded)
		require.ErrorContains(f, f.DeleteVariable(f.ctx(), own, "TOKEN", store.Guard{}), "variable TOKEN is in use: version 1.0")
		f.end(f.release("shop", nil, ids...), release.StatusSucceeded)
		require.NoError(f, f.DeleteVariable(f.ctx(), own, "TOKEN", store.Guard{}))
	},
}

// snapshot makes a configuration of a version, of which env X is text.
func (f *fixture) snapshot(v release.Version, environmentID, text string) release.Snapshot {
	f.Helper()
	c := release.Merged{Type: release.TypeScript, Spec: release.Spec{Script: &release.ScriptSpec{Install: "true", Env: map[string]string{"X": text}}}}
	s, err := release.NewSnapshot(c, v.ProjectID, v.ID, environmentID)
	require.NoError(f, err)
	return s
}

// deployed deploys a version with a configuration, with success.
func (f *fixture) deployed(v release.Version, snapshot *release.Snapshot, ids ...string) release.Task {
	f.Helper()
	task := release.Task{ProjectID: v.ProjectID, VersionID: v.ID, Action: release.ActionDeploy, Snapshot: snapshot}
	require.NoError(f, f.CreateTask(f.ctx(), &task, ids))
	steps := f.dispatch(task, release.StepDeploy, ids...)
	for _, id := range ids {
		f.report(steps[id], release.StepSucceeded)
	}
	return task
}

// raw opens the database without the store.
func (f *fixture) raw() *sql.DB {
	f.Helper()
	driver, dsn := "postgres", f.config.DSN
	if f.config.Driver == store.SQLite {
		driver, dsn = "sqlite", "file:"+(&url.URL{Path: dsn}).EscapedPath()+"?_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open(driver, dsn)
	require.NoError(f, err)
	return db
}

func (f *fixture) sql(statement string) {
	f.Helper()
	db := f.raw()
	defer db.Close()
	_, err := db.ExecContext(f.ctx(), statement)
	require.NoError(f, err)
}

// dump writes all of a table.
func (f *fixture) dump(table string) string {
	f.Helper()
	db := f.raw()
	defer db.Close()
	rows, err := db.QueryContext(f.ctx(), `SELECT * FROM `+table)
	require.NoError(f, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(f, err)
	var text strings.Builder
	for rows.Next() {
		values := make([]sql.RawBytes, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		require.NoError(f, rows.Scan(into...))
		for _, value := range values {
			text.Write(value)
			text.WriteByte(' ')
		}
	}
	require.NoError(f, rows.Err())
	return text.String()
}
