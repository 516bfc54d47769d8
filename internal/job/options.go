package job

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/quicflow/quicflow/internal/release"
)

// The limits of jobs. None of them can be configured away.
const (
	MaxTargets       = 100_000 // hosts of a job
	MaxPayload       = 256 << 10
	MaxTaskTimeout   = 7 * 24 * time.Hour
	MaxWaitOffline   = 7 * 24 * time.Hour
	MaxJobTimeout    = 30 * 24 * time.Hour // as long as Temporal keeps what has ended
	MaxRetries       = 100
	MaxRetryInterval = 24 * time.Hour

	maxCommandType = 64
	jobTimeSlack   = time.Minute // beyond what one host may take, for the default of job_timeout
)

// ExecShell is the command that runs a line in the shell.
const ExecShell = "exec_shell"

// Limits are the defaults and bounds that the configuration sets for all jobs (batch.*).
type Limits struct {
	MaxConcurrency int // the default, too
	TaskTimeout    release.Duration
	JobTimeout     release.Duration
	RetryInterval  release.Duration
	Retries        int
}

// WithDefaults fills in what is not set. Without a job_timeout a job gets that of the configuration, or what one host may
// take where that is more.
func (o Options) WithDefaults(l Limits) Options {
	if o.Concurrency == 0 {
		o.Concurrency = l.MaxConcurrency
	}
	if o.TaskTimeout == 0 {
		o.TaskTimeout = l.TaskTimeout
	}
	if o.JobTimeout == 0 {
		o.JobTimeout = max(l.JobTimeout, o.TaskTimeout+o.WaitOffline+release.Duration(jobTimeSlack))
	}
	if o.Retries == nil {
		retries := l.Retries
		o.Retries = &retries
	}
	if o.RetryInterval == 0 {
		o.RetryInterval = l.RetryInterval
	}
	return o
}

// Validate checks what a user may set, whether or not it has its defaults yet.
func (o Options) Validate(l Limits) error {
	o = o.WithDefaults(l)
	if o.Concurrency < 1 || o.Concurrency > l.MaxConcurrency {
		return release.Invalid("concurrency", "%d is not between 1 and %d", o.Concurrency, l.MaxConcurrency)
	}
	for _, d := range []struct {
		field     string
		value     release.Duration
		most      time.Duration
		mayBeZero bool
	}{
		{"task_timeout", o.TaskTimeout, MaxTaskTimeout, false},
		{"wait_offline", o.WaitOffline, MaxWaitOffline, true},
		{"job_timeout", o.JobTimeout, MaxJobTimeout, false},
		{"retry_interval", o.RetryInterval, MaxRetryInterval, true},
	} {
		switch {
		case d.value < 0:
			return release.Invalid(d.field, "%s is negative", d.value)
		case d.value == 0 && !d.mayBeZero:
			return release.Invalid(d.field, "must be more than 0s")
		case d.value.Std() > d.most:
			return release.Invalid(d.field, "%s is longer than the limit of %s", d.value, d.most)
		}
	}
	if o.WaitOffline > o.JobTimeout {
		return release.Invalid("wait_offline", "%s is longer than job_timeout, which is %s", o.WaitOffline, o.JobTimeout)
	}
	if *o.Retries < 0 || *o.Retries > MaxRetries {
		return release.Invalid("retries", "%d is not between 0 and %d", *o.Retries, MaxRetries)
	}
	if m := o.MaxFailures; m != nil && (m.Count < 0 || m.IsShare && !(m.Percent >= 0 && m.Percent <= 100)) {
		return release.Invalid("max_failures", "%s is neither a count such as 3 nor a percentage such as 10%%", m)
	}
	return nil
}

// Validate checks the form of a command. Whether there is one of its type is for the agent to say.
func (c Command) Validate() error {
	if c.Type == "" || len(c.Type) > maxCommandType {
		return release.Invalid("command_type", "must be 1 to %d characters long", maxCommandType)
	}
	if strings.ContainsFunc(c.Type, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
	}) {
		return release.Invalid("command_type", "%q has other characters than a-z, 0-9, '.', '_' and '-'", c.Type)
	}
	if len(c.Payload) > MaxPayload {
		return release.Invalid("payload", "has %d bytes; the limit is %d", len(c.Payload), MaxPayload)
	}
	if len(c.Payload) > 0 && (!utf8.Valid(c.Payload) || !json.Valid(c.Payload) || bytes.TrimSpace(c.Payload)[0] != '{') {
		return release.Invalid("payload", "must be a JSON object")
	}
	if c.Type != ExecShell {
		return nil
	}
	var shell struct {
		Command json.RawMessage `json:"command"`
	}
	if len(c.Payload) > 0 {
		if err := json.Unmarshal(c.Payload, &shell); err != nil {
			return release.Invalid("payload", "must be a JSON object")
		}
	}
	var line string
	if json.Unmarshal(shell.Command, &line) != nil || strings.TrimSpace(line) == "" {
		return release.Invalid("payload.command", "must be the line to run, a text that is not empty")
	}
	return nil
}

// RetryState says whether a host in this state may be tried again: one that did not start, and one that failed or took too
// long where the job asks for that. What cannot be known is never tried again.
func RetryState(s State, o Options) bool {
	switch s {
	case StateRefused, StateOffline:
		return true
	case StateFailed, StateTimeout:
		return o.RetryOnFailure
	}
	return false
}

// Exceeded says whether more hosts failed than the job tolerates.
func Exceeded(c Counts, o Options) bool {
	return o.MaxFailures != nil && c.Charged() > o.MaxFailures.Of(c.Total)
}

// Final gives the verdict on a job that went over all its hosts, and one line that says why it did not complete.
func Final(c Counts, o Options) (Status, string) {
	switch {
	case Exceeded(c, o):
		return StatusFailed, fmt.Sprintf("%d of %d hosts failed; %d tolerated", c.Charged(), c.Total, o.MaxFailures.Of(c.Total))
	case c.Succeeded == c.Total:
		return StatusCompleted, ""
	case c.Succeeded == 0:
		return StatusFailed, "no host completed it: " + c.undone()
	}
	return StatusPartial, fmt.Sprintf("%d of %d hosts did not complete it: %s", c.Total-c.Succeeded, c.Total, c.undone())
}

// undone tells how the hosts ended that did not do it, as "3 failed, 1 offline".
func (c Counts) undone() string {
	var words []string
	for _, s := range States() {
		if n := *c.of(s); n > 0 && s != StateSucceeded {
			words = append(words, fmt.Sprintf("%d %s", n, s))
		}
	}
	return strings.Join(words, ", ")
}
