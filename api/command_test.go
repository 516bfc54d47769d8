package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var noJobFilter = store.JobFilter{Limit: 100}

func TestCommandFromRequestToResult(t *testing.T) { onBoth(t, testCommandFromRequestToResult) }

func testCommandFromRequestToResult(t *testing.T, start starter) {
	s := start(t)
	s.AddClients(2, nil)
	status, body := do(t, s, "POST", "/api/command", `{"client_id":"client-1","command_type":"exec_shell","payload":{"command":"ls -la"},"timeout":30}`)
	require.Equal(t, 200, status, body)
	made := read[struct {
		Success   bool
		CommandID string `json:"command_id"`
		Message   string
	}](t, body)
	require.True(t, made.Success)
	require.Contains(t, made.Message, made.CommandID)
	jobID, client, err := job.ParseCommandID(made.CommandID)
	require.NoError(t, err)
	require.Equal(t, "client-1", client)
	require.Equal(t, []string{"start " + jobID}, s.Jobs.Calls())
	stored, err := s.Store.Job(t.Context(), jobID)
	require.NoError(t, err)
	require.Equal(t, job.KindCommand, stored.Kind)
	require.Equal(t, apitest.Admin, stored.CreatedBy)
	require.Equal(t, release.Duration(30*time.Second), stored.Options.TaskTimeout)
	require.Equal(t, 2, *stored.Options.Retries)
	require.JSONEq(t, `{"command":"ls -la"}`, string(stored.Command.Payload))

	get := func() map[string]any {
		status, body := do(t, s, "GET", "/api/command/"+made.CommandID, "")
		require.Equal(t, 200, status, body)
		return read[map[string]any](t, body)
	}
	info := get()
	require.Equal(t, "pending", info["status"])
	require.Equal(t, "pending", info["outcome"])
	require.NotContains(t, info, "result")
	require.NotContains(t, info, "exit_code")
	s.DispatchJob(jobID, "client-1")
	require.Equal(t, "executing", get()["status"])
	s.End(jobID, "client-1", release.StepResult{State: release.StepFailed, ExitCode: 2, Error: "exit code 2", StdoutTail: []byte("a\n"), StderrTail: []byte("no such file\xff\n")})
	s.EndJob(jobID)
	info = get()
	require.Equal(t, "failed", info["status"])
	require.Equal(t, "failed", info["outcome"])
	require.Equal(t, "exit code 2", info["error"])
	require.Equal(t, 2.0, info["exit_code"])
	require.Equal(t, "a\n", info["stdout"])
	require.Equal(t, map[string]any{"exit_code": 2.0, "stdout": "a\n", "stderr": "no such file\uFFFD\n", "stdout_truncated": false, "stderr_truncated": false,
		"stdout_bytes": 2.0, "stderr_bytes": 14.0}, info["result"])
	require.Equal(t, map[string]any{"command": "ls -la"}, info["payload"])
	for _, key := range []string{"command_id", "client_id", "command_type", "created_at", "started_at", "finished_at", "timeout", "created_by"} {
		require.NotEmpty(t, info[key], key)
	}
	require.EqualValues(t, 1, info["attempt"])

	// The history.
	status, body = do(t, s, "POST", "/api/command", `{"client_id":"client-2","command_type":"system.info"}`)
	require.Equal(t, 200, status, body)
	second := read[api.CommandAnswer](t, body)
	for query, want := range map[string][]string{
		"":                                   {second.ID, made.CommandID},
		"?limit=1":                           {second.ID},
		"?limit=1&offset=1":                  {made.CommandID},
		"?client_id=client-1":                {made.CommandID},
		"?status=failed":                     {made.CommandID},
		"?status=pending":                    {second.ID},
		"?status=timeout":                    {},
		"?command_type=system.info":          {second.ID},
		"?client_id=client-1&status=pending": {},
	} {
		status, body := do(t, s, "GET", "/api/commands"+query, "")
		require.Equal(t, 200, status, body)
		found := read[api.CommandList](t, body)
		got := []string{}
		for _, c := range found.Commands {
			got = append(got, c.ID)
		}
		require.Equal(t, want, got, query)
		require.NotContains(t, body, "ls -la", "payloads are not in lists")
		if !strings.Contains(query, "limit") {
			require.Equal(t, len(want), found.Total, query)
		}
	}
}

