package job

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quicflow/quicflow/internal/release"
)

var limits = Limits{MaxConcurrency: 500, TaskTimeout: release.Duration(5 * time.Minute), JobTimeout: release.Duration(time.Hour),
	RetryInterval: release.Duration(10 * time.Second), Retries: 3}

func duration(d time.Duration) release.Duration { return release.Duration(d) }

func TestWithDefaults(t *testing.T) {
	three, none := 3, 0
	require.Equal(t, Options{Concurrency: 500, TaskTimeout: duration(5 * time.Minute), JobTimeout: duration(time.Hour), Retries: &three,
		RetryInterval: duration(10 * time.Second)}, Options{}.WithDefaults(limits))
	asked := Options{Concurrency: 1, TaskTimeout: duration(2 * time.Hour), Retries: &none, RetryInterval: duration(time.Second),
		RetryOnFailure: true, MaxFailures: &release.Limit{Count: 2}, WaitOffline: duration(time.Hour)}
	got := asked.WithDefaults(limits)
	asked.JobTimeout = duration(3*time.Hour + time.Minute)
	require.Equal(t, asked, got, "a job takes at least as long as one of its hosts may")
	require.Equal(t, got, got.WithDefaults(limits))
}

func TestOptionsValidate(t *testing.T) {
	count := func(n int) *int { return &n }
	for field, bad := range map[string][]Options{
		"concurrency":    {{Concurrency: -1}, {Concurrency: 501}},
		"task_timeout":   {{TaskTimeout: -1}, {TaskTimeout: duration(MaxTaskTimeout + 1)}},
		"job_timeout":    {{JobTimeout: -1}, {JobTimeout: duration(MaxJobTimeout + 1)}},
		"wait_offline":   {{WaitOffline: -1}, {WaitOffline: duration(MaxWaitOffline + 1)}, {WaitOffline: duration(2 * time.Hour), JobTimeout: duration(time.Hour)}},
		"retries":        {{Retries: count(-1)}, {Retries: count(MaxRetries + 1)}},
		"retry_interval": {{RetryInterval: -1}, {RetryInterval: duration(MaxRetryInterval + 1)}},
		"max_failures":   {{MaxFailures: &release.Limit{Count: -1}}, {MaxFailures: &release.Limit{IsShare: true, Percent: 101}}},
	} {
		for _, o := range bad {
			err := o.Validate(limits)
			require.ErrorIs(t, err, release.ErrInvalid, "%+v", o)
			require.Contains(t, err.Error(), field+": ")
		}
	}
	for _, o := range []Options{{}, {Concurrency: 500}, {TaskTimeout: duration(MaxTaskTimeout), WaitOffline: duration(MaxWaitOffline)},
		{JobTimeout: duration(MaxJobTimeout)}, {Retries: count(0)}, {Retries: count(MaxRetries), RetryInterval: duration(MaxRetryInterval)},
		{MaxFailures: &release.Limit{IsShare: true, Percent: 100}}, {TaskTimeout: 1, JobTimeout: 1}} {
		require.NoError(t, o.Validate(limits), "%+v", o)
	}
	nothing := limits
	nothing.TaskTimeout = 0
	require.ErrorIs(t, Options{}.Validate(nothing), release.ErrInvalid, "no host may run for ever")
}

