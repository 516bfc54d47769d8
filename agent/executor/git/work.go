package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/release"
)

// What a step keeps for a wrapper that comes after one that was killed.
const (
	keptScratch = "git.scratch" // string: directory of a session
	keptBegin   = "git.begin"   // string: what current held before the step
	keptRelease = "git.release" // chosen
	keptFailure = "git.failure" // executor.Failure: why it is going back
	keptDone    = "git.done"    // bool: it has succeeded
)

// chosen is the release that a step deploys.
type chosen struct {
	Name string
	Made bool // by this step, which removes it if it fails
}

// job is one step being carried out.
type job struct {
	*executor.Run
	worker *Worker
	spec   *release.GitSpec
	site   *site
	owner  *wrapper.Account
	mark   string // names the step in file names

	before string // what current held when the step began
	chosen chosen
}

// Work carries out a step.
func (w *Worker) Work(ctx context.Context, run *executor.Run) error {
	if err := w.Check(run.Step); err != nil { // now that no variable is left
		return err
	}
	j := &job{Run: run, worker: w, spec: run.Config.Git, mark: markOf(run.ID)}
	var err error
	if j.owner, err = findOwner(j.spec.User); err != nil {
		return err
	}
	if err := j.removeScratch(); err != nil {
		return err
	}
	if run.Action == release.StepUninstall {
		return j.uninstall(ctx)
	}
	if err := context.Cause(ctx); err != nil && !run.Again {
		return err
	}
	if j.site, err = makeSite(basePath(j.spec, run.Host, run.Project), run.Project, j.owner); err != nil {
		return err
	}
	defer j.site.close()
	return j.deploy(ctx)
}

// removeScratch removes the directory of a session that was killed.
func (j *job) removeScratch() error {
	var dir string
	if ok, err := j.Tools.Kept(keptScratch, &dir); err != nil || !ok || dir == "" {
		return err
	}
	return os.RemoveAll(dir)
}

// deploy carries out install, update and rollback, and goes back where it fails.
func (j *job) deploy(ctx context.Context) error {
	known, err := j.Tools.Kept(keptBegin, &j.before)
	if err != nil {
		return err
	}
	if !known {
		if j.before, err = j.site.current(); err != nil {
			return err
		}
		if err := j.Tools.Keep(keptBegin, j.before); err != nil {
			return err
		}
	}
	if _, err := j.Tools.Kept(keptRelease, &j.chosen); err != nil {
		return err
	}
	failpoint.Here("git.begun")

	var why executor.Failure
	switch failed, err := j.Tools.Kept(keptFailure, &why); {
	case err != nil:
		return err
	case failed:
		if cause := context.Cause(ctx); cause != nil { // a cancellation remains one
			return j.back(cause)
		}
		return j.back(why.Err())
	}
	var done bool
	if _, err := j.Tools.Kept(keptDone, &done); err != nil {
		return err
	}
	if !done {
		if err := j.forward(ctx); err != nil {
			// Where even that cannot be kept, a later run tries again, and fails again.
			_ = j.Tools.Keep(keptFailure, executor.FailureOf(err))
			failpoint.Here("git.failed")
			return j.back(err)
		}
	}
	failpoint.Here("git.done")
	j.prune(ctx)
	failpoint.Here("git.pruned")
	j.report()
	return nil
}

