package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

const failpointVariable = "QUICFLOW_FAILPOINT="

// The server dies at each line where it has just done one half of something. Started again it does the other half.
func TestServerDiesAtItsWorstMoment(t *testing.T) {
	for _, moments := range [][]string{ // two servers, so that the waiting is done side by side
		{"api.task.committed", "progress.recorded", "chunks.planned", "dispatch.marked"},
		{"dispatch.answered", "hub.results.stored", "hub.logs.stored"},
	} {
		t.Run(moments[0], func(t *testing.T) {
			t.Parallel()
			s := startServer(t, serverConfig{})
			agents := startAgents(t, s, 2)
			for _, moment := range moments {
				h := newHosts(t)
				project := strings.ReplaceAll(moment, ".", "-")
				s.project(project, h)
				s.version(project, "1.0", tracing(200*time.Millisecond))

				require.Zero(t, s.proc.stop())
				s.start(failpointVariable + moment)
				for _, a := range agents {
					s.await(a.id, release.ClientOnline)
				}
				// It may die before it answers.
				_, _ = s.try("/api/release/tasks", object{"project": project, "version": "1.0", "targets": object{"selector": "*"}})
				require.Equal(t, -1, s.proc.wait(20*time.Second), "%s: it dies by a signal", moment)
				s.start()

				var page struct {
					Tasks []release.Task `json:"tasks"`
				}
				require.Equal(t, http.StatusOK, s.get("/api/release/tasks?project="+project, &page))
				require.Len(t, page.Tasks, 1, moment)
				done := s.finish(page.Tasks[0].ID, time.Minute)
				require.Equal(t, release.StatusSucceeded, done.Status, "%s: %s", moment, done.Reason)
				for _, a := range agents {
					require.Equal(t, []string{"install 1.0"}, h.trace(a.id), moment)
					s.requireLog(done.ID, a.id, tracedLines(a.id, "install", "1.0", 200*time.Millisecond))
				}
			}
		})
	}
}

// So does an agent. Its script runs once; where the agent died before the script began, it may say that it cannot know.
func TestAgentDiesAtItsWorstMoment(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	a := startAgents(t, s, 1)[0]
	for _, tt := range []struct {
		moment string
		ran    bool
	}{
		{"agent.intent.stored", false},
		{"agent.step.ended", true},
		{"agent.result.stored", true},
	} {
		h := newHosts(t)
		project := strings.ReplaceAll(tt.moment, ".", "-")
		s.project(project, h)
		s.version(project, "1.0", tracing(200*time.Millisecond))
		require.Zero(t, a.proc.stop())
		a.env = []string{failpointVariable + tt.moment}
		a.start()
		s.await(a.id, release.ClientOnline)

		task := s.deploy(project, "1.0", object{})
		require.Equal(t, -1, a.proc.wait(20*time.Second), "%s: it dies by a signal", tt.moment)
		a.env = nil
		a.start()
		done := s.finish(task.ID, time.Minute)
		t.Logf("%s: %s, %+v", tt.moment, done.Status, s.targets(task.ID))
		if tt.ran {
			require.Equal(t, release.StatusSucceeded, done.Status, "%s: %s", tt.moment, done.Reason)
			require.Equal(t, []string{"install 1.0"}, h.trace(a.id), tt.moment)
			s.requireLog(task.ID, a.id, tracedLines(a.id, "install", "1.0", 200*time.Millisecond))
		} else {
			require.Empty(t, h.trace(a.id), tt.moment)
			require.Equal(t, release.StatusFailed, done.Status, "%s: %s", tt.moment, done.Reason)
		}
	}
}
