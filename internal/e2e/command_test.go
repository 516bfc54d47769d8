package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
)

// Commands go over the whole way, on both databases: from the request to scripts of real agents, and back.
func TestCommands(t *testing.T) {
	for _, database := range []string{sqlite, postgres} {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, serverConfig{database: database})
			startAgents(t, s, 3)
			testBuiltIns(t, s)
			testStreamOfHosts(t, s)
			testCancelOfWhatRuns(t, s)
			testPausedJob(t, s)
			testCtlCommands(t, s)
		})
	}
}

// commandInfo is a command as the API gives it.
type commandInfo struct {
	Status  string          `json:"status"`
	Outcome job.State       `json:"outcome"`
	Result  json.RawMessage `json:"result"`
	Error   string          `json:"error"`
}

// command runs a command on host-1 to its end.
func (s *server) command(kind string, payload object) (info commandInfo) {
	s.t.Helper()
	var made struct {
		ID string `json:"command_id"`
	}
	s.post("/api/command", object{"client_id": "host-1", "command_type": kind, "payload": payload, "timeout": 30}, &made)
	eventually(s.t, 30*time.Second, kind+" ends", func() (bool, any) {
		code := s.get("/api/command/"+made.ID, &info)
		if code != http.StatusOK || info.Status == "pending" || info.Status == "executing" {
			return false, info
		}
		return info.Status != "completed" || len(info.Result) > 0, info // a large result comes with the log
	})
	return info
}

// testBuiltIns has an agent answer each of its commands, and say what it does not know.
func testBuiltIns(t *testing.T, s *server) {
	for kind, field := range map[string]string{
		"ping": "time", "get_status": "client_id", "system.info": "hostname", "system.collect_info": "cpu", "process.list": "processes", "echo": "said",
	} {
		payload := object{}
		if kind == "echo" {
			payload["said"] = "hello"
		}
		info := s.command(kind, payload)
		require.Equal(t, "completed", info.Status, "%s: %+v", kind, info)
		var result object
		require.NoError(t, json.Unmarshal(info.Result, &result), "%s: %s", kind, info.Result)
		require.NotEmpty(t, result[field], "%s: %s", kind, info.Result)
	}
	unknown := s.command("dance", object{})
	require.Equal(t, "failed", unknown.Status)
	require.Equal(t, job.StateRefused, unknown.Outcome)
	require.Contains(t, unknown.Error, `unknown command type "dance"`)
	wrong := s.command("exec_shell", object{"command": "true", "shell": "zsh"})
	require.Equal(t, job.StateRefused, wrong.Outcome)
	require.Contains(t, wrong.Error, "payload.shell")
}

// jobEvent is an event of a stream of results.
type jobEvent struct {
	Type     string     `json:"type"`
	JobID    string     `json:"job_id"`
	ClientID string     `json:"client_id"`
	Status   string     `json:"status"`
	Outcome  job.State  `json:"outcome"`
	Summary  object     `json:"summary"`
	Counts   job.Counts `json:"counts"`
}

// stream runs a line of shell on all three hosts, and tells of each event.
func (s *server) stream(line string, tell func(jobEvent)) {
	s.t.Helper()
	body, err := json.Marshal(object{"client_ids": []string{"host-1", "host-2", "host-3"}, "command_type": "exec_shell", "payload": object{"command": line}, "timeout": 200})
	require.NoError(s.t, err)
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url("/api/command/stream?progress=true"), strings.NewReader(string(body)))
	require.NoError(s.t, err)
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(s.t, err)
	defer resp.Body.Close()
	require.Equal(s.t, http.StatusOK, resp.StatusCode)
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var e jobEvent
			require.NoError(s.t, json.Unmarshal([]byte(data), &e), data)
			tell(e)
		}
	}
}

// testStreamOfHosts has the hosts finish in another order than they are listed in, each when the one before it was told of.
func testStreamOfHosts(t *testing.T, s *server) {
	gates := t.TempDir()
	var order []string
	var summary object
	s.stream(fmt.Sprintf("while [ $QUICFLOW_TARGET != host-3 ] && [ ! -e %s/$QUICFLOW_TARGET ]; do sleep 0.05; done; [ $QUICFLOW_TARGET != host-2 ]", gates), func(e jobEvent) {
		switch e.Type {
		case "result":
			order = append(order, e.ClientID+" "+e.Status)
			if next := map[string]string{"host-3": "host-1", "host-1": "host-2"}[e.ClientID]; next != "" {
				require.NoError(t, os.WriteFile(filepath.Join(gates, next), nil, 0o600))
			}
		case "complete":
			summary = e.Summary
		}
	})
	require.Equal(t, []string{"host-3 completed", "host-1 completed", "host-2 failed"}, order)
	require.EqualValues(t, 3, summary["total"])
	require.EqualValues(t, 2, summary["success_count"])
	require.EqualValues(t, 1, summary["failed_count"])
}

