package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/release"
)

const schedules = "/api/release/schedules"

const nightly = `{"name":"nightly","cron":"30 2 * * *","timezone":"Europe/Berlin","task":{"project":"hello","version":"1.0","targets":{"selector":"*"}}}`

func TestScheduleFromBeginningToEnd(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(2, nil)
	v := s.AddVersion("hello", "1.0")
	status, text := do(t, s, "POST", schedules, nightly)
	require.Equal(t, 201, status, text)
	made := read[release.Schedule](t, text)
	require.Equal(t, v.ProjectID, made.ProjectID)
	require.Equal(t, release.OverlapSkip, made.Overlap)
	require.Equal(t, 10*time.Minute, made.CatchupWindow.Std())
	require.Equal(t, apitest.Admin, made.CreatedBy)
	require.True(t, made.InEffect)
	require.Len(t, made.Next, 5)
	for _, next := range made.Next {
		require.Equal(t, "02:30", next.Format("15:04"), "by the clock of its zone, or %s", text)
	}
	require.Equal(t, []string{"apply " + made.ID}, s.Schedules.Calls())

	status, text = do(t, s, "POST", schedules, nightly)
	require.Equal(t, 409, status, text)

	status, text = do(t, s, "PATCH", schedules+"/nightly", `{"cron":"0 4 * * 1","jitter":"30s","revision":1}`)
	require.Equal(t, 200, status, text)
	changed := read[release.Schedule](t, text)
	require.Equal(t, "0 4 * * 1", changed.Cron)
	require.Equal(t, "Europe/Berlin", changed.Timezone, "what is left out stays")
	require.EqualValues(t, 2, changed.Revision)
	status, text = do(t, s, "PATCH", schedules+"/nightly", `{"note":"x","revision":1}`)
	require.Equal(t, 409, status, text)

	status, text = do(t, s, "POST", schedules+"/nightly/pause", `{"note":"freeze"}`)
	require.Equal(t, 200, status, text)
	paused := read[release.Schedule](t, text)
	require.True(t, paused.Paused)
	require.Equal(t, "freeze", paused.Note)
	require.Empty(t, paused.Next)
	status, text = do(t, s, "POST", schedules+"/nightly/trigger", "")
	require.Equal(t, 202, status, text)
	require.Equal(t, apitest.Admin, read[release.Fire](t, text).By)
	status, text = do(t, s, "POST", schedules+"/nightly/resume", "")
	require.Equal(t, 200, status, text)
	require.False(t, read[release.Schedule](t, text).Paused)
	status, text = do(t, s, "GET", schedules+"/nightly/fires?state=requested", "")
	require.Equal(t, 200, status, text)
	require.Equal(t, 1, read[api.FireList](t, text).Total)

	at := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	status, text = do(t, s, "PATCH", schedules+"/nightly", fmt.Sprintf(`{"at":%q}`, at.Format(time.RFC3339)))
	require.Equal(t, 200, status, text)
	once := read[release.Schedule](t, text)
	require.Empty(t, once.Cron)
	require.Len(t, once.Next, 1)
	require.True(t, at.Equal(once.Next[0]))
	status, text = do(t, s, "PUT", schedules+"/nightly", nightly)
	require.Equal(t, 200, status, text)
	require.Nil(t, read[release.Schedule](t, text).At)

	status, text = do(t, s, "GET", schedules+"?project=hello", "")
	require.Equal(t, 200, status, text)
	listed := read[api.ScheduleList](t, text)
	require.Equal(t, 1, listed.Total)
	require.Len(t, listed.Schedules[0].Next, 5)
	require.Len(t, listed.Schedules[0].Last, 1)

	// A version that may not be deployed any more keeps no one from changing the rest.
	status, _ = do(t, s, "PATCH", "/api/release/versions/"+v.ID, `{"status":"deprecated"}`)
	require.Equal(t, 200, status)
	status, text = do(t, s, "PATCH", schedules+"/nightly", `{"overlap":"allow"}`)
	require.Equal(t, 200, status, text)

	status, text = do(t, s, "DELETE", schedules+"/nightly", "")
	require.Equal(t, 204, status, text)
	for _, r := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"POST", "/trigger"}, {"POST", "/pause"}, {"GET", "/fires"}} {
		status, text = do(t, s, r[0], schedules+"/nightly"+r[1], "")
		require.Equal(t, 404, status, text)
	}
}

