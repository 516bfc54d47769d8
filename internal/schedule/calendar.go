package schedule

import (
	"math/bits"
	"time"
)

// maxYear is the last year that Temporal's calendars know.
const maxYear = 2100

// Range is the numbers from Start to End, both included.
type Range struct{ Start, End int }

// Calendar matches a second by the clock of a zone. Each field must match; no year means every year.
type Calendar struct {
	Second, Minute, Hour, DayOfMonth, Month, DayOfWeek []Range
	Year                                               int
}

// fields are a calendar's fields as sets of bits.
type fields struct {
	second, minute, hour, dayOfMonth, month, dayOfWeek uint64
	year                                               int
}

func has(set uint64, value int) bool { return set&(1<<value) != 0 }

// span is the numbers from start to end.
func span(start, end int) uint64 { return (1<<(end+1) - 1) &^ (1<<start - 1) }

func (f fields) calendar() Calendar {
	return Calendar{Second: ranges(f.second), Minute: ranges(f.minute), Hour: ranges(f.hour), DayOfMonth: ranges(f.dayOfMonth),
		Month: ranges(f.month), DayOfWeek: ranges(f.dayOfWeek), Year: f.year}
}

// ranges writes a set of bits as ranges.
func ranges(set uint64) (list []Range) {
	for set != 0 {
		start := bits.TrailingZeros64(set)
		n := bits.TrailingZeros64(^(set >> start))
		list = append(list, Range{start, start + n - 1})
		set &^= span(start, start+n-1)
	}
	return list
}

// next gives the first match after a time, or the zero time. It goes through the hours that a change of the clock leaves out or
// repeats as Temporal does, step by step, so that what is shown is what fires; the algorithm is that of compiledCalendar.next in
// go.temporal.io/server/service/worker/scheduler/calendar.go (MIT licence).
func (f fields) next(after time.Time, zone *time.Location) time.Time {
	after = after.In(zone)
	y, mo, d := after.Date()
	h, m, s := after.Clock()
	var repeated time.Duration // an hour in the second copy of an hour that the clock shows twice
	if after.Add(-time.Hour).Hour() == h {
		repeated = time.Hour
	}
	s++
again:
	for {
		if s >= 60 {
			m, s = m+1, 0
		}
		if m >= 60 {
			this := time.Date(y, mo, d, h, 0, 0, 0, zone)
			h, m = h+1, 0
			following := time.Date(y, mo, d, h, 0, 0, 0, zone)
			if repeated == 0 && following.Sub(this) > time.Hour { // the clock shows this hour once more
				h--
				repeated = time.Hour
			} else {
				repeated = 0
			}
		}
		if h >= 24 {
			d, h = d+1, 0
		}
		if d > daysIn(mo, y) {
			mo, d = mo+1, 1
		}
		if mo > time.December {
			y, mo = y+1, time.January
		}
		if y > maxYear || f.year != 0 && y > f.year {
			return time.Time{}
		}
		if f.year != 0 && y != f.year {
			y, mo, d, h, m, s, repeated = y+1, time.January, 1, 0, 0, 0, 0
			continue again
		}
		for !has(f.month, int(mo)) {
			mo, d, h, m, s, repeated = mo+1, 1, 0, 0, 0, 0
			if mo > time.December {
				continue again
			}
		}
		for !has(f.dayOfMonth, d) || !has(f.dayOfWeek, int(time.Date(y, mo, d, h, m, s, 0, zone).Weekday())) {
			d, h, m, s, repeated = d+1, 0, 0, 0, 0
			if d > daysIn(mo, y) {
				continue again
			}
		}
		for !has(f.hour, h) {
			h, m, s, repeated = h+1, 0, 0, 0
			if h >= 24 {
				continue again
			}
		}
		for !has(f.minute, m) {
			m, s = m+1, 0
			if m >= 60 {
				continue again
			}
		}
		for !has(f.second, s) {
			s++
			if s >= 60 {
				continue again
			}
		}
		found := time.Date(y, mo, d, h, m, s, 0, zone)
		if found.Hour() != h { // the clock leaves this hour out
			h, m, s = h+1, 0, 0
			continue again
		}
		return found.Add(repeated)
	}
}

func daysIn(month time.Month, year int) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
