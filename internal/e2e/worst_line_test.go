package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
