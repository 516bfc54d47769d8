package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
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
}

// history reads the whole log of a task, page by page.
func (s *server) history(taskID string) (all []logLine) {
	s.t.Helper()
	after := int64(0)
	for {
		var page struct {
			Logs []logLine `json:"logs"`
			Head int64     `json:"head"`
		}
		require.Equal(s.t, http.StatusOK, s.get(fmt.Sprintf("/api/release/tasks/%s/logs?after=%d", taskID, after), &page))
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