func (j *job) forward(ctx context.Context) error {
	if err := j.site.sweep(j.site.releaseOf(j.before), j.chosen.Name); err != nil {
		return err
	}
	if j.chosen.Name == "" && j.Action == release.StepRollbackTo {
		if err := j.pick(); err != nil {
			return err
		}
	}
	if j.chosen.Name == "" || j.chosen.Made {
		if err := j.build(ctx); err != nil {
			return err
		}
	}
	r := j.site.record(j.chosen.Name)
	if r == nil {
		return fmt.Errorf("the record of %s is gone", j.chosen.Name)
	}
	if !j.chosen.Made { // what is shared may have changed since
		if err := j.site.share(r.Name, j.spec.Shared, j.Tools.Printf); err != nil {
			return err
		}
	}
	dir, env := j.site.path(releasesDir, r.Name), j.environment(r)
	if j.chosen.Made {
		if err := j.script(ctx, "pre_script", j.spec.PreScript, dir, env); err != nil {
			return err
		}
		failpoint.Here("git.prescript")
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := j.site.point(linkTo(r.Name), j.mark); err != nil {
		return err
	}
	failpoint.Here("git.switched")
	j.Tools.Printf("%s now leads to %s", j.site.path(currentLink), linkTo(r.Name))
	if err := j.script(ctx, "post_script", j.spec.PostScript, dir, env); err != nil {
		return err
	}
	failpoint.Here("git.postscript")
	if err := j.Tools.Health(ctx, env); err != nil {
		return err
	}
	r.Stage, r.Deployed = stageDeployed, time.Now().UTC().Truncate(time.Millisecond)
	r.Version, r.ConfigID, r.TaskID, r.StepID, r.Shared = j.Version, j.ConfigID, j.TaskID, j.ID, j.spec.Shared
	if changes, err := j.changes(ctx, r); err != nil {
		return err
	} else {
		r.Changes = changes
	}
	if err := j.site.writeRecord(*r); err != nil {
		return err
	}
	failpoint.Here("git.recorded")
	return j.Tools.Keep(keptDone, true)
}

// pick finds the release that a rollback returns to, if that is still there.
func (j *job) pick() error {
	for _, r := range j.site.releases() {
		if r.Stage == stageDeployed && r.Version == j.Version {
			j.Tools.Printf("version %s is still there as %s, commit %s", j.Version, linkTo(r.Name), r.Commit)
			return j.choose(chosen{Name: r.Name})
		}
	}
	j.Tools.Printf("no release of version %s is left: it is fetched again", j.Version)
	return nil
}

func (j *job) choose(c chosen) error {
	if err := j.Tools.Keep(keptRelease, c); err != nil {
		return err
	}
	j.chosen = c
	return nil
}

// build makes the release's directory, unless it is whole already.
func (j *job) build(ctx context.Context) (err error) {
	known := j.site.record(j.chosen.Name)
	if known != nil && known.Stage != stageBuilding {
		return nil
	}
	s, done, err := j.login(ctx, j.spec)
	if err != nil {
		return err
	}
	defer done()
	if j.spec.LFS {
		if err := s.needLFS(ctx); err != nil {
			return err
		}
	}
	r, err := j.tryTwice(ctx, s)
	if err != nil {
		return err
	}
	if err := j.site.share(r.Name, j.spec.Shared, j.Tools.Printf); err != nil {
		return err
	}
	failpoint.Here("git.shared")
	r.Stage = stageBuilt
	if err := j.site.writeRecord(r); err != nil {
		return err
	}
	failpoint.Here("git.built")
	return nil
}

// tryTwice fetches and checks out. A cache that may be damaged is made anew, once.
func (j *job) tryTwice(ctx context.Context, s *session) (record, error) {
	_, err := j.site.root.Lstat(cacheDir)
	for fresh := errors.Is(err, fs.ErrNotExist); ; fresh = true {
		r, err := j.checkOut(ctx, s)
		if err == nil || fresh || ctx.Err() != nil || remoteReason(err) {
			return r, err
		}
		j.Tools.Printf("the cache of the repository may be damaged (%v): it is made anew", err)
		if err := j.site.root.RemoveAll(cacheDir); err != nil {
			return r, fmt.Errorf("remove %s: %w", j.site.path(cacheDir), plain(err))
		}
	}
}

// checkOut fetches what the configuration names, and makes the release's directory.
func (j *job) checkOut(ctx context.Context, s *session) (record, error) {
	c, err := s.openCache(ctx, j.site)
	if err != nil {
		return record{}, err
	}
	f, err := c.resolve(ctx, j.spec.Ref, *j.spec.Depth)
	if err != nil {
		return record{}, err
	}
	failpoint.Here("git.fetched")
	j.Tools.Printf("%s is %s %s", j.spec.Ref, f.Kind, f.Commit)

	name := f.Commit[:12] + "-" + j.mark
	r := record{Name: name, Stage: stageBuilding, Commit: f.Commit, Ref: j.spec.Ref, Kind: f.Kind, Version: j.Version, ConfigID: j.ConfigID,
		TaskID: j.TaskID, StepID: j.ID, User: j.spec.User, Shared: j.spec.Shared, LFS: j.spec.LFS}
	for _, half := range []string{j.chosen.Name, name} { // of an earlier try, maybe of a commit that its branch has left since
		if half == "" {
			continue
		}
		if err := j.site.remove(half); err != nil {
			return r, err
		}
	}
	if err := j.choose(chosen{Name: name, Made: true}); err != nil {
		return r, err
	}
	if err := j.site.writeRecord(r); err != nil {
		return r, err
	}
	if err := j.site.mkdir(filepath.Join(releasesDir, name), j.owner); err != nil {
		return r, err
	}
	failpoint.Here("git.made")
	return r, c.checkOut(ctx, j.site.path(releasesDir, name), f, j.spec)
}

// login opens a session for the step's programs; done ends it.
func (j *job) login(ctx context.Context, spec *release.GitSpec) (*session, func(), error) {
	dir := newScratch()
	if err := j.Tools.Keep(keptScratch, dir); err != nil {
		return nil, nil, err
	}
	s := &session{
		program: func(ctx context.Context, p executor.Program, _ io.Writer) error { return j.Tools.Program(ctx, p) },
		merged:  true, log: j.Tools.Stderr(), user: j.user(),
	}
	if err := j.worker.openSession(s, dir, spec, j.owner); err != nil {
		return nil, nil, err
	}
	failpoint.Here("git.login")
	if j.owner != nil {
		// Said by the system, it would be a riddle.
		if err := s.program(ctx, executor.Program{Path: "git", Args: []string{"--version"}, User: s.user,
			Dir: j.site.base, Env: s.env, Output: io.Discard}, nil); err != nil && ctx.Err() == nil {
			s.close()
			return nil, nil, fmt.Errorf("the user %s cannot enter %s", j.spec.User, j.site.base)
		}
	}
	return s, s.close, nil
}

// user is who programs run as; empty for the agent's own.
func (j *job) user() string {
	if j.owner == nil {
		return ""
	}
	return j.spec.User
}

// environment is what scripts get.
func (j *job) environment(r *record) map[string]string {
	env := j.Tools.Environment(true)
	maps.Copy(env, j.spec.Env)
	env["QUICFLOW_PATH"] = j.site.base
	env["QUICFLOW_COMMIT"], env["QUICFLOW_REF"] = r.Commit, r.Ref
	env["QUICFLOW_RELEASE_DIR"] = j.site.path(releasesDir, r.Name)
	return env
}

func (j *job) script(ctx context.Context, name, text, dir string, env map[string]string) error {
	if text == "" {
		return nil
	}
	return j.Tools.Script(ctx, executor.Script{Name: name, Text: text, Interpreter: j.spec.Interpreter, User: j.user(), Dir: dir, Env: env})
}

// changes names what the release has in files that git knows which its commit has not, but for what is shared.
func (j *job) changes(ctx context.Context, r *record) (string, error) {
	spec := *j.spec
	spec.Auth = nil
	s, done, err := j.login(ctx, &spec)
	if err != nil {
		return "", err
	}
	defer done()
	return s.changes(ctx, j.site.path(releasesDir, r.Name), r)
}

func (s *session) changes(ctx context.Context, dir string, r *record) (string, error) {
	sum := &lineHash{hash: sha256.New()}
	if err := s.git(ctx, gitCommand{doing: "look for changes", stdout: sum, args: append([]string{"-C", dir, "--no-optional-locks",
		"diff", "--no-color", "--no-ext-diff", "--no-textconv", "--full-index", "--binary", "--ignore-submodules=untracked"}, within(r)...)}); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.hash.Sum(nil)[:16]), nil
}

