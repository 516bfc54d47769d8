package git_test

import (
	"bytes"
	"context"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/git"
	"github.com/quicflow/quicflow/internal/release"
)

// watcher looks for secrets where they must not be, as long as it runs: in the arguments and environments of all processes, and in files.
type watcher struct {
	secrets [][]byte
	dirs    []string
	stop    chan struct{}
	done    sync.WaitGroup
	found   []string
	rounds  int
	gits    int // processes of git that it saw
}

func watch(t *testing.T, secrets []string, dirs ...string) *watcher {
	w := &watcher{dirs: dirs, stop: make(chan struct{})}
	for _, s := range secrets {
		w.secrets = append(w.secrets, []byte(s))
	}
	w.done.Go(func() {
		for {
			w.look()
			select {
			case <-w.stop:
				w.look()
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	t.Cleanup(w.end)
	return w
}

func (w *watcher) look() {
	w.rounds++
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		for _, name := range []string{"cmdline", "environ"} {
			text, _ := os.ReadFile("/proc/" + e.Name() + "/" + name)
			w.search("/proc/"+e.Name()+"/"+name, text)
			if name == "cmdline" && bytes.HasPrefix(text, []byte("git\x00")) {
				w.gits++
			}
		}
	}
	for _, dir := range w.dirs {
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				text, _ := os.ReadFile(path)
				w.search(path, text)
			}
			return nil
		})
	}
}

func (w *watcher) search(where string, text []byte) {
	for _, s := range w.secrets {
		if bytes.Contains(text, s) {
			w.found = append(w.found, where)
		}
	}
}

func (w *watcher) end() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.done.Wait()
}

// nothing ends the watch and checks what it saw.
func (w *watcher) nothing(t *testing.T) {
	t.Helper()
	w.end()
	require.Empty(t, w.found)
	require.Greater(t, w.rounds, 2)
	require.Positive(t, w.gits, "it did not even see git")
}

const (
	password     = passwordPart + "%40/:@&'\"$x"
	passwordPart = "pa55-w0rd" // that is written in one way only
)

// The login for https goes to git over a socket alone.
func TestHTTPS(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	commit := r.tag("v1")
	server := serveWeb(t, r, "deploy", password, true)
	spec := release.GitSpec{Repository: server.repository(), Auth: &release.GitAuth{Username: "deploy", Password: password, CACert: server.ca}}

	step := h.step(release.StepInstall, "v1", spec)
	w := watch(t, []string{passwordPart}, h.dir)
	require.NoError(t, h.work(step))
	w.nothing(t)
	require.Equal(t, commit, h.reported().Details["commit"])
	require.Equal(t, executor.RunOK, h.describe(spec).State)
	h.clean()

	refs, err := worker.Refs(context.Background(), &release.GitSpec{Repository: server.repository(),
		Auth: &release.GitAuth{Username: "deploy", Password: password, CACert: server.ca}})
	require.NoError(t, err)
	require.Len(t, refs, 2)
	require.Empty(t, names(filepath.Join(h.dir, "tmp")))

	// By commit, over a protocol that gives any.
	r.commit(map[string]string{"x": "y"})
	spec.Ref = commit
	require.Equal(t, commit, h.deploy(release.StepUpdate, "c", spec).Details["commit"])
}

