package api_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

func TestBatchFromRequestToEnd(t *testing.T) { onBoth(t, testBatchFromRequestToEnd) }

func testBatchFromRequestToEnd(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(5, map[string]string{"env": "prod"})
	status, body := do(t, s, "POST", "/api/batch/execute", `{"command":"uptime","selector":"env=prod","target_clients":["client-1","client-2","client-3","client-4"],
		"concurrency":2,"task_timeout":"5s","job_timeout":"1h","retries":0,"retry_interval":"3s","retry_on_failure":true,"max_failures":"50%","wait_offline":"10m"}`)
	require.Equal(t, 200, status, body)
	made := read[map[string]any](t, body)
	require.Equal(t, true, made["success"])
	id, _ := made["job_id"].(string)
	require.NotEmpty(t, id)
	require.Equal(t, []string{"start " + id}, s.Jobs.Calls())
	j, err := s.Store.Job(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, job.KindBatch, j.Kind)
	require.Equal(t, job.Command{Type: "exec_shell", Payload: []byte(`{"command":"uptime"}`)}, j.Command)
	zero := 0
	require.Equal(t, job.Options{
		Concurrency: 2, TaskTimeout: release.Duration(5 * time.Second), JobTimeout: release.Duration(time.Hour), Retries: &zero, RetryInterval: release.Duration(3 * time.Second),
		RetryOnFailure: true, MaxFailures: &release.Limit{Percent: 50, IsShare: true}, WaitOffline: release.Duration(10 * time.Minute),
	}, j.Options)

	get := func() map[string]any {
		status, body := do(t, s, "GET", "/api/batch/jobs/"+id, "")
		require.Equal(t, 200, status, body)
		return read[map[string]any](t, body)
	}
	check := func(status string, total, success, failed, pending, running float64) {
		t.Helper()
		now := get()
		require.Equal(t, status, now["status"])
		require.Equal(t, []any{total, success, failed, pending, running},
			[]any{now["total"], now["success_count"], now["failed_count"], now["pending_count"], now["running_count"]})
	}
	check("starting", 4, 0, 0, 4, 0)
	s.DispatchJob(id, clients[:3]...)
	check("running", 4, 0, 0, 1, 3)
	s.Print(id, clients[0], release.StreamStdout, "up 3 days\n")
	s.End(id, clients[0], release.StepResult{StdoutTail: []byte("up 3 days\n")})
	s.End(id, clients[1], release.StepResult{State: release.StepFailed, ExitCode: 1, Error: "exit code 1"})
	s.Conclude(id, clients[2], job.StateOffline, "not connected")
	check("running", 4, 1, 2, 1, 0)
	require.Equal(t, 1.0, get()["counts"].(map[string]any)["offline"])
	require.Equal(t, map[string]any{"command": "uptime"}, get()["payload"])
	require.Equal(t, "exec_shell", get()["command_type"])

	for query, want := range map[string]int{"": 4, "?state=offline": 1, "?state=pending": 1, "?state=unknown": 0} {
		status, body := do(t, s, "GET", "/api/batch/jobs/"+id+"/targets"+query, "")
		require.Equal(t, 200, status, body)
		list := read[api.JobTargetList](t, body)
		require.Len(t, list.Targets, want, query)
		require.Equal(t, want, list.Total, query)
	}
	_, body = do(t, s, "GET", "/api/batch/jobs/"+id+"/targets?limit=1", "")
	first := read[api.JobTargetList](t, body).Targets[0]
	require.Equal(t, job.CommandID(id, clients[0]), first.CommandID)
	require.Equal(t, "up 3 days\n", first.Stdout)
	require.Equal(t, "completed", first.Status)

	// One code gives the logs of tasks and of jobs.
	_, body = do(t, s, "GET", "/api/batch/jobs/"+id+"/logs", "")
	page := read[api.LogPage](t, body)
	require.Len(t, page.Logs, 1)
	require.Equal(t, "command", page.Logs[0].Step)
	var names []string
	stream(t, s, "/api/batch/jobs/"+id+"/logs", 0, func(e event) bool {
		names = append(names, e.name)
		switch e.name {
		case "log":
			require.Equal(t, "up 3 days\n", read[api.LogLine](t, e.data).Text)
		case "job":
			if read[api.BatchJob](t, e.data).Status == job.StatusRunning {
				s.SetJob(id, job.StatusFailed, "3 of 4 hosts failed; 2 tolerated")
			}
		case "end":
			require.Equal(t, api.LogEnd{Status: "failed", LogsComplete: true, Missing: []string{}}, read[api.LogEnd](t, e.data))
		}
		return true
	})
	require.Equal(t, []string{"log", "job", "job", "end"}, names)
	check("failed", 4, 1, 3, 0, 0)
	require.Equal(t, "3 of 4 hosts failed; 2 tolerated", get()["reason"])

	// Jobs of other kinds are listed, single commands only where they are asked for.
	_, body = do(t, s, "POST", "/api/command", `{"client_id":"client-1","command_type":"ping"}`)
	one, _, _ := job.ParseCommandID(read[api.CommandAnswer](t, body).ID)
	for query, want := range map[string][]string{"": {id}, "?status=failed": {id}, "?status=running": {}, "?kind=command": {one}, "?kind=multi": {}, "?kind=batch&limit=1&offset=1": {}} {
		_, body := do(t, s, "GET", "/api/batch/jobs"+query, "")
		got := []string{}
		for _, j := range read[api.BatchJobList](t, body).Jobs {
			got = append(got, j.ID)
		}
		require.Equal(t, want, got, query)
		require.NotContains(t, body, "uptime", "payloads are not in lists")
	}
	status, _ = do(t, s, "GET", "/api/batch/jobs/"+one, "")
	require.Equal(t, 200, status)
}