// within are the arguments of a git diff that leaves out what is shared.
func within(r *record) []string {
	args := []string{r.Commit, "--", "."}
	for _, path := range r.Shared {
		args = append(args, ":(exclude,literal)"+filepath.Clean(path))
	}
	return args
}

// back undoes what the step did, and gives why.
func (j *job) back(why error) error {
	if err := j.undo(); err != nil {
		j.Tools.Printf("going back failed: %v", err)
		return fmt.Errorf("%w; going back failed: %w", why, err)
	}
	j.report()
	return why
}

func (j *job) undo() error {
	if err := j.removeScratch(); err != nil {
		return err
	}
	now, err := j.site.current()
	if err != nil {
		return err
	}
	if now != j.before && j.site.releaseOf(now) == j.chosen.Name {
		if err := j.site.point(j.before, j.mark); err != nil {
			return err
		}
		if j.before == "" {
			j.Tools.Printf("%s is gone again", j.site.path(currentLink))
		} else {
			j.Tools.Printf("%s leads back to %s", j.site.path(currentLink), j.before)
		}
	}
	failpoint.Here("git.back")
	tidyCache(j.site)
	return j.site.sweep(j.site.releaseOf(j.before))
}

// prune removes the releases that are not to be kept, but never the current one nor the one before it.
func (j *job) prune(ctx context.Context) {
	spare := []string{j.chosen.Name, j.site.releaseOf(j.before)}
	kept := 1
	for _, r := range j.site.releases() {
		switch {
		case r.Name == spare[0]:
		case r.Name == spare[1] || kept < j.spec.KeepReleases:
			kept++
		default:
			if err := j.site.remove(r.Name); err != nil {
				j.Tools.Printf("%v", err)
				continue
			}
			j.Tools.Printf("removed %s (version %s)", linkTo(r.Name), r.Version)
		}
	}
	// The cache grows with each fetch.
	s, done, err := j.login(ctx, &release.GitSpec{Repository: j.spec.Repository, User: j.spec.User})
	if err != nil {
		return
	}
	defer done()
	if _, err := j.site.root.Lstat(cacheDir); err == nil {
		_ = s.git(ctx, gitCommand{doing: "tidy up", args: []string{"--git-dir=" + j.site.path(cacheDir), "-c", "gc.pruneExpire=now", "gc", "--auto", "--quiet"}})
	}
}