// testCancelOfWhatRuns cancels a job whose scripts run: their processes are gone, and a second time there is nothing to cancel.
func testCancelOfWhatRuns(t *testing.T, s *server) {
	pids := t.TempDir()
	var id, status string
	cancelled := false
	s.stream(fmt.Sprintf("echo $$ > %[1]s/$QUICFLOW_TARGET; sleep 180", pids), func(e jobEvent) {
		id = e.JobID
		switch {
		case e.Type == "complete":
			status = e.Status
		case e.Type == "result":
			require.Equal(t, job.StateCancelled, e.Outcome)
		case e.Type == "progress" && e.Counts.Running == 3 && !cancelled:
			eventually(t, 30*time.Second, "all scripts run", func() (bool, any) {
				files, err := os.ReadDir(pids)
				return err == nil && len(files) == 3, files
			})
			s.post("/api/batch/jobs/"+id+"/cancel", object{"reason": "enough"}, nil)
			cancelled = true
		}
	})
	require.Equal(t, "cancelled", status)
	require.Equal(t, 3, s.job(id).Counts.Cancelled)
	for n := range 3 {
		text, err := os.ReadFile(filepath.Join(pids, fmt.Sprintf("host-%d", n+1)))
		require.NoError(t, err)
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		require.NoError(t, err)
		eventually(t, 10*time.Second, "the script is gone", func() (bool, any) { return syscall.Kill(pid, 0) == syscall.ESRCH, pid })
	}
	code, answer := s.try("/api/batch/jobs/"+id+"/cancel", object{})
	require.Equal(t, http.StatusConflict, code, answer)
}

// testPausedJob pauses a job that goes over one host at a time, and resumes it.
func testPausedJob(t *testing.T, s *server) {
	h := newHosts(t)
	id := s.shell(fmt.Sprintf("echo did >> %s/$QUICFLOW_TARGET; sleep 3", h.dir), object{"concurrency": 1})
	did := func() (n int) {
		for _, host := range []string{"host-1", "host-2", "host-3"} {
			n += len(h.trace(host))
		}
		return n
	}
	eventually(t, 30*time.Second, "the first host is at work", func() (bool, any) { return did() == 1, s.job(id) })
	s.post("/api/batch/jobs/"+id+"/pause", object{}, nil)
	eventually(t, 30*time.Second, "what runs has ended", func() (bool, any) {
		j := s.job(id)
		return j.Status == job.StatusPaused && j.Running == 0, j
	})
	begun := did()
	require.Less(t, begun, 3)
	require.Never(t, func() bool { return did() > begun }, 2*time.Second, 100*time.Millisecond, "nothing new starts")
	s.post("/api/batch/jobs/"+id+"/resume", object{}, nil)
	require.Equal(t, job.StatusCompleted, s.finishJob(id, time.Minute).Status)
	require.Equal(t, 3, did(), "each does it once")
}

// testCtlCommands does the same by quic-ctl.
func testCtlCommands(t *testing.T, s *server) {
	out, errs, code := s.ctl("command", "host-1", "--", "echo said; echo noted >&2")
	require.Zero(t, code, errs)
	require.Equal(t, "said\n", out)
	require.Contains(t, errs, "noted")
	_, _, code = s.ctl("command", "host-1", "--", "exit 7")
	require.Equal(t, 3, code)
	out, errs, code = s.ctl("batch", "run", "--selector", "id=host-*", "--wait", "--", "true")
	require.Zero(t, code, "%s %s", out, errs)
	out, errs, code = s.ctl("send", "host-2", "--type", "ping")
	require.Zero(t, code, "%s %s", out, errs)
	out, errs, code = s.ctl("broadcast", "--all", "--type", "ping")
	require.Zero(t, code, "%s %s", out, errs)
	_, errs, code = s.ctl("batch", "run", "--selector", "env=nowhere", "--", "true")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "selector")
}
