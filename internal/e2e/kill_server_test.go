package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// One rollout, and the server dies in each of its phases. It goes on by itself, no host runs a step twice, and the log
// is complete, for a reader after the fact and for one who watched all the time.
func TestServerKilledDuringRollout(t *testing.T) {
	for _, database := range []string{sqlite, postgres} {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, serverConfig{database: database})
			agents := startAgents(t, s, 5)
			h := newHosts(t)
			s.project("web", h)
			s.version("web", "1.0", tracing(0))
			const lasting = 2 * time.Second
			s.version("web", "2.0", tracing(lasting))
			s.installed("web", "1.0")

			task := s.deploy("web", "2.0", object{
				"canary":       object{"percent": 20, "soak": "4s"},
				"waves":        []int{60, 100},
				"max_parallel": 1,
			})
			watched := follow(t, s, task.ID)

			eventually(t, 30*time.Second, "the canary host is at work", func() (bool, any) { return h.traced("2.0") == 1, s.task(task.ID) })
			s.crash()
			s.start()

			s.reach(task.ID, time.Minute, "the soak begins", func(t release.Task) bool { return t.Phase == release.PhaseSoak })
			s.crash()
			require.Equal(t, 1, h.traced("2.0"))
			s.start()

			eventually(t, time.Minute, "the first wave is at work", func() (bool, any) { return h.traced("2.0") == 2, s.task(task.ID) })
			s.crash()
			s.start()

			eventually(t, time.Minute, "the second wave is at work", func() (bool, any) { return h.traced("2.0") == 4, s.task(task.ID) })
			require.Zero(t, s.proc.stop(), "a SIGTERM ends the server in good order")
			s.start()

			done := s.finish(task.ID, time.Minute)
			require.Equal(t, release.StatusSucceeded, done.Status, done.Reason)
			require.Equal(t, 5, done.Counts.Succeeded)
			for _, a := range agents {
				require.Equal(t, []string{"install 1.0", "update 2.0"}, h.trace(a.id))
				s.requireLog(task.ID, a.id, tracedLines(a.id, "update", "2.0", lasting))
			}
			watched.requireSame(s, task.ID)
		})
	}
}

// The task is stored, and the server dies before it could start the task's workflow.
func TestServerKilledBetweenCommitAndStart(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	agents := startAgents(t, s, 2)
	h := newHosts(t)
	s.project("web", h)
	s.version("web", "1.0", tracing(0))

	require.Zero(t, s.proc.stop())
	s.start("QUICFLOW_FAILPOINT=api.task.committed")
	code, _ := s.try("/api/release/tasks", object{"project": "web", "version": "1.0", "action": "deploy", "targets": object{"selector": "*"}})
	require.Zero(t, code, "the server dies before it answers")
	require.Equal(t, -1, s.proc.wait(10*time.Second), "by a signal")
	s.start()

	var page struct {
		Tasks []release.Task `json:"tasks"`
	}
	require.Equal(t, http.StatusOK, s.get("/api/release/tasks", &page))
	require.Len(t, page.Tasks, 1)
	done := s.finish(page.Tasks[0].ID, time.Minute)
	require.Equal(t, release.StatusSucceeded, done.Status, done.Reason)
	for _, a := range agents {
		require.Equal(t, []string{"install 1.0"}, h.trace(a.id))
	}
}
