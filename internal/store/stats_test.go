package store_test

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var statsTests = map[string]func(*fixture){
	"tasks are counted by status, with their time": func(f *fixture) {
		totals, err := f.TaskTotals(f.ctx())
		require.NoError(f, err)
		require.Empty(f, totals)

		f.join(1)
		v := f.project("shop", "1.0")["1.0"]
		first, second := f.deploy("shop", &v, "h000"), f.deploy("shop", &v, "h000")
		f.deploy("shop", &v, "h000")
		for task, took := range map[string]time.Duration{first.ID: time.Minute, second.ID: time.Hour} {
			at := first.CreatedAt.Add(took)
			require.NoError(f, f.SetProgress(f.ctx(), task, store.Progress{Status: release.StatusFailed, At: at}))
		}
		totals, err = f.TaskTotals(f.ctx())
		require.NoError(f, err)
		waiting := f.deploy("shop", &v, "h000").Status
		require.Equal(f, map[release.Status]release.TaskTotal{
			release.StatusFailed: {Tasks: 2, Took: time.Hour + time.Minute},
			waiting:              {Tasks: 1},
		}, totals)
	},
	"outcomes of steps are counted once they are stored": func(f *fixture) {
		ids := f.join(4)
		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, ids...)
		steps := f.dispatch(task, release.StepDeploy, ids...)
		require.Empty(f, f.StepOutcomes())
		f.report(steps["h000"], release.StepSucceeded)
		f.report(steps["h000"], release.StepSucceeded) // repeated
		f.report(steps["h001"], release.StepUnknown)
		f.report(steps["h001"], release.StepFailed)
		require.NoError(f, f.ConcludeSteps(f.ctx(), []store.Conclusion{
			{StepID: steps["h002"].ID, Target: release.TargetOffline}, // pending again
			{StepID: steps["h003"].ID, Target: release.TargetFailed},
		}))
		require.Equal(f, map[release.StepState]int{release.StepSucceeded: 1, release.StepUnknown: 1, release.StepFailed: 1, release.StepRefused: 1}, f.StepOutcomes())
	},
	"figures of the database": func(f *fixture) {
		ids := f.join(3)
		f.connect("hub-a", ids[0], ids[1])
		groups, err := f.AgentGroups(f.ctx())
		require.NoError(f, err)
		agents := map[string]int{}
		for _, g := range groups {
			agents[g.NodeID] += g.Agents
		}
		require.Equal(f, map[string]int{"hub-a": 2, "": 1}, agents)

		v := f.project("shop", "1.0")["1.0"]
		task := f.deploy("shop", &v, ids...)
		step := f.dispatch(task, release.StepDeploy, ids[0])[ids[0]]
		_, err = f.AppendLogs(f.ctx(), []release.LogRecord{{StepID: step.ID, ClientID: ids[0], Next: 5, Stream: release.StreamStdout, Time: f.now(), Data: []byte("hello")}})
		require.NoError(f, err)
		f.upload("a", "app.tar.gz")
		figures, err := f.Figures(f.ctx())
		require.NoError(f, err)
		require.NotEmpty(f, figures.Version)
		require.Positive(f, figures.Bytes)
		require.EqualValues(f, 5, figures.LogBytes)
		require.Equal(f, 1, figures.Artifacts)
		require.Positive(f, figures.ArtifactBytes)
	},
}
