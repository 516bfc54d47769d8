package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

func (s *server) schedule(name string) (found release.Schedule) {
	s.t.Helper()
	s.get("/api/release/schedules/"+name, &found)
	return found
}

// soon is a time in whole seconds, as schedules want it.
func soon(in time.Duration) string {
	return time.Now().Add(in + time.Second).Truncate(time.Second).UTC().Format(time.RFC3339)
}

// The server dies on each line between a schedule and its rollout after which something is stored and before anyone knows. Started
// again, it makes the task once, and each host runs it once.
func TestScheduleSurvivesTheServersWorstLines(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	agents := startAgents(t, s, 2)
	h := newHosts(t)
	s.project("web", h)
	story := &story{s: s, hosts: h, agents: agents}
	for i, line := range []string{
		"api.schedule.committed", "schedule.applied", "schedule.task.committed", "schedule.fire.recorded", "schedule.trigger.committed",
	} {
		version := fmt.Sprintf("%d.0", i+1)
		name := fmt.Sprintf("s%d", i+1)
		s.version("web", version, tracing(0))
		require.Zero(t, s.proc.stop())
		s.start("QUICFLOW_FAILPOINT=" + line)
		for _, a := range agents {
			s.await(a.id, release.ClientOnline)
		}
		body := object{"name": name, "task": object{"project": "web", "version": version, "targets": object{"selector": "*"}}}
		if line == "schedule.trigger.committed" {
			body["cron"] = "0 0 1 1 *"
			s.post("/api/release/schedules", body, nil)
			s.call("POST", "/api/release/schedules/"+name+"/trigger", "")
		} else {
			body["at"] = soon(2 * time.Second)
			s.try("/api/release/schedules", body)
		}
		require.Equal(t, -1, s.proc.wait(30*time.Second), "killed at %s", line)
		s.start()

		var fire release.Fire
		eventually(t, time.Minute, "the schedule has fired", func() (bool, any) {
			found := s.schedule(name)
			if len(found.Last) == 0 {
				return false, found
			}
			fire = found.Last[0]
			return fire.State == release.FireStarted, found
		})
		done := s.finish(fire.TaskID, time.Minute)
		require.Equal(t, release.StatusSucceeded, done.Status, "%s: %s", line, done.Reason)
		story.tell(line, done.ID, version, 0)
		var page struct {
			Total int `json:"total"`
		}
		s.get("/api/release/tasks", &page)
		require.Equal(t, i+1, page.Total, "one task a schedule")
	}
}

// What was due while the server was down fires as the catch-up window says; what it is too late for is listed as missed.
func TestScheduleCatchesUp(t *testing.T) {
	for _, database := range []string{sqlite, postgres} {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, serverConfig{database: database})
			agents := startAgents(t, s, 1)
			h := newHosts(t)
			s.project("web", h)
			s.version("web", "1.0", tracing(0))
			s.await(agents[0].id, release.ClientOnline)
			at := soon(3 * time.Second)
			task := object{"project": "web", "version": "1.0", "targets": object{"selector": "*"}}
			s.post("/api/release/schedules", object{"name": "patient", "at": at, "catchup_window": "10m", "task": task}, nil)
			s.post("/api/release/schedules", object{"name": "strict", "at": at, "catchup_window": "10s", "task": task}, nil)
			s.post("/api/release/schedules", object{"name": "gone", "at": at, "task": task}, nil)
			_, errs, code := s.ctl("schedule", "delete", "gone")
			require.Zero(t, code, errs)
			require.Len(t, s.schedule("patient").Next, 1)
			require.Zero(t, s.proc.stop())
			due, err := time.Parse(time.RFC3339, at)
			require.NoError(t, err)
			eventually(t, time.Minute, "it is too late for the strict one", func() (bool, any) { return time.Since(due) > 11*time.Second, nil })
			s.start()

			var fire release.Fire
			eventually(t, time.Minute, "the patient one has fired", func() (bool, any) {
				found := s.schedule("patient")
				if len(found.Last) > 0 {
					fire = found.Last[0]
				}
				return fire.State == release.FireStarted, found
			})
			require.True(t, fire.Due.Equal(due))
			require.Equal(t, release.StatusSucceeded, s.finish(fire.TaskID, time.Minute).Status)
			eventually(t, time.Minute, "the strict one has missed its time", func() (bool, any) {
				found := s.schedule("strict")
				return len(found.Missed) == 1, found
			})
			missed := s.schedule("strict").Missed[0]
			require.True(t, missed.Due.Equal(due))
			require.Empty(t, missed.TaskID)
			out, errs, code := s.ctl("schedule", "get", "strict")
			require.Zero(t, code, errs)
			require.Contains(t, out, "missed")
			require.Equal(t, []string{"install 1.0"}, h.trace(agents[0].id), "once")
		})
	}
}
