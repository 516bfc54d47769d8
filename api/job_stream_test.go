package api_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// jobEvent is an event of a job's stream, whatever its type.
type jobEvent struct {
	ID        string `json:"-"`
	Type      string
	JobID     string `json:"job_id"`
	ClientID  string `json:"client_id"`
	CommandID string `json:"command_id"`
	Status    string
	Outcome   string
	Result    api.Output
	Output    api.Output
	Error     string
	Counts    job.Counts
	Summary   map[string]int
	Total     int
}

// events reads a job's stream until handle is false or the stream ends.
func events(t *testing.T, r *http.Request, handle func(jobEvent) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	res := open(t, r.WithContext(ctx))
	defer res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	id := ""
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "id":
			id = value
		case "data":
			e := read[jobEvent](t, value)
			if e.ID, id = id, ""; !handle(e) {
				return
			}
		case "event":
			t.Fatal("events have no names", value)
		}
	}
	require.NoError(t, lines.Err())
}

func body(text string) *strings.Reader { return strings.NewReader(text) }

const twoClients = `{"client_ids":["client-1","client-2","client-3"],"command_type":"exec_shell","payload":{"command":"x"}}`

// Results come while others still run, the first finished first; the last event sums them up.
func TestStreamTellsResultsAsTheyCome(t *testing.T) { onBoth(t, testStreamTellsResultsAsTheyCome) }

func testStreamTellsResultsAsTheyCome(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(3, nil)
	started := make(chan string, 1)
	s.Jobs.OnStart(func(j job.Job) {
		s.DispatchJob(j.ID, clients...)
		started <- j.ID
	})
	var order []string
	var jobID string
	events(t, s.Request("POST", "/api/command/stream", body(twoClients)), func(e jobEvent) bool {
		switch e.Type {
		case "job":
			require.Equal(t, <-started, e.JobID)
			require.Equal(t, 3, e.Total)
			jobID = e.JobID
			s.End(jobID, clients[2], release.StepResult{StdoutTail: []byte("third is first")})
		case "result":
			require.NotEmpty(t, e.ID)
			order = append(order, e.ClientID)
			require.Equal(t, job.CommandID(jobID, e.ClientID), e.CommandID)
			switch len(order) {
			case 1:
				require.Equal(t, "third is first", e.Result.Stdout)
				s.End(jobID, clients[0], release.StepResult{State: release.StepFailed, ExitCode: 3, Error: "exit code 3"})
			case 2:
				require.Equal(t, "failed", e.Status)
				require.Equal(t, "exit code 3", e.Error)
				s.End(jobID, clients[1], release.StepResult{State: release.StepUnknown, Error: "gone"})
				s.EndJob(jobID)
			case 3:
				require.Equal(t, "unknown", e.Outcome)
			}
		case "complete":
			require.Equal(t, "partial", e.Status)
			require.Equal(t, 3, e.Summary["total"])
			require.Equal(t, 1, e.Summary["success_count"])
			require.Equal(t, 2, e.Summary["failed_count"])
			require.Contains(t, e.Summary, "duration_ms")
			order = append(order, "complete")
		default:
			t.Fatal("unexpected event", e.Type)
		}
		return true
	})
	require.Equal(t, []string{clients[2], clients[0], clients[1], "complete"}, order)
	require.Len(t, s.Jobs.Calls(), 1, "nothing was cancelled")
}

// Readers that are cut off at random places and come back get each result once, while they come.
func TestJobStreamResumes(t *testing.T) { onBoth(t, testJobStreamResumes) }

func testJobStreamResumes(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(120, nil)
	two := 2
	j := s.AddJob(job.Options{Retries: &two}, clients...)
	var working sync.WaitGroup
	defer working.Wait()
	working.Go(func() {
		for i, client := range clients {
			switch i % 10 {
			case 3: // may be tried again, and is not: told at the end
				s.Conclude(j.ID, client, job.StateOffline, "not connected")
			case 4: // is unknown at first
				s.Conclude(j.ID, client, job.StateUnknown, "lost")
			default:
				s.End(j.ID, client, release.StepResult{StdoutTail: []byte(client)})
			}
		}
		s.EndJob(j.ID)
	})
	seen := map[string]int{}
	last, complete := "", false
	var offline []string
	for !complete {
		upTo := rand.IntN(25) + 1
		r := s.Request("GET", "/api/batch/jobs/"+j.ID+"/stream", nil)
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		events(t, r, func(e jobEvent) bool {
			switch e.Type {
			case "result":
				seen[e.ClientID]++
				last = e.ID
				if e.Outcome == "offline" {
					offline = append(offline, e.ClientID)
				} else {
					require.Empty(t, offline, "those come last")
				}
			case "complete":
				complete = true
			}
			upTo--
			return upTo > 0
		})
	}
	require.Len(t, seen, len(clients))
	for client, n := range seen {
		require.Equal(t, 1, n, client)
	}
	require.Len(t, offline, 12)
	require.IsIncreasing(t, offline)

	for _, wrong := range []string{"soon", "-1", "1.5"} {
		status, text := do(t, s, "GET", "/api/batch/jobs/"+j.ID+"/stream?after="+wrong, "")
		require.Equal(t, 422, status, text)
	}
}

