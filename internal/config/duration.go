package config

import (
	"fmt"
	"strconv"
	"time"
)

// Duration is a time span that may be written as a number of seconds (15, 0.5) or as text (15s, 2m30s).
type Duration time.Duration

// Std gives the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes whole seconds as a number and everything else as text, so that it reads back equal.
func (d Duration) String() string {
	if t := d.Std(); t%time.Second != 0 {
		return t.String()
	}
	return strconv.FormatInt(int64(d.Std()/time.Second), 10)
}

func seconds(n int) Duration { return Duration(time.Duration(n) * time.Second) }

func parseDuration(text string) (Duration, error) {
	if t, err := time.ParseDuration(text); err == nil {
		return Duration(t), nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n != n || n > 1e9 || n < -1e9 {
		return 0, fmt.Errorf("%q is neither a number of seconds such as 15 nor a duration such as 15s or 2m", text)
	}
	return Duration(n * float64(time.Second)), nil
}