func TestBatchWaitsForTheResult(t *testing.T) { onBoth(t, testBatchWaitsForTheResult) }

func testBatchWaitsForTheResult(t *testing.T, start starter) {
	s := start(t)
	s.AddClients(3, nil)
	fails := ""
	carry(s, func(client string) release.StepResult {
		if client == fails {
			return release.StepResult{State: release.StepFailed, ExitCode: 1}
		}
		return release.StepResult{}
	})
	for _, c := range []struct {
		fails   string
		success bool
		status  job.Status
	}{{"", true, job.StatusCompleted}, {"client-2", false, job.StatusPartial}} {
		fails = c.fails
		status, body := do(t, s, "POST", "/api/batch/execute", `{"command_type":"system.info","target_clients":["client-1","client-2"],"wait_for_result":true}`)
		require.Equal(t, 200, status, body)
		answer := read[api.BatchAnswer](t, body)
		require.Equal(t, c.success, answer.Success)
		require.Equal(t, c.status, answer.Status)
		require.Equal(t, 2, answer.SuccessCount+answer.FailedCount)
		require.NotEmpty(t, answer.ID)
	}
}

// The forms of a command, and what becomes of clients that are not known.
func TestBatchCommandForms(t *testing.T) { onBoth(t, testBatchCommandForms) }