func TestCommandValidate(t *testing.T) {
	large := func(n int) string { return `{"a":"` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}` }
	for _, c := range []struct{ kind, payload, field string }{
		{"ping", ``, ""},
		{"ping", `{}`, ""},
		{"system.info-2_x", " {\"a\": [1, null]}\n", ""},
		{strings.Repeat("x", 64), large(MaxPayload), ""},
		{ExecShell, `{"command": "uptime", "more": 1}`, ""},
		{"", ``, "command_type"},
		{strings.Repeat("x", 65), ``, "command_type"},
		{"Ping", ``, "command_type"},
		{"a b", ``, "command_type"},
		{"a/b", ``, "command_type"},
		{"ping\x00", ``, "command_type"},
		{"püng", ``, "command_type"},
		{"ping", large(MaxPayload + 1), "payload"},
		{"ping", `[]`, "payload"},
		{"ping", `null`, "payload"},
		{"ping", `"{}"`, "payload"},
		{"ping", `{`, "payload"},
		{"ping", `{} {}`, "payload"},
		{"ping", ` `, "payload"},
		{"ping", "{\"a\": \"\xff\"}", "payload"},
		{ExecShell, ``, "payload.command"},
		{ExecShell, `{}`, "payload.command"},
		{ExecShell, `{"command": null}`, "payload.command"},
		{ExecShell, `{"command": ["ls"]}`, "payload.command"},
		{ExecShell, `{"command": " \n"}`, "payload.command"},
	} {
		err := Command{Type: c.kind, Payload: json.RawMessage(c.payload)}.Validate()
		if c.field == "" {
			require.NoError(t, err, "%.40q %.40q", c.kind, c.payload)
			continue
		}
		require.ErrorIs(t, err, release.ErrInvalid, "%.40q %.40q", c.kind, c.payload)
		require.Contains(t, err.Error(), c.field+": ")
	}
}

func TestRetryState(t *testing.T) {
	for _, s := range States() {
		notStarted := s == StateRefused || s == StateOffline
		require.Equal(t, notStarted, RetryState(s, Options{}), s)
		require.Equal(t, notStarted || s == StateFailed || s == StateTimeout, RetryState(s, Options{RetryOnFailure: true}), s)
	}
}

func TestFinal(t *testing.T) {
	one, tenth := Options{MaxFailures: &release.Limit{Count: 1}}, Options{MaxFailures: &release.Limit{Percent: 10, IsShare: true}}
	for _, c := range []struct {
		name   string
		counts Counts
		o      Options
		status Status
		reason string
	}{
		{"all did it", Counts{Total: 3, Succeeded: 3}, Options{}, StatusCompleted, ""},
		{"some did it", Counts{Total: 9, Succeeded: 3, Failed: 1, Timeout: 1, Offline: 4}, Options{}, StatusPartial,
			"6 of 9 hosts did not complete it: 1 failed, 1 timeout, 4 offline"},
		{"none did it", Counts{Total: 3, Refused: 1, Unknown: 2}, Options{}, StatusFailed, "no host completed it: 1 refused, 2 unknown"},
		{"some failed, as tolerated", Counts{Total: 3, Succeeded: 2, Failed: 1}, one, StatusPartial, "1 of 3 hosts did not complete it: 1 failed"},
		{"more failed", Counts{Total: 3, Succeeded: 1, Failed: 1, Offline: 1}, one, StatusFailed, "2 of 3 hosts failed; 1 tolerated"},
		{"cancelled and skipped ones are not charged", Counts{Total: 30, Succeeded: 1, Cancelled: 9, Skipped: 20}, tenth, StatusPartial,
			"29 of 30 hosts did not complete it: 9 cancelled, 20 skipped"},
		{"a share", Counts{Total: 30, Succeeded: 26, Failed: 1, Timeout: 1, Refused: 1, Unknown: 1}, tenth, StatusFailed, "4 of 30 hosts failed; 3 tolerated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, reason := Final(c.counts, c.o)
			require.Equal(t, c.status, status)
			require.Equal(t, c.reason, reason)
		})
	}
}

func TestStatusTransitions(t *testing.T) {
	for _, from := range Statuses() {
		require.True(t, from.CanBecome(from))
		if !from.Terminal() {
			require.True(t, from.CanBecome(StatusFailed), "%s must be able to fail", from)
		}
		for _, to := range Statuses() {
			require.False(t, from.Terminal() && from != to && from.CanBecome(to), "%s is an end", from)
		}
	}
}

func TestCommandStates(t *testing.T) {
	seen := 0
	for _, status := range []string{"pending", "executing", "completed", "failed", "timeout", "cancelled"} {
		states := CommandStates(status)
		require.NotEmpty(t, states, status)
		seen += len(states)
		for _, s := range states {
			require.Equal(t, status, s.CommandStatus())
		}
	}
	require.Equal(t, len(States()), seen)
	require.Empty(t, CommandStates("running"))
}

func TestCommandID(t *testing.T) {
	jobID, clientID, err := ParseCommandID(CommandID("0190-ab", "web.1"))
	require.NoError(t, err)
	require.Equal(t, []string{"0190-ab", "web.1"}, []string{jobID, clientID})
	for _, id := range []string{"", "a", ".b", "a."} {
		_, _, err := ParseCommandID(id)
		require.ErrorIs(t, err, release.ErrNotFound, id)
	}
}

// Counts add up, whatever is counted, and a job whose hosts are all decided gets a verdict that fits them.
func TestCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Counts
		sum := 0
		for _, s := range States() {
			n := rapid.IntRange(0, 5).Draw(t, string(s))
			c.Add(s, n)
			sum += n
		}
		require.Equal(t, sum, c.Total)
		require.Equal(t, c.Total, c.Open()+c.Charged()+c.Succeeded+c.Cancelled+c.Skipped)
		c.Add(StatePending, -c.Pending)
		c.Add(StateRunning, -c.Running)
		var o Options
		if rapid.Bool().Draw(t, "limited") {
			o.MaxFailures = &release.Limit{Count: rapid.IntRange(0, 30).Draw(t, "max_failures")}
		}
		status, reason := Final(c, o)
		require.True(t, status.Terminal())
		require.Equal(t, status == StatusCompleted, reason == "")
		require.Equal(t, status == StatusCompleted, c.Succeeded == c.Total)
		if Exceeded(c, o) {
			require.Equal(t, StatusFailed, status)
		}
	})
}

// What has its defaults stays as it is, and is as valid as it was without.
func TestDefaultsKeepValidity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		span := rapid.Map(rapid.Int64Range(-1, int64(31*24*time.Hour)), func(n int64) release.Duration { return release.Duration(n) })
		o := Options{Concurrency: rapid.IntRange(-1, 600).Draw(t, "concurrency"), TaskTimeout: span.Draw(t, "task_timeout"),
			JobTimeout: span.Draw(t, "job_timeout"), WaitOffline: span.Draw(t, "wait_offline"), RetryInterval: span.Draw(t, "retry_interval")}
		full := o.WithDefaults(limits)
		require.Equal(t, full, full.WithDefaults(limits))
		require.Equal(t, o.Validate(limits) == nil, full.Validate(limits) == nil)
		if o.JobTimeout == 0 && o.Validate(limits) == nil {
			require.Greater(t, full.JobTimeout, full.TaskTimeout+full.WaitOffline)
		}
	})
}
