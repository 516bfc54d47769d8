package e2e

import (
	"cmp"
	"encoding/json"
	"net/http"
	"os"
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
	secrets map[string]string     // secret variables of the project
	files   []string              // artifacts that are uploaded before all
	broke   release.Drift         // after the broken one failed. Defaults to none: as if nothing had been
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
	for _, file := range k.files {
		_, errs, code := s.ctl("artifact", "upload", file)
		require.Zero(t, code, errs)
	}
	s.post("/api/release/projects", object{"name": "shop", "type": k.name, k.name: k.project}, nil)
	for name, value := range k.secrets {
		body, err := json.Marshal(object{"value": value, "secret": true})
		require.NoError(t, err)
		code, answer := s.call(http.MethodPut, "/api/release/projects/shop/variables/"+name, string(body))
		require.Equal(t, http.StatusCreated, code, answer)
	}
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

// uninstall makes a task that uninstalls.
func (w *deployWorld) uninstall() (task release.Task) {
	w.t.Helper()
	w.post("/api/release/tasks", object{"project": "shop", "action": "uninstall", "targets": object{"selector": "*"}}, &task)
	return task
}

// gone uninstalls, and checks that nothing is left.
func (w *deployWorld) gone() {
	w.t.Helper()
	w.succeeds(w.finish(w.uninstall().ID, 3*time.Minute))
	require.Empty(w.t, w.serves())
	require.Empty(w.t, w.left())
}

// canary deploys a version that then waits for a person.
func (w *deployWorld) canary(version string) release.Task {
	w.t.Helper()
	task := w.deploy("shop", version, object{"canary": object{"percent": 100, "promote": "manual"}})
	task = w.reach(task.ID, 2*time.Minute, "the canary is done", func(t release.Task) bool { return t.Phase == release.PhasePromotion || t.Status.Terminal() })
	w.answers(version)
	return task
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
	require.Equal(t, cmp.Or(k.broke, release.DriftNone), drift, "the version before runs: %s", why)

	back := w.canary("v3")
	w.steer(back.ID, "rollback")
	back = w.finish(back.ID, 2*time.Minute)
	require.Equal(t, release.StatusRolledBack, back.Status, back.Reason)
	w.answers("v2")
	require.Equal(t, "v2", w.installedVersions("shop")[w.agent.id])

	k.harm()
	drift, why = w.drifted()
	require.Equal(t, k.drift, drift, why)
	require.NotEmpty(t, why)
	w.succeeds(w.rolled("v2"))
	w.answers("v2")
	w.gone()
}

// testDeployKilled lets the process at work die, at every line at which that may matter, and then the agent and the server, too. The
// task ends as if nothing had been.
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
	w.restart()
	w.succeeds(w.finish(task.ID, 3*time.Minute))
	w.answers(version)
	current = version

	for _, story := range []string{"update", "broken", "rollback", "uninstall"} {
		for _, line := range k.lines[story] {
			t.Log(story, line)
			drifts := release.DriftNone
			switch story {
			case "update":
				once, to := w.rearm(line), next()
				w.succeeds(w.survives(w.deploy("shop", to, object{}), once))
				current = to
			case "broken":
				once := w.rearm(line)
				require.Equal(t, release.StatusFailed, w.survives(w.deploy("shop", "broken", object{}), once).Status, line)
				drifts = cmp.Or(k.broke, drifts)
			case "rollback":
				task := w.canary("v3")
				once := w.rearm(line)
				w.steer(task.ID, "rollback")
				require.Equal(t, release.StatusRolledBack, w.survives(task, once).Status, line)
			case "uninstall":
				once := w.rearm(line)
				w.succeeds(w.survives(w.uninstall(), once))
				require.Empty(t, k.serves(), line)
				require.Empty(t, k.left(), line)
				w.succeeds(w.rolled(current))
			}
			w.answers(current)
			drift, why := w.drifted()
			require.Equal(t, drifts, drift, "%s: %s", line, why)
		}
	}
	w.rearm("")
	w.gone()
}

// survives waits until what works on a task dies, lets agent and server die at that moment, and gives the task at its end.
func (w *deployWorld) survives(task release.Task, once string) release.Task {
	w.t.Helper()
	eventually(w.t, 2*time.Minute, "something dies at the line", func() (bool, any) {
		_, err := os.Stat(once)
		return err == nil, w.task(task.ID)
	})
	w.restart()
	return w.finish(task.ID, 3*time.Minute)
}

// restart kills the server and the agent, and starts them again.
func (w *deployWorld) restart() {
	w.t.Helper()
	w.crash()
	w.agent.proc.kill9()
	w.start()
	w.agent.start()
}

// rearm starts the agent again, so that whatever works for it dies once at a line. The file that it gives is there when it has.
func (w *deployWorld) rearm(line string) (once string) {
	w.t.Helper()
	require.Zero(w.t, w.agent.proc.stop())
	w.await(w.agent.id, release.ClientOffline) // else it would still count as there
	w.agent.env = w.kind.env
	if line != "" {
		once = filepath.Join(w.t.TempDir(), "died")
		w.agent.env = append([]string{"QUICFLOW_FAILPOINT=" + line, "QUICFLOW_FAILPOINT_ONCE=" + once}, w.kind.env...)
	}
	w.agent.start()
	w.await(w.agent.id, release.ClientOnline)
	return once
}
