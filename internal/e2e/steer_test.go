package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// A person steers rollouts by hand; what does not fit the state is a 409 and changes nothing.
func TestSteering(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	agents := startAgents(t, s, 4)

	// prepare gives a project on which 1.0 is installed everywhere and 2.0 takes its time.
	prepare := func(t *testing.T, project string) *hosts {
		h := newHosts(t)
		s.project(project, h)
		s.version(project, "1.0", tracing(0))
		s.version(project, "2.0", tracing(time.Second))
		s.installed(project, "1.0")
		return h
	}

	t.Run("promote", func(t *testing.T) {
		h := prepare(t, "promoted")
		task := s.deploy("promoted", "2.0", object{"canary": object{"percent": 25, "promote": "manual"}})
		s.reach(task.ID, 30*time.Second, "it waits for a person", func(t release.Task) bool { return t.Phase == release.PhasePromotion })
		require.Equal(t, 1, h.traced("2.0"))
		s.steer(task.ID, "promote")
		done := s.finish(task.ID, 30*time.Second)
		require.Equal(t, release.StatusSucceeded, done.Status, done.Reason)
		for _, a := range agents {
			require.Equal(t, []string{"install 1.0", "update 2.0"}, h.trace(a.id), "the canary host does it once")
		}
		for _, verb := range []string{"promote", "pause", "resume", "abort", "rollback"} {
			code, body := s.try("/api/release/tasks/"+task.ID+"/"+verb, object{})
			require.Equal(t, http.StatusConflict, code, "%s: %s", verb, body)
		}
		require.Equal(t, done, s.task(task.ID))
	})

	t.Run("pause and resume", func(t *testing.T) {
		h := prepare(t, "paused")
		task := s.deploy("paused", "2.0", object{"max_parallel": 1})
		eventually(t, 30*time.Second, "the first host is at work", func() (bool, any) { return h.traced("2.0") == 1, s.task(task.ID) })
		s.steer(task.ID, "pause")
		paused := s.reach(task.ID, 30*time.Second, "what runs has ended", func(t release.Task) bool {
			return t.Status == release.StatusPaused && t.Counts.Running == 0
		})
		require.NotZero(t, paused.Counts.Pending)
		begun := h.traced("2.0")
		require.Never(t, func() bool { return h.traced("2.0") != begun }, 2*time.Second, 100*time.Millisecond, "nothing new starts")
		code, _ := s.try("/api/release/tasks/"+task.ID+"/promote", object{})
		require.Equal(t, http.StatusConflict, code)
		s.steer(task.ID, "resume")
		done := s.finish(task.ID, 30*time.Second)
		require.Equal(t, release.StatusSucceeded, done.Status, done.Reason)
		require.Equal(t, 4, h.traced("2.0"))
	})

	t.Run("abort", func(t *testing.T) {
		h := prepare(t, "aborted")
		task := s.deploy("aborted", "2.0", object{"max_parallel": 1})
		eventually(t, 30*time.Second, "the first host is at work", func() (bool, any) { return h.traced("2.0") == 1, s.task(task.ID) })
		s.steer(task.ID, "abort")
		done := s.finish(task.ID, 30*time.Second)
		require.Equal(t, release.StatusAborted, done.Status, done.Reason)
		begun := h.traced("2.0")
		require.LessOrEqual(t, begun, 2, "within a second nothing new starts")
		require.Equal(t, 4-begun, done.Counts.Skipped)
	})

	t.Run("rollback", func(t *testing.T) {
		h := prepare(t, "returned")
		task := s.deploy("returned", "2.0", object{"canary": object{"percent": 50, "promote": "manual"}})
		s.reach(task.ID, 30*time.Second, "it waits for a person", func(t release.Task) bool { return t.Phase == release.PhasePromotion })
		s.steer(task.ID, "rollback")
		done := s.finish(task.ID, 30*time.Second)
		require.Equal(t, release.StatusRolledBack, done.Status, done.Reason)
		targets := s.targets(task.ID)
		for _, a := range agents {
			require.Equal(t, "1.0", s.installedVersions("returned")[a.id])
			if targets[a.id].State == release.TargetRolledBack {
				require.Equal(t, []string{"install 1.0", "update 2.0", "rollback 1.0"}, h.trace(a.id))
			} else {
				require.Equal(t, []string{"install 1.0"}, h.trace(a.id))
			}
		}
		require.Equal(t, 2, done.Counts.RolledBack)
	})
}
