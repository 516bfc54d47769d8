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

// 50 MB of a command's output, binary bytes and long lines among them, while the agent is cut off and killed again and again,
// and so is who reads: what the reader put together is what the command wrote.
func TestLogsThroughDisconnects(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	r := startRelay(t, s.addr)
	a := startAgentsVia(t, s, r.addr, 1)[0]
	copied := filepath.Join(t.TempDir(), "copy")
	const parts, disconnects = 25, 20
	id := s.shell(fmt.Sprintf(`n=0
while [ $n -lt %d ]; do
	n=$((n+1))
	head -c 1000000 /dev/urandom
	head -c 750000 /dev/urandom | base64 -w 0
	echo
	sleep 0.1
done | tee %s`, parts, copied), object{"task_timeout": "5m", "job_timeout": "10m"})
	require.NotEmpty(t, id)

	// The agent's side.
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
	for n := 0; !ended; n++ {
		require.Less(t, time.Since(began), 4*time.Minute, "the stream has no end; %d events came", len(f.events))
		if n < disconnects && n%5 == 4 {
			a.proc.kill9()
			a.start()
		}
		// The reader's side: its first connections are cut off.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if n < disconnects {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
		}
		last, ended = f.read(ctx, s.url("/api/batch/jobs/"+id+"/logs"), s.token, last)
		cancel()
	}
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
