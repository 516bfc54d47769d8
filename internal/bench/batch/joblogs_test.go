package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRecordsAreSeenWithTheFirstHeadBehindThem(t *testing.T) {
	at := time.Unix(100, 0)
	heads := []head{{3, at}, {7, at.Add(time.Second)}}
	for seq, want := range map[int64]time.Time{1: at, 3: at, 4: at.Add(time.Second), 7: at.Add(time.Second), 8: {}} {
		got, ok := seen(heads, seq)
		require.Equal(t, want, got, seq)
		require.Equal(t, !want.IsZero(), ok)
	}
}

func TestPercentile(t *testing.T) {
	require.Zero(t, percentile(nil, 99))
	var times []time.Duration
	for i := range 200 {
		times = append(times, time.Duration(i))
	}
	require.EqualValues(t, 100, percentile(times, 50))
	require.EqualValues(t, 198, percentile(times, 99))
	require.EqualValues(t, 0, percentile(times[:1], 99))
}