func testBatchCommandForms(t *testing.T, start starter) {
	s := start(t)
	s.AddClients(2, nil)
	for body, want := range map[string]job.Command{
		`"command":"df -h | tail -n 1"`:                                   {Type: "exec_shell", Payload: []byte(`{"command":"df -h | tail -n 1"}`)},
		`"command":"exec_shell","payload":{"command":"ls","env":{}}`:      {Type: "exec_shell", Payload: []byte(`{"command":"ls","env":{}}`)},
		`"command_type":"exec_shell","payload":{"command":"ls"}`:          {Type: "exec_shell", Payload: []byte(`{"command":"ls"}`)},
		`"command_type":"ping"`:                                           {Type: "ping"},
		`"command":"echo","payload":{"number":9007199254740993,"a":"<b"}`: {Type: "echo", Payload: []byte(`{"number":9007199254740993,"a":"<b"}`)},
	} {
		status, text := do(t, s, "POST", "/api/batch/execute", `{`+body+`,"target_clients":["client-2","ghost","client-2"],"allow_missing":true}`)
		require.Equal(t, 200, status, text)
		answer := read[api.BatchAnswer](t, text)
		require.Equal(t, []string{"ghost"}, answer.Missing)
		require.Equal(t, 1, answer.Total)
		j, err := s.Store.Job(t.Context(), answer.ID)
		require.NoError(t, err)
		require.Equal(t, want.Type, j.Command.Type)
		require.Equal(t, string(want.Payload), string(j.Command.Payload))
	}
	require.NoError(t, s.Store.RevokeClient(t.Context(), "client-2"))
	status, text := do(t, s, "POST", "/api/batch/execute", `{"command":"ls","target_clients":["client-1","client-2"]}`)
	require.Equal(t, 422, status)
	require.Contains(t, text, "client-2 is not known")
}

func TestBatchControl(t *testing.T) { onBoth(t, testBatchControl) }

func testBatchControl(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(1, nil)
	j := s.AddJob(job.Options{}, clients...)
	base := "/api/batch/jobs/" + j.ID
	for _, name := range []string{"pause", "resume", "cancel"} {
		status, text := do(t, s, "POST", base+"/"+name, `{"reason":"because"}`)
		require.Equal(t, 200, status, text)
		require.Equal(t, j.ID, read[api.BatchJob](t, text).ID)
		status, text = do(t, s, "POST", base+"/"+name, "")
		require.Equal(t, 200, status, text)
		calls := s.Jobs.Calls()
		require.Equal(t, []string{name + " " + j.ID + " admin because", name + " " + j.ID + " admin "}, calls[len(calls)-2:])
	}
	s.Jobs.Answer(release.Conflict("the job is not paused"))
	status, text := do(t, s, "POST", base+"/resume", "")
	require.Equal(t, 409, status)
	require.Equal(t, "the job is not paused", read[problem](t, text).Detail)
	s.Jobs.Answer(release.Unavailable(io.EOF, "no worker"))
	res := open(t, s.Request("POST", base+"/cancel", nil))
	res.Body.Close()
	require.Equal(t, 503, res.StatusCode)
	require.Equal(t, "5", res.Header.Get("Retry-After"))
	s.Jobs.Answer(nil)

	// Cancelling twice is refused, and so is what has ended.
	before := len(s.Jobs.Calls())
	s.SetJob(j.ID, job.StatusCancelling, "")
	status, _ = do(t, s, "POST", base+"/cancel", "")
	require.Equal(t, 409, status)
	s.SetJob(j.ID, job.StatusCancelled, "")
	status, text = do(t, s, "POST", base+"/cancel", "")
	require.Equal(t, 409, status)
	require.Contains(t, text, "has ended")
	require.Len(t, s.Jobs.Calls(), before)
}

func TestRetryRunsWhatDidNotSucceed(t *testing.T) { onBoth(t, testRetryRunsWhatDidNotSucceed) }

