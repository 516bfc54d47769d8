package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
)

// batchJob is a job as the API gives it.
type batchJob struct {
	ID      string     `json:"job_id"`
	Status  job.Status `json:"status"`
	Reason  string     `json:"reason"`
	Total   int        `json:"total"`
	Success int        `json:"success_count"`
	Failed  int        `json:"failed_count"`
	Pending int        `json:"pending_count"`
	Running int        `json:"running_count"`
	Counts  job.Counts `json:"counts"`
	Payload struct {
		Command string `json:"command"`
	} `json:"payload"`
}

// jobHost is one host of a job.
type jobHost struct {
	ClientID    string    `json:"client_id"`
	CommandID   string    `json:"command_id"`
	State       job.State `json:"state"`
	Attempt     int       `json:"attempt"`
	ExitCode    *int      `json:"exit_code"`
	Error       string    `json:"error"`
	Stdout      string    `json:"stdout"`
	StdoutBytes int64     `json:"stdout_bytes"`
}

// job reads a job; while the server is down it is empty.
func (s *server) job(id string) (j batchJob) {
	s.t.Helper()
	s.get("/api/batch/jobs/"+id, &j)
	return j
}

// finishJob waits until a job has ended.
func (s *server) finishJob(id string, limit time.Duration) (j batchJob) {
	s.t.Helper()
	eventually(s.t, limit, "the job ends", func() (bool, any) {
		j = s.job(id)
		return j.ID != "" && j.Status.Terminal(), j
	})
	return j
}

// jobHosts reads the hosts of a job.
func (s *server) jobHosts(id string) (all []jobHost) {
	s.t.Helper()
	for {
		var page struct {
			Targets []jobHost `json:"targets"`
			Total   int       `json:"total"`
		}
		require.Equal(s.t, http.StatusOK, s.get(fmt.Sprintf("/api/batch/jobs/%s/targets?limit=1000&offset=%d", id, len(all)), &page))
		all = append(all, page.Targets...)
		if len(page.Targets) == 0 || len(all) >= page.Total {
			return all
		}
	}
}

// shell starts a job that runs a line of shell on every agent. The id is empty if no answer came: it may run all the same.
func (s *server) shell(line string, options object) (id string) {
	s.t.Helper()
	body := object{"command": line, "selector": "*"}
	for k, v := range options {
		body[k] = v
	}
	code, answer := s.try("/api/batch/execute", body)
	switch {
	case code == 0 || code >= 500:
		return "" // the server is down, or its database is
	case code >= 300:
		require.FailNow(s.t, "the job was not taken", "%d %s", code, answer)
	}
	var j batchJob
	require.NoError(s.t, json.Unmarshal([]byte(answer), &j), answer)
	return j.ID
}

// How many hosts the test of long commands has, and how long they take. "make chaos" has 200, and 60 s.
const (
	longHosts   = "QUICFLOW_LONG_HOSTS"
	longSeconds = "QUICFLOW_LONG_SECONDS"
)

// Scripts that take long, and the server dies at a third of it: every exit code is right, and little time is lost.
func TestLongCommandsOutliveTheServer(t *testing.T) {
	t.Parallel()
	for _, database := range []string{sqlite, postgres} { // one after the other, as the time that is lost counts
		t.Run(database, func(t *testing.T) { testLongCommands(t, database) })
	}
}

func testLongCommands(t *testing.T, database string) {
	s := startServer(t, serverConfig{database: database})
	hosts, lasting := fromEnv(t, longHosts, 10), time.Duration(fromEnv(t, longSeconds, 12))*time.Second
	startAgents(t, s, hosts)
	began := time.Now()
	// Every second host fails, with a code of its own.
	id := s.shell(fmt.Sprintf(`n=${QUICFLOW_TARGET#host-}; echo begin; sleep %d; echo end $n; exit $(( n %% 2 * (n %% 250) ))`, int(lasting.Seconds())), object{"task_timeout": "5m"})
	require.NotEmpty(t, id)
	eventually(t, lasting*3/4, "all hosts are at work", func() (bool, any) { j := s.job(id); return j.Running == hosts, j })
	<-time.After(time.Until(began.Add(lasting / 3))) // the moment of the death is what the test is about
	s.crash()
	s.start()
	j := s.finishJob(id, time.Minute)
	took := time.Since(began)
	t.Logf("%d scripts of %s took %s, with the server killed after a third of it", hosts, lasting, took.Round(100*time.Millisecond))
	require.Equal(t, job.StatusPartial, j.Status, j.Reason)
	require.Equal(t, hosts/2, j.Success)
	for _, h := range s.jobHosts(id) {
		var n, want int
		_, err := fmt.Sscanf(h.ClientID, "host-%d", &n)
		require.NoError(t, err)
		if n%2 == 1 {
			want = n % 250
		}
		require.NotNil(t, h.ExitCode, "%+v", h)
		require.Equal(t, want, *h.ExitCode, "%+v", h)
		require.Equal(t, fmt.Sprintf("begin\nend %d\n", n), h.Stdout)
		require.Equal(t, 1, h.Attempt)
	}
	require.Less(t, took, lasting+10*time.Second, "at most 10 s are added")
}