// Each way in which a host can fare has a status of the command API, and its exact name.
func TestCommandOutcomes(t *testing.T) { onBoth(t, testCommandOutcomes) }

func testCommandOutcomes(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(7, nil)
	j := s.AddJob(job.Options{}, clients...)
	s.End(j.ID, clients[0], release.StepResult{State: release.StepFailed, TimedOut: true, ExitCode: -1, Error: "stopped after 30s"})
	s.End(j.ID, clients[1], release.StepResult{State: release.StepUnknown, ExitCode: -1, Error: "the host went down"})
	s.End(j.ID, clients[2], release.StepResult{State: release.StepCancelled, ExitCode: -1})
	s.End(j.ID, clients[3], release.StepResult{State: release.StepFailed, NotStarted: true, ExitCode: -1, Error: `unknown command "dance"`})
	s.Conclude(j.ID, clients[4], job.StateOffline, "not connected")
	s.End(j.ID, clients[5], release.StepResult{Result: []byte(`{"cpus": 9007199254740993}`)})
	s.EndJob(j.ID)
	for i, want := range []struct{ status, outcome, err string }{
		{"timeout", "timeout", "stopped after 30s"}, {"failed", "unknown", "the host went down"}, {"cancelled", "cancelled", "cancelled"},
		{"failed", "", `unknown command "dance"`}, {"failed", "offline", "not connected"}, {"completed", "succeeded", ""},
	} {
		_, body := do(t, s, "GET", "/api/command/"+job.CommandID(j.ID, clients[i]), "")
		info := read[api.CommandInfo](t, body)
		require.Equal(t, want.status, info.Status, body)
		if want.outcome != "" {
			require.EqualValues(t, want.outcome, info.Outcome, body)
		}
		require.Equal(t, want.err, info.Error, body)
		switch i {
		case 4:
			require.NotContains(t, body, `"result"`, "nothing ran there")
		case 5:
			require.Contains(t, body, `{"cpus":9007199254740993}`, "numbers stay what they are")
		}
	}
}

// Long output comes from the log where all of it is there, its end where it is too long, and the end that came with the
// result where the log has a gap.
func TestLongOutput(t *testing.T) { onBoth(t, testLongOutput) }

func testLongOutput(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(5, nil)
	j := s.AddJob(job.Options{}, clients...)
	get := func(client string) api.CommandInfo {
		status, body := do(t, s, "GET", "/api/command/"+job.CommandID(j.ID, client), "")
		require.Equal(t, 200, status, body)
		return read[api.CommandInfo](t, body)
	}
	line := func(i int) string { return fmt.Sprintf("line %06d é\n", i) }
	var all strings.Builder
	for i := range 2000 {
		all.WriteString(line(i))
	}
	text := all.String()
	end := func(text string) []byte { return []byte(text[len(text)-4096:]) }
	for i := 0; i < len(text); i += 9999 {
		s.Print(j.ID, clients[0], release.StreamStdout, text[i:min(i+9999, len(text))])
		s.Print(j.ID, clients[0], release.StreamStderr, "note\n")
		s.Print(j.ID, clients[1], release.StreamStdout, "of another host\n")
	}
	s.End(j.ID, clients[0], release.StepResult{StdoutTail: end(text), StdoutBytes: uint64(len(text)), StderrTail: []byte("note\nnote\nnote\nnote\n")})
	info := get(clients[0])
	require.Equal(t, text, info.Stdout)
	require.False(t, info.StdoutCut)
	require.Equal(t, "note\nnote\nnote\nnote\n", info.Stderr)

	// The log of the second has not come in full: the end must do, and it begins with a whole character.
	tail := append([]byte("\xa9"), end(text)[1:]...)
	s.End(j.ID, clients[1], release.StepResult{StdoutTail: tail, StdoutBytes: uint64(len(text)), LogEnd: 1 << 20})
	info = get(clients[1])
	require.True(t, info.StdoutCut)
	require.Equal(t, string(tail[1:]), info.Stdout)

	// The third wrote more than is shown.
	big := strings.Repeat("0123456789abcdef", 16<<10)
	for range 5 {
		s.Print(j.ID, clients[2], release.StreamStdout, big)
	}
	s.End(j.ID, clients[2], release.StepResult{StdoutTail: end(big), StdoutBytes: uint64(5 * len(big))})
	info = get(clients[2])
	require.True(t, info.StdoutCut)
	require.Equal(t, strings.Repeat(big, 4), info.Stdout)
	require.Len(t, info.Stdout, api.MaxOutput)

	// A typed result that did not fit into a frame.
	result := `{"items":["` + strings.Repeat("x", 20000) + `"]}`
	s.Print(j.ID, clients[3], release.StreamStdout, result[:12345])
	s.End(j.ID, clients[3], release.StepResult{ResultInLog: true, StdoutTail: end(result), StdoutBytes: uint64(len(result)), LogEnd: uint64(len(result))})
	info = get(clients[3])
	require.Empty(t, info.Result)
	require.Contains(t, info.Error, "not stored yet")
	require.Equal(t, "completed", info.Status)
	s.Print(j.ID, clients[3], release.StreamStdout, result[12345:])
	info = get(clients[3])
	require.JSONEq(t, result, string(info.Result))
	require.Empty(t, info.Error)

	// A typed result beside what was printed.
	s.End(j.ID, clients[4], release.StepResult{Result: []byte(`{"id":"c0ffee"}`), StdoutTail: []byte("a log line\n")})
	info = get(clients[4])
	require.JSONEq(t, `{"id":"c0ffee"}`, string(info.Result))
	require.Equal(t, "a log line\n", info.Stdout)
	s.EndJob(j.ID)
	events(t, s.Request("GET", "/api/batch/jobs/"+j.ID+"/stream", nil), func(e jobEvent) bool {
		switch e.ClientID {
		case clients[4]:
			require.Equal(t, "a log line\n", e.Output.Stdout)
		case clients[2]:
			require.Equal(t, api.MaxResultOutput, len(e.Result.Stdout), "a host among others shows less") //nolint:testifylint // it is long
			require.True(t, e.Result.StdoutTruncated)
			require.EqualValues(t, 5*len(big), e.Result.StdoutBytes)
		}
		return true
	})
}

