package temporalserver

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	schedulepb "go.temporal.io/api/schedule/v1"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/service/worker/scheduler"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/schedule"
)

var zones = []string{
	"UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Shanghai", "Africa/Casablanca",
	"America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia", "America/Havana", "Europe/Dublin", "Antarctica/Troll",
}

func toTemporal(s *schedule.Spec) *schedulepb.ScheduleSpec {
	spec := &schedulepb.ScheduleSpec{TimezoneName: s.Zone.String()}
	if s.Every > 0 {
		spec.Interval = []*schedulepb.IntervalSpec{{Interval: durationpb.New(s.Every)}}
	}
	ranges := func(from []schedule.Range) (to []*schedulepb.Range) {
		for _, r := range from {
			to = append(to, &schedulepb.Range{Start: int32(r.Start), End: int32(r.End)})
		}
		return to
	}
	for _, c := range s.Calendars() {
		to := &schedulepb.StructuredCalendarSpec{Second: ranges(c.Second), Minute: ranges(c.Minute), Hour: ranges(c.Hour),
			DayOfMonth: ranges(c.DayOfMonth), Month: ranges(c.Month), DayOfWeek: ranges(c.DayOfWeek)}
		if c.Year != 0 {
			to.Year = ranges([]schedule.Range{{Start: c.Year, End: c.Year}})
		}
		spec.StructuredCalendar = append(spec.StructuredCalendar, to)
	}
	return spec
}

// What is shown as the next fires is what Temporal's own compiler makes of the calendars that it is given.
func TestScheduleTimesAreTemporals(t *testing.T) {
	dc := dynamicconfig.NewNoopCollection()
	builder := scheduler.NewSpecBuilder(dynamicconfig.SchedulerSpecWarnIterations.Get(dc), dynamicconfig.SchedulerSpecMaxIterations.Get(dc))
	rapid.Check(t, func(t *rapid.T) {
		// Often near a change of the clock.
		after := time.Unix(rapid.Int64Range(978307200, 3000000000).Draw(t, "after"), rapid.SampledFrom([]int64{0, 500e6}).Draw(t, "ns")).UTC()
		zone := rapid.SampledFrom(zones).Draw(t, "zone")
		if at, ok := changeOfClock(t, zone); ok && rapid.Bool().Draw(t, "near a change") {
			after = at.Add(-time.Duration(rapid.IntRange(-90, 180).Draw(t, "minutes before")) * time.Minute)
		}
		when := release.When{Cron: cronText().Draw(t, "cron"), Timezone: zone}
		if rapid.IntRange(0, 20).Draw(t, "once") == 0 {
			at := after.Truncate(time.Second).Add(time.Duration(rapid.IntRange(-100, 1e8).Draw(t, "in")) * time.Second)
			when = release.When{At: &at, Timezone: zone}
		}
		ours, err := schedule.Parse(when)
		if err != nil {
			require.ErrorContains(t, err, "never fires")
			return
		}
		theirs, err := builder.NewCompiledSpec(toTemporal(ours))
		require.NoError(t, err)
		got := ours.Upcoming(after, 8)
		now := after
		for i := range 8 {
			next, err := theirs.GetNextTime("", now)
			require.NoError(t, err)
			if i >= len(got) {
				require.Zero(t, next.Next, "%+v after %s", when, after)
				return
			}
			require.Equal(t, next.Next, got[i], "%+v after %s, number %d", when, after, i)
			now = next.Next
		}
	})
}

// changeOfClock finds one in a year.
func changeOfClock(t *rapid.T, zone string) (time.Time, bool) {
	location, err := time.LoadLocation(zone)
	require.NoError(t, err)
	start := time.Date(rapid.IntRange(2005, 2040).Draw(t, "year"), time.Month(rapid.IntRange(1, 12).Draw(t, "month")), 1, 0, 0, 0, 0, location)
	_, end := start.ZoneBounds()
	return end, !end.IsZero()
}

func cronText() *rapid.Generator[string] {
	field := func(low, high int) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			var parts []string
			for range rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "parts") {
				a := rapid.IntRange(low, high).Draw(t, "from")
				switch rapid.IntRange(0, 5).Draw(t, "kind") {
				case 0, 1:
					parts = append(parts, "*")
				case 2:
					parts = append(parts, fmt.Sprintf("*/%d", rapid.IntRange(1, high).Draw(t, "step")))
				case 3:
					parts = append(parts, fmt.Sprintf("%d-%d/%d", a, rapid.IntRange(a, high).Draw(t, "to"), rapid.IntRange(1, 5).Draw(t, "step")))
				default:
					parts = append(parts, fmt.Sprint(a))
				}
			}
			return strings.Join(parts, ",")
		})
	}
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 15).Draw(t, "word") == 0 {
			return rapid.SampledFrom([]string{"@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@every 90m", "@every 1h0m7s"}).Draw(t, "which")
		}
		hour := field(0, 23)
		if rapid.Bool().Draw(t, "early") { // where clocks change
			hour = field(0, 4)
		}
		return strings.Join([]string{field(0, 59).Draw(t, "minute"), hour.Draw(t, "hour"), field(1, 31).Draw(t, "day"),
			field(1, 12).Draw(t, "month"), field(0, 6).Draw(t, "weekday")}, " ")
	})
}
