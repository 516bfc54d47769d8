package script_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/script"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// artifact puts content into the agent's cache.
func (h *host) artifact(content []byte) string {
	h.t.Helper()
	sum := sha256.Sum256(content)
	name := hex.EncodeToString(sum[:])
	require.NoError(h.t, os.MkdirAll(h.path("artifacts"), 0o700))
	require.NoError(h.t, os.WriteFile(h.path("artifacts/"+name), content, 0o600))
	return name
}

// archive is a tar.gz of files below a directory app.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for _, name := range slices.Sorted(maps.Keys(files)) { // the same bytes each time
		content := files[name]
		require.NoError(t, w.WriteHeader(&tar.Header{Name: "app/" + name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))}))
		_, err := w.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, zipped.Close())
	return out.Bytes()
}

// site is a project with artifacts on a host.
type site struct {
	*host
	dir   string // work directory
	steps int
}

func newSite(t *testing.T) *site {
	h := newHost(t)
	return &site{host: h, dir: h.path("srv")}
}

// deploy gives a step of a version whose archive says which version it is. Each has a directory of its own.
func (s *site) deploy(action release.StepAction, version string, change ...func(*release.ScriptSpec)) *quicflowv1.StepRequest {
	s.t.Helper()
	sum := s.artifact(archive(s.t, map[string]string{"version": version, "bin/run": "#!/bin/sh\necho " + version}))
	s.steps++
	step := s.step(`echo "$(cat version) $(bin/run) $QUICFLOW_RELEASE_DIR" >> $T/ran`, append([]func(*release.ScriptSpec){func(c *release.ScriptSpec) {
		c.WorkDir, c.KeepReleases = s.dir, 3
		c.Artifacts = []release.Artifact{
			{Name: "app.tar.gz", SHA256: sum, Unpack: "tar.gz", Strip: 1},
			{Name: "etc/conf", SHA256: s.artifact([]byte("conf of " + version)), Mode: "0640"},
		}
	}}, change...)...)
	step.StepId = fmt.Sprintf("task/deploy/host-1/%d", s.steps)
	step.Action, step.Version = string(action), version
	return step
}

func (h *host) fresh() { require.NoError(h.t, os.RemoveAll(h.stepFile(""))) }

// succeeds carries out a step from nothing.
func (s *site) succeeds(step *quicflowv1.StepRequest) {
	s.t.Helper()
	s.fresh()
	result := s.run(step)
	require.Equal(s.t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
}

func (s *site) current() string {
	target, _ := os.Readlink(filepath.Join(s.dir, "current"))
	return target
}

func (s *site) releases() (names []string) {
	entries, _ := os.ReadDir(filepath.Join(s.dir, "releases"))
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".id") {
			names = append(names, e.Name())
		}
	}
	return names
}

func (s *site) describe() executor.Running {
	s.t.Helper()
	running, err := script.New().Describe(context.Background(), executor.Deployed{Project: "web", Host: executor.Host{ClientID: "host-1", DataDir: s.host.dir}})
	require.NoError(s.t, err)
	return running
}

