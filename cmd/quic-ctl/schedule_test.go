package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/apiclient"
)

func TestSchedulesByHand(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(1, nil)
	s.AddVersion("hello", "1.0")
	ok := func(args ...string) result {
		t.Helper()
		r := quicCtl(t, s, args...)
		require.Zero(t, r.code, "%v: %s", args, r.err)
		return r
	}
	r := ok("schedule", "create", "nightly", "--cron", "30 2 * * *", "--timezone", "Asia/Shanghai", "--project", "hello", "--version", "1.0",
		"--selector", "*", "--canary", "10", "--overlap", "buffer_one", "--jitter", "1m")
	require.Contains(t, r.err, "02:30:00 +0800")
	var made apiclient.Schedule
	require.NoError(t, json.Unmarshal([]byte(ok("schedule", "get", "nightly", "-o", "json").out), &made))
	require.EqualValues(t, "buffer_one", made.Overlap)
	require.Equal(t, "*", made.Task.Targets.Selector)
	require.InDelta(t, 10, made.Task.Strategy.Canary.Percent, 0)

	text := ok("schedule", "get", "nightly").out
	require.Contains(t, text, "nightly: hello 1.0, active\n30 2 * * * Asia/Shanghai; overlap buffer_one, catch-up window 10m0s, jitter 1m0s\nnext: ")
	require.Contains(t, text, "02:30:00 +0800")

	ok("schedule", "create", "-f", file(t, "name: filed\ncron: '@daily'\ntask:\n  project: hello\n  version: \"1.0\"\n  targets: {selector: '*'}\n"),
		"--selector", "env=prod", "--paused", "--note", "not yet")
	require.NoError(t, json.Unmarshal([]byte(ok("schedule", "get", "filed", "-o", "json").out), &made))
	require.Equal(t, "env=prod", made.Task.Targets.Selector)
	require.Contains(t, ok("schedule", "get", "filed").out, "paused: not yet")
	r = quicCtl(t, s, "schedule", "create", "-f", file(t, "name: x\ncron: nonsense\ntask:\n  project: hello\n  version: \"1.0\"\n  targets: {selector: '*'}\n"))
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "file.yaml:2: cron: ")

	r = ok("schedule", "list")
	require.Regexp(t, `filed +hello +1.0 +@daily +paused`, r.out)
	require.Regexp(t, `nightly +hello +1.0 +30 2 \* \* \* Asia/Shanghai +20`, r.out)

	ok("schedule", "pause", "nightly", "--note", "freeze")
	require.Contains(t, ok("schedule", "get", "nightly").out, "paused: freeze")
	ok("schedule", "trigger", "nightly")
	require.Regexp(t, `requested +- +admin`, ok("schedule", "fires", "nightly").out)
	require.Contains(t, ok("schedule", "get", "nightly").out, "requested")
	ok("schedule", "resume", "nightly")
	ok("schedule", "delete", "nightly")
	require.Equal(t, 1, quicCtl(t, s, "schedule", "get", "nightly").code)

	require.Equal(t, "[]\n", ok("schedule", "fires", "filed", "-o", "json").out)
	text = ok("schedule", "preview", "0 12 * * *", "--timezone", "America/New_York", "--count", "3").out
	require.Regexp(t, `^next: .* 12:00:00 -0[45]00.*\n      .*12:00:00.*\n      .*12:00:00.*\n$`, text)

	at := time.Now().Add(48 * time.Hour).Format("2006-01-02")
	r = ok("task", "create", "--project", "hello", "--version", "1.0", "--selector", "*", "--at", at+" 03:00", "--timezone", "Asia/Tokyo", "-o", "json")
	require.NoError(t, json.Unmarshal([]byte(r.out), &made))
	require.Equal(t, at+"T03:00:00+09:00", made.Next[0].Format(time.RFC3339))
	require.Regexp(t, `^hello-20\d{6}-\d{6}$`, made.Name)
	for _, args := range [][]string{
		{"task", "create", "--project", "hello", "--version", "1.0", "--selector", "*", "--at", "tomorrow"},
		{"task", "create", "--project", "hello", "--version", "1.0", "--selector", "*", "--at", at + " 03:00", "--wait"},
		{"schedule", "create"},
	} {
		require.Equal(t, 2, quicCtl(t, s, args...).code, args)
	}
}
