package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// logLine is a piece of a host's output as the API gives it.
type logLine struct {
	Seq      int64  `json:"seq"`
	ClientID string `json:"client_id"`
	Step     string `json:"step"`
	Stream   string `json:"stream"`
	Offset   int    `json:"offset"`
	Text     string `json:"text"`
	Base64   []byte `json:"data_base64"` // in place of Text where it is not UTF-8
}

// history reads the whole log of a task, page by page.
func (s *server) history(taskID string) []logLine {
	s.t.Helper()
	return s.historyOf("/api/release/tasks/" + taskID + "/logs")
}

// historyOf reads a whole log, page by page.
func (s *server) historyOf(path string) (all []logLine) {
	s.t.Helper()
	after := int64(0)
	for {
		var page struct {
			Logs []logLine `json:"logs"`
			Head int64     `json:"head"`
		}
		require.Equal(s.t, http.StatusOK, s.get(fmt.Sprintf("%s?after=%d", path, after), &page))
		if len(page.Logs) == 0 {
			require.Equal(s.t, page.Head, after)
			return all
		}
		all = append(all, page.Logs...)
		after = page.Logs[len(page.Logs)-1].Seq
	}
}

// requireLog waits until what a host printed in its deploy step has arrived, and compares it: nothing lost, nothing
// twice, in order.
func (s *server) requireLog(taskID, clientID string, want []string) {
	s.t.Helper()
	var printed string
	eventually(s.t, 20*time.Second, "the log of "+clientID+" is complete", func() (bool, any) {
		var b strings.Builder
		for _, l := range s.history(taskID) {
			if l.ClientID == clientID && l.Stream == "stdout" && l.Step == "deploy" {
				require.Equal(s.t, b.Len(), l.Offset, "a piece is lost or double")
				b.WriteString(l.Text)
			}
		}
		printed = b.String()
		return len(lines(printed)) >= len(want), printed
	})
	require.Equal(s.t, want, lines(printed))
}

// requireSame waits for the end of the followed log and compares it with the log after the fact.
func (f *follower) requireSame(s *server, taskID string) {
	s.t.Helper()
	select {
	case <-f.done:
	case <-time.After(30 * time.Second):
		require.FailNow(s.t, "timeout", "the live log has no end")
	}
	var seen []logLine
	var last event
	for _, e := range f.events {
		require.NotEqual(s.t, "gap", e.name, e.data)
		if e.name == "log" {
			var l logLine
			require.NoError(s.t, json.Unmarshal([]byte(e.data), &l))
			require.Equal(s.t, e.id, fmt.Sprint(l.Seq))
			require.EqualValues(s.t, len(seen)+1, l.Seq, "the live log leaves nothing out and repeats nothing")
			seen = append(seen, l)
		}
		last = e
	}
	require.Equal(s.t, "end", last.name)
	require.Contains(s.t, last.data, `"logs_complete":true`)
	require.Equal(s.t, s.history(taskID), seen)
}

// 50 MB of a command's output, binary bytes and long lines among them, while the agent is killed 20 times and its connections are
// cut in between, and the reader is cut off as often: what it put together is what the command wrote.
func TestLogsThroughDisconnects(t *testing.T) {
	t.Parallel()
	for _, database := range []string{sqlite, postgres} {
		t.Run(database, func(t *testing.T) { testLogsThroughDisconnects(t, database) })
	}
}

func testLogsThroughDisconnects(t *testing.T, database string) {
	s := startServer(t, serverConfig{database: database})
	r := startRelay(t, s.addr)
	a := startAgentsVia(t, s, r.addr, 1)[0]
	copied, enough := filepath.Join(t.TempDir(), "copy"), filepath.Join(t.TempDir(), "enough")
	const parts, disconnects = 25, 20
	// It ends after the last disconnect, so that each of them is in the middle of it.
	id := s.shell(fmt.Sprintf(`n=0
while [ $n -lt %[1]d ] || [ ! -e %[2]s ]; do
	n=$((n+1))
	if [ $n -le %[1]d ]; then
		head -c 1000000 /dev/urandom
		head -c 750000 /dev/urandom | base64 -w 0
	fi
	echo part $n
	sleep 0.7
done | tee %[3]s`, parts, enough, copied), object{"task_timeout": "5m", "job_timeout": "10m"})
	require.NotEmpty(t, id)
	var session time.Time
	reconnected := func() {
		eventually(t, 30*time.Second, "the agent has a new session", func() (bool, any) {
			var c release.Client
			if s.get("/api/clients/"+a.id, &c) != http.StatusOK || c.ConnectedAt == nil || !c.ConnectedAt.After(session) {
				return false, c
			}
			session = *c.ConnectedAt
			return true, nil
		})
	}
	reconnected()

	// Between its deaths the agent loses packets, too.
	broken := make(chan struct{})
	go func() {
		defer close(broken)
		for range disconnects {
			<-time.After(400 * time.Millisecond) // how long it is connected
			r.cut.Store(true)
			<-time.After(300 * time.Millisecond) // how long it is not
			r.cut.Store(false)
		}
	}()

	f, last, ended := new(follower), "", false
	began := time.Now()
	moved := 0 // disconnects before which something came
	for n := 0; !ended; n++ {
		require.Less(t, time.Since(began), 4*time.Minute, "the stream has no end; %d events came", len(f.events))
		if n >= disconnects {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			last, ended = f.read(ctx, s.url("/api/batch/jobs/"+id+"/logs"), s.token, last)
			cancel()
			continue
		}
		before := len(f.events)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		last, ended = f.read(ctx, s.url("/api/batch/jobs/"+id+"/logs"), s.token, last)
		cancel()
		require.False(t, ended, "the log ended before disconnect %d", n)
		if len(f.events) > before {
			moved++
		}
		a.proc.kill9()
		a.start()
		reconnected()
		if n == disconnects-1 {
			require.NoError(t, os.WriteFile(enough, nil, 0o600))
		}
	}
	require.Greater(t, moved, disconnects/4, "most disconnects found the log at rest")
	<-broken
	j := s.finishJob(id, time.Minute)
	require.Equal(t, 1, j.Success, "%+v %+v", j, s.jobHosts(id))

	read := sha256.New()
	offset := 0
	for _, e := range f.events {
		require.NotEqual(t, "gap", e.name, e.data)
		if e.name != "log" {
			continue
		}
		var l logLine
		require.NoError(t, json.Unmarshal([]byte(e.data), &l))
		if l.Stream != "stdout" {
			continue
		}
		require.Equal(t, offset, l.Offset, "a piece is lost or double")
		piece := append([]byte(l.Text), l.Base64...)
		offset += len(piece)
		read.Write(piece)
	}
	file, err := os.Open(copied)
	require.NoError(t, err)
	defer file.Close()
	written := sha256.New()
	size, err := io.Copy(written, file)
	require.NoError(t, err)
	require.Greater(t, size, int64(45<<20))
	require.EqualValues(t, size, offset)
	require.Equal(t, written.Sum(nil), read.Sum(nil))
	t.Logf("%d MB in %s, %d disconnects of each side", size>>20, time.Since(began).Round(time.Second), disconnects)
}