func TestCancelCommand(t *testing.T) { onBoth(t, testCancelCommand) }

func testCancelCommand(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(2, nil)
	one := s.AddJob(job.Options{}, clients[0])
	path := "/api/command/" + job.CommandID(one.ID, clients[0]) + "/cancel"
	s.Jobs.OnCancel(func(id string) { s.SetJob(id, job.StatusCancelling, "") })
	status, body := do(t, s, "POST", path, `{"reason":"wrong host"}`)
	require.Equal(t, 200, status, body)
	require.Equal(t, []string{"cancel " + one.ID + " admin wrong host"}, s.Jobs.Calls())
	for range 2 {
		status, body = do(t, s, "POST", path, "")
		require.Equal(t, 409, status, body)
		require.NotEmpty(t, read[problem](t, body).Detail)
		s.End(one.ID, clients[0], release.StepResult{State: release.StepCancelled})
		if j, _ := s.Store.Job(t.Context(), one.ID); !j.Status.Terminal() {
			s.SetJob(one.ID, job.StatusCancelled, "")
		}
	}
	require.Len(t, s.Jobs.Calls(), 1)

	several := s.AddJob(job.Options{}, clients...)
	status, body = do(t, s, "POST", "/api/command/"+job.CommandID(several.ID, clients[0])+"/cancel", "")
	require.Equal(t, 409, status, body)
	require.Contains(t, body, "/api/batch/jobs/"+several.ID+"/cancel")
	require.Len(t, s.Jobs.Calls(), 1)
	for _, id := range []string{"nope", "no.pe", several.ID, several.ID + ".ghost", "." + clients[0]} {
		status, _ = do(t, s, "POST", "/api/command/"+id+"/cancel", "")
		require.Equal(t, 404, status, id)
		status, body = do(t, s, "GET", "/api/command/"+id, "")
		require.Equal(t, 404, status, id)
		require.Contains(t, body, "command")
	}
}

func TestCommandIsTakenThoughItsWorkflowCannotStart(t *testing.T) {
	onBoth(t, testCommandIsTakenThoughItsWorkflowCannotStart)
}

func testCommandIsTakenThoughItsWorkflowCannotStart(t *testing.T, start starter) {
	s := start(t)
	s.AddClients(1, nil)
	s.Jobs.Answer(release.Unavailable(io.EOF, "no Temporal"))
	status, body := do(t, s, "POST", "/api/command", `{"client_id":"client-1","command_type":"ping"}`)
	require.Equal(t, 200, status, body)
	unfinished, err := s.Store.UnfinishedJobs(t.Context())
	require.NoError(t, err)
	require.Len(t, unfinished, 1)
	require.Equal(t, job.StatusStarting, unfinished[0].Status)
}

