package e2e

import (
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
)

// fanOutAgents is how many simulated agents the test of their logs has. "make chaos" has 10,000.
const fanOutAgents = "QUICFLOW_FANOUT_AGENTS"

const (
	fanOutLines = 100 // of each agent
	fanOutLine  = 64  // bytes
)

// Many agents print at the same time: all of it is stored, in the order of each, and the test says how long that took.
func TestFanOut(t *testing.T) {
	t.Parallel()
	agents := fromEnv(t, fanOutAgents, 500)
	for _, database := range []string{sqlite, postgres} { // one after the other, as the lag is measured
		t.Run(database, func(t *testing.T) { testFanOut(t, database, agents) })
	}
}

func testFanOut(t *testing.T, database string, agents int) {
	s := startServer(t, serverConfig{database: database, heartbeat: 15}) // as by default: 10,000 a second would be a load of its own
	dir := t.TempDir()
	start(t, "quic-loadtest", filepath.Join(dir, "log"), nil, program("quic-loadtest"), "-s", s.addr, "-n", strconv.Itoa(agents), "-p", "fan",
		"--token", s.joinToken("--uses", strconv.Itoa(agents)), "--identities", dir, "--log-lines", strconv.Itoa(fanOutLines), "--report-interval", "1h", "--connect-timeout", "10m")
	eventually(t, 10*time.Minute, "all agents are connected", func() (bool, any) {
		var page struct {
			Total int `json:"total"`
		}
		code := s.get("/api/clients?status=online&limit=1", &page)
		return code == http.StatusOK && page.Total == agents, page.Total
	})

	id := s.shell("print", object{"job_timeout": "10m"})
	require.NotEmpty(t, id)
	log := fanOutLog{s: s, id: id}
	eventually(t, 10*time.Minute, "all is stored", func() (bool, any) {
		head := log.look()
		j := s.job(id)
		if !j.Status.Terminal() {
			return false, j
		}
		if log.heads[len(log.heads)-1].at.Add(time.Second).After(time.Now()) {
			return false, head // more may come
		}
		log.read()
		return log.bytes >= agents*fanOutLines*fanOutLine, log.bytes
	})
	require.Equal(t, job.StatusCompleted, s.job(id).Status)

	hosts := map[string]*strings.Builder{}
	var lags []time.Duration
	for _, r := range log.records {
		text := hosts[r.ClientID]
		if text == nil {
			text = new(strings.Builder)
			hosts[r.ClientID] = text
		}
		require.Equal(t, text.Len(), r.Offset, "%s: a piece is lost or double", r.ClientID)
		text.WriteString(r.Text)
		lag := log.stored(r.Seq).Sub(r.Time)
		for range max(1, len(r.Text)/fanOutLine) {
			lags = append(lags, lag)
		}
	}
	require.Len(t, hosts, agents)
	var first string // as all print the same
	for client, text := range hosts {
		if first == "" {
			first = text.String()
			require.Len(t, first, fanOutLines*fanOutLine)
		}
		require.Equal(t, first, text.String(), client)
	}
	slices.Sort(lags)
	t.Logf("%d agents printed %d lines each: all are stored, in %d records; lag p50 %s, p99 %s", agents, fanOutLines, len(log.records),
		lags[len(lags)/2].Round(time.Millisecond), lags[len(lags)*99/100].Round(time.Millisecond))
}

// fanOutLog is what is known of a job's log.
type fanOutLog struct {
	s       *server
	id      string
	heads   []logHead
	records []timedLine
	bytes   int // of records
}

// logHead is up to where a log was seen to be stored.
type logHead struct {
	seq int64
	at  time.Time
}

type timedLine struct {
	logLine
	Time time.Time `json:"time"`
}

// look asks how far the log is stored.
func (l *fanOutLog) look() int64 {
	l.s.t.Helper()
	var page struct {
		Head int64 `json:"head"`
	}
	require.Equal(l.s.t, http.StatusOK, l.s.get(fmt.Sprintf("/api/batch/jobs/%s/logs?limit=1&after=%d", l.id, int64(math.MaxInt64)), &page))
	if len(l.heads) == 0 || page.Head > l.heads[len(l.heads)-1].seq {
		l.heads = append(l.heads, logHead{page.Head, time.Now()})
	}
	return page.Head
}

// read reads what is new.
func (l *fanOutLog) read() {
	l.s.t.Helper()
	for {
		after := int64(0)
		if n := len(l.records); n > 0 {
			after = l.records[n-1].Seq
		}
		var page struct {
			Logs []timedLine `json:"logs"`
		}
		require.Equal(l.s.t, http.StatusOK, l.s.get(fmt.Sprintf("/api/batch/jobs/%s/logs?limit=5000&after=%d", l.id, after), &page))
		if len(page.Logs) == 0 {
			l.look() // what was stored since the last look was just read
			return
		}
		for _, r := range page.Logs {
			l.bytes += len(r.Text)
		}
		l.records = append(l.records, page.Logs...)
	}
}

// stored gives when a record was seen to be there.
func (l *fanOutLog) stored(seq int64) time.Time {
	return l.heads[sort.Search(len(l.heads), func(i int) bool { return l.heads[i].seq >= seq })].at
}
