package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// kind is a deployment type on a real engine, as the stories here need it. Each has one agent of its own, so that what a version
// takes for itself, such as a port, is wanted by all versions.
type kind struct {
	name    string
	env     []string              // of the agent
	project object                // the type's part of the project
	version func(n string) object // the type's part of a version that works
	broken  object                // of one that starts and never gets healthy
	why     string                // is in the error of the broken one
	serves  func() string         // what version answers now; "" if none does
	harm    func()                // does by hand what drift is to find
	drift   release.Drift         // by that
	left    func() []string       // what is there that should not be; after an uninstall nothing may
	lines   map[string][]string   // failpoints of the worker by what runs into them: update, broken, rollback, uninstall
}

// world is a server with one agent that deploys a kind.
type deployWorld struct {
	*server
	kind
	agent *agent
}

func deployOn(t *testing.T, k kind, c serverConfig) *deployWorld {
	t.Helper()
	s := startServer(t, c)
	a := &agent{t: t, id: "host-1", dir: t.TempDir(), server: s.addr, env: k.env}
	a.start("--token", s.joinToken())
	eventually(t, 30*time.Second, "the agent says that it can", func() (bool, any) {
		var c release.Client
		s.get("/api/clients/"+a.id, &c)
		return strings.Contains(string(c.Facts), release.Capability(release.Type(k.name))), string(c.Facts)
	})
	w := &deployWorld{server: s, kind: k, agent: a}
	s.post("/api/release/projects", object{"name": "shop", "type": k.name, k.name: k.project}, nil)
	for _, n := range []string{"v1", "v2", "v3"} {
		w.add(n, k.version(n))
	}
	w.add("broken", k.broken)
	return w
}

func (w *deployWorld) add(name string, spec object) {
	w.t.Helper()
	w.post("/api/release/projects/shop/versions", object{"version": name, "status": "active", w.kind.name: spec}, nil)
}

func (w *deployWorld) answers(version string) {
	w.t.Helper()
	eventually(w.t, 20*time.Second, version+" answers", func() (bool, any) {
		now := w.serves()
		return now == version, "answers: " + now
	})
}

// rolled deploys a version and waits for the end of the task.
func (w *deployWorld) rolled(version string) release.Task {
	w.t.Helper()
	return w.finish(w.deploy("shop", version, object{}).ID, 3*time.Minute)
}

func (w *deployWorld) succeeds(task release.Task) {
	w.t.Helper()
	require.Equal(w.t, release.StatusSucceeded, task.Status, "%s: %v", task.Reason, w.targets(task.ID))
}

func (w *deployWorld) uninstall() release.Task {
	w.t.Helper()
	var task release.Task
	w.post("/api/release/tasks", object{"project": "shop", "action": "uninstall", "targets": object{"selector": "*"}}, &task)
	return w.finish(task.ID, 3*time.Minute)
}

// rollBack deploys a version, and rolls it back when its canary is done.
func (w *deployWorld) rollBack(version string) release.Task {
	w.t.Helper()
	task := w.deploy("shop", version, object{"canary": object{"percent": 100, "promote": "manual"}})
	w.reach(task.ID, 2*time.Minute, "the canary is done", func(t release.Task) bool { return t.Phase == release.PhasePromotion || t.Status.Terminal() })
	w.answers(version)
	w.steer(task.ID, "rollback")
	return w.finish(task.ID, 2*time.Minute)
}

// drifted asks for the drift of the only host.
func (w *deployWorld) drifted() (release.Drift, string) {
	w.t.Helper()
	var report struct {
		Hosts []struct {
			Drift  release.Drift
			Reason string
		}
	}
	w.post("/api/release/drift", object{"all": true}, &report)
	require.Len(w.t, report.Hosts, 1)
	return report.Hosts[0].Drift, report.Hosts[0].Reason
}