// carry makes jobs run: outcome says how each host fares.
func carry(s *apitest.Server, outcome func(client string) release.StepResult) {
	s.Jobs.OnStart(func(j job.Job) {
		for _, t := range targets(s, j.ID) {
			s.DispatchJob(j.ID, t.ClientID)
			s.End(j.ID, t.ClientID, outcome(t.ClientID))
		}
		s.EndJob(j.ID)
	})
}

func targets(s *apitest.Server, jobID string) []job.Target {
	found, _, err := s.Store.JobTargets(s.Context(), jobID, store.JobTargetFilter{})
	if err != nil {
		panic(err)
	}
	return found
}

func TestMulti(t *testing.T) { onBoth(t, testMulti) }

func testMulti(t *testing.T, start starter) {
	s := start(t)
	s.AddClients(3, nil)
	carry(s, func(client string) release.StepResult {
		if client == "client-2" {
			return release.StepResult{State: release.StepFailed, ExitCode: 7, Error: "exit code 7", StderrTail: []byte("no space\n")}
		}
		return release.StepResult{StdoutTail: []byte("hello from " + client)}
	})
	status, body := do(t, s, "POST", "/api/command/multi",
		`{"client_ids":["client-3","client-1","client-2","client-1","ghost"],"allow_missing":true,"command_type":"exec_shell","payload":{"command":"x"},"timeout":5}`)
	require.Equal(t, 200, status, body)
	answer := read[struct {
		Success      bool
		Total        int
		SuccessCount int `json:"success_count"`
		FailedCount  int `json:"failed_count"`
		Missing      []string
		Results      []struct {
			ClientID  string `json:"client_id"`
			CommandID string `json:"command_id"`
			Status    string
			Result    api.Output
			Error     string
		}
	}](t, body)
	require.False(t, answer.Success)
	require.Equal(t, []int{3, 2, 1}, []int{answer.Total, answer.SuccessCount, answer.FailedCount})
	require.Equal(t, []string{"ghost"}, answer.Missing)
	require.Len(t, answer.Results, 3)
	require.Equal(t, "hello from client-1", answer.Results[0].Result.Stdout)
	require.Equal(t, "failed", answer.Results[1].Status)
	require.Equal(t, "exit code 7", answer.Results[1].Error)
	require.Equal(t, 7, *answer.Results[1].Result.ExitCode)
	require.Equal(t, "no space\n", answer.Results[1].Result.Stderr)
	_, body = do(t, s, "GET", "/api/command/"+answer.Results[2].CommandID, "")
	require.Equal(t, "completed", read[api.CommandInfo](t, body).Status)
	jobs, _, err := s.Store.Jobs(t.Context(), noJobFilter)
	require.NoError(t, err)
	require.Equal(t, job.KindMulti, jobs[0].Kind)
	require.Equal(t, release.Duration(5*time.Second), jobs[0].Options.TaskTimeout)
}

// Every bad input names its field, stores nothing and starts nothing.
func TestBadCommands(t *testing.T) { onBoth(t, testBadCommands) }

