package store_test

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var stepTests = map[string]func(*fixture){
	"steps are marked once": func(f *fixture) {
		ids := f.join(5)
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, ids...)
		steps := f.dispatch(task, release.StepDeploy, "h000", "h001", "h003")
		started := f.now()
		f.report(steps["h000"], release.StepSucceeded)
		require.NoError(f, f.ConcludeSteps(f.ctx(), []store.Conclusion{{StepID: steps["h003"].ID, Target: release.TargetOffline}}))
		f.advance(time.Minute)
		marked, halted, err := f.MarkDispatched(f.ctx(), task.ID, release.StepDeploy, []string{"h003", "h002", "h001", "h000", "h000", "stranger"})
		require.NoError(f, err)
		require.False(f, halted)
		require.Equal(f, []string{"h001", "h002"}, marked, "not what is decided")
		require.Equal(f, started, *f.target(task, "h001").StartedAt)
		require.Equal(f, f.now(), *f.target(task, "h002").StartedAt)
		require.Equal(f, "h000 succeeded, h001 running, h002 running, h003 offline, h004 pending", f.states(task))
	},
	"the halt fence": func(f *fixture) {
		ids := f.join(40)
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, ids...)
		f.plan(task, release.StepDeploy)
		var raised atomic.Bool
		errs := together(len(ids)+1, func(i int) error {
			if i == len(ids) {
				err := f.SetHalt(f.ctx(), task.ID, true)
				raised.Store(true)
				return err
			}
			late := raised.Load()
			marked, halted, err := f.MarkDispatched(f.ctx(), task.ID, release.StepDeploy, ids[i:i+1])
			if err == nil && (late && !halted || halted == (len(marked) > 0)) {
				err = fmt.Errorf("%s: marked %v, halted %v, after the fence %v", ids[i], marked, halted, late)
			}
			return err
		})
		require.NoError(f, errors.Join(errs...))
		_, halted, err := f.MarkDispatched(f.ctx(), task.ID, release.StepDeploy, ids)
		require.NoError(f, err)
		require.True(f, halted)

		// The fence is for what goes forward: a rollback passes.
		require.NoError(f, f.SetHalt(f.ctx(), task.ID, false))
		steps := f.dispatch(task, release.StepDeploy, ids...)
		f.report(steps["h000"], release.StepSucceeded)
		require.NoError(f, f.SetHalt(f.ctx(), task.ID, true))
		f.dispatch(task, release.StepRollback, "h000")

		// Nor does it hold back what was dispatched already.
		marked, halted, err := f.MarkDispatched(f.ctx(), task.ID, release.StepDeploy, []string{"h000", "h001"})
		require.NoError(f, err)
		require.True(f, halted)
		require.Equal(f, []string{"h001"}, marked)
	},
	"conclusions": func(f *fixture) {
		ids := f.join(7)
		versions := f.project("shop", "1.0", "2.0")
		v1, v2 := versions["1.0"], versions["2.0"]
		f.release("shop", &v1, ids...)
		task := f.deploy("shop", &v2, ids...)
		steps := f.dispatch(task, release.StepDeploy, ids[:6]...)
		f.report(steps["h000"], release.StepSucceeded)
		f.report(steps["h001"], release.StepUnknown)
		var all []store.Conclusion
		for i, verdict := range []release.TargetState{"offline", "offline", "offline", "unknown", "failed", "unknown", "offline"} {
			all = append(all, store.Conclusion{StepID: steps[ids[i]].ID, Target: verdict, Error: "so", At: f.now()})
		}
		all = append(all, store.Conclusion{StepID: "none/deploy/h000/0", Target: release.TargetUnknown}, store.Conclusion{StepID: "odd", Target: release.TargetUnknown})
		require.NoError(f, f.ConcludeSteps(f.ctx(), slices.Delete(slices.Clone(all), 6, 7)))
		require.NoError(f, f.SetProgress(f.ctx(), task.ID, store.Progress{Status: release.StatusFailed})) // h006 is skipped
		require.NoError(f, f.ConcludeSteps(f.ctx(), all))
		require.Equal(f, "h000 succeeded, h001 unknown, h002 offline, h003 unknown, h004 failed, h005 unknown, h006 skipped", f.states(task))
		require.Equal(f, "2.0 installed", f.runs("shop", "h000"))
		require.Equal(f, "1.0 installed", f.runs("shop", "h002"))
		require.Equal(f, "1.0 unknown (2.0)", f.runs("shop", "h003"))
		require.Equal(f, "1.0 installed", f.runs("shop", "h004"))
		target := f.target(task, "h003")
		require.Equal(f, "so", target.Error)
		require.Nil(f, target.ExitCode)
		require.Equal(f, f.now(), *target.FinishedAt)

		// The agent knows better, whatever was concluded.
		f.report(steps["h002"], release.StepSucceeded)
		f.report(steps["h003"], release.StepFailed)
		f.report(steps["h004"], release.StepSucceeded)
		f.report(steps["h005"], release.StepRefused)
		require.Equal(f, "h000 succeeded, h001 unknown, h002 succeeded, h003 failed, h004 succeeded, h005 cancelled, h006 skipped", f.states(task))
		require.Equal(f, "2.0 installed", f.runs("shop", "h002"))
		require.Equal(f, "1.0 failed (2.0)", f.runs("shop", "h003"))
		require.Equal(f, "1.0 installed", f.runs("shop", "h005"), "it never started")
		require.NoError(f, f.ConcludeSteps(f.ctx(), all))
		require.Equal(f, "h000 succeeded, h001 unknown, h002 succeeded, h003 failed, h004 succeeded, h005 cancelled, h006 skipped", f.states(task))
		require.Error(f, f.ConcludeSteps(f.ctx(), []store.Conclusion{{StepID: steps["h000"].ID, Target: release.TargetSucceeded}}))
	},
}
