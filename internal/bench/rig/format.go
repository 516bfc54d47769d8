package rig

import (
	"fmt"
	"slices"
	"time"
)

// Size is for people.
func Size(bytes int64) string {
	switch {
	case bytes >= 10<<30:
		return fmt.Sprintf("%.0f GiB", float64(bytes)/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
}

// Short rounds a time to three digits or so.
func Short(d time.Duration) string {
	for _, step := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= 100*step {
			return d.Round(step).String()
		}
		if d >= step {
			return d.Round(step / 100).String()
		}
	}
	return d.String()
}

// Median is 0 of none.
func Median[T int64 | float64 | time.Duration](values []T) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// Ratio is "-" where there is none.
func Ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

// Heading begins a table.
func Heading(format string, values ...any) { fmt.Printf("\n"+format+"\n", values...) }
