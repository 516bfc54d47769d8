package hub_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quicflow/quicflow/hub"
)

func TestLatenciesAreTrueToThreePercent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(math.Exp(rapid.Float64Range(0, math.Log(120e6)).Draw(t, "log")) * float64(time.Microsecond))
		}), 1, 200).Draw(t, "times")
		average, quantiles := hub.Latencies(0, all...)
		slices.Sort(all)
		var sum time.Duration
		for _, d := range all {
			sum += d
		}
		require.InEpsilon(t, sum.Seconds()*1000/float64(len(all)), average, 1e-9)
		for i, q := range []float64{0.5, 0.95, 0.99} {
			want := all[int(math.Ceil(q*float64(len(all))))-1]
			require.InDelta(t, want.Seconds()*1000, quantiles[i], want.Seconds()*1000*0.032+0.001)
		}
	})
}

func TestLatenciesAreForgotten(t *testing.T) {
	average, quantiles := hub.Latencies(49*time.Second, time.Second, 3*time.Second)
	require.InEpsilon(t, 2000, average, 1e-9)
	require.InEpsilon(t, 1000, quantiles[0], 0.03)
	require.InEpsilon(t, 3000, quantiles[2], 0.03)
	average, quantiles = hub.Latencies(61*time.Second, time.Second, 3*time.Second)
	require.Zero(t, average)
	require.Zero(t, quantiles)
}

func TestThroughput(t *testing.T) {
	require.Zero(t, hub.Throughput())
	require.InEpsilon(t, 5, hub.Throughput(10, 0), 1e-9, "since the start")
	require.InEpsilon(t, 10, hub.Throughput(1000, 1000, 1000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100), 1e-9, "of ten seconds alone")
}
