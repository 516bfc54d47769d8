package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

// The server dies on each line after which something is stored or sent and before anyone knows. Started again, it brings
// the rollout to its end; each host has run each step once, and every log line is there once.
func TestServerDiesAtItsWorstLines(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	agents := startAgents(t, s, 3)
	h := newHosts(t)
	s.project("web", h)
	story := &story{s: s, hosts: h, agents: agents}
	for i, line := range []string{
		"progress.recorded", "chunks.planned", "dispatch.marked", "dispatch.answered", "hub.results.stored", "hub.logs.stored",
	} {
		version := fmt.Sprintf("%d.0", i+1)
		const lasting = 300 * time.Millisecond
		s.version("web", version, tracing(lasting))
		require.Zero(t, s.proc.stop())
		s.start("QUICFLOW_FAILPOINT=" + line)
		for _, a := range agents {
			s.await(a.id, release.ClientOnline)
		}
		s.try("/api/release/tasks", object{"project": "web", "version": version, "action": "deploy",
			"targets": object{"selector": "*"}, "strategy": object{"canary": object{"percent": 30}}})
		require.Equal(t, -1, s.proc.wait(30*time.Second), "killed at %s", line)
		s.start()

		var page struct {
			Tasks []release.Task `json:"tasks"`
		}
		s.get("/api/release/tasks", &page)
		require.Equal(t, version, page.Tasks[0].Version)
		done := s.finish(page.Tasks[0].ID, time.Minute)
		require.Equal(t, release.StatusSucceeded, done.Status, "%s: %s", line, done.Reason)
		story.tell(line, done.ID, version, lasting)
	}
}

// An agent dies between intent and effect, between effect and result, and between result and answer. Started again, it
// knows what is left to do.
func TestAgentDiesAtItsWorstLines(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	agents := startAgents(t, s, 2)
	victim := agents[0]
	h := newHosts(t)
	s.project("web", h)
	story := &story{s: s, hosts: h, agents: agents}
	for i, line := range []string{"agent.intent.stored", "agent.step.ended", "agent.result.stored"} {
		version := fmt.Sprintf("%d.0", i+1)
		const lasting = 300 * time.Millisecond
		s.version("web", version, tracing(lasting))
		require.Zero(t, victim.proc.stop())
		victim.env = []string{"QUICFLOW_FAILPOINT=" + line}
		victim.start()
		s.await(victim.id, release.ClientOnline)
		task := s.deploy("web", version, object{})
		require.Equal(t, -1, victim.proc.wait(30*time.Second), "killed at %s", line)
		victim.env = nil
		victim.start()

		done := s.finish(task.ID, time.Minute)
		require.Equal(t, release.StatusSucceeded, done.Status, "%s: %s", line, done.Reason)
		story.tell(line, done.ID, version, lasting)
	}
}

// The server dies on each line after which something of a job is stored or sent and before anyone knows. Started again, it brings
// the job to its end; each host has run the command once, and what it printed is there once.
func TestServerDiesAtItsWorstLinesOfJobs(t *testing.T) {
	for _, database := range []string{sqlite, postgres} {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			w := &jobStory{s: startServer(t, serverConfig{database: database}), hosts: newHosts(t)}
			w.agents = startAgents(t, w.s, 3)
			for _, line := range []string{
				"api.job.committed", "job.recorded", "job.planned", "dispatch.marked", "dispatch.answered", "hub.results.stored", "hub.logs.stored", "job.retried",
			} {
				w.arm(line)
				w.s.shell(w.command(line), nil)
				require.Equal(t, -1, w.s.proc.wait(30*time.Second), "killed at %s", line)
				w.s.start()
				w.tell(line)
			}

			// A host is waited for, and the server dies as it takes it up.
			w.arm("job.woken")
			away := w.agents[2]
			require.Zero(t, away.proc.stop())
			w.s.await(away.id, release.ClientOffline)
			id := w.s.shell(w.command("job.woken"), object{"wait_offline": "5m"})
			eventually(t, 30*time.Second, "the others have done it", func() (bool, any) {
				j := w.s.job(id)
				return j.Success == 2 && j.Pending == 1, j
			})
			away.start()
			require.Equal(t, -1, w.s.proc.wait(30*time.Second), "killed at job.woken")
			w.s.start()
			w.tell("job.woken")

			// One at a time, and the server dies as it lets nothing new start.
			w.arm("job.halted")
			id = w.s.shell(w.command("job.halted")+"; sleep 120", object{"concurrency": 1, "task_timeout": "5m"})
			eventually(t, 30*time.Second, "the first host is at work", func() (bool, any) { return len(w.ran("job.halted")) == 1, w.s.job(id) })
			w.s.try("/api/batch/jobs/"+id+"/cancel", object{"reason": "enough"})
			require.Equal(t, -1, w.s.proc.wait(30*time.Second), "killed at job.halted")
			w.s.start()
			j := w.s.finishJob(id, 2*time.Minute)
			require.Equal(t, job.StatusCancelled, j.Status, "%+v", j)
			require.Equal(t, job.Counts{Total: 3, Cancelled: 1, Skipped: 2}, j.Counts)
			require.Len(t, w.ran("job.halted"), 1, "nothing new starts")
		})
	}
}

