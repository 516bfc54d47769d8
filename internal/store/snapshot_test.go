package store_test

import (
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var snapshotTests = map[string]func(*fixture){
	"steps carry the configuration of their host": func(f *fixture) {
		ids := f.join(3)
		versions := f.project("shop", "1.0", "2.0")
		one, two := versions["1.0"], versions["2.0"]
		a, b, c := f.snapshot(one, "", "a"), f.snapshot(one, "", "b"), f.snapshot(two, "", "c")
		running := func() (text string) {
			list, _, err := f.Installations(f.ctx(), store.InstallationFilter{Project: "shop"})
			require.NoError(f, err)
			names := map[string]string{a.ID: "a", b.ID: "b", c.ID: "c", "": "?"}
			for _, i := range list {
				text += i.ClientID + " " + names[i.ConfigID] + ", "
			}
			return text
		}
		f.end(f.deployed(one, &a, "h000"), release.StatusSucceeded)
		f.end(f.deployed(one, &b, "h001"), release.StatusSucceeded)
		require.Equal(f, "h000 a, h001 b, ", running())

		task := release.Task{ProjectID: two.ProjectID, VersionID: two.ID, Action: release.ActionDeploy, Snapshot: &c}
		require.NoError(f, f.CreateTask(f.ctx(), &task, ids))
		steps := f.dispatch(task, release.StepDeploy, ids...)
		for _, id := range ids {
			require.Equal(f, c.ID, steps[id].ConfigID)
		}
		f.report(steps["h000"], release.StepSucceeded)
		f.report(steps["h001"], release.StepFailed)
		f.report(steps["h002"], release.StepFailed)
		require.Equal(f, "h000 c, h001 b, h002 ?, ", running())
		stored, err := f.Task(f.ctx(), task.ID)
		require.NoError(f, err)
		require.Equal(f, c.ID, stored.ConfigID)

		back := f.dispatch(task, release.StepRollback, ids...)
		require.Equal(f, a.ID, back["h000"].ConfigID, "each host returns to what it had, though both had the same version")
		require.Equal(f, b.ID, back["h001"].ConfigID)
		require.Equal(f, c.ID, back["h002"].ConfigID, "an uninstall removes what was tried")
		require.Equal(f, release.StepUninstall, back["h002"].Action)
		for _, id := range ids {
			f.report(back[id], release.StepSucceeded)
		}
		require.Equal(f, "h000 a, h001 b, ", running())
		f.end(task, release.StatusFailed)

		again := release.Task{ProjectID: two.ProjectID, VersionID: two.ID, Action: release.ActionDeploy, Snapshot: &c}
		require.NoError(f, f.CreateTask(f.ctx(), &again, ids))
		f.report(f.dispatch(again, release.StepDeploy, ids...)["h002"], release.StepFailed)
		f.end(again, release.StatusFailed)
		gone := f.deploy("shop", nil, ids...)
		steps = f.dispatch(gone, release.StepDeploy, ids...)
		require.Equal(f, a.ID, steps["h000"].ConfigID)
		require.Equal(f, b.ID, steps["h001"].ConfigID)
		require.Equal(f, c.ID, steps["h002"].ConfigID, "a first installation that failed part way")
		f.report(steps["h002"], release.StepFailed)
		f.end(gone, release.StatusFailed)
		gone = f.deploy("shop", nil, "h002")
		require.Equal(f, c.ID, f.dispatch(gone, release.StepDeploy, "h002")["h002"].ConfigID, "nor did its uninstall succeed")
	},
	"configurations that nothing needs are removed": func(f *fixture) {
		ids := f.join(1)
		versions := f.project("shop", "1.0", "2.0")
		one := versions["1.0"]
		a, b, c := f.snapshot(one, "", "a"), f.snapshot(one, "", "b"), f.snapshot(versions["2.0"], "", "c")
		left := func() (text string) {
			for name, s := range map[string]release.Snapshot{"a": a, "b": b, "c": c} {
				got, err := f.Snapshot(f.ctx(), s.ID)
				if err != nil {
					require.ErrorIs(f, err, release.ErrNotFound)
					continue
				}
				require.Equal(f, "shop", got.Project)
				s.Project, s.Version, s.CreatedAt = got.Project, got.Version, got.CreatedAt
				require.Empty(f, cmp.Diff(s, got))
				text += name
			}
			return text
		}
		f.end(f.deployed(one, &a, ids...), release.StatusSucceeded)
		f.end(f.deployed(one, &b, ids...), release.StatusSucceeded)
		open := f.deployed(versions["2.0"], &c, ids...)
		removed, err := f.RemoveConfigs(f.ctx(), f.now())
		require.NoError(f, err)
		require.Equal(f, 1, removed, "not b, to which the open task may return")
		require.Len(f, left(), 2)
		f.end(open, release.StatusSucceeded)
		removed, err = f.RemoveConfigs(f.ctx(), f.now().Add(-time.Hour))
		require.NoError(f, err)
		require.Zero(f, removed, "too young")
		removed, err = f.RemoveConfigs(f.ctx(), f.now().Add(time.Second))
		require.NoError(f, err)
		require.Equal(f, 1, removed)
		require.Equal(f, "c", left())
		f.end(f.deployed(one, &a, ids...), release.StatusSucceeded)
		require.Len(f, left(), 2, "made again")
	},
}