// report tells what now is in place.
func (j *job) report() {
	running := executor.Running{Project: j.Project, Type: release.TypeGit, State: executor.RunMissing}
	if now, err := j.site.current(); err == nil && now != "" {
		if r := j.site.record(j.site.releaseOf(now)); r != nil {
			running = r.running(j.Project, j.site)
		} else {
			running.State, running.Reason = executor.RunUnknown, "current leads to "+now+", which QuicFlow did not make"
		}
	}
	j.Tools.Report(running)
}

func (r *record) running(project string, s *site) executor.Running {
	return executor.Running{
		Project: project, Type: release.TypeGit, State: executor.RunOK,
		Version: r.Version, ConfigID: r.ConfigID, TaskID: r.TaskID, Since: r.Deployed,
		Details: map[string]string{"commit": r.Commit, "ref": r.Ref, "kind": r.Kind, "path": s.base, "release": s.path(releasesDir, r.Name)},
	}
}

// uninstall removes all but what is shared.
func (j *job) uninstall(ctx context.Context) error {
	base := basePath(j.spec, j.Host, j.Project)
	gone := func() error {
		j.Tools.Report(executor.Running{Project: j.Project, Type: release.TypeGit, State: executor.RunMissing})
		return nil
	}
	if _, err := os.Stat(filepath.Join(base, ownDir)); errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(base) // an earlier run may have got so far
		j.Tools.Printf("nothing of %s is in %s", j.Project, base)
		return gone()
	}
	var err error
	if j.site, err = makeSite(base, j.Project, j.owner); err != nil {
		return err
	}
	defer j.site.close()
	now, err := j.site.current()
	if err != nil {
		return err
	}
	if r := j.site.record(j.site.releaseOf(now)); r != nil {
		if err := j.script(ctx, "uninstall", j.spec.Uninstall, j.site.path(releasesDir, r.Name), j.environment(r)); err != nil {
			return err
		}
	}
	failpoint.Here("git.uninstall.script")
	if err := context.Cause(ctx); err != nil && !j.Again {
		return err
	}
	if now != "" && j.site.releaseOf(now) == "" {
		j.Tools.Printf("%s leads to %s, which QuicFlow did not make: it stays", j.site.path(currentLink), now)
	} else if err := j.site.point("", j.mark); err != nil {
		return err
	}
	failpoint.Here("git.uninstall.current")
	for _, name := range j.site.releaseNames() {
		if err := j.site.remove(name); err != nil {
			return err
		}
	}
	if err := j.site.sweep(); err != nil {
		return err
	}
	failpoint.Here("git.uninstall.releases")
	_ = j.site.root.Remove(releasesDir) // others stay if there is anything else in them
	if n := j.site.sharedEntries(); n > 0 {
		j.Tools.Printf("%s is kept, with %d entries: remove it by hand if it is not needed", j.site.path(sharedDir), n)
	} else {
		_ = j.site.root.Remove(sharedDir)
	}
	if err := j.site.root.RemoveAll(ownDir); err != nil {
		return fmt.Errorf("remove %s: %w", j.site.path(ownDir), plain(err))
	}
	_ = os.Remove(base)
	return gone()
}
