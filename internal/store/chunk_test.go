package store_test

import (
	"maps"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

var chunkTests = map[string]func(*fixture){
	"chunks are of one node and of limited size": func(f *fixture) {
		ids := f.join(10)
		f.connect("a", ids[0:3]...)
		f.connect("b", ids[3:8]...) // the last two never had a session
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, ids...)
		plans, err := f.PlanChunks(f.ctx(), task.ID, release.StepDeploy, 1, 2, "c")
		require.NoError(f, err)
		require.Equal(f, []store.ChunkPlan{{1, "a", 2}, {2, "a", 1}, {3, "b", 2}, {4, "b", 2}, {5, "b", 1}, {6, "c", 2}}, plans)
		steps, err := f.ChunkSteps(f.ctx(), task.ID, release.StepDeploy, 4)
		require.NoError(f, err)
		require.Equal(f, []release.Step{
			{ID: release.StepID(task.ID, release.StepDeploy, "h005", 0), TaskID: task.ID, Name: release.StepDeploy, ClientID: "h005",
				Action: release.StepInstall, ProjectID: v.ProjectID, VersionID: v.ID, State: release.StepPending},
			{ID: release.StepID(task.ID, release.StepDeploy, "h006", 0), TaskID: task.ID, Name: release.StepDeploy, ClientID: "h006",
				Action: release.StepInstall, ProjectID: v.ProjectID, VersionID: v.ID, State: release.StepPending},
		}, steps)

		// Hosts that moved are planned again, with the same steps; decided ones are not.
		marked, _, err := f.MarkDispatched(f.ctx(), task.ID, release.StepDeploy, []string{"h003", "h004"})
		require.NoError(f, err)
		require.Equal(f, []string{"h003", "h004"}, marked)
		f.report(steps[0], release.StepSucceeded)
		f.connect("a", "h004")
		plans, err = f.PlanChunks(f.ctx(), task.ID, release.StepDeploy, 1, 100, "c")
		require.NoError(f, err)
		require.Equal(f, []store.ChunkPlan{{7, "a", 4}, {8, "b", 3}, {9, "c", 2}}, plans)
		steps, err = f.ChunkSteps(f.ctx(), task.ID, release.StepDeploy, 7)
		require.NoError(f, err)
		require.Equal(f, release.StepID(task.ID, release.StepDeploy, "h004", 0), steps[3].ID)
		require.Equal(f, release.StepDispatched, steps[3].State)
		old, err := f.ChunkSteps(f.ctx(), task.ID, release.StepDeploy, 2)
		require.NoError(f, err)
		require.Empty(f, old, "a dispatch of the old plan finds nothing")
	},
	"only the wave is planned": func(f *fixture) {
		ids := f.join(4)
		v := f.project("shop", "1.0")["1.0"]
		task := release.Task{ProjectID: v.ProjectID, VersionID: v.ID, Action: release.ActionDeploy, Strategy: release.Strategy{Canary: &release.Canary{Percent: 25}}}
		require.NoError(f, f.CreateTask(f.ctx(), &task, ids))
		plans, err := f.PlanChunks(f.ctx(), task.ID, release.StepDeploy, 0, 100, "n")
		require.NoError(f, err)
		require.Equal(f, []store.ChunkPlan{{1, "n", 1}}, plans)
		plans, err = f.PlanChunks(f.ctx(), task.ID, release.StepDeploy, 2, 100, "n")
		require.NoError(f, err)
		require.Empty(f, plans)
		_, err = f.PlanChunks(f.ctx(), task.ID, "odd", 0, 100, "n")
		require.Error(f, err)
		_, err = f.PlanChunks(f.ctx(), task.ID, release.StepDeploy, 0, 0, "n")
		require.Error(f, err)
	},
	"what a host runs decides what is done there": func(f *fixture) {
		f.join(4)
		versions := f.project("shop", "1.0", "2.0")
		v1, v2 := versions["1.0"], versions["2.0"]
		f.release("shop", &v1, "h000", "h001")
		broken := f.deploy("shop", &v1, "h002")
		f.report(f.dispatch(broken, release.StepDeploy, "h002")["h002"], release.StepFailed)
		require.Equal(f, "failed (1.0)", f.runs("shop", "h002"))

		task := f.deploy("shop", &v2, "h000", "h001", "h002", "h003")
		steps := f.plan(task, release.StepDeploy)
		require.Equal(f, "update to 2.0 from 1.0", f.describe(steps["h000"]))
		require.Equal(f, "install to 2.0", f.describe(steps["h002"]))
		require.Equal(f, "install to 2.0", f.describe(steps["h003"]))
		require.Equal(f, "1.0", f.target(task, "h000").PreviousVersion)
		require.Empty(f, f.target(task, "h002").PreviousVersion)

		// Another release in between does not change what was planned.
		f.release("shop", &v2, "h000")
		require.Equal(f, "update to 2.0 from 1.0", f.describe(f.plan(task, release.StepDeploy)["h000"]))
		require.Equal(f, "1.0", f.target(task, "h000").PreviousVersion)

		removal := f.deploy("shop", nil, "h000", "h001", "h002", "h003")
		steps = f.plan(removal, release.StepDeploy)
		require.Equal(f, []string{"h000", "h001", "h002"}, keys(steps))
		require.Equal(f, "uninstall from 2.0", f.describe(steps["h000"]))
		require.Equal(f, "uninstall from 1.0", f.describe(steps["h001"]))
		require.Equal(f, "uninstall from 1.0", f.describe(steps["h002"]), "what the failed installation left")
		require.Equal(f, "h000 pending, h001 pending, h002 pending, h003 succeeded", f.states(removal))
		f.dispatch(removal, release.StepDeploy, "h000", "h001", "h002")
		for _, step := range steps {
			f.report(step, release.StepSucceeded)
		}
		require.Equal(f, "nothing", f.runs("shop", "h000"))
		require.Equal(f, "nothing", f.runs("shop", "h002"))

		back := f.plan(removal, release.StepRollback)
		require.Equal(f, []string{"h000", "h001"}, keys(back))
		require.Equal(f, "rollback to 2.0", f.describe(back["h000"]))
		require.Equal(f, "rollback to 1.0", f.describe(back["h001"]))
	},
	"a rollback goes to touched hosts alone": func(f *fixture) {
		ids := f.join(11)
		versions := f.project("shop", "1.0", "2.0")
		v1, v2 := versions["1.0"], versions["2.0"]
		f.release("shop", &v1, "h000", "h002", "h003")
		task := f.deploy("shop", &v2, ids...)
		steps := f.dispatch(task, release.StepDeploy, ids[:9]...)
		f.report(steps["h000"], release.StepSucceeded)
		f.report(steps["h001"], release.StepSucceeded)
		f.report(steps["h002"], release.StepFailed)
		f.report(steps["h003"], release.StepUnknown)
		f.report(steps["h004"], release.StepCancelled)
		f.report(steps["h005"], release.StepRefused)
		require.NoError(f, f.ConcludeSteps(f.ctx(), []store.Conclusion{
			{StepID: steps["h006"].ID, Target: release.TargetOffline}, {StepID: steps["h007"].ID, Target: release.TargetFailed, Error: "cannot be asked"}}))
		require.NoError(f, f.ConcludeSteps(f.ctx(), []store.Conclusion{{StepID: steps["h009"].ID, Target: release.TargetOffline}}))
		require.Equal(f, "h000 succeeded, h001 succeeded, h002 failed, h003 unknown, h004 cancelled, h005 failed, h006 offline, h007 failed, "+
			"h008 running, h009 offline, h010 pending", f.states(task))

		back := f.plan(task, release.StepRollback)
		require.Equal(f, []string{"h000", "h001", "h002", "h003", "h004", "h008"}, keys(back))
		require.Equal(f, "rollback to 1.0 from 2.0", f.describe(back["h000"]))
		require.Equal(f, "uninstall from 2.0", f.describe(back["h001"]))
		require.Equal(f, "rollback to 1.0 from 2.0", f.describe(back["h002"]))
		require.Equal(f, "uninstall from 2.0", f.describe(back["h008"]))
		f.dispatch(task, release.StepRollback, "h000", "h001", "h002", "h003", "h004")
		f.report(back["h000"], release.StepSucceeded)
		f.report(back["h001"], release.StepSucceeded)
		f.report(back["h002"], release.StepFailed)
		f.report(back["h003"], release.StepUnknown)
		require.NoError(f, f.ConcludeSteps(f.ctx(), []store.Conclusion{{StepID: back["h004"].ID, Target: release.TargetOffline, Error: "not reached"}}))
		require.Equal(f, "h000 rolled_back, h001 rolled_back, h002 rollback_failed, h003 rollback_failed, h004 rollback_failed, h005 failed, h006 offline, "+
			"h007 failed, h008 running, h009 offline, h010 pending", f.states(task))
		require.Equal(f, "rollback: not reached", f.target(task, "h004").Error)
		require.Equal(f, "1.0 installed", f.runs("shop", "h000"))
		require.Equal(f, "nothing", f.runs("shop", "h001"))
		require.Equal(f, "1.0 failed (1.0)", f.runs("shop", "h002"))
		require.Equal(f, "1.0 unknown (1.0)", f.runs("shop", "h003"))
		require.Equal(f, []string{"h008"}, keys(f.plan(task, release.StepRollback)))
		f.report(back["h003"], release.StepSucceeded) // late, but it knows
		require.Equal(f, release.TargetRolledBack, f.target(task, "h003").State)
		require.Equal(f, "1.0 installed", f.runs("shop", "h003"))
	},
}

// describe writes what a step does, as "update to 2.0 from 1.0".
func (f *fixture) describe(s release.Step) string {
	f.Helper()
	text := string(s.Action)
	if s.VersionID != "" {
		v, err := f.VersionByID(f.ctx(), s.VersionID)
		require.NoError(f, err)
		text += " to " + v.Name
	}
	if s.PreviousVersion != "" {
		text += " from " + s.PreviousVersion
	}
	return text
}