func TestWrongLogins(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	r.tag("v1")
	secure := serveWeb(t, r, "deploy", password, true)
	plain := serveWeb(t, r, "git", password, false)
	with := func(auth *release.GitAuth) release.GitSpec {
		return release.GitSpec{Repository: secure.repository(), Auth: auth}
	}
	host := strings.TrimPrefix(secure.URL, "https://")
	const wrong = "not-the-password"
	for want, spec := range map[string]release.GitSpec{
		host + " refused the login (401)": with(&release.GitAuth{Username: "deploy", Password: wrong, CACert: secure.ca}),
		host + " wants a login (401)":     with(&release.GitAuth{CACert: secure.ca}),
		"cannot be verified":              with(&release.GitAuth{Username: "deploy", Password: password}),
	} {
		w := watch(t, []string{wrong}, filepath.Join(h.dir, "tmp"))
		text := h.refused(h.step(release.StepInstall, "v1", spec))
		w.nothing(t)
		require.Contains(t, text, want)
		require.NotContains(t, text+h.log(), wrong, "the host said it")
		require.Contains(t, h.log(), "fatal: ", "all that git said")
		require.Empty(t, h.currentLink())
		h.clean()
	}
	h.deploy(release.StepInstall, "v1", release.GitSpec{Repository: plain.repository(), Auth: &release.GitAuth{Password: password}})
	require.Equal(t, "v1", h.current("version"))

	// A server may say no to this repository alone.
	missing := release.GitSpec{Repository: plain.URL + "/other.git", Auth: &release.GitAuth{Password: password}}
	require.Contains(t, h.refused(h.step(release.StepUpdate, "v1", missing)), "no such repository")
	plain.Close()
	require.Contains(t, h.refused(h.step(release.StepUpdate, "v1", release.GitSpec{Repository: plain.repository()})), "refused the connection")
	require.Equal(t, "v1", h.current("version"), "what runs goes on")
	h.clean()
}

// A login is for its own host: a submodule elsewhere does not get it.
func TestLoginOfOneHost(t *testing.T) {
	h, r, lib := newHost(t), newRepo(t), newRepo(t)
	lib.commit(map[string]string{"lib": "1"})
	server := serveWeb(t, r, "git", password, false)
	other := serveWeb(t, lib, "git", password, false)
	r.git(r.work, "-c", "protocol.file.allow=always", "submodule", "add", "-q", lib.url(), "lib")
	r.git(r.work, "config", "-f", ".gitmodules", "submodule.lib.url", other.repository())
	r.tag("v1")
	spec := release.GitSpec{Repository: server.repository(), Submodules: true, Auth: &release.GitAuth{Password: password}}
	require.Contains(t, h.refused(h.step(release.StepInstall, "v1", spec)), "wants a login")
	h.clean()

	// And one of a file of the host is refused altogether.
	r.git(r.work, "config", "-f", ".gitmodules", "submodule.lib.url", lib.url())
	r.tag("v2")
	require.Contains(t, h.refused(h.step(release.StepInstall, "v2", spec)), "protocol that is not allowed")
	h.clean()

	// One that is beside it, by a relative address, does.
	require.NoError(t, os.Rename(lib.bare(), filepath.Join(r.root, "lib.git")))
	r.git(r.work, "config", "-f", ".gitmodules", "submodule.lib.url", "../lib.git")
	r.tag("v3")
	h.deploy(release.StepInstall, "v3", spec)
	require.Equal(t, "1", h.current("lib/lib"))
}

// silent accepts connections and never says a word.
func silent(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var open []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open = append(open, conn)
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
		for _, conn := range open {
			_ = conn.Close()
		}
	})
	return listener.Addr().String()
}

func TestHang(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	r.tag("v1")
	h.deploy(release.StepInstall, "v1", release.GitSpec{Repository: r.url()})
	link, address := h.currentLink(), silent(t)
	require.Contains(t, h.refused(h.step(release.StepUpdate, "v2", release.GitSpec{Repository: "http://" + address + "/site.git"})),
		address+" does not answer, or too slowly")
	require.Contains(t, h.log(), "fatal: ", "all that git said")
	require.Equal(t, link, h.currentLink())
	h.clean()

	// Whatever the host does, the step's time ends it.
	ctx, cancel := context.WithTimeoutCause(context.Background(), 300*time.Millisecond, &executor.TimedOut{After: 300 * time.Millisecond})
	defer cancel()
	patient := git.New(git.Config{})
	step := h.step(release.StepUpdate, "v2", release.GitSpec{Repository: "http://" + address + "/site.git"})
	err := patient.Work(ctx, &executor.Run{Step: step, Tools: &tools{step: step}})
	var timedOut *executor.TimedOut
	require.ErrorAs(t, err, &timedOut)
	require.Contains(t, err.Error(), address)
	require.Equal(t, link, h.currentLink())
	h.clean()
}

