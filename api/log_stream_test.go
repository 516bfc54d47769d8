package api_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/release"
)

type joins struct{}

func (joins) Fingerprint() [32]byte { return [32]byte{} }

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

type event struct {
	name string
	id   int64
	data string
}

// stream reads events until handle is false or the stream ends.
func stream(t *testing.T, s *apitest.Server, path string, lastID int64, handle func(event) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r := s.Request("GET", path, nil).WithContext(ctx)
	r.Header.Set("Accept", "text/event-stream")
	if lastID > 0 {
		r.Header.Set("Last-Event-ID", strconv.FormatInt(lastID, 10))
	}
	res := open(t, r)
	defer res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	e := event{}
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "event":
			e.name = value
		case "id":
			id, err := strconv.ParseInt(value, 10, 64)
			require.NoError(t, err)
			e.id = id
		case "data":
			e.data = value
		case "":
			if e.name != "" && !handle(e) {
				return
			}
			e = event{}
		}
	}
	require.NoError(t, lines.Err())
}

// Readers that are cut off at random places and come back put the log together without a gap or a repetition, while it
// is being written.
func TestStreamResumes(t *testing.T) { onBoth(t, testStreamResumes) }

func testStreamResumes(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(3, nil)
	task := s.AddTask(s.AddVersion("hello", "1.0"), clients...)
	const pieces = 200

	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range pieces {
			s.Log(task.ID, clients[i%3], fmt.Sprintf("line %d\n", i))
		}
		for _, client := range clients {
			s.Finish(task.ID, client, release.StepSucceeded, "", 0)
		}
		s.Progress(task.ID, release.StatusSucceeded, release.PhaseDone)
	}()
	var got []string
	last, end := int64(0), api.LogEnd{}
	for end.Status == "" {
		upTo := rand.IntN(25) + 1
		stream(t, s, "/api/release/tasks/"+task.ID+"/logs", last, func(e event) bool {
			switch e.name {
			case "log":
				line := read[api.LogLine](t, e.data)
				require.Equal(t, last+1, e.id)
				require.Equal(t, e.id, line.Seq)
				require.Equal(t, "deploy", line.Step)
				last = e.id
				got = append(got, line.Text)
			case "gap":
				t.Fatal("nothing was cut", e.data)
			case "end":
				end = read[api.LogEnd](t, e.data)
			}
			upTo--
			return upTo > 0
		})
	}
	<-written
	want := make([]string, pieces)
	for i := range want {
		want[i] = fmt.Sprintf("line %d\n", i)
	}
	require.Equal(t, want, got)
	require.Equal(t, api.LogEnd{Status: string(release.StatusSucceeded), LogsComplete: true, Missing: []string{}}, end)

	// The history says the same, by pages and by host.
	var history []string
	for after := int64(0); ; {
		status, text := do(t, s, "GET", fmt.Sprintf("/api/release/tasks/%s/logs?limit=150&after=%d", task.ID, after), "")
		require.Equal(t, 200, status)
		page := read[api.LogPage](t, text)
		require.EqualValues(t, pieces, page.Head)
		for _, line := range page.Logs {
			history = append(history, line.Text)
			after = line.Seq
		}
		if len(page.Logs) == 0 {
			break
		}
	}
	require.Equal(t, want, history)
	var ofOne int
	stream(t, s, "/api/release/tasks/"+task.ID+"/logs?client="+clients[0], 0, func(e event) bool {
		require.NotEqual(t, "gap", e.name)
		if e.name == "log" {
			require.Equal(t, clients[0], read[api.LogLine](t, e.data).ClientID)
			ofOne++
		}
		return true
	})
	require.Equal(t, (pieces+2)/3, ofOne)
}

func TestStreamTellsTheTaskAndItsEnd(t *testing.T) { onBoth(t, testStreamTellsTheTaskAndItsEnd) }

func testStreamTellsTheTaskAndItsEnd(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(2, nil)
	task := s.AddTask(s.AddVersion("hello", "1.0"), clients...)
	var statuses []string
	stream(t, s, "/api/release/tasks/"+task.ID+"/logs", 0, func(e event) bool {
		if e.name != "task" {
			return true
		}
		require.Zero(t, e.id)
		now := read[release.Task](t, e.data)
		if text := fmt.Sprint(now.Status, now.Counts.Succeeded); len(statuses) == 0 || statuses[len(statuses)-1] != text {
			statuses = append(statuses, text)
		}
		switch {
		case now.Status == release.StatusRunning && now.Counts.Succeeded == 0:
			s.Progress(task.ID, release.StatusPaused, release.PhaseWave)
		case now.Status == release.StatusPaused:
			s.Progress(task.ID, release.StatusRunning, release.PhaseWave)
			s.Finish(task.ID, clients[0], release.StepSucceeded, "", 0)
		case now.Counts.Succeeded == 1 && now.Status == release.StatusRunning:
			s.Finish(task.ID, clients[1], release.StepFailed, "exit 1", 0)
			s.Progress(task.ID, release.StatusFailed, release.PhaseDone)
		}
		return true
	})
	require.Equal(t, "failed1", statuses[len(statuses)-1])
	require.Contains(t, statuses, "paused0")
}

