// Package schedule says when a schedule fires. It reads cron expressions as everybody knows them (robfig/cron) and writes them as
// calendars for Temporal, which fires them; and it computes the times itself, exactly as Temporal does.
//
// The two differ in what they make of a restricted day of month beside a restricted day of week: for cron either is enough,
// Temporal's calendars want both. Such an expression becomes two calendars. At a change of the clock it is Temporal that counts:
// a time that the clock leaves out is left out, one that it shows twice fires twice.
package schedule

import (
	"strings"
	"time"
	_ "time/tzdata" // for machines without; the embedded Temporal reads the same

	"github.com/robfig/cron/v3"

	"github.com/quicflow/quicflow/internal/release"
)

// MinEvery is the shortest interval of @every.
const MinEvery = time.Minute

// Spec is when a schedule fires. It does not change, and is safe for concurrent use.
type Spec struct {
	// Zone is that of the calendars, which need not be the one of the schedule.
	Zone *time.Location
	// Every is the interval of @every, counted from the epoch; 0 if there are calendars.
	Every time.Duration

	fields []fields
}

var parser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// starBit is in a field of robfig/cron that restricts nothing.
const starBit = 1 << 63

// Parse reads when a schedule fires. Its errors are *release.Error of the fields at, cron and timezone.
func Parse(when release.When) (*Spec, error) {
	zone, err := parseZone(when.Timezone)
	if err != nil {
		return nil, err
	}
	if when.At != nil {
		return parseAt(*when.At)
	}
	text := strings.TrimSpace(when.Cron)
	if strings.HasPrefix(text, "TZ=") || strings.HasPrefix(text, "CRON_TZ=") {
		return nil, release.Invalid("cron", "give the time zone as timezone, not in the expression")
	}
	if interval, ok := strings.CutPrefix(text, "@every"); ok {
		return parseEvery(strings.TrimSpace(interval), zone)
	}
	parsed, err := parser.Parse(text)
	if err != nil {
		return nil, release.Invalid("cron", "%q cannot be read: %s", when.Cron, err)
	}
	c, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, release.Invalid("cron", "%q is not supported", when.Cron)
	}
	s := &Spec{Zone: zone}
	one := fields{second: 1, minute: c.Minute, hour: c.Hour, dayOfMonth: c.Dom &^ starBit, month: c.Month &^ starBit, dayOfWeek: c.Dow &^ starBit}
	one.minute, one.hour = one.minute&^starBit, one.hour&^starBit
	for _, f := range []struct {
		name string
		set  uint64
	}{{"minute", one.minute}, {"hour", one.hour}, {"day of month", one.dayOfMonth}, {"month", one.month}, {"day of week", one.dayOfWeek}} {
		if f.set == 0 {
			return nil, release.Invalid("cron", "%q names no %s", when.Cron, f.name)
		}
	}
	if one.hour == span(0, 23) && one.dayOfMonth == span(1, 31) && one.month == span(1, 12) && one.dayOfWeek == span(0, 6) && wholeHours(zone) {
		s.Zone = time.UTC
	}
	if c.Dom&starBit == 0 && c.Dow&starBit == 0 {
		byDate, byWeekday := one, one
		byDate.dayOfWeek, byWeekday.dayOfMonth = span(0, 6), span(1, 31)
		s.fields = []fields{byDate, byWeekday}
	} else {
		s.fields = []fields{one}
	}
	if s.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, release.Invalid("cron", "%q never fires", when.Cron)
	}
	return s, nil
}

func parseZone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, release.Invalid("timezone", "%q is not an IANA time zone such as Europe/Berlin or UTC", name)
	}
	return zone, nil
}

// wholeHours says whether a zone's clock always shows the minute of UTC.
func wholeHours(zone *time.Location) bool {
	const step, rulesKnownTo = 15, 2045 // days; after that year they repeat
	for at := time.Date(2000, 1, 1, 0, 0, 0, 0, zone); at.Year() < rulesKnownTo; at = at.AddDate(0, 0, step) {
		if _, offset := at.Zone(); offset%3600 != 0 {
			return false
		}
	}
	return true
}

func parseAt(at time.Time) (*Spec, error) {
	if at.Nanosecond() != 0 {
		return nil, release.Invalid("at", "give whole seconds")
	}
	at = at.UTC()
	if at.Year() < 2000 || at.Year() > maxYear {
		return nil, release.Invalid("at", "the year %d is not between 2000 and %d", at.Year(), maxYear)
	}
	return &Spec{Zone: time.UTC, fields: []fields{{second: 1 << at.Second(), minute: 1 << at.Minute(), hour: 1 << at.Hour(),
		dayOfMonth: 1 << at.Day(), month: 1 << at.Month(), dayOfWeek: span(0, 6), year: at.Year()}}}, nil
}

func parseEvery(text string, zone *time.Location) (*Spec, error) {
	every, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return nil, release.Invalid("cron", "@every wants a duration such as @every 90m")
	case every < MinEvery || every > 366*24*time.Hour || every%time.Second != 0:
		return nil, release.Invalid("cron", "@every wants whole seconds, %s at least, a year at most", MinEvery)
	}
	return &Spec{Zone: zone, Every: every}, nil
}

// Calendars are what Temporal is to be given; a time matches if any of them does. None with Every.
func (s *Spec) Calendars() []Calendar {
	list := make([]Calendar, len(s.fields))
	for i, f := range s.fields {
		list[i] = f.calendar()
	}
	return list
}

// Next gives the first fire after a time, in UTC, or the zero time where there is none. Jitter is not in it.
func (s *Spec) Next(after time.Time) time.Time {
	if every := int64(s.Every / time.Second); every > 0 {
		return time.Unix((after.Unix()/every+1)*every, 0).UTC()
	}
	var first time.Time
	for _, f := range s.fields {
		if t := f.next(after, s.Zone); !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if first.IsZero() {
		return first
	}
	return first.UTC()
}

// Upcoming gives the first n fires after a time, fewer if there are no more.
func (s *Spec) Upcoming(after time.Time, n int) (times []time.Time) {
	for t := s.Next(after); !t.IsZero() && len(times) < n; t = s.Next(t) {
		times = append(times, t)
	}
	return times
}

// Between gives the fires after one time, up to another and including it, max of them at most.
func (s *Spec) Between(after, to time.Time, limit int) (times []time.Time) {
	for t := s.Next(after); !t.IsZero() && !t.After(to) && len(times) < limit; t = s.Next(t) {
		times = append(times, t)
	}
	return times
}

// Fires says whether a time is one of the fires.
func (s *Spec) Fires(t time.Time) bool {
	// From well before, as in an hour that the clock shows twice what comes next depends on what came last.
	next := s.Next(t.Add(-3 * time.Hour))
	for !next.IsZero() && next.Before(t) {
		next = s.Next(next)
	}
	return next.Equal(t)
}

// InZone gives times by the clock of a schedule's zone.
func InZone(when release.When, times []time.Time) []time.Time {
	zone, err := parseZone(when.Timezone)
	if err != nil {
		zone = time.UTC
	}
	shown := make([]time.Time, len(times))
	for i, t := range times {
		shown[i] = t.In(zone)
	}
	return shown
}
