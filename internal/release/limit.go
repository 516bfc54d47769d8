package release

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Limit is a number of hosts, absolute ("3") or as a share of a whole ("10%"). The zero value is none at all.
type Limit struct {
	Count   int
	Percent float64 // used when IsShare
	IsShare bool
}

// Of gives the limit in hosts out of a total; a share is rounded down.
func (l Limit) Of(total int) int {
	if l.IsShare {
		return int(float64(total) * l.Percent / 100)
	}
	return l.Count
}

func (l Limit) String() string {
	if l.IsShare {
		return strconv.FormatFloat(l.Percent, 'f', -1, 64) + "%"
	}
	return strconv.Itoa(l.Count)
}

// MarshalText writes "3" or "10%".
func (l Limit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads "3" or "10%". Empty text is zero.
func (l *Limit) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if s == "" {
		*l = Limit{}
		return nil
	}
	if share, ok := strings.CutSuffix(s, "%"); ok {
		p, err := strconv.ParseFloat(share, 64)
		if err != nil || !(p >= 0 && p <= 100) {
			return fmt.Errorf("%q is not a percentage between 0%% and 100%%", s)
		}
		*l = Limit{Percent: p, IsShare: true}
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is neither a count such as 3 nor a percentage such as 10%%", s)
	}
	*l = Limit{Count: n}
	return nil
}

// UnmarshalJSON reads 3, "3" or "10%".
func (l *Limit) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		text = string(data) // a number, or nothing that UnmarshalText takes
	}
	return l.UnmarshalText([]byte(text))
}
