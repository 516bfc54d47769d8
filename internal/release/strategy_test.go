package release

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStrategyNamesTheWrongField(t *testing.T) {
	for field, s := range map[string]Strategy{
		"strategy.canary.percent": {Canary: &Canary{Percent: 101}},
		"strategy.canary.soak":    {Canary: &Canary{Soak: Duration(MaxSoak + time.Second)}},
		"strategy.canary.promote": {Canary: &Canary{Promote: "perhaps"}},
		"strategy.waves":          {Waves: []float64{50, 50}},
		"strategy.max_parallel":   {MaxParallel: MaxMaxParallel + 1},
		"strategy.on_failure":     {OnFailure: "cry"},
		"strategy.offline":        {Offline: "wait"},
	} {
		requireInvalid(t, field, s.Validate())
	}
	requireInvalid(t, "strategy.canary.percent", Strategy{Canary: &Canary{Percent: -1}}.Validate())
	requireInvalid(t, "strategy.canary.percent", Strategy{Canary: &Canary{Percent: math.NaN()}}.Validate())
	requireInvalid(t, "strategy.waves", Strategy{Waves: []float64{math.NaN()}}.Validate())
	require.NoError(t, Strategy{}.WithDefaults().Validate())
}

func requireInvalid(t *testing.T, field string, err error) {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, CodeInvalid, e.Code)
	require.Equal(t, field, e.Field)
	require.ErrorIs(t, err, ErrInvalid)
	require.NotErrorIs(t, err, ErrConflict)
}

func TestLimit(t *testing.T) {
	for text, of200 := range map[string]int{"": 0, "0": 0, "3": 3, "10%": 20, "0.6%": 1, "100%": 200} {
		var l Limit
		require.NoError(t, l.UnmarshalText([]byte(text)), text)
		require.Equal(t, of200, l.Of(200), text)
	}
	for _, text := range []string{"-1", "101%", "-1%", "many", "3.5", "NaN%"} {
		var l Limit
		require.Error(t, l.UnmarshalText([]byte(text)), text)
	}
	written, err := json.Marshal(Limit{Percent: 2.5, IsShare: true})
	require.NoError(t, err)
	require.JSONEq(t, `"2.5%"`, string(written))
}

func TestDuration(t *testing.T) {
	var d Duration
	require.NoError(t, json.Unmarshal([]byte(`"1m30s"`), &d))
	require.Equal(t, 90*time.Second, d.Std())
	require.ErrorContains(t, d.UnmarshalText([]byte("-1s")), "negative")
	require.ErrorContains(t, d.UnmarshalText([]byte("soon")), `"soon" is not a duration`)
}
