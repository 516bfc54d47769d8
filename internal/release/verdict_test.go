package release

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJudgeWave(t *testing.T) {
	canary := Wave{Number: 0, Size: 4, Canary: true}
	wave := Wave{Number: 1, Size: 36}
	budget := Strategy{Canary: &Canary{Percent: 10, MaxFailures: Limit{Count: 1}}, MaxFailures: Limit{Percent: 10, IsShare: true}}.WithDefaults()
	for _, c := range []struct {
		name      string
		strategy  Strategy
		wave      Wave
		in, all   Counts
		stops     bool
		remaining int
	}{
		{"clean canary", budget, canary, Counts{Succeeded: 4}, Counts{Total: 40, Succeeded: 4}, false, 1},
		{"canary at its budget", budget, canary, Counts{Succeeded: 3, Failed: 1}, Counts{Total: 40, Failed: 1}, false, 0},
		{"canary over its budget, though the task's is not spent", budget, canary, Counts{Failed: 1, Unknown: 1}, Counts{Total: 40, Failed: 1, Unknown: 1}, true, 0},
		{"no canary host reached", budget, canary, Counts{Offline: 4}, Counts{Total: 40, Offline: 4}, true, 1},
		{"offline hosts are only counted", budget, wave, Counts{}, Counts{Total: 40, Offline: 20}, false, 4},
		{"share of all targets", budget, wave, Counts{}, Counts{Total: 40, Failed: 4}, false, 0},
		{"over it", budget, wave, Counts{}, Counts{Total: 40, Failed: 3, Unknown: 2}, true, 0},
		{"offline hosts charged", Strategy{Offline: OfflineFail}, wave, Counts{}, Counts{Total: 40, Offline: 1}, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			verdict := JudgeWave(c.strategy, c.wave, c.in, c.all)
			require.Equal(t, c.stops, verdict.Stop)
			require.Equal(t, c.stops, verdict.Reason != "")
			require.Equal(t, c.remaining, BudgetLeft(c.strategy, c.wave, c.in, c.all))
		})
	}
}

func TestFinalStatus(t *testing.T) {
	require.Equal(t, StatusSucceeded, FinalStatus(Counts{Total: 3, Succeeded: 3}))
	require.Equal(t, StatusPartial, FinalStatus(Counts{Total: 3, Succeeded: 2, Offline: 1}))
	require.Equal(t, StatusFailed, FinalStatus(Counts{Total: 3, Offline: 3}))
}

func TestStatusTransitions(t *testing.T) {
	all := []Status{StatusStarting, StatusRunning, StatusPaused, StatusAborting, StatusRollingBack,
		StatusSucceeded, StatusPartial, StatusFailed, StatusAborted, StatusRolledBack}
	for _, from := range all {
		require.NotEmpty(t, from.Describe())
		for _, to := range all {
			if from.Terminal() && from != to {
				require.False(t, from.CanBecome(to), "%s is an end", from)
			}
		}
		require.True(t, from.CanBecome(from))
		if !from.Terminal() {
			require.True(t, from.CanBecome(StatusFailed), "%s must be able to fail", from)
		}
	}
}

func TestCountsAddUp(t *testing.T) {
	states := []TargetState{TargetPending, TargetRunning, TargetSucceeded, TargetFailed, TargetUnknown, TargetOffline,
		TargetCancelled, TargetSkipped, TargetRolledBack, TargetRollbackFailed}
	var c Counts
	for i, s := range states {
		c.Add(s, i+1)
	}
	sum := c.Pending + c.Running + c.Succeeded + c.Failed + c.Unknown + c.Offline + c.Cancelled + c.Skipped + c.RolledBack + c.RollbackFailed
	require.Equal(t, c.Total, sum, "a state is not counted")
	require.Equal(t, 2*c.Total, c.Plus(c).Total)
	require.Equal(t, 2*c.RollbackFailed, c.Plus(c).RollbackFailed)
}
