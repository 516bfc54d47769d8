package api_test

import (
	"bufio"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/release"
)

// changes reads GET /api/events until handle is false. Sooner or later it calls ready, when no event can be missed any more.
func changes(t *testing.T, s *apitest.Server, ready func(), handle func(api.EventsChanged) bool) {
	t.Helper()
	stream(t, s, "/api/events", 0, func(e event) bool {
		if e.name == "hello" {
			require.Equal(t, api.EventsHello{Version: "test"}, read[api.EventsHello](t, e.data))
			ready()
			return true
		}
		require.Equal(t, "changed", e.name)
		return handle(read[api.EventsChanged](t, e.data))
	})
}

func TestEventsTellWhatChanged(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(2, nil)
	s.AddVersion("hello", "1.0")
	seen := map[string]bool{}
	id := ""
	changes(t, s, func() {
		status, text := do(t, s, "POST", "/api/release/tasks", `{"project": "hello", "version": "1.0", "targets": {"selector": "*"}}`)
		require.Equal(t, 201, status, text)
		id = read[release.Task](t, text).ID
		s.Progress(id, release.StatusRunning, release.PhaseWave)
		status, text = do(t, s, "POST", "/api/batch/execute", `{"command": "uptime", "selector": "*"}`)
		require.Equal(t, 200, status, text)
		status, text = do(t, s, "POST", schedules, nightly)
		require.Equal(t, 201, status, text)
		status, text = do(t, s, "POST", "/api/clients/"+clients[0]+"/revoke", "")
		require.Equal(t, 204, status, text)
		status, text = do(t, s, "PUT", "/api/release/projects/hello/variables/PORT", `{"value": "80"}`)
		require.Equal(t, 201, status, text)
	}, func(e api.EventsChanged) bool {
		require.True(t, slices.IsSorted(e.Topics))
		for _, topic := range e.Topics {
			seen[topic] = true
		}
		return !(seen["tasks"] && seen["jobs"] && seen["clients"] && seen["projects"] && seen["schedules"] && seen["task/"+id])
	})
}

func TestEventsAreFew(t *testing.T) {
	s := apitest.Start(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	began, n := time.Now(), 0
	changes(t, s, func() {
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					s.Bus.Notify(bus.Task("busy"))
				}
			}
		}()
	}, func(e api.EventsChanged) bool {
		require.Equal(t, []string{"task/busy"}, e.Topics)
		n++
		return n < 5
	})
	require.GreaterOrEqual(t, time.Since(began), time.Second) // four pauses
	close(stop)
	<-stopped
}

func TestEventsEndWithTheServer(t *testing.T) {
	s := apitest.Start(t)
	r := s.Request("GET", "/api/events", nil)
	res := open(t, r)
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	require.True(t, lines.Scan())
	require.Equal(t, "event: hello", lines.Text())
	s.Stop() // would wait for a stream that goes on
	for lines.Scan() {
	}
}

func TestConsoleAnswersBrowsersOnly(t *testing.T) {
	s := apitest.Start(t, func(c *api.Config) {
		c.TemporalUIURL = "https://temporal.example/"
		c.TemporalNamespace = "default"
		c.Console = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("the console")) })
	})
	for _, test := range []struct {
		method, path, accept string
		console              bool
		status               int
	}{
		{"GET", "/", "text/html,*/*", true, 200},
		{"GET", "/login?next=/fleet", "text/html", true, 200},
		{"GET", "/releases/1", "text/html", true, 200},
		{"GET", "/apis", "text/html", true, 200},
		{"GET", "/assets/a.js", "*/*", true, 200},
		{"GET", "/", "*/*", false, 401},
		{"GET", "/releases/1", "application/json", false, 401},
		{"POST", "/releases/1", "text/html", false, 401},
		{"GET", "/api", "text/html", false, 303},
		{"GET", "/api/clients", "text/html", false, 303},
		{"GET", "/api/clients", "*/*", false, 401},
		{"GET", "/openapi.json", "text/html", false, 303},
		{"GET", "/temporal/x", "text/html", false, 303},
		{"GET", "/metrics", "text/html", false, 303},
		{"GET", "/health", "text/html", false, 200},
	} {
		r := anonymous(t, s, test.method, test.path, "", "")
		r.Header.Set("Accept", test.accept)
		status, text := send(t, r)
		require.Equal(t, test.console, text == "the console", test)
		require.Equal(t, test.status, status, test)
	}
	status, text := do(t, s, "GET", "/api/session", "")
	require.Equal(t, 200, status)
	require.Equal(t, api.UserSession{User: apitest.Admin, Version: "test", TemporalURL: "https://temporal.example", TemporalNamespace: "default", BatchEnabled: true},
		read[api.UserSession](t, text))
}

func TestGridAndFailures(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(4, nil)
	task := s.AddTask(s.AddVersion("hello", "1.0"), clients...)
	s.Finish(task.ID, clients[0], release.StepSucceeded, "", 0)
	s.Finish(task.ID, clients[1], release.StepFailed, "exit code 1: no space left", 0)
	s.Finish(task.ID, clients[2], release.StepFailed, "exit code 1: no space left", 0)

	_, text := do(t, s, "GET", "/api/release/tasks/"+task.ID+"/grid", "")
	grid := read[api.TargetGrid](t, text)
	require.Equal(t, "sffr", grid.States)
	require.Equal(t, task.Waves, grid.Waves)
	require.Greater(t, grid.Rate, 0.0)
	_, text = do(t, s, "GET", "/api/release/tasks/"+task.ID+"/failures", "")
	require.Equal(t, api.FailureList{Total: 1, Groups: []api.FailureGroup{
		{State: "failed", Reason: "exit code 1: no space left", Hosts: 2, First: clients[1]},
	}}, read[api.FailureList](t, text))
	_, text = do(t, s, "GET", "/api/release/tasks/"+task.ID+"/targets?reason=exit+code+1%3A+no+space+left", "")
	require.Equal(t, 2, read[api.TargetList](t, text).Total)
	_, text = do(t, s, "GET", "/api/release/tasks/"+task.ID+"/targets?search=T-2", "")
	require.Equal(t, 1, read[api.TargetList](t, text).Total)
	_, text = do(t, s, "GET", "/api/clients/"+clients[1]+"/tasks", "")
	done := read[api.ClientTaskList](t, text).Tasks
	require.Len(t, done, 1)
	require.Equal(t, release.TargetFailed, done[0].State)
	require.Equal(t, "1.0", done[0].Version)
	_, text = do(t, s, "GET", "/api/release/installations?client_ids="+clients[0]+","+clients[3], "")
	installed := read[api.InstallationList](t, text).Installations
	require.Len(t, installed, 1)
	require.Equal(t, clients[0], installed[0].ClientID)

	_, text = do(t, s, "GET", "/api/overview", "")
	o := read[api.Overview](t, text)
	require.Equal(t, api.AgentCounts{Total: 4, Online: 4}, o.Agents)
	require.Equal(t, 1, o.ActiveTotal)
	require.Equal(t, task.ID, o.Active[0].ID)
	s.Progress(task.ID, release.StatusFailed, release.PhaseDone)
	_, text = do(t, s, "GET", "/api/overview", "")
	o = read[api.Overview](t, text)
	require.Zero(t, o.ActiveTotal)
	require.Equal(t, task.ID, o.Failed[0].ID)

	for _, path := range []string{"/api/release/tasks/none/grid", "/api/release/tasks/none/failures", "/api/batch/jobs/none/failures", "/api/clients/none/tasks"} {
		status, _ := do(t, s, "GET", path, "")
		require.Equal(t, 404, status, path)
	}
}