func testRetryRunsWhatDidNotSucceed(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(6, nil)
	two := 2
	j := s.AddJob(job.Options{Retries: &two, Concurrency: 7}, clients[:5]...)
	base := "/api/batch/jobs/" + j.ID + "/retry"
	status, text := do(t, s, "POST", base, "")
	require.Equal(t, 409, status, text)
	require.Contains(t, text, "has not ended")
	s.End(j.ID, clients[0], release.StepResult{})
	s.End(j.ID, clients[1], release.StepResult{State: release.StepFailed})
	s.Conclude(j.ID, clients[2], job.StateUnknown, "lost")
	s.Conclude(j.ID, clients[3], job.StateOffline, "away")
	s.End(j.ID, clients[4], release.StepResult{State: release.StepFailed, TimedOut: true})
	s.EndJob(j.ID)

	for body, want := range map[string][]string{
		"":                         {clients[1], clients[3], clients[4]},
		`{"include_unknown":true}`: {clients[1], clients[2], clients[3], clients[4]},
	} {
		status, text := do(t, s, "POST", base, body)
		require.Equal(t, 200, status, text)
		again := read[api.BatchAnswer](t, text)
		require.NotEqual(t, j.ID, again.ID)
		var got []string
		for _, target := range targets(s, again.ID) {
			got = append(got, target.ClientID)
		}
		require.Equal(t, want, got)
		stored, err := s.Store.Job(t.Context(), again.ID)
		require.NoError(t, err)
		require.Equal(t, j.Command, stored.Command)
		require.Equal(t, 7, stored.Options.Concurrency)
		require.Contains(t, s.Jobs.Calls(), "start "+again.ID)
	}
	status, text = do(t, s, "POST", base, `{"include_others":true}`)
	require.Equal(t, 422, status)
	require.Equal(t, "body.include_others", read[problem](t, text).Errors[0].Location)

	unsure := s.AddJob(job.Options{}, clients[:2]...)
	s.End(unsure.ID, clients[0], release.StepResult{})
	s.Conclude(unsure.ID, clients[1], job.StateUnknown, "lost")
	s.EndJob(unsure.ID)
	status, text = do(t, s, "POST", "/api/batch/jobs/"+unsure.ID+"/retry", "")
	require.Equal(t, 409, status)
	require.Contains(t, text, "include_unknown")
	done := s.AddJob(job.Options{}, clients[0])
	s.End(done.ID, clients[0], release.StepResult{})
	s.EndJob(done.ID)
	status, text = do(t, s, "POST", "/api/batch/jobs/"+done.ID+"/retry", `{"include_unknown":true}`)
	require.Equal(t, 409, status)
	require.Contains(t, text, "every host did it")
}

func TestBatchSwitchedOff(t *testing.T) { onBoth(t, testBatchSwitchedOff) }

func testBatchSwitchedOff(t *testing.T, start starter) {
	s := start(t, func(c *api.Config) { c.NoBatch = true })
	s.AddClients(1, nil)
	status, text := do(t, s, "POST", "/api/batch/execute", `{"command":"ls","selector":"*"}`)
	require.Equal(t, 403, status)
	require.Contains(t, text, "batch.enabled")
	status, _ = do(t, s, "POST", "/api/command", `{"client_id":"client-1","command_type":"ping"}`)
	require.Equal(t, 200, status)
	require.Len(t, s.Jobs.Calls(), 1)
}

// A job of many hosts is made, and read, without its hosts weighing on what is read.
func TestBatchOfManyHosts(t *testing.T) { onBoth(t, testBatchOfManyHosts) }

func testBatchOfManyHosts(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(1000, nil)
	status, text := do(t, s, "POST", "/api/batch/execute", fmt.Sprintf(`{"command":"ls","target_clients":["%s"]}`, strings.Join(clients, `","`)))
	require.Equal(t, 200, status)
	require.Less(t, len(text), 2000)
	id := read[api.BatchAnswer](t, text).ID
	status, text = do(t, s, "GET", "/api/batch/jobs/"+id, "")
	require.Equal(t, 200, status)
	require.Equal(t, 1000, read[api.BatchJob](t, text).PendingCount)
	require.Less(t, len(text), 2000)
	j, err := s.Store.Job(t.Context(), id)
	require.NoError(t, err)
	require.Empty(t, j.Targets.Clients)
}

// Who did not hear the answer asks again with the same key, and starts nothing twice.
func TestJobsWithAKey(t *testing.T) { onBoth(t, testJobsWithAKey) }

