//go:build failpoint

package git_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

// child carries a step out in a process of its own, which dies at a failpoint if that is not empty. It gives what Work did, and whether
// it was killed.
func (h *host) child(step *executor.Step, again bool, failpoint string) (failure string, killed bool) {
	h.t.Helper()
	h.last = step
	text, err := json.Marshal(childJob{Step: *step, Dir: step.Dir, Again: again})
	require.NoError(h.t, err)
	file := filepath.Join(h.dir, "job")
	require.NoError(h.t, os.WriteFile(file, text, 0o600))
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childStep+"="+file, "QUICFLOW_FAILPOINT="+failpoint)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	err = cmd.Run()
	if err == nil {
		return "", false
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		require.Equal(h.t, syscall.SIGKILL, status.Signal())
		return "", true
	}
	require.Equal(h.t, 1, status.ExitStatus(), "%s", out.String())
	return out.String(), false
}

// whole checks what must hold at any moment, in the middle of a step and after it: current is there and leads to a whole release.
func (h *host) whole(versions ...string) {
	h.t.Helper()
	require.Contains(h.t, versions, h.current("version"))
}

// noGit checks that no process of the step is left.
func (h *host) noGit() {
	h.t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(h.t, err)
	for _, e := range entries {
		command, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		require.NotContains(h.t, string(command), h.dir, "process %s is left", e.Name())
	}
}

// A wrapper that dies at any line is followed by another, and the end is as if it had not died.
func TestKilledWhileDeploying(t *testing.T) {
	server := startSSH(t)
	overSSH := map[string]bool{"git.login": true, "git.resolved": true, "git.fetched": true}
	for _, action := range []release.StepAction{release.StepInstall, release.StepUpdate} {
		for _, at := range []string{
			"git.begun", "git.login", "git.resolved", "git.fetched", "git.made", "git.checkedout", "git.shared", "git.built", "git.prescript",
			"git.linked", "git.switched", "git.postscript", "git.recorded", "git.done", "git.pruned",
		} {
			t.Run(string(action)+"/"+at, func(t *testing.T) {
				h, r := newHost(t), newRepo(t)
				r.commit(map[string]string{"storage/x": "1"})
				for _, version := range []string{"v0", "v1", "v2"} {
					r.tag(version)
				}
				spec := release.GitSpec{
					Repository: r.url(), Shared: []string{"storage"}, KeepReleases: 2, Env: map[string]string{"OUT": h.dir},
					PreScript: `echo pre >> "$OUT/ran"`, PostScript: `echo post >> "$OUT/ran"`, Health: &release.Health{Exec: "true"},
				}
				if overSSH[at] {
					spec.Repository = server.repository(r)
					spec.Auth = &release.GitAuth{SSHKey: server.key, KnownHosts: server.knownHosts}
				}
				before := []string{""}
				if action == release.StepUpdate {
					h.deploy(release.StepInstall, "v0", spec)
					h.deploy(release.StepUpdate, "v1", spec)
					require.NoError(t, os.Remove(filepath.Join(h.dir, "ran")))
					before = []string{"v1"}
				}
				step := h.step(action, "v2", spec)
				_, killed := h.child(step, false, at)
				require.True(t, killed, "the step never came to %s", at)
				h.whole(append(before, "v2")...)
				failure, killed := h.child(step, true, "")
				require.False(t, killed)
				require.Empty(t, failure, "%s", h.log())
				require.Equal(t, "v2", h.current("version"))
				ran, _ := os.ReadFile(filepath.Join(h.dir, "ran"))
				require.Equal(t, "pre\npost\n", string(ran), "each once")
				require.Equal(t, "v2", h.reported().Version)
				require.Equal(t, executor.RunOK, h.describe(spec).State)
				want := 1
				if action == release.StepUpdate {
					want = 2
				}
				require.Len(t, h.releases(), want)
				h.clean()
				h.noGit()
			})
		}
	}
}

// The same, where the step fails and goes back.
func TestKilledWhileGoingBack(t *testing.T) {
	for _, at := range []string{"git.fetched", "git.switched", "git.failed", "git.linked", "git.back"} {
		t.Run(at, func(t *testing.T) {
			h, r := newHost(t), newRepo(t)
			r.tag("v1")
			r.tag("v2")
			h.deploy(release.StepInstall, "v1", release.GitSpec{Repository: r.url()})
			link := h.currentLink()
			step := h.step(release.StepUpdate, "v2", release.GitSpec{Repository: r.url(), PostScript: "exit 7"})
			_, killed := h.child(step, false, at)
			require.True(t, killed)
			h.whole("v1", "v2")
			// Once more on the way back, and then to the end.
			_, _ = h.child(step, true, "git.back")
			failure, killed := h.child(step, true, "")
			require.False(t, killed)
			require.Contains(t, failure, "post_script: exit code 7")
			require.Equal(t, link, h.currentLink())
			require.Len(t, h.releases(), 1)
			require.Equal(t, executor.RunOK, h.describe(release.GitSpec{}).State)
			h.clean()
			h.noGit()
		})
	}
}