func TestReleases(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	require.Equal(t, executor.RunMissing, s.describe().State)
	s.succeeds(s.deploy(release.StepInstall, "1.0"))
	require.Equal(t, "releases/1.0", s.current())
	dir := filepath.Join(s.dir, "releases", "1.0")
	require.Equal(t, "1.0 1.0 "+dir+"\n", s.read("ran"))
	require.Equal(t, "conf of 1.0", s.read("srv/current/etc/conf"))
	info, err := os.Stat(filepath.Join(dir, "etc/conf"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode())
	running := s.describe()
	require.Equal(t, executor.RunOK, running.State, running.Reason)
	require.Equal(t, "1.0", running.Version)
	require.Equal(t, "c1", running.ConfigID)
	require.Equal(t, dir, running.Details["path"])

	for _, version := range []string{"2.0", "3.0", "4.0", "5.0"} {
		s.succeeds(s.deploy(release.StepUpdate, version))
	}
	require.Equal(t, "releases/5.0", s.current())
	require.Equal(t, []string{"3.0", "4.0", "5.0"}, s.releases())

	// What is kept need not be fetched.
	back := s.deploy(release.StepRollbackTo, "3.0")
	require.NoError(t, os.RemoveAll(s.path("artifacts")))
	s.succeeds(back)
	require.Equal(t, "releases/3.0", s.current())
	require.Contains(t, s.output(quicflowv1.Stream_STREAM_SYSTEM), "release 3.0 is here already")
	require.Equal(t, "3.0", s.describe().Version)
	require.Equal(t, []string{"3.0", "4.0", "5.0"}, s.releases())

	// Of one that is kept, the one in use and the one before are left.
	s.succeeds(s.deploy(release.StepUpdate, "6.0", func(c *release.ScriptSpec) { c.KeepReleases = 1 }))
	require.Equal(t, []string{"3.0", "6.0"}, s.releases())

	// Someone else's changes are seen.
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "mine"), nil, 0o600))
	require.NoError(t, os.Remove(filepath.Join(s.dir, "current")))
	require.Equal(t, executor.RunMissing, s.describe().State)
	require.NoError(t, os.Symlink("releases/3.0", filepath.Join(s.dir, "current")))
	require.Equal(t, executor.RunChanged, s.describe().State)

	s.succeeds(s.deploy(release.StepUninstall, "6.0", func(c *release.ScriptSpec) { c.Uninstall = `pwd > $T/uninstalled` }))
	require.Equal(t, filepath.Join(s.dir, "releases/6.0")+"\n", s.read("uninstalled"))
	entries, err := os.ReadDir(s.dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "what is not ours stays")
	require.Equal(t, executor.RunMissing, s.describe().State)
	s.succeeds(s.deploy(release.StepUninstall, "6.0"))
}

// Names and values are never read by a shell.
func TestNamesWithShellCharacters(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	name := "$(touch evil); `touch evil` 'x'"
	s.succeeds(s.deploy(release.StepInstall, "1.0", func(c *release.ScriptSpec) {
		c.Artifacts[1].Name = name
		c.Env["NAME"] = name
		c.Install = `cat "$NAME"`
	}))
	require.Equal(t, "conf of 1.0", s.stdout())
	require.FileExists(t, filepath.Join(s.dir, "current", name))
	require.NoFileExists(t, filepath.Join(s.dir, "current", "evil"))
}

// What was damaged in the cache is not used.
func TestDamagedArtifact(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.succeeds(s.deploy(release.StepInstall, "1.0"))
	step := s.deploy(release.StepUpdate, "2.0", func(c *release.ScriptSpec) {
		require.NoError(t, os.WriteFile(s.path("artifacts/"+c.Artifacts[0].SHA256), []byte("something else"), 0o600))
	})
	s.fresh()
	result := s.run(step)
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Contains(t, result.Error, "its content in the agent's cache has changed")
	require.Equal(t, "releases/1.0", s.current())
	require.Equal(t, []string{"1.0"}, s.releases())
}