// testDeploy is the life of a project: install, update, an update that fails, a rollback, drift, uninstall.
func testDeploy(t *testing.T, k kind) {
	w := deployOn(t, k, serverConfig{})
	w.succeeds(w.rolled("v1"))
	w.answers("v1")
	w.succeeds(w.rolled("v2"))
	w.answers("v2")

	failed := w.rolled("broken")
	require.Equal(t, release.StatusFailed, failed.Status)
	target := w.targets(failed.ID)[w.agent.id]
	require.Equal(t, release.TargetFailed, target.State)
	require.Contains(t, target.Error, k.why)
	require.NotContains(t, target.Error, "\n")
	w.answers("v2")
	drift, why := w.drifted()
	require.Equal(t, release.DriftNone, drift, "the version before runs as if nothing had been: %s", why)

	back := w.rollBack("v3")
	require.Equal(t, release.StatusRolledBack, back.Status, back.Reason)
	w.answers("v2")
	require.Equal(t, "v2", w.installedVersions("shop")[w.agent.id])

	k.harm()
	drift, why = w.drifted()
	require.Equal(t, k.drift, drift, why)
	require.NotEmpty(t, why)
	w.succeeds(w.rolled("v2"))
	w.answers("v2")

	w.succeeds(w.uninstall())
	require.Empty(t, k.serves())
	require.Empty(t, k.left())
}

// testDeployKilled lets the server, the agent and the process at work die, at every line at which that may matter. The task ends as
// if nothing had been.
func testDeployKilled(t *testing.T, k kind) {
	w := deployOn(t, k, serverConfig{})
	w.succeeds(w.rolled("v1"))
	current := "v1"
	next := func() string {
		if current == "v1" {
			return "v2"
		}
		return "v1"
	}

	version := next()
	task := w.deploy("shop", version, object{})
	eventually(t, time.Minute, "the step runs", func() (bool, any) {
		return w.targets(task.ID)[w.agent.id].State == release.TargetRunning, w.task(task.ID)
	})
	w.crash()
	w.agent.proc.kill9()
	w.start()
	w.agent.start()
	w.succeeds(w.finish(task.ID, 3*time.Minute))
	w.answers(version)
	current = version

	for _, story := range []string{"update", "broken", "rollback", "uninstall"} {
		for _, line := range k.lines[story] {
			t.Log(story, line)
			once := w.rearm(line)
			switch story {
			case "update":
				version := next()
				w.succeeds(w.rolled(version))
				current = version
			case "broken":
				require.Equal(t, release.StatusFailed, w.rolled("broken").Status, line)
			case "rollback":
				require.Equal(t, release.StatusRolledBack, w.rollBack("v3").Status, line)
			case "uninstall":
				w.succeeds(w.uninstall())
				require.FileExists(t, once, "nothing died at %s", line)
				require.Empty(t, k.serves(), line)
				require.Empty(t, k.left(), line)
				w.succeeds(w.rolled(current))
			}
			require.FileExists(t, once, "nothing died at %s", line)
			w.answers(current)
			drift, why := w.drifted()
			require.Equal(t, release.DriftNone, drift, "%s: %s", line, why)
		}
	}
	w.rearm("")
	w.succeeds(w.uninstall())
	require.Empty(t, k.serves())
	require.Empty(t, k.left())
}

// rearm starts the agent again, so that whatever works for it dies once at a line. The file that it gives is there when it has.
func (w *deployWorld) rearm(line string) (once string) {
	w.t.Helper()
	require.Zero(w.t, w.agent.proc.stop())
	w.agent.env = w.kind.env
	if line != "" {
		once = filepath.Join(w.t.TempDir(), "died")
		w.agent.env = append([]string{"QUICFLOW_FAILPOINT=" + line, "QUICFLOW_FAILPOINT_ONCE=" + once}, w.kind.env...)
	}
	w.agent.start()
	w.await(w.agent.id, release.ClientOnline)
	return once
}