// A host that is tried again is told of once, when its last try has ended.
func TestJobStreamTellsOfTheLastTry(t *testing.T) { onBoth(t, testJobStreamTellsOfTheLastTry) }

func testJobStreamTellsOfTheLastTry(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(2, nil)
	one := 1
	j := s.AddJob(job.Options{Retries: &one}, clients...)
	var told []string
	events(t, s.Request("GET", "/api/batch/jobs/"+j.ID+"/stream", nil), func(e jobEvent) bool {
		switch {
		case e.Type == "job":
			s.Conclude(j.ID, clients[0], job.StateOffline, "not connected")
			s.End(j.ID, clients[1], release.StepResult{})
		case e.Type == "result" && e.ClientID == clients[1]:
			require.Empty(t, told, "the first may be tried again")
			retried, _, err := s.Store.RetryJob(t.Context(), j.ID, store.JobRetry{Max: one, After: time.Now()})
			require.NoError(t, err)
			require.Equal(t, 1, retried)
			s.DispatchJob(j.ID, clients[0])
			s.Conclude(j.ID, clients[0], job.StateOffline, "still not connected")
		case e.Type == "result":
			require.Equal(t, "still not connected", e.Error)
			s.EndJob(j.ID)
		}
		if e.Type != "job" {
			told = append(told, e.Type+e.ClientID)
		}
		return true
	})
	require.Equal(t, []string{"result" + clients[1], "result" + clients[0], "complete"}, told)
}

// editedLogs is a store whose logs are changed as they are read.
type editedLogs struct {
	*store.Store
	edit func([]release.LogRecord) []release.LogRecord
}

func (e editedLogs) Logs(ctx context.Context, id string, after int64, filter store.LogFilter, limit int) ([]release.LogRecord, error) {
	records, err := e.Store.Logs(ctx, id, after, filter, limit)
	return e.edit(records), err
}

// A result waits a moment for what its host printed, if that is longer than what came with the result.
func TestStreamWaitsForOutput(t *testing.T) { onBoth(t, testStreamWaitsForOutput) }

func testStreamWaitsForOutput(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(2, nil)
	j := s.AddJob(job.Options{}, clients...)
	text := strings.Repeat("a line\n", 2000)
	s.End(j.ID, clients[0], release.StepResult{StdoutTail: []byte(text[len(text)-4096:]), StdoutBytes: uint64(len(text)), LogEnd: uint64(len(text))})
	s.End(j.ID, clients[1], release.StepResult{StdoutTail: []byte(text[:4096]), StdoutBytes: uint64(len(text)), LogEnd: uint64(len(text))}) // never comes
	s.EndJob(j.ID)
	var once sync.Once
	late := start(t, func(c *api.Config) {
		c.Bus = s.Bus
		c.Store = editedLogs{s.Store, func(records []release.LogRecord) []release.LogRecord {
			once.Do(func() { s.Print(j.ID, clients[0], release.StreamStdout, text) }) // after the first look
			return records
		}}
	})
	late.Token = s.Token
	var got []api.Output
	events(t, late.Request("GET", "/api/batch/jobs/"+j.ID+"/stream", nil), func(e jobEvent) bool {
		if e.Type == "result" {
			got = append(got, e.Result)
		}
		return true
	})
	require.Len(t, got, 2)
	require.Equal(t, text, got[0].Stdout)
	require.False(t, got[0].StdoutTruncated)
	require.Len(t, got[1].Stdout, 4096)
	require.True(t, got[1].StdoutTruncated)
}

// Of an output whose beginning is no longer kept, the end is shown that came with the result.
func TestOutputThatIsNoLongerKept(t *testing.T) { onBoth(t, testOutputThatIsNoLongerKept) }

func testOutputThatIsNoLongerKept(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(1, nil)
	j := s.AddJob(job.Options{}, clients...)
	text := strings.Repeat("a line\n", 10000)
	s.Print(j.ID, clients[0], release.StreamStdout, text)
	s.End(j.ID, clients[0], release.StepResult{StdoutTail: []byte(text[len(text)-4096:]), StdoutBytes: uint64(len(text))})
	s.EndJob(j.ID)
	cut := start(t, func(c *api.Config) {
		c.Store = editedLogs{s.Store, func(records []release.LogRecord) []release.LogRecord { return records[min(1, len(records)):] }}
	})
	cut.Token = s.Token
	for _, c := range []struct {
		server *apitest.Server
		length int
	}{{s, len(text)}, {cut, 4096}} {
		status, body := do(t, c.server, "GET", "/api/command/"+job.CommandID(j.ID, clients[0]), "")
		require.Equal(t, 200, status, body)
		info := read[api.CommandInfo](t, body)
		require.Equal(t, c.length < len(text), info.StdoutCut)
		require.Equal(t, text[len(text)-c.length:], info.Stdout)
	}
}