func testJobsWithAKey(t *testing.T, start starter) {
	s := start(t)
	s.AddClients(150, map[string]string{"env": "prod"})
	s.Jobs.OnStart(func(j job.Job) {
		if j.Kind != job.KindMulti { // which is waited for
			return
		}
		for _, t := range targets(s, j.ID) {
			s.DispatchJob(j.ID, t.ClientID)
			s.End(j.ID, t.ClientID, release.StepResult{})
		}
		s.EndJob(j.ID)
	})
	post := func(path, key, body string) (int, string) {
		r := s.Request("POST", path, strings.NewReader(body))
		r.Header.Set("Idempotency-Key", key)
		return send(t, r)
	}
	var listed []string // more than a job keeps as they were asked for
	for i := range 120 {
		listed = append(listed, fmt.Sprintf("%q", fmt.Sprintf("client-%d", i+1)))
	}
	many := strings.Join(listed, ",")
	for i, c := range []struct {
		path, body string
		others     []string // are other requests
	}{
		{"/api/command", `{"client_id":"client-1","command_type":"echo","payload":{"a":1,"b":2}}`, []string{
			`{"client_id":"client-2","command_type":"echo","payload":{"a":1,"b":2}}`, `{"client_id":"client-1","command_type":"echo","payload":{"a":1,"b":3}}`,
			`{"client_id":"client-1","command_type":"echo"}`, `{"client_id":"client-1","command_type":"ping","payload":{"a":1,"b":2}}`,
			`{"client_id":"client-1","command_type":"echo","payload":{"a":1,"b":2},"timeout":5}`,
		}},
		{"/api/command/multi", `{"client_ids":["client-2","client-1","ghost"],"allow_missing":true,"command_type":"ping"}`, []string{
			`{"client_ids":["client-2"],"command_type":"ping"}`, `{"client_ids":["client-2","client-1","client-3"],"command_type":"ping"}`,
		}},
		{"/api/batch/execute", `{"command":"uptime","selector":"env=prod","concurrency":3}`, []string{
			`{"command":"uptime","selector":"env=prod"}`, `{"command":"uptime","selector":"env=prod","concurrency":3,"target_clients":["client-1"]}`, `{"command":"date","selector":"env=prod","concurrency":3}`,
		}},
		{"/api/batch/execute", `{"command":"uptime","target_clients":[` + many + `]}`, []string{
			`{"command":"uptime","target_clients":[` + strings.Join(listed[1:], ",") + `]}`, `{"command":"uptime","target_clients":[` + many + `,"client-150"]}`, `{"command":"uptime","selector":"*"}`,
		}},
	} {
		key := fmt.Sprint("key ", i)
		status, first := post(c.path, key, c.body)
		require.Equal(t, 200, status, first)
		calls := len(s.Jobs.Calls())
		id := func(text string) string {
			answer := read[struct {
				JobID     string `json:"job_id"`
				CommandID string `json:"command_id"`
			}](t, text)
			return answer.JobID + answer.CommandID
		}
		require.NotEmpty(t, id(first))
		status, again := post(c.path, key, c.body)
		require.Equal(t, 200, status, again)
		require.Equal(t, id(first), id(again))
		if c.path == "/api/command/multi" {
			require.Contains(t, again, `"missing":["ghost"]`)
		}
		for _, other := range c.others {
			status, text := post(c.path, key, other)
			require.Equal(t, 409, status, "%s: %s", other, text)
			require.Contains(t, text, strings.SplitN(id(first), ".", 2)[0])
		}
		require.Len(t, s.Jobs.Calls(), calls, "nothing was started again")
		status, text := post(c.path, key+" other", c.body)
		require.Equal(t, 200, status, text)
		require.NotEqual(t, id(first), id(text))
	}

	// At the very same moment, too.
	answers := make(chan string)
	for range 8 {
		go func() {
			status, text := post("/api/batch/execute", "at once", `{"command":"uptime","selector":"*"}`)
			answers <- fmt.Sprint(status, " ", text)
		}()
	}
	ids := map[string]bool{}
	for range 8 {
		status, text, _ := strings.Cut(<-answers, " ")
		require.Equal(t, "200", status, text)
		ids[read[api.BatchAnswer](t, text).ID] = true
	}
	require.Len(t, ids, 1)
}
