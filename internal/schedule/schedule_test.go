package schedule

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// That these are Temporal's times is the test of internal/temporalserver and internal/rollout.
func TestNext(t *testing.T) {
	for _, c := range []struct {
		cron, zone, after string
		want              []string
	}{
		{"30 2 * * *", "", "2026-11-23T08:00:00Z", []string{"2026-11-24T02:30:00Z", "2026-11-25T02:30:00Z"}},
		{"@daily", "Asia/Shanghai", "2026-11-23T08:00:00Z", []string{"2026-11-23T16:00:00Z"}},
		{"0 9 * * mon-fri", "Europe/Berlin", "2026-03-27T09:00:00Z", []string{"2026-03-30T07:00:00Z"}},
		// Either is enough: the 13th, and each Friday.
		{"0 0 13 * 5", "", "2026-11-01T00:00:00Z", []string{"2026-11-06T00:00:00Z", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z"}},
		{"0 0 13 * 5", "", "2026-12-11T12:00:00Z", []string{"2026-12-13T00:00:00Z", "2026-12-18T00:00:00Z"}},
		// A star with a step restricts.
		{"0 0 */10 * 1", "", "2026-11-01T00:00:00Z", []string{"2026-11-02T00:00:00Z", "2026-11-09T00:00:00Z", "2026-11-11T00:00:00Z"}},
		{"0 0 29 2 *", "", "2026-01-01T00:00:00Z", []string{"2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"}},
		// Left out by the clock, and shown twice by it.
		{"30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", []string{"2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"}},
		{"30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", []string{"2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-02T06:30:00Z"}},
		{"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", []string{"2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"}},
		// Every hour, whatever the clock shows.
		{"*/30 * * * *", "Europe/Berlin", "2026-10-25T00:10:00Z", []string{"2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"}},
		{"0 * * * *", "Asia/Kathmandu", "2026-10-25T00:10:00Z", []string{"2026-10-25T00:15:00Z", "2026-10-25T01:15:00Z"}},
		{"@every 90m", "", "2026-11-23T00:10:00Z", []string{"2026-11-23T01:30:00Z", "2026-11-23T03:00:00Z"}},
	} {
		spec, err := Parse(release.When{Cron: c.cron, Timezone: c.zone})
		require.NoError(t, err, c.cron)
		var got []string
		after, _ := time.Parse(time.RFC3339, c.after)
		for _, next := range spec.Upcoming(after, len(c.want)) {
			got = append(got, next.Format(time.RFC3339))
			require.True(t, spec.Fires(next), "%s in %s: %s", c.cron, c.zone, next)
		}
		require.Equal(t, c.want, got, "%s in %s", c.cron, c.zone)
	}
}

func TestOnce(t *testing.T) {
	at := time.Date(2026, 12, 24, 18, 30, 5, 0, time.FixedZone("", 3600))
	spec, err := Parse(release.When{At: &at, Timezone: "Asia/Tokyo"})
	require.NoError(t, err)
	require.Equal(t, []time.Time{at.UTC()}, spec.Upcoming(at.Add(-40*24*time.Hour), 5))
	require.Zero(t, spec.Next(at))
	require.True(t, spec.Fires(at))
	require.False(t, spec.Fires(at.Add(time.Second)))
}

func TestBetween(t *testing.T) {
	spec, err := Parse(release.When{Cron: "*/10 * * * *"})
	require.NoError(t, err)
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	require.Len(t, spec.Between(from, from.Add(time.Hour), 100), 6, "without the first, with the last")
	require.Len(t, spec.Between(from, from.Add(time.Hour), 4), 4)
}

func TestRanges(t *testing.T) {
	require.Equal(t, []Range{{0, 0}, {3, 6}, {63, 63}}, ranges(1|span(3, 6)|1<<63))
}

func TestBadInput(t *testing.T) {
	second := time.Date(2026, 1, 1, 0, 0, 0, 1, time.UTC)
	late := time.Date(2101, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		when  release.When
		field string
	}{
		{release.When{Cron: ""}, "cron"},
		{release.When{Cron: "* * * *"}, "cron"},
		{release.When{Cron: "0 * * * * *"}, "cron"},
		{release.When{Cron: "60 * * * *"}, "cron"},
		{release.When{Cron: "0 0 , * *"}, "cron"},
		{release.When{Cron: "0 0 * * 7"}, "cron"},
		{release.When{Cron: "0 0 30 2 *"}, "cron"},
		{release.When{Cron: "@often"}, "cron"},
		{release.When{Cron: "@every"}, "cron"},
		{release.When{Cron: "@every 1s"}, "cron"},
		{release.When{Cron: "@every 90.5s"}, "cron"},
		{release.When{Cron: "@every -5m"}, "cron"},
		{release.When{Cron: "TZ=UTC"}, "cron"},
		{release.When{Cron: "CRON_TZ=Europe/Berlin 0 0 * * *"}, "cron"},
		{release.When{Cron: "@daily", Timezone: "Berlin"}, "timezone"},
		{release.When{Cron: "@daily", Timezone: "Local"}, "timezone"},
		{release.When{Cron: "@daily", Timezone: "../etc/passwd"}, "timezone"},
		{release.When{At: &second}, "at"},
		{release.When{At: &late}, "at"},
	} {
		_, err := Parse(c.when)
		var known *release.Error
		require.ErrorAs(t, err, &known, "%+v", c.when)
		require.Equal(t, c.field, known.Field)
	}
}