func testBadCommands(t *testing.T, start starter) {
	s := start(t)
	s.AddClients(2, nil)
	const (
		one    = "/api/command"
		multi  = "/api/command/multi"
		stream = "/api/command/stream"
		batch  = "/api/batch/execute"
	)
	huge := `{"command":"` + strings.Repeat("x", job.MaxPayload) + `"}`
	many, _ := json.Marshal(make([]string, api.MaxMulti+1))
	for _, c := range []struct {
		path, body string
		status     int
		location   string
	}{
		{one, `{"command_type":"ping"}`, 422, "body.client_id"},
		{one, `{"client_id":"","command_type":"ping"}`, 422, "body.client_id"},
		{one, `{"client_id":"ghost","command_type":"ping"}`, 422, "body.client_id"},
		{one, `{"client_id":["client-1"],"command_type":"ping"}`, 422, "body.client_id"},
		{one, `{"client_id":"client-1"}`, 422, "body.command_type"},
		{one, `{"client_id":"client-1","command_type":""}`, 422, "body.command_type"},
		{one, `{"client_id":"client-1","command_type":"rm -rf"}`, 422, "body.command_type"},
		{one, `{"client_id":"client-1","command_type":"exec_shell"}`, 422, "body.payload.command"},
		{one, `{"client_id":"client-1","command_type":"exec_shell","payload":{}}`, 422, "body.payload.command"},
		{one, `{"client_id":"client-1","command_type":"exec_shell","payload":{"command":7}}`, 422, "body.payload.command"},
		{one, `{"client_id":"client-1","command_type":"exec_shell","payload":{"command":" "}}`, 422, "body.payload.command"},
		{one, `{"client_id":"client-1","command_type":"ping","payload":"text"}`, 422, "body.payload"},
		{one, `{"client_id":"client-1","command_type":"ping","payload":[1]}`, 422, "body.payload"},
		{one, `{"client_id":"client-1","command_type":"ping","payload":null}`, 422, "body.payload"},
		{one, `{"client_id":"client-1","command_type":"exec_shell","payload":` + huge + `}`, 422, "body.payload"},
		{one, `{"client_id":"client-1","command_type":"ping","timeout":0}`, 422, "body.timeout"},
		{one, `{"client_id":"client-1","command_type":"ping","timeout":-3}`, 422, "body.timeout"},
		{one, `{"client_id":"client-1","command_type":"ping","timeout":604801}`, 422, "body.timeout"},
		{one, `{"client_id":"client-1","command_type":"ping","timeout":"30s"}`, 422, "body.timeout"},
		{one, `{"client_id":"client-1","command_type":"ping","wait":true}`, 422, "body.wait"},
		{one, `{"client_id":"client-1",`, 400, "body"},
		{one, `{"client_id":"` + strings.Repeat("x", api.MaxBody) + `"}`, 413, ""},
		{multi, `{"command_type":"ping"}`, 422, "body.client_ids"},
		{multi, `{"client_ids":[],"command_type":"ping"}`, 422, "body.client_ids"},
		{multi, `{"client_ids":"client-1","command_type":"ping"}`, 422, "body.client_ids"},
		{multi, `{"client_ids":["client-1","ghost"],"command_type":"ping"}`, 422, "body.client_ids"},
		{multi, `{"client_ids":["ghost"],"allow_missing":true,"command_type":"ping"}`, 422, "body.client_ids"},
		{multi, `{"client_ids":` + string(many) + `,"command_type":"ping"}`, 422, "body.client_ids"},
		{multi, `{"client_ids":["client-1"],"command_type":"ping","timeout":0}`, 422, "body.timeout"},
		{multi, `{"client_ids":["client-1"],"command_type":"ping","timeuot":3}`, 422, "body.timeuot"},
		{stream, `{"client_ids":[],"command_type":"ping"}`, 422, "body.client_ids"},
		{stream, `{"client_ids":["client-1","ghost"],"command_type":"ping"}`, 422, "body.client_ids"},
		{stream, `{"client_ids":["client-1"],"command_type":"ping","timeout":-1}`, 422, "body.timeout"},
		{batch, `{}`, 422, "body.command"},
		{batch, `{"command":" ","selector":"*"}`, 422, "body.command"},
		{batch, `{"command":"ls","command_type":"ping","selector":"*"}`, 422, "body.command"},
		{batch, `{"command":"ls -la","payload":{},"selector":"*"}`, 422, "body.command"},
		{batch, `{"command":"` + strings.Repeat("x", job.MaxPayload) + `","selector":"*"}`, 422, "body.command"},
		{batch, `{"command":"ls"}`, 422, "body.target_clients"},
		{batch, `{"command":"ls","target_clients":[]}`, 422, "body.target_clients"},
		{batch, `{"command":"ls","selector":""}`, 422, "body.target_clients"},
		{batch, `{"command":"ls","selector":"env=none"}`, 422, "body.selector"},
		{batch, `{"command":"ls","selector":"=x"}`, 422, "body.selector"},
		{batch, `{"command":"ls","target_clients":["client-1","ghost"]}`, 422, "body.target_clients"},
		{batch, `{"command":"ls","selector":"*","concurrency":-1}`, 422, "body.concurrency"},
		{batch, `{"command":"ls","selector":"*","concurrency":5001}`, 422, "body.concurrency"},
		{batch, `{"command":"ls","selector":"*","task_timeout":"200h"}`, 422, "body.task_timeout"},
		{batch, `{"command":"ls","selector":"*","task_timeout":"-1s"}`, 422, "body.task_timeout"},
		{batch, `{"command":"ls","selector":"*","task_timeout":30}`, 422, "body.task_timeout"},
		{batch, `{"command":"ls","selector":"*","task_timeout":"0s"}`, 422, "body.task_timeout"},
		{batch, `{"command":"ls","selector":"*","job_timeout":"0"}`, 422, "body.job_timeout"},
		{batch, `{"command":"ls","selector":"*","concurrency":0}`, 422, "body.concurrency"},
		{batch, `{"command":"ls","selector":"*","job_timeout":"9000h"}`, 422, "body.job_timeout"},
		{batch, `{"command":"ls","selector":"*","retries":-1}`, 422, "body.retries"},
		{batch, `{"command":"ls","selector":"*","retries":101}`, 422, "body.retries"},
		{batch, `{"command":"ls","selector":"*","max_failures":"110%"}`, 422, "body.max_failures"},
		{batch, `{"command":"ls","selector":"*","wait_offline":"1000h"}`, 422, "body.wait_offline"},
		{batch, `{"command":"ls","selector":"*","dry_run":true}`, 422, "body.dry_run"},
		{batch, `{"command":["ls"],"selector":"*"}`, 422, "body.command"},
		{batch, `{"command":"` + strings.Repeat("x", api.MaxTaskBody) + `"}`, 413, ""},
	} {
		status, text := do(t, s, "POST", c.path, c.body)
		name := c.path + " " + c.body[:min(len(c.body), 120)]
		require.Equal(t, c.status, status, "%s: %s", name, text)
		p := read[problem](t, text)
		require.Equal(t, c.status, p.Status, name)
		require.NotEmpty(t, p.Detail, name)
		if c.location != "" {
			require.NotEmpty(t, p.Errors, "%s: %s", name, text)
			require.Equal(t, c.location, p.Errors[0].Location, "%s: %s", name, text)
			require.NotEmpty(t, p.Errors[0].Message, name)
		}
	}
	_, text := do(t, s, "POST", multi, `{"client_ids":["client-1","ghost","phantom"],"command_type":"ping"}`)
	require.Contains(t, text, "ghost, phantom", "they are named")
	for path, location := range map[string]string{
		"/api/commands?status=done":                 "query.status",
		"/api/commands?limit=1001":                  "query.limit",
		"/api/commands?client=x":                    "query.client",
		"/api/batch/jobs?status=done":               "query.status",
		"/api/batch/jobs?kind=odd":                  "query.kind",
		"/api/batch/jobs/x/targets?state=completed": "query.state",
	} {
		status, text := do(t, s, "GET", path, "")
		require.Equal(t, 422, status, text)
		require.Equal(t, location, read[problem](t, text).Errors[0].Location)
	}
	for _, path := range []string{"", "/targets", "/logs", "/stream"} {
		status, text := do(t, s, "GET", "/api/batch/jobs/nope"+path, "")
		require.Equal(t, 404, status, path)
		require.Contains(t, text, "nope")
	}
	for _, path := range []string{"cancel", "pause", "resume", "retry"} {
		status, text := do(t, s, "POST", "/api/batch/jobs/nope/"+path, "")
		require.Equal(t, 404, status, path)
		require.Contains(t, text, "nope")
	}
	_, total, err := s.Store.Jobs(t.Context(), noJobFilter)
	require.NoError(t, err)
	require.Zero(t, total)
	require.Empty(t, s.Jobs.Calls())
}

// What came in may hold secrets, and is not sent back.
func TestProblemsOfCommandsDoNotEcho(t *testing.T) { onBoth(t, testProblemsOfCommandsDoNotEcho) }

func testProblemsOfCommandsDoNotEcho(t *testing.T, start starter) {
	s := start(t)
	s.AddClients(1, nil)
	for _, body := range []string{
		`{"client_id":"client-1","command_type":"exec_shell","payload":{"command":"","password":"hunter2"}}`,
		`{"client_id":"client-1","command_type":"exec_shell","payload":{"command":"login hunter2"},"extra":1}`,
		`{"client_id":"client-1","command_type":"exec_shell","payload":["hunter2"]}`,
	} {
		status, text := do(t, s, "POST", "/api/command", body)
		require.Equal(t, 422, status, text)
		require.NotContains(t, text, "hunter2")
	}
}
