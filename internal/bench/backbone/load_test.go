package main

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPercentilesAreWithinAStepOfTheExactOnes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, math.MaxInt64), 1, 200).Draw(t, "values")
		var all, first, second histogram
		for i, v := range values {
			h := &first
			if i%2 == 0 {
				h = &second
			}
			h.add(time.Duration(v))
		}
		all.merge(&first)
		all.merge(&second)
		slices.Sort(values)
		require.EqualValues(t, len(values), all.count())
		for _, p := range []int{1, 50, 99, 100} {
			exact := float64(values[max(len(values)*p/100, 1)-1])
			require.InDelta(t, exact, float64(all.percentile(float64(p))), exact/32+1, "p%d", p)
		}
	})
	require.Zero(t, new(histogram).percentile(50))
}

func TestALoadKeepsItsRequestsInFlightAndCountsFailures(t *testing.T) {
	var busy, most int
	lock := make(chan struct{}, 1)
	enter := func(by int) {
		lock <- struct{}{}
		busy += by
		most = max(most, busy)
		<-lock
	}
	f := runLoad(t.Context(), loadPlan{InFlight: 7, Measure: 50 * time.Millisecond}, func(ctx context.Context, worker int) error {
		enter(1)
		defer enter(-1)
		wait(ctx, time.Millisecond)
		if worker == 3 {
			return errors.New("out of order")
		}
		return nil
	})
	require.Equal(t, 7, most)
	require.Positive(t, f.Requests)
	require.Positive(t, f.Failed)
	require.Equal(t, "out of order", f.Failure)
	require.GreaterOrEqual(t, f.P50, 900*time.Microsecond)
	require.LessOrEqual(t, f.P50, f.P99)
}