// jobStory is what hosts must have done for one job after the other.
type jobStory struct {
	s      *server
	hosts  *hosts
	agents []*agent
}

// arm restarts the server so that it dies at a line, and waits for its agents.
func (w *jobStory) arm(line string) {
	w.s.t.Helper()
	require.Zero(w.s.t, w.s.proc.stop())
	w.s.start("QUICFLOW_FAILPOINT=" + line)
	for _, a := range w.agents {
		w.s.await(a.id, release.ClientOnline)
	}
}

func (w *jobStory) command(line string) string {
	return fmt.Sprintf("echo %s >> %s/$QUICFLOW_TARGET; echo printed %s", line, w.hosts.dir, line)
}

// ran gives, for each time that a host ran the command, its id.
func (w *jobStory) ran(line string) (ids []string) {
	for _, a := range w.agents {
		for _, did := range w.hosts.trace(a.id) {
			if did == line {
				ids = append(ids, a.id)
			}
		}
	}
	return ids
}

// tell says that the latest job, in which the server died at a line, was done by each host once, and that its log is whole.
func (w *jobStory) tell(line string) {
	t := w.s.t
	t.Helper()
	var page struct {
		Jobs []batchJob `json:"jobs"`
	}
	require.Equal(t, http.StatusOK, w.s.get("/api/batch/jobs?limit=1", &page))
	require.Len(t, page.Jobs, 1, line)
	j := w.s.finishJob(page.Jobs[0].ID, 2*time.Minute)
	require.Contains(t, j.Payload.Command, line)
	require.Equal(t, job.StatusCompleted, j.Status, "%s: %+v", line, j)
	var all []string
	for _, a := range w.agents {
		all = append(all, a.id)
	}
	require.Equal(t, all, w.ran(line), "killed at %s", line)
	printed := map[string]string{}
	eventually(t, 20*time.Second, "the log of the job is complete", func() (bool, any) {
		clear(printed)
		for _, l := range w.s.historyOf("/api/batch/jobs/" + j.ID + "/logs") {
			printed[l.ClientID] += l.Text
		}
		return len(printed) == len(all), printed
	})
	for _, id := range all {
		require.Equal(t, "printed "+line+"\n", printed[id], "killed at %s", line)
	}
}

// story is what hosts must have seen of one version after the other.
type story struct {
	s       *server
	hosts   *hosts
	agents  []*agent
	history []string
}

// tell says that a version came next, after a process died at a line: each host has run it once, and its log is whole.
func (st *story) tell(line, taskID, version string, lasting time.Duration) {
	st.s.t.Helper()
	action := "update"
	if len(st.history) == 0 {
		action = "install"
	}
	st.history = append(st.history, action+" "+version)
	for _, a := range st.agents {
		require.Equal(st.s.t, st.history, st.hosts.trace(a.id), "killed at %s", line)
		st.s.requireLog(taskID, a.id, tracedLines(a.id, action, version, lasting))
	}
}
