package release

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPlanWaves(t *testing.T) {
	for _, c := range []struct {
		name     string
		hosts    int
		strategy Strategy
		want     []Wave
	}{
		{"no canary", 10, Strategy{}, []Wave{{Number: 1, Size: 10}}},
		{"20 % canary", 10, Strategy{Canary: &Canary{Percent: 20}}, []Wave{{0, 2, true}, {1, 8, false}}},
		{"at least one canary host", 10, Strategy{Canary: &Canary{Percent: 0.1}}, []Wave{{0, 1, true}, {1, 9, false}}},
		{"0 % is no canary", 10, Strategy{Canary: &Canary{}}, []Wave{{1, 10, false}}},
		{"all are canary", 10, Strategy{Canary: &Canary{Percent: 100}}, []Wave{{0, 10, true}}},
		{"one host", 1, Strategy{Canary: &Canary{Percent: 20}, Waves: []float64{50}}, []Wave{{0, 1, true}}},
		{"waves below the canary are skipped", 10, Strategy{Canary: &Canary{Percent: 30}, Waves: []float64{20, 50, 100}}, []Wave{{0, 3, true}, {1, 2, false}, {2, 5, false}}},
		{"percentages that are no round hosts", 3, Strategy{Waves: []float64{33, 66}}, []Wave{{1, 1, false}, {2, 1, false}, {3, 1, false}}},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, PlanWaves(c.hosts, c.strategy)) })
	}
}

func TestPlanWavesCoversEveryHostOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 100_000).Draw(t, "hosts")
		s := strategies().Draw(t, "strategy")
		require.NoError(t, s.Validate())
		total := 0
		for i, w := range PlanWaves(n, s) {
			require.Positive(t, w.Size)
			require.Equal(t, w.Canary, w.Number == 0)
			if i > 0 {
				require.False(t, w.Canary)
			}
			total += w.Size
		}
		require.Equal(t, n, total)
	})
}

func strategies() *rapid.Generator[Strategy] {
	return rapid.Custom(func(t *rapid.T) Strategy {
		var s Strategy
		if rapid.Bool().Draw(t, "has canary") {
			s.Canary = &Canary{Percent: rapid.Float64Range(0, 100).Draw(t, "percent")}
		}
		last := 0.0
		for range rapid.IntRange(0, 5).Draw(t, "waves") {
			next := last + rapid.Float64Range(0.5, 30).Draw(t, "step")
			if next > 100 {
				break
			}
			s.Waves = append(s.Waves, next)
			last = next
		}
		s.MaxFailures = Limit{Count: rapid.IntRange(0, 5).Draw(t, "max failures")}
		return s
	})
}