// A log that never comes does not hold a reader for long; who is missing is said.
func TestStreamEndsWithoutMissingLogs(t *testing.T) { onBoth(t, testStreamEndsWithoutMissingLogs) }

func testStreamEndsWithoutMissingLogs(t *testing.T, start starter) {
	s := start(t, func(c *api.Config) { c.Now = func() time.Time { return time.Now().Add(14 * time.Second) } })
	clients := s.AddClients(1, nil)
	task := s.AddTask(s.AddVersion("hello", "1.0"), clients...)
	s.Log(task.ID, clients[0], "\xff\xfe")
	s.Finish(task.ID, clients[0], release.StepSucceeded, "", 5)
	s.Progress(task.ID, release.StatusSucceeded, release.PhaseDone)
	began := time.Now()
	var last event
	stream(t, s, "/api/release/tasks/"+task.ID+"/logs", 0, func(e event) bool {
		last = e
		if e.name == "log" {
			require.Equal(t, "//4=", read[api.LogLine](t, e.data).Data)
		}
		return true
	})
	require.Equal(t, "end", last.name)
	require.Equal(t, api.LogEnd{Status: string(release.StatusSucceeded), Missing: clients}, read[api.LogEnd](t, last.data))
	require.Less(t, time.Since(began), 10*time.Second)
}

func TestStreamOfAnIDThatWasNeverGiven(t *testing.T) { onBoth(t, testStreamOfAnIDThatWasNeverGiven) }

func testStreamOfAnIDThatWasNeverGiven(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(1, nil)
	task := s.AddTask(s.AddVersion("hello", "1.0"), clients...)
	s.Log(task.ID, clients[0], "one\n")
	seen := 0
	stream(t, s, "/api/release/tasks/"+task.ID+"/logs", 1000, func(e event) bool {
		if e.name == "task" {
			s.Log(task.ID, clients[0], "two\n")
		}
		if e.name == "log" {
			seen++
			require.EqualValues(t, 2, e.id)
		}
		return seen == 0
	})
	require.Equal(t, 1, seen)
}

// A reader that begins, or resumes, before what is left of a log is told so, and why.
func TestStreamSaysWhatIsGone(t *testing.T) { onBoth(t, testStreamSaysWhatIsGone) }

func testStreamSaysWhatIsGone(t *testing.T, start starter) {
	s := start(t)
	clients := s.AddClients(2, nil)
	task := s.AddTask(s.AddVersion("hello", "1.0"), clients...)
	for range 10 { // a bit more than the limit
		s.Log(task.ID, clients[0], strings.Repeat("x", apitest.MaxLogBytes/9))
	}
	_, err := s.Store.TrimLogs(t.Context(), false)
	require.NoError(t, err)
	s.Log(task.ID, clients[1], "last\n")
	path := "/api/release/tasks/" + task.ID + "/logs"
	read1 := func(path string, last int64) (said []string) {
		t.Helper()
		stream(t, s, path, last, func(e event) bool {
			switch e.name {
			case "gap":
				gap := read[api.LogGap](t, e.data)
				said = append(said, fmt.Sprintf("gap %d-%d", gap.From, gap.To))
			case "log":
				line := read[api.LogLine](t, e.data)
				require.Equal(t, e.id, line.Seq)
				said = append(said, fmt.Sprintf("%d %s %.40s", line.Seq, line.Stream, strings.TrimRight(line.Text, "x\n")))
			}
			return e.name != "task"
		})
		return said
	}
	left := []string{"3 stdout ", "4 stdout ", "5 stdout ", "6 stdout ", "7 stdout ", "8 stdout ", "9 stdout ", "10 stdout ", "11 stdout last"}
	notice := fmt.Sprintf("2 system %d bytes cut by logs.max_bytes", 2*(apitest.MaxLogBytes/9))
	require.Equal(t, append([]string{"gap 1-2", notice}, left...), read1(path, 0))
	require.Equal(t, append([]string{"gap 2-2", notice}, left...), read1(path, 1))
	require.Equal(t, left, read1(path, 2))
	require.Equal(t, left[1:], read1(path, 3))
	require.Equal(t, []string{"gap 2-2", notice, "11 stdout last"}, read1(path+"?client="+clients[1], 1))

	// When all is gone, history and stream say when and why.
	for _, client := range clients {
		s.Finish(task.ID, client, release.StepSucceeded, "", 0)
	}
	s.Progress(task.ID, release.StatusSucceeded, release.PhaseDone)
	_, err = s.Store.RemoveLogs(t.Context(), time.Time{}, time.Now().Add(time.Hour))
	require.NoError(t, err)
	said := read1(path, 5)
	require.Len(t, said, 2)
	require.Equal(t, "gap 6-11", said[0])
	require.Contains(t, said[1], "11 system logs were removed by retention at ")
	require.Empty(t, read1(path, 11))
	status, text := do(t, s, "GET", path, "")
	require.Equal(t, 200, status)
	page := read[api.LogPage](t, text)
	require.EqualValues(t, 11, page.Head)
	require.Len(t, page.Logs, 1)
	require.Contains(t, page.Logs[0].Text, "logs were removed by retention at ")
	require.NotContains(t, text, `"step"`)
}