// If anything fails, the release before is the one in use, with nothing left of the new one.
func TestFailedReleaseGoesBack(t *testing.T) {
	t.Parallel()
	bad := func(change func(*release.ScriptSpec)) func(*release.ScriptSpec) { return change }
	for name, c := range map[string]struct {
		change func(*release.ScriptSpec)
		want   string
		seen   bool // current led to it for a while
	}{
		"pre":  {bad(func(s *release.ScriptSpec) { s.PreScript = "exit 3" }), "pre_script: exit code 3", false},
		"main": {bad(func(s *release.ScriptSpec) { s.Update = "echo no >&2; exit 3" }), "exit code 3: no", false},
		"post": {bad(func(s *release.ScriptSpec) { s.PostScript = "readlink $T/srv/current > $T/seen; exit 3" }), "post_script: exit code 3", true},
		"health": {bad(func(s *release.ScriptSpec) {
			s.Health = &release.Health{Exec: "readlink $T/srv/current > $T/seen; exit 1", Retries: 1}
		}), "health check failed", true},
		"timeout": {bad(func(s *release.ScriptSpec) {
			s.PostScript, s.Timeout = "readlink $T/srv/current > $T/seen; sleep 100", release.Duration(time.Second)
		}), "timed out after 1s", true},
		"format":   {bad(func(s *release.ScriptSpec) { s.Artifacts[0].Unpack = "zip" }), "artifact app.tar.gz: it is damaged, or not in this format", false},
		"twice":    {bad(func(s *release.ScriptSpec) { s.Artifacts[1].Name = "version" }), `artifact version: "version" comes twice`, false},
		"missing":  {bad(func(s *release.ScriptSpec) { s.Artifacts[0].SHA256 = strings.Repeat("ab", 32) }), "artifact abababababab… is not in the agent's cache", false},
		"no user":  {bad(func(s *release.ScriptSpec) { s.User = "no-such-user" }), `this host has no user "no-such-user"`, false},
		"no group": {bad(func(s *release.ScriptSpec) { s.User = "root:no-such-group" }), `this host has no group "no-such-group"`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.succeeds(s.deploy(release.StepInstall, "1.0"))
			s.fresh()
			result := s.run(s.deploy(release.StepUpdate, "2.0", c.change))
			require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
			require.Contains(t, result.Error, c.want)
			require.Equal(t, "releases/1.0", s.current())
			require.Equal(t, []string{"1.0"}, s.releases())
			require.Equal(t, "1.0", s.describe().Version)
			if c.seen {
				require.Equal(t, "releases/2.0\n", s.read("seen"))
				require.Equal(t, executor.RunDegraded, s.describe().State)
				require.Contains(t, s.output(quicflowv1.Stream_STREAM_SYSTEM), "current leads back to releases/1.0\n")
			}
			s.succeeds(s.deploy(release.StepUpdate, "2.0"))
			require.Equal(t, "releases/2.0", s.current())
		})
	}
}

func TestFailedFirstReleaseLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	result := s.run(s.deploy(release.StepInstall, "1.0", func(c *release.ScriptSpec) { c.PostScript = "exit 1" }))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Empty(t, s.current())
	require.Empty(t, s.releases())
}

// current is not ours where it is no link.
func TestCurrentInTheWay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "current"), 0o755))
	result := s.run(s.deploy(release.StepInstall, "1.0"))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Contains(t, result.Error, "current is in the way: it is no link")
	require.Empty(t, s.read("ran"))
}

// A version whose artifacts were changed gets a directory of its own: the one in use never changes.
func TestChangedArtifactsOfAVersion(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.succeeds(s.deploy(release.StepInstall, "1.0"))
	s.succeeds(s.deploy(release.StepUpdate, "1.0", func(c *release.ScriptSpec) {
		c.Artifacts[1].SHA256 = s.artifact([]byte("another"))
	}))
	require.Equal(t, "another", s.read("srv/current/etc/conf"))
	require.Len(t, s.releases(), 2)
	require.Equal(t, "conf of 1.0", s.read("srv/releases/1.0/etc/conf"))
	require.Equal(t, executor.RunOK, s.describe().State)
}

// Where the artifacts come from is no part of what they hold.
func TestReleaseOfAnotherURL(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	from := func(url string) func(*release.ScriptSpec) {
		return func(c *release.ScriptSpec) { c.Artifacts[0].URL = url }
	}
	s.succeeds(s.deploy(release.StepInstall, "1.0", from("https://example.com/app?signature=1")))
	again := s.deploy(release.StepUpdate, "1.0", from("https://example.com/app?signature=2"))
	require.NoError(t, os.RemoveAll(s.path("artifacts")))
	s.succeeds(again)
	require.Contains(t, s.output(quicflowv1.Stream_STREAM_SYSTEM), "release 1.0 is here already")
	require.Equal(t, []string{"1.0"}, s.releases())
	require.Equal(t, executor.RunOK, s.describe().State)
}

func TestReleaseOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run scripts as another user")
	}
	s := newSite(t)
	// Another user has to get there.
	dir, err := os.MkdirTemp("/tmp", "quicflow-site-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	s.dir = filepath.Join(dir, "srv")
	s.succeeds(s.deploy(release.StepInstall, "1.0", func(c *release.ScriptSpec) {
		c.User = "nobody:daemon"
		c.Install = `id -un; id -gn; echo $USER $HOME; touch mine; stat -c %U:%G version ..`
	}))
	require.Equal(t, "nobody\ndaemon\nnobody /nonexistent\nnobody:daemon\nroot:root\n", s.stdout())
}

// The wrapper is killed at any moment. The step goes on, or it is unknown how far it got; current always leads to a whole release,
// and no script runs twice.
func TestKilledWhileAReleaseIsMade(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.succeeds(s.deploy(release.StepInstall, "0"))
	files := map[string]string{"version": "x"}
	for i := range 300 {
		files[fmt.Sprintf("d%d/f%d", i%7, i)] = strings.Repeat(fmt.Sprint(i), 500)
	}
	big := archive(t, files)
	outcomes := map[quicflowv1.Outcome]int{}
	for round := range 12 {
		version := fmt.Sprint(round + 1)
		before := s.current()
		s.fresh()
		step := s.deploy(release.StepUpdate, version, func(c *release.ScriptSpec) {
			c.Artifacts[0].SHA256 = s.artifact(append(big[:len(big):len(big)], 0)[:len(big)])
			c.PreScript, c.Update, c.PostScript = "echo pre >> $T/runs"+version, "echo main >> $T/runs"+version, "echo post >> $T/runs"+version
		})
		results := s.start(context.Background(), step)
		pid := s.wrapperPID()
		kill := time.NewTimer(time.Duration(rand.IntN(60)) * time.Millisecond)
		var result *quicflowv1.StepResult
		select {
		case result = <-results:
			kill.Stop()
		case <-kill.C:
			_ = syscall.Kill(pid, syscall.SIGKILL)
			result = <-results
		}
		require.NotNil(t, result)
		outcomes[result.Outcome]++
		lines := strings.Fields(s.read("runs" + version))
		require.LessOrEqual(t, len(lines), 3, "%v", lines)
		require.Len(t, lines, len(uniq(lines)), "%v", lines)
		switch result.Outcome {
		case quicflowv1.Outcome_OUTCOME_SUCCEEDED:
			require.Equal(t, "releases/"+version, s.current())
			require.Len(t, lines, 3)
		case quicflowv1.Outcome_OUTCOME_UNKNOWN:
			require.Contains(t, []string{before, "releases/" + version}, s.current())
		default:
			require.Fail(t, "unexpected", "%v", result)
		}
		require.FileExists(t, filepath.Join(s.dir, "current", "version"), "it leads to a whole release")
	}
	t.Log(outcomes)
	s.succeeds(s.deploy(release.StepUpdate, "last"))
	for _, name := range s.releases() {
		require.False(t, strings.HasPrefix(name, "."), "%s was left over", name)
	}
}

func uniq(lines []string) map[string]bool {
	set := map[string]bool{}
	for _, line := range lines {
		set[line] = true
	}
	return set
}

func TestNoLogsOfScripts(t *testing.T) {
	t.Parallel()
	err := script.New().Logs(context.Background(), executor.Deployed{Project: "web"}, executor.LogOptions{}, os.Stderr)
	require.ErrorIs(t, err, release.ErrUnavailable)
	require.ErrorContains(t, err, "no logs but those of its steps")
}