func TestCheck(t *testing.T) {
	h := newHost(t)
	good := release.GitSpec{Repository: "https://example.com/x.git", Ref: "main"}
	require.NoError(t, worker.Check(h.step(release.StepInstall, "v1", good)))
	for _, repository := range []string{
		"", "site.git", "/srv/site.git", "-upload-pack=x", "ext::sh -c id", "ssh://-oProxyCommand=id/x", "-oProxyCommand=id:x", "git://example.com/x", "ftp://h/x",
		"https://user:secret@example.com/x.git", "https://token@example.com/x.git", "https:///x", "file://host/x", "ssh://git:secret@example.com/x", "a::b", "https://h/x\nb",
		"ssh://-x@example.com/y", "%zz://x",
	} {
		spec := good
		spec.Repository = repository
		err := worker.Check(h.step(release.StepInstall, "v1", spec))
		require.ErrorIs(t, err, release.ErrInvalid, repository)
		require.NotContains(t, err.Error(), "secret")
	}
	for _, repository := range []string{"git@example.com:team/site.git", "example.com:site", "ssh://git@example.com:2222/site", "[::1]:x", "file:///srv/x", "${REPOSITORY}"} {
		spec := good
		spec.Repository = repository
		require.NoError(t, worker.Check(h.step(release.StepInstall, "v1", spec)), repository)
	}
	for _, ref := range []string{"-x", "--upload-pack=id", "a..b", "a b", "a~1", "a^{}", "a:b", "*", "a/.b", "a.lock", "@{-1}", "@", "/a", "a/", "a//b", "a\n", "refs/heads/*"} {
		spec := good
		spec.Ref = ref
		require.ErrorIs(t, worker.Check(h.step(release.StepInstall, "v1", spec)), release.ErrInvalid, ref)
	}
	for _, auth := range []release.GitAuth{
		{SSHKey: "x"}, {KnownHosts: "x"}, {Username: "x"}, {Username: "a", Password: "a\nb"},
	} {
		spec := good
		spec.Auth = &auth
		require.ErrorIs(t, worker.Check(h.step(release.StepInstall, "v1", spec)), release.ErrInvalid, "%+v", auth)
	}
	for _, auth := range []release.GitAuth{{Password: "x"}, {Username: "x"}, {CACert: "x"}} {
		spec := good
		spec.Repository, spec.Auth = "git@example.com:x", &auth
		require.ErrorIs(t, worker.Check(h.step(release.StepInstall, "v1", spec)), release.ErrInvalid, "%+v", auth)
	}
	for _, path := range []string{"relative", "/", "/x/../"} {
		spec := good
		spec.Path = path
		require.ErrorIs(t, worker.Check(h.step(release.StepInstall, "v1", spec)), release.ErrInvalid, path)
	}
}

// No name is let through that git itself would not have.
func TestRefsAreThoseOfGit(t *testing.T) {
	h := newHost(t)
	step := h.step(release.StepInstall, "v1", release.GitSpec{Repository: "https://example.com/x.git"})
	pieces := []string{"a", "b", ".", "..", "-", "/", "@", "{", "}", "~", "^", ":", "?", "*", "[", "\\", " ", "\t", "\x7f", ".lock", "$(id)", "é", "'", "\""}
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		step.Config.Git.Ref = strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 5).Draw(t, "ref"), "")
		if worker.Check(step) != nil {
			return
		}
		accepted++
		out, err := exec.Command("git", "check-ref-format", "--branch", step.Config.Git.Ref).CombinedOutput()
		require.NoError(t, err, "%q: %s", step.Config.Git.Ref, out)
	})
	require.Positive(t, accepted)
}

func TestProbe(t *testing.T) {
	c, err := worker.Probe(context.Background())
	require.NoError(t, err)
	require.Equal(t, release.TypeGit, c.Type)
	require.Regexp(t, `^2\.\d+`, c.Version)

	dir := t.TempDir()
	t.Setenv("PATH", dir)
	_, err = worker.Probe(context.Background())
	require.ErrorContains(t, err, "git cannot be run")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "git"), []byte("#!/bin/sh\necho git version 2.29.1\n"), 0o755))
	_, err = worker.Probe(context.Background())
	require.ErrorContains(t, err, "2.29.1 is too old: 2.30 is needed")
	require.Error(t, worker.Logs(context.Background(), executor.Deployed{}, executor.LogOptions{}, nil))
}
