package release

import (
	"net/url"
	"strings"
	"time"
)

// Health is a check that the agent makes after a step's scripts, until it passes once or fails Retries times in a row
// after StartPeriod. ${NAME} in HTTP, TCP and Exec is replaced from the step's environment, on the host.
type Health struct {
	HTTP        string   `json:"http,omitempty" doc:"URL; a 2xx or 3xx answer passes"`
	TCP         string   `json:"tcp,omitempty" doc:"host:port; an accepted connection passes"`
	Exec        string   `json:"exec,omitempty" doc:"Script; exit code 0 passes" format:"script"`
	Interval    Duration `json:"interval,omitempty" doc:"Between two checks. Defaults to 2s"`
	Timeout     Duration `json:"timeout,omitempty" doc:"Of one check. Defaults to 5s"`
	Retries     int      `json:"retries,omitempty" minimum:"0" maximum:"1000" doc:"Failures in a row that make the step fail. Defaults to 3"`
	StartPeriod Duration `json:"start_period,omitempty" doc:"Failures within this time do not count. Defaults to 0s"`
}

// WithDefaults fills what was left out.
func (h Health) WithDefaults() Health {
	h.Interval = h.Interval.or(2 * time.Second)
	h.Timeout = h.Timeout.or(5 * time.Second)
	if h.Retries == 0 {
		h.Retries = 3
	}
	return h
}

// filled is WithDefaults of a check that may not be there.
func (h *Health) filled() *Health {
	if h == nil {
		return nil
	}
	full := h.WithDefaults()
	return &full
}

// Longest gives an upper bound of the time that the check can take.
func (h Health) Longest() time.Duration {
	h = h.WithDefaults()
	return h.StartPeriod.Std() + time.Duration(h.Retries+1)*(h.Interval.Std()+h.Timeout.Std())
}

const maxHealthDuration = time.Hour

func (h *Health) validate(field string) error {
	n := 0
	for _, probe := range []string{h.HTTP, h.TCP, h.Exec} {
		if probe != "" {
			n++
		}
	}
	if n != 1 {
		return Invalid(field, "wants exactly one of http, tcp and exec")
	}
	if h.HTTP != "" {
		u, err := url.Parse(strings.NewReplacer("${", "", "}", "").Replace(h.HTTP))
		if err != nil && !strings.Contains(h.HTTP, "${") || err == nil && u.Scheme != "http" && u.Scheme != "https" {
			return Invalid(field+".http", "%q is not an http or https URL", h.HTTP)
		}
	}
	if h.TCP != "" && !strings.Contains(h.TCP, ":") {
		return Invalid(field+".tcp", "%q is not host:port", h.TCP)
	}
	if h.Retries < 0 || h.Retries > 1000 {
		return Invalid(field+".retries", "%d is not between 0 and 1000", h.Retries)
	}
	for _, d := range []struct {
		name  string
		value Duration
	}{{"interval", h.Interval}, {"timeout", h.Timeout}, {"start_period", h.StartPeriod}} {
		if d.value.Std() > maxHealthDuration {
			return Invalid(field+"."+d.name, "%s is longer than the limit of %s", d.value, maxHealthDuration)
		}
	}
	return nil
}