// Killed while a script runs, nobody can know what it did: all else goes back, and the result says so.
func TestKilledInScript(t *testing.T) {
	for name, spec := range map[string]release.GitSpec{
		"pre_script":  {PreScript: "kill -9 $PPID; exec sleep 60"},
		"post_script": {PostScript: "kill -9 $PPID; exec sleep 60"},
	} {
		t.Run(name, func(t *testing.T) {
			h, r := newHost(t), newRepo(t)
			r.tag("v1")
			r.tag("v2")
			h.deploy(release.StepInstall, "v1", release.GitSpec{Repository: r.url()})
			link := h.currentLink()
			spec.Repository = r.url()
			step := h.step(release.StepUpdate, "v2", spec)
			_, killed := h.child(step, false, "")
			require.True(t, killed)
			_, _ = h.child(step, true, "git.failed")
			failure, killed := h.child(step, true, "")
			require.False(t, killed)
			require.Contains(t, failure, executor.ErrUnknown.Error())
			require.Equal(t, link, h.currentLink())
			require.Len(t, h.releases(), 1)
			h.clean()
		})
	}
}

func TestKilledWhileRollingBack(t *testing.T) {
	for _, at := range []string{"git.begun", "git.linked", "git.switched", "git.postscript", "git.recorded", "git.done"} {
		t.Run(at, func(t *testing.T) {
			h, r := newHost(t), newRepo(t)
			r.tag("v1")
			r.tag("v2")
			spec := release.GitSpec{Repository: r.url()}
			h.deploy(release.StepInstall, "v1", spec)
			link := h.currentLink()
			h.deploy(release.StepUpdate, "v2", spec)
			step := h.step(release.StepRollbackTo, "v1", spec)
			_, killed := h.child(step, false, at)
			require.True(t, killed)
			h.whole("v1", "v2")
			failure, _ := h.child(step, true, "")
			require.Empty(t, failure)
			require.Equal(t, link, h.currentLink())
			require.Len(t, h.releases(), 2)
			require.Equal(t, "v1", h.describe(spec).Version)
			h.clean()
		})
	}
}

func TestKilledWhileUninstalling(t *testing.T) {
	for _, at := range []string{"git.uninstall.script", "git.uninstall.current", "git.uninstall.releases"} {
		t.Run(at, func(t *testing.T) {
			h, r := newHost(t), newRepo(t)
			r.tag("v1")
			spec := release.GitSpec{Repository: r.url(), Env: map[string]string{"OUT": h.dir}, Uninstall: `echo x >> "$OUT/ran"`}
			h.deploy(release.StepInstall, "v1", spec)
			step := h.step(release.StepUninstall, "", spec)
			_, killed := h.child(step, false, at)
			require.True(t, killed)
			failure, _ := h.child(step, true, "")
			require.Empty(t, failure)
			require.NoDirExists(t, h.base)
			ran, _ := os.ReadFile(filepath.Join(h.dir, "ran"))
			require.Equal(t, "x\n", string(ran))
			require.Equal(t, executor.RunMissing, h.reported().State)
		})
	}
}

// A wrapper that never came back left a release behind: the next step removes it.
func TestLeftBehind(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	r.tag("v1")
	r.tag("v2")
	spec := release.GitSpec{Repository: r.url()}
	h.deploy(release.StepInstall, "v1", spec)
	for _, at := range []string{"git.made", "git.built", "git.linked"} {
		_, killed := h.child(h.step(release.StepUpdate, "v2", spec), false, at)
		require.True(t, killed)
	}
	require.Greater(t, len(h.releases()), 1)
	h.deploy(release.StepUpdate, "v2", spec)
	require.Len(t, h.releases(), 2)
	// Sessions of steps that nobody comes back to are the one thing that may stay: in the directory for what may be lost.
	require.NoError(t, os.RemoveAll(filepath.Join(h.dir, "tmp")))
	require.NoError(t, os.Mkdir(filepath.Join(h.dir, "tmp"), 0o777))
	h.clean()
}

// Killed while git waits for its host, nothing of it stays behind.
func TestKilledWhileFetching(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	r.tag("v1")
	server := serveWeb(t, r, "git", password, false)
	handler := server.Config.Handler
	asked, release1 := make(chan struct{}), make(chan struct{})
	var once, hangs atomic.Bool
	hangs.Store(true)
	server.Config.Handler = http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		if _, _, login := in.BasicAuth(); login && hangs.Load() {
			if once.CompareAndSwap(false, true) {
				close(asked)
			}
			<-release1
			return
		}
		handler.ServeHTTP(out, in)
	})
	t.Cleanup(func() { close(release1) })
	spec := release.GitSpec{Repository: server.repository(), Auth: &release.GitAuth{Password: password}}
	step := h.step(release.StepInstall, "v1", spec)
	h.last = step
	text, err := json.Marshal(childJob{Step: *step, Dir: step.Dir})
	require.NoError(t, err)
	file := filepath.Join(h.dir, "job")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childStep+"="+file)
	require.NoError(t, cmd.Start())
	select {
	case <-asked:
	case <-time.After(patience):
		t.Fatal("git never came with its login")
	}
	require.NotEmpty(t, names(filepath.Join(h.dir, "tmp")))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	hangs.Store(false)
	failure, killed := h.child(step, true, "")
	require.False(t, killed)
	require.Empty(t, failure, "%s", h.log())
	require.Equal(t, "v1", h.current("version"))
	h.clean()
	h.noGit()
}