func TestStreamIsCancelledMidRun(t *testing.T) { onBoth(t, testStreamIsCancelledMidRun) }

func testStreamIsCancelledMidRun(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(3, nil)
	s.Jobs.OnStart(func(j job.Job) { s.DispatchJob(j.ID, clients[:2]...) })
	s.Jobs.OnCancel(func(id string) {
		s.SetJob(id, job.StatusCancelling, "cancelled by admin: enough")
		s.End(id, clients[1], release.StepResult{State: release.StepCancelled})
		s.SetJob(id, job.StatusCancelled, "cancelled by admin: enough")
	})
	outcomes := map[string]string{}
	events(t, s.Request("POST", "/api/command/stream?progress=true", body(twoClients)), func(e jobEvent) bool {
		switch e.Type {
		case "progress":
			if e.Counts.Running == 2 {
				s.End(e.JobID, clients[0], release.StepResult{})
			}
		case "result":
			outcomes[e.ClientID] = e.Outcome
			if e.ClientID == clients[0] {
				status, text := do(t, s, "POST", "/api/batch/jobs/"+e.JobID+"/cancel", `{"reason":"enough"}`)
				require.Equal(t, 200, status, text)
				status, _ = do(t, s, "POST", "/api/batch/jobs/"+e.JobID+"/cancel", "")
				require.Equal(t, 409, status)
			}
		case "complete":
			outcomes["complete"] = e.Status
		}
		return true
	})
	require.Equal(t, map[string]string{clients[0]: "succeeded", clients[1]: "cancelled", clients[2]: "skipped", "complete": "cancelled"}, outcomes)
}

// Closing the connection cancels the job where the request says so, and only there. Neither does the server's own end.
func TestClosingTheStreamCancelsWhereAskedTo(t *testing.T) {
	onBoth(t, testClosingTheStreamCancelsWhereAskedTo)
}

func testClosingTheStreamCancelsWhereAskedTo(t *testing.T, start starter) {
	for _, c := range []struct {
		query   string
		stop    bool
		cancels bool
	}{{"?cancel_on_disconnect=true", false, true}, {"", false, false}, {"?cancel_on_disconnect=true", true, false}} {
		t.Run(fmt.Sprint(c.query, c.stop), func(t *testing.T) {
			s := start(t)
			clients := s.AddClients(3, nil)
			cancelled := make(chan struct{})
			s.Jobs.OnStart(func(j job.Job) { s.DispatchJob(j.ID, clients...) })
			s.Jobs.OnCancel(func(string) { close(cancelled) })
			events(t, s.Request("POST", "/api/command/stream"+c.query, body(twoClients)), func(jobEvent) bool {
				if c.stop {
					s.Stop()
				}
				return false
			})
			if c.cancels {
				select {
				case <-cancelled:
				case <-time.After(10 * time.Second):
					t.Fatal("not cancelled")
				}
				require.Contains(t, s.Jobs.Calls()[1], "admin the reader of its stream has gone")
				return
			}
			s.Drain() // its handlers have returned then
			require.Len(t, s.Jobs.Calls(), 1)
		})
	}
}

// Who waits and leaves cancels nothing; the server's end is told.
func TestWhoWaitsAndLeavesCancelsNothing(t *testing.T) {
	onBoth(t, testWhoWaitsAndLeavesCancelsNothing)
}

func testWhoWaitsAndLeavesCancelsNothing(t *testing.T, start starter) {
	s := start(t)
	s.AddClients(3, nil)
	started := make(chan struct{}, 2)
	s.Jobs.OnStart(func(job.Job) { started <- struct{}{} })
	for _, path := range []string{"/api/command/multi", "/api/batch/execute"} {
		text := twoClients
		if strings.Contains(path, "batch") {
			text = `{"command":"x","selector":"*","wait_for_result":true}`
		}
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(s.Request("POST", path, body(text)).WithContext(ctx))
			if err == nil {
				res.Body.Close()
			}
			gone <- err
		}()
		<-started
		leave()
		require.ErrorIs(t, <-gone, context.Canceled)
	}
	s.Jobs.OnStart(func(job.Job) { go s.Stop() })
	status, text := do(t, s, "POST", "/api/command/multi", twoClients)
	require.Equal(t, 503, status, text)
	require.Contains(t, text, "goes on")
	require.Len(t, s.Jobs.Calls(), 3)
}
