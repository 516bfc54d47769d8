package e2e

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// A canary fails its health check: no other host is touched, and with on_failure rollback the canary hosts run again
// what they ran before.
func TestCanaryFailsHealthCheck(t *testing.T) {
	t.Parallel()
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/bad") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(application.Close)
	s := startServer(t, serverConfig{})
	agents := startAgents(t, s, 5)

	for _, tt := range []struct {
		onFailure string
		status    release.Status
		state     release.TargetState
		trace     []string // on the canary hosts
	}{
		{"rollback", release.StatusRolledBack, release.TargetRolledBack, []string{"install good", "update bad", "rollback good"}},
		{"stop", release.StatusFailed, release.TargetFailed, []string{"install good", "update bad"}},
	} {
		t.Run(tt.onFailure, func(t *testing.T) {
			h := newHosts(t)
			project := "web-" + tt.onFailure
			s.post("/api/release/projects", object{"name": project, "type": "script", "script": object{
				"env":    object{"TRACES": h.dir, "APPLICATION": application.Listener.Addr().String()},
				"health": object{"http": "http://${APPLICATION}/health/${QUICFLOW_VERSION}", "interval": "100ms", "retries": 2},
			}}, nil)
			s.version(project, "good", tracing(0))
			s.version(project, "bad", tracing(0))
			s.installed(project, "good")

			task := s.deploy(project, "bad", object{"canary": object{"percent": 40}, "on_failure": tt.onFailure})
			done := s.finish(task.ID, time.Minute)
			require.Equal(t, tt.status, done.Status, done.Reason)
			require.NotEmpty(t, done.Reason)

			targets := s.targets(task.ID)
			require.Len(t, inState(targets, tt.state), 2)
			require.Len(t, inState(targets, release.TargetSkipped), 3)
			versions := s.installedVersions(project)
			for _, a := range agents {
				require.Equal(t, "good", versions[a.id])
				if targets[a.id].State == tt.state {
					require.Equal(t, tt.trace, h.trace(a.id))
					require.NotEmpty(t, targets[a.id].Error)
				} else {
					require.Equal(t, []string{"install good"}, h.trace(a.id))
				}
			}
		})
	}
}

// Hosts that cannot be reached are said to be offline, counted, and not waited for without end.
func TestOfflineHosts(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{offlineGrace: 3})
	agents := startAgents(t, s, 4)
	h := newHosts(t)
	s.project("web", h)
	s.version("web", "1.0", tracing(0))
	s.version("web", "2.0", tracing(0))

	left, died := agents[2], agents[3]
	require.Zero(t, left.proc.stop())
	died.proc.kill9()
	s.await(left.id, release.ClientOffline)
	s.await(died.id, release.ClientOffline)

	task := s.deploy("web", "1.0", object{})
	done := s.finish(task.ID, 30*time.Second)
	require.Equal(t, release.StatusPartial, done.Status, done.Reason)
	require.Equal(t, 2, done.Counts.Succeeded)
	require.Equal(t, 2, done.Counts.Offline)
	for _, a := range []*agent{left, died} {
		target := s.targets(task.ID)[a.id]
		require.Equal(t, release.TargetOffline, target.State)
		require.NotEmpty(t, target.Error)
	}

	task = s.deploy("web", "2.0", object{"offline": "fail", "max_failures": "1"})
	done = s.finish(task.ID, 30*time.Second)
	require.Equal(t, release.StatusFailed, done.Status, done.Reason)

	left.start()
	died.start()
	s.await(left.id, release.ClientOnline)
	s.await(died.id, release.ClientOnline)
	require.Empty(t, append(h.trace(left.id), h.trace(died.id)...), "what was given up is not done later")
	done = s.finish(s.deploy("web", "2.0", object{}).ID, 30*time.Second)
	require.Equal(t, release.StatusSucceeded, done.Status, done.Reason)
	require.Equal(t, []string{"install 2.0"}, h.trace(died.id))
}