// What is stored is answered, and comes into effect later where Temporal is away.
func TestScheduleWithoutTemporal(t *testing.T) {
	s := apitest.Start(t)
	s.AddVersion("hello", "1.0")
	s.Schedules.Answer(release.Unavailable(nil, "away"))
	status, text := do(t, s, "POST", schedules, nightly)
	require.Equal(t, 201, status, text)
	require.False(t, read[release.Schedule](t, text).InEffect)
	status, text = do(t, s, "DELETE", schedules+"/nightly", "")
	require.Equal(t, 204, status, text)
}

func TestSchedulePreview(t *testing.T) {
	s := apitest.Start(t)
	status, text := do(t, s, "POST", schedules+"/preview?count=2", `{"cron":"0 0 13 * 5","timezone":"Asia/Shanghai","after":"2026-12-11T12:00:00Z"}`)
	require.Equal(t, 200, status, text)
	require.JSONEq(t, `{"cron":"0 0 13 * 5","timezone":"Asia/Shanghai","next":["2026-12-13T00:00:00+08:00","2026-12-18T00:00:00+08:00"]}`, text)
	require.Empty(t, s.Schedules.Calls())
	status, text = do(t, s, "POST", schedules+"/preview", `{"cron":"0 0 30 2 *"}`)
	require.Equal(t, 422, status, text)
}

func TestBadSchedules(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(1, nil)
	s.AddVersion("hello", "1.0")
	status, text := do(t, s, "POST", schedules, nightly)
	require.Equal(t, 201, status, text)
	task := `"task":{"project":"hello","version":"1.0","targets":{"selector":"*"}}`
	for _, c := range []struct {
		body, location string
	}{
		{`{"name":"x",` + task + `}`, "body.cron"},
		{`{"name":"x","cron":"@daily"}`, "body.task"},
		{`{"name":"X y","cron":"@daily",` + task + `}`, "body.name"},
		{`{"name":"x","cron":"61 * * * *",` + task + `}`, "body.cron"},
		{`{"name":"x","cron":"0 0 30 2 *",` + task + `}`, "body.cron"},
		{`{"name":"x","cron":"CRON_TZ=UTC @daily",` + task + `}`, "body.cron"},
		{`{"name":"x","cron":"@daily","timezone":"Berlin",` + task + `}`, "body.timezone"},
		{`{"name":"x","cron":"@daily","at":"2050-01-01T00:00:00Z",` + task + `}`, "body.at"},
		{`{"name":"x","at":"2020-01-01T00:00:00Z",` + task + `}`, "body.at"},
		{`{"name":"x","at":"2050-01-01T00:00:00.5Z",` + task + `}`, "body.at"},
		{`{"name":"x","at":"tomorrow",` + task + `}`, "body.at"},
		{`{"name":"x","cron":"@daily","overlap":"maybe",` + task + `}`, "body.overlap"},
		{`{"name":"x","cron":"@daily","catchup_window":"1s",` + task + `}`, "body.catchup_window"},
		{`{"name":"x","cron":"@daily","jitter":"25h",` + task + `}`, "body.jitter"},
		{`{"name":"x","cron":"@daily","when":"now",` + task + `}`, "body.when"},
		{`{"name":"x","cron":"@daily","task":{"project":"nope","version":"1.0","targets":{"selector":"*"}}}`, "body.task.project"},
		{`{"name":"x","cron":"@daily","task":{"project":"hello","version":"9","targets":{"selector":"*"}}}`, "body.task.version"},
		{`{"name":"x","cron":"@daily","task":{"project":"hello","version":"1.0"}}`, "body.task.targets"},
		{`{"name":"x","cron":"@daily","task":{"project":"hello","version":"1.0","targets":{"clients":["nobody"]}}}`, "body.task.targets.clients"},
		{`{"name":"x","cron":"@daily","task":{"project":"hello","version":"1.0","targets":{"selector":"*"},"strategy":{"waves":[50,10]}}}`, "body.task.strategy.waves"},
	} {
		for _, r := range [][2]string{{"POST", ""}, {"PUT", "/nightly"}} {
			status, text := do(t, s, r[0], schedules+r[1], c.body)
			require.Equal(t, 422, status, "%s %s: %s", r[0], c.body, text)
			require.Equal(t, c.location, read[problem](t, text).Errors[0].Location, "%s: %s", c.body, text)
		}
	}
	status, text = do(t, s, "PATCH", schedules+"/nightly", `{"cron":"@daily","at":"2050-01-01T00:00:00Z"}`)
	require.Equal(t, 422, status, text)
	require.Len(t, s.Schedules.Calls(), 1)
}
