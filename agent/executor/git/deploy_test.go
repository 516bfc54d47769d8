package git_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// The life of a project: install, update, rollback without the network, uninstall.
func TestLife(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	v1, v2 := r.tag("v1"), r.tag("v2")
	spec := release.GitSpec{Repository: r.url()}

	running := h.deploy(release.StepInstall, "v1", spec)
	require.Equal(t, executor.RunOK, running.State)
	require.Equal(t, "v1", running.Version)
	require.Equal(t, "config-v1", running.ConfigID)
	require.Equal(t, "task-1", running.TaskID)
	require.Equal(t, v1, running.Details["commit"])
	require.Equal(t, "tag", running.Details["kind"])
	require.Equal(t, h.base, running.Details["path"])
	require.Equal(t, "v1", h.current("version"))
	require.True(t, strings.HasPrefix(h.currentLink(), "releases/"+v1[:12]+"-"), h.currentLink())
	first := h.currentLink()
	require.Equal(t, "1", r.git(filepath.Join(h.base, first), "rev-list", "--count", "HEAD"), "one commit deep")

	h.deploy(release.StepUpdate, "v2", spec)
	require.Equal(t, "v2", h.current("version"))
	require.Contains(t, h.currentLink(), v2[:12])
	require.Equal(t, running.State, h.describe(spec).State)

	gone := spec
	gone.Repository = "file:///nowhere/at/all.git"
	running = h.deploy(release.StepRollbackTo, "v1", gone)
	require.Equal(t, first, h.currentLink())
	require.Equal(t, "task-3", running.TaskID)
	require.Equal(t, v1, h.describe(spec).Details["commit"])

	require.NoError(t, os.MkdirAll(filepath.Join(h.base, "shared"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(h.base, "shared", "upload"), nil, 0o644))
	h.clean()
	running = h.deploy(release.StepUninstall, "", release.GitSpec{Repository: r.url(), Uninstall: "cat version > " + h.dir + "/uninstalled"})
	require.Equal(t, executor.RunMissing, running.State)
	require.Equal(t, []string{"shared"}, names(h.base), "what is shared belongs to its owner")
	require.Contains(t, h.log(), "shared is kept")
	text, err := os.ReadFile(filepath.Join(h.dir, "uninstalled"))
	require.NoError(t, err)
	require.Equal(t, "v1", string(text))
	require.Equal(t, executor.RunMissing, h.describe(spec).State)

	h.deploy(release.StepUninstall, "", spec)
	require.Contains(t, h.log(), "nothing of web")
}

func TestRefs(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	one := r.commit(map[string]string{"version": "one"})
	two := r.tag("v2")
	const odd = "feature/$(touch${IFS}pwned);'\"&|`id`"
	r.git(r.work, "checkout", "-q", "-b", odd)
	side := r.commit(map[string]string{"version": "side"})
	r.git(r.work, "checkout", "-q", "main")
	last := r.commit(map[string]string{"version": "last"})

	for ref, want := range map[string]struct{ commit, kind string }{
		"main":                              {last, "branch"},
		"refs/heads/main":                   {last, "branch"},
		"v2":                                {two, "tag"},
		"refs/tags/v2":                      {two, "tag"},
		one:                                 {one, "commit"},
		one[:9]:                             {one, "commit"},
		"feature/$(touch pwned)":            {}, // git has no such names
		"feature/" + strings.Repeat("x", 9): {},
		odd:                                 {side, "branch"},
	} {
		spec := release.GitSpec{Repository: r.url(), Ref: ref}
		if want.commit == "" {
			require.Error(t, h.work(h.step(release.StepUpdate, "v", spec)))
			continue
		}
		running := h.deploy(release.StepUpdate, "v", spec)
		require.Equal(t, want.commit, running.Details["commit"], ref)
		require.Equal(t, want.kind, running.Details["kind"], ref)
		require.Equal(t, executor.RunOK, h.describe(spec).State)
	}
	require.NotContains(t, strings.Join(append(names("."), names(h.base)...), " "), "pwned")
	h.clean()

	refs, err := worker.Refs(context.Background(), &release.GitSpec{Repository: r.url()})
	require.NoError(t, err)
	require.Len(t, refs, 3)
	require.Equal(t, "main", refs[0].Name)
	require.True(t, refs[0].Default)
	require.Equal(t, last, refs[0].Commit)
	require.Equal(t, "branch", refs[1].Kind)
	require.Equal(t, side, refs[1].Commit)
	require.Equal(t, "v2", refs[2].Name)
	require.Equal(t, two, refs[2].Commit, "the commit, not the tag object")

	// One name, two commits.
	r.git(r.work, "push", "-q", "origin", side+":refs/heads/v2")
	require.Contains(t, h.refused(h.step(release.StepUpdate, "v2", release.GitSpec{Repository: r.url()})), "both a branch")
	require.Equal(t, side, h.deploy(release.StepUpdate, "v2", release.GitSpec{Repository: r.url(), Ref: "refs/heads/v2"}).Details["commit"])
}

func TestDepth(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	for _, v := range []string{"v1", "v2", "v3", "v4"} {
		r.tag(v)
	}
	count := func() string { return r.git(filepath.Join(h.base, "current"), "rev-list", "--count", "HEAD") }
	for _, c := range []struct {
		depth int
		want  string
	}{{1, "1"}, {3, "3"}, {0, "4"}, {2, "2"}} {
		h.deploy(release.StepUpdate, "v4", release.GitSpec{Repository: r.url(), Depth: &c.depth})
		require.Equal(t, c.want, count(), "depth %d", c.depth)
	}
	r.tag("v5")
	depth := 0
	h.deploy(release.StepUpdate, "v5", release.GitSpec{Repository: r.url(), Depth: &depth})
	require.Equal(t, "5", count())
}

func TestKeepReleases(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	for _, v := range []string{"v1", "v2", "v3", "v4"} {
		r.tag(v)
	}
	spec := release.GitSpec{Repository: r.url(), KeepReleases: 2}
	var links []string
	for _, v := range []string{"v1", "v2", "v3", "v4"} {
		h.deploy(release.StepUpdate, v, spec)
		links = append(links, strings.TrimPrefix(h.currentLink(), "releases/"))
	}
	require.ElementsMatch(t, links[2:], h.releases())
	h.clean()

	// The one before it stays even if only one is to be kept; and a rollback to one that is gone fetches it again.
	spec.KeepReleases = 1
	h.deploy(release.StepRollbackTo, "v1", spec)
	require.Equal(t, "v1", h.current("version"))
	require.Len(t, h.releases(), 2)
	require.Contains(t, h.releases(), links[3])
	h.clean()
}

func TestScripts(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	v1, _ := r.tag("v1"), r.tag("v2")
	spec := release.GitSpec{
		Repository: r.url(), Env: map[string]string{"OUT": h.dir},
		PreScript: `set -e
			[ "$PWD" = "$QUICFLOW_RELEASE_DIR" ]
			[ ! -e "$QUICFLOW_PATH/current/version" ] || [ "$(cat "$QUICFLOW_PATH/current/version")" != "$QUICFLOW_VERSION" ]
			echo "$QUICFLOW_COMMIT $QUICFLOW_REF" > built`,
		PostScript: `[ "$(cat "$QUICFLOW_PATH/current/version")" = "$QUICFLOW_VERSION" ] && cat built > "$OUT/post"`,
		Health:     &release.Health{Exec: `[ -s "$OUT/post" ]`},
	}
	h.deploy(release.StepInstall, "v1", spec)
	text, err := os.ReadFile(filepath.Join(h.dir, "post"))
	require.NoError(t, err)
	require.Equal(t, v1+" v1\n", string(text))
	link := h.currentLink()
	require.Equal(t, executor.RunOK, h.describe(spec).State, "what a script adds is no change by someone else")

	for name, broken := range map[string]release.GitSpec{
		"pre_script: exit code 3":  {PreScript: "exit 3"},
		"post_script: exit code 4": {PostScript: "exit 4"},
		"health check failed":      {Health: &release.Health{Exec: "false"}},
	} {
		broken.Repository = r.url()
		require.Contains(t, h.refused(h.step(release.StepUpdate, "v2", broken)), name)
		require.Equal(t, link, h.currentLink(), name)
		require.Len(t, h.releases(), 1, "the failed release is removed")
		require.Equal(t, "v1", h.reported().Version)
		require.Equal(t, executor.RunOK, h.describe(spec).State)
		h.clean()
	}

	// Without anything before it, nothing is there afterwards.
	other := newHost(t)
	require.Contains(t, other.refused(other.step(release.StepInstall, "v1", release.GitSpec{Repository: r.url(), PostScript: "exit 5"})), "exit code 5")
	require.Empty(t, other.currentLink())
	require.Empty(t, other.releases())
	require.Equal(t, executor.RunMissing, other.reported().State)
	other.clean()

	// A rollback that fails leads back too, and what it wanted to return to stays.
	h.deploy(release.StepUpdate, "v2", release.GitSpec{Repository: r.url()})
	now := h.currentLink()
	h.refused(h.step(release.StepRollbackTo, "v1", release.GitSpec{Repository: r.url(), PostScript: "exit 6"}))
	require.Equal(t, now, h.currentLink())
	require.Len(t, h.releases(), 2)
	h.clean()
}

func TestShared(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	r.commit(map[string]string{"storage/keep": "from the repository", "config/app.yml": "first", "logs/old": "x"})
	require.NoError(t, os.Symlink("/etc", filepath.Join(r.work, "out")))
	r.tag("v1")
	r.commit(map[string]string{"config/app.yml": "second", "storage/new": "not shared"})
	r.tag("v2")
	spec := release.GitSpec{Repository: r.url(), Shared: []string{"storage", "config/app.yml", "cache/tmp", ".env", "logs/"}}
	h.deploy(release.StepInstall, "v1", spec)
	require.Equal(t, "from the repository", h.current("storage/keep"))
	require.NoError(t, os.WriteFile(filepath.Join(h.base, "current", "storage", "upload"), []byte("mine"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(h.base, "current", ".env"), []byte("SECRET=1"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(h.base, "current", "cache", "tmp", "c"), []byte("cached"), 0o600))
	require.Equal(t, executor.RunOK, h.describe(spec).State, "what is shared may change")

	h.deploy(release.StepUpdate, "v2", spec)
	require.Equal(t, "mine", h.current("storage/upload"))
	require.Equal(t, "SECRET=1", h.current(".env"))
	require.Equal(t, "cached", h.current("cache/tmp/c"))
	require.Equal(t, "first", h.current("config/app.yml"), "the shared one counts")
	require.NoFileExists(t, filepath.Join(h.base, "current", "storage", "new"))
	require.Equal(t, executor.RunOK, h.describe(spec).State)
	link := h.currentLink()

	// A directory of the repository that is a link leads out of the release: what is shared must not follow it.
	for _, path := range []string{"out/passwd", "out"} {
		broken := spec
		broken.Shared = []string{path}
		require.Contains(t, h.refused(h.step(release.StepUpdate, "v2", broken)), "symbolic link")
	}
	// Nor one that someone made in shared.
	require.NoError(t, os.Symlink("/etc", filepath.Join(h.base, "shared", "elsewhere")))
	broken := spec
	broken.Shared = []string{"elsewhere/qg-test"}
	require.Contains(t, h.refused(h.step(release.StepUpdate, "v2", broken)), "symbolic link")
	require.NoFileExists(t, "/etc/qg-test")
	for _, path := range []string{"../x", "/etc", "a/../../b", ".git/config", ".GIT", "", "."} {
		broken.Shared = []string{path}
		require.ErrorIs(t, worker.Check(h.step(release.StepUpdate, "v2", broken)), release.ErrInvalid, path)
	}
	require.Equal(t, link, h.currentLink())
	h.clean()
}

// Hooks, filters and configuration of anyone never run.
func TestNothingOfOthersRuns(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	pwned := filepath.Join(h.dir, "pwned")
	home := filepath.Join(h.dir, "home")
	require.NoError(t, os.MkdirAll(filepath.Join(home, "hooks"), 0o755))
	hook := "#!/bin/sh\ntouch " + pwned + "\n"
	for _, name := range []string{"post-checkout", "reference-transaction", "post-index-change"} {
		require.NoError(t, os.WriteFile(filepath.Join(home, "hooks", name), []byte(hook), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(home, ".gitconfig"), []byte("[core]\n\thooksPath = "+home+"/hooks\n\tfsmonitor = touch "+pwned+
		"\n[url \"file:///nowhere\"]\n\tinsteadOf = file://\n[filter \"evil\"]\n\tsmudge = touch "+pwned+"\n"), 0o644))
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	r.commit(map[string]string{".gitattributes": "* filter=evil\n", ".githooks/post-checkout": hook})
	r.tag("v1")
	h.deploy(release.StepInstall, "v1", release.GitSpec{Repository: r.url()})
	require.Equal(t, executor.RunOK, h.describe(release.GitSpec{}).State)
	require.NoFileExists(t, pwned)
}

func TestSubmodules(t *testing.T) {
	h, r, lib := newHost(t), newRepo(t), newRepo(t)
	lib.commit(map[string]string{"lib": "one"})
	lib.commit(map[string]string{"lib": "two"})
	r.git(r.work, "submodule", "add", "-q", lib.url(), "vendor/lib")
	r.tag("v1")
	spec := release.GitSpec{Repository: r.url(), Submodules: true}
	h.deploy(release.StepInstall, "v1", spec)
	require.Equal(t, "two", h.current("vendor/lib/lib"))
	require.Equal(t, executor.RunOK, h.describe(spec).State)

	h.deploy(release.StepUpdate, "v1", release.GitSpec{Repository: r.url()})
	require.Empty(t, h.current("vendor/lib/lib"), "only where they are asked for")
	require.Equal(t, executor.RunOK, h.describe(spec).State)
}

func TestChanged(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	r.commit(map[string]string{"a": "1", "lock": "1"})
	v1, v2 := r.tag("v1"), r.tag("v2")
	spec := release.GitSpec{Repository: r.url(), PreScript: "echo built > lock"}
	require.Equal(t, executor.RunMissing, h.describe(spec).State)
	h.deploy(release.StepInstall, "v1", spec)
	release1 := filepath.Join(h.base, h.currentLink())
	require.Equal(t, executor.RunOK, h.describe(spec).State, "what the deployment itself changed is as it should be")

	require.NoError(t, os.WriteFile(filepath.Join(release1, "a"), []byte("2"), 0o644))
	running := h.describe(spec)
	require.Equal(t, executor.RunChanged, running.State)
	require.Equal(t, "files differ: a, lock", running.Reason)
	require.Equal(t, "v1", running.Version)
	require.NoError(t, os.WriteFile(filepath.Join(release1, "a"), []byte("1"), 0o644))
	require.Equal(t, executor.RunOK, h.describe(spec).State)

	r.git(release1, "fetch", "-q", r.url(), "v2")
	r.git(release1, "reset", "-q", "--soft", v2)
	running = h.describe(spec)
	require.Equal(t, executor.RunChanged, running.State)
	require.Equal(t, "commit "+v2[:12]+" is checked out instead of "+v1[:12], running.Reason)

	require.NoError(t, os.RemoveAll(release1))
	require.Equal(t, executor.RunMissing, h.describe(spec).State)
	require.NoError(t, os.Remove(filepath.Join(h.base, "current")))
	require.NoError(t, os.Symlink("/etc", filepath.Join(h.base, "current")))
	require.Equal(t, executor.RunChanged, h.describe(spec).State)

	// A deployment onto that says so in nothing but its link, and leads back to it if it fails.
	h.refused(h.step(release.StepUpdate, "v2", release.GitSpec{Repository: r.url(), PostScript: "exit 1"}))
	require.Equal(t, "/etc", h.currentLink())
}

func TestPathOfLabels(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	r.tag("v1")
	h.deploy(release.StepInstall, "v1", release.GitSpec{Repository: r.url(), Path: h.base + "/r1/host-1"})
	require.Equal(t, executor.RunOK, h.describe(release.GitSpec{Path: h.base + "/${QUICFLOW_LABEL_RACK}/${QUICFLOW_TARGET}"}).State)
	require.Equal(t, executor.RunUnknown, h.describe(release.GitSpec{Path: h.base + "/${OTHER}"}).State)
}

func TestOtherProject(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	r.tag("v1")
	h.deploy(release.StepInstall, "v1", release.GitSpec{Repository: r.url()})
	for _, action := range []release.StepAction{release.StepUpdate, release.StepUninstall} {
		step := h.step(action, "v1", release.GitSpec{Repository: r.url()})
		step.Project = "shop"
		require.Contains(t, h.refused(step), "another project, web")
	}
	require.Equal(t, "v1", h.current("version"))

	other := newHost(t)
	require.NoError(t, os.MkdirAll(filepath.Join(other.base, "current"), 0o755))
	require.Contains(t, other.refused(other.step(release.StepInstall, "v1", release.GitSpec{Repository: r.url()})), "move it out of the way")
}

func TestBrokenCache(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	r.tag("v1")
	spec := release.GitSpec{Repository: r.url()}
	h.deploy(release.StepInstall, "v1", spec)
	cache := filepath.Join(h.base, ".quicflow", "repo.git")
	packs, err := filepath.Glob(filepath.Join(cache, "objects", "pack", "*.pack"))
	require.NoError(t, err)
	require.NotEmpty(t, packs)
	text, err := os.ReadFile(packs[0])
	require.NoError(t, err)
	for i := len(text) / 2; i < len(text)-30; i++ {
		text[i] ^= 0x55
	}
	for _, broken := range []struct{ name, text string }{{packs[0], string(text)}, {filepath.Join(cache, "config"), "garbage ["}} {
		require.NoError(t, os.Remove(broken.name))
		require.NoError(t, os.WriteFile(broken.name, []byte(broken.text), 0o644))
		h.deploy(release.StepUpdate, "v1", spec) // nothing new is to be fetched: all of it is there, as it seems
		require.Contains(t, h.log(), "made anew")
		require.Equal(t, "v1", h.current("version"))
		h.clean()
	}

	// What a git that was killed left there is no reason for that.
	for _, name := range []string{"shallow.lock", "config.lock", "refs/quicflow/wanted.lock", "objects/pack/tmp_pack_x"} {
		require.NoError(t, os.WriteFile(filepath.Join(cache, name), []byte("x"), 0o644))
	}
	r.tag("v3")
	h.deploy(release.StepUpdate, "v3", spec)
	require.NotContains(t, h.log(), "made anew")
	require.NoFileExists(t, filepath.Join(cache, "objects/pack/tmp_pack_x"))
	h.clean()
}

// Stopped in the middle, all is as before.
func TestCancel(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	r.tag("v1")
	r.tag("v2")
	h.deploy(release.StepInstall, "v1", release.GitSpec{Repository: r.url()})
	link := h.currentLink()
	for _, spec := range []release.GitSpec{
		{PreScript: "touch $QUICFLOW_PATH/here; exec sleep 60"},
		{PostScript: "touch $QUICFLOW_PATH/here; exec sleep 60"},
		{Health: &release.Health{Exec: "touch $QUICFLOW_PATH/here; exec sleep 60"}},
	} {
		spec.Repository = r.url()
		ctx, cancel := context.WithCancelCause(context.Background())
		step, done := h.step(release.StepUpdate, "v2", spec), make(chan error, 1)
		go func() { done <- h.workWith(ctx, step) }()
		here := filepath.Join(h.base, "here")
		require.Eventually(t, func() bool { _, err := os.Stat(here); return err == nil }, patience, pollTime)
		cancel(&executor.Cancelled{Reason: "enough"})
		err := <-done
		var cancelled *executor.Cancelled
		require.ErrorAs(t, err, &cancelled)
		require.Equal(t, link, h.currentLink())
		require.Len(t, h.releases(), 1)
		require.NoError(t, os.Remove(here))
		h.clean()
	}
}

// The interpreter and the time are the engine's to keep to: it runs what the worker asks for.
func TestInterpreterAndTimeout(t *testing.T) {
	h, r := newHost(t), newRepo(t)
	r.tag("v1")
	set := executortest.NewSet(t, executor.Host{ClientID: "host-1", DataDir: filepath.Join(h.dir, "data")}, worker)
	run := func(step string, spec release.GitSpec) *quicflowv1.StepResult {
		spec.Repository, spec.Ref, spec.Path = r.url(), "v1", h.base
		merged := release.Merge(release.Project{Type: release.TypeGit, Spec: release.Spec{Git: &spec}}, release.Version{}, release.Override{})
		config, err := merged.JSON()
		require.NoError(t, err)
		return set.Run(t.Context(), &quicflowv1.StepRequest{
			StepId: "task/deploy/host-1/" + step, TaskId: "task", Action: "install", Project: "web", Version: "v1", NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli(),
			Spec: &quicflowv1.StepRequest_Deploy{Deploy: &quicflowv1.DeployStep{Type: "git", Config: config, ConfigId: "c"}},
		}, spool.NewWriter(spool.Config{Path: filepath.Join(h.dir, "data", "steps", step, "spool")}))
	}
	result := run("0", release.GitSpec{PreScript: "this is data", Interpreter: "/bin/cat -n"})
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	require.Contains(t, string(result.StdoutTail), "1\tthis is data")
	link := h.currentLink()
	result = run("1", release.GitSpec{PostScript: "sleep 100", Timeout: release.Duration(time.Second)})
	require.Contains(t, result.Error, "timed out after 1s")
	require.Equal(t, link, h.currentLink())
	h.clean()
}
