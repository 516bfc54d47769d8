package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/lazyregexp"
	"github.com/quicflow/quicflow/internal/release"
)

// wanted is the ref of the cache that holds what was fetched last.
const wanted = "refs/quicflow/wanted"

// found is what a configuration's ref has turned out to be.
type found struct {
	Commit string
	Kind   string
	Name   string // full, of a branch or a tag
}

// cache is the repository below a site that fetches go to, so that only what is new goes over the network. It may be removed at
// any time.
type cache struct {
	*session
	dir string
}

// openCache gives the cache of a site, made if it is missing. No other process works in it.
func (s *session) openCache(ctx context.Context, at *site) (*cache, error) {
	c := &cache{session: s, dir: at.path(cacheDir)}
	// One that belongs to another user, as the configuration changed, could not be written to.
	if info, err := at.root.Lstat(cacheDir); err == nil && !ownedBy(info, at.owner) {
		if err := at.root.RemoveAll(cacheDir); err != nil {
			return nil, fmt.Errorf("remove %s: %w", c.dir, plain(err))
		}
	}
	if err := at.mkdir(cacheDir, at.owner); err != nil {
		return nil, err
	}
	tidyCache(at)
	return c, s.git(ctx, gitCommand{doing: "prepare " + c.dir, args: []string{"init", "--quiet", "--bare", "--template=", "--", c.dir}})
}

// tidyCache removes what a git left behind that was killed, or had no room: locks, which would stop every other, and half of a pack.
func tidyCache(at *site) {
	_ = filepath.WalkDir(at.path(cacheDir), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil
		}
		if strings.HasSuffix(entry.Name(), ".lock") || strings.HasPrefix(entry.Name(), "tmp_") {
			if relative, err := filepath.Rel(at.base, path); err == nil {
				_ = at.root.Remove(relative)
			}
		}
		return nil
	})
}

// list asks the repository's host for refs. args come before the address, patterns after it.
func (s *session) list(ctx context.Context, args, patterns []string) (listing, error) {
	out := &limited{limit: maxListingLen}
	args = append(append([]string{"ls-remote"}, args...), append([]string{"--", s.remote.url}, patterns...)...)
	doing := "list the refs of " + s.remote.name
	if err := s.git(ctx, gitCommand{doing: doing, args: args, stdout: out}); err != nil {
		return listing{}, err
	}
	if out.over {
		return listing{}, fmt.Errorf("%s: they take more than %d MiB", doing, maxListingLen>>20)
	}
	return parseListing(out.String()), nil
}

// resolve finds out what a ref is and gets it into the cache.
func (c *cache) resolve(ctx context.Context, ref string, depth int) (found, error) {
	if wholeCommit.MatchString(ref) {
		return c.fetchCommit(ctx, ref, depth)
	}
	patterns := []string{"refs/heads/" + ref, "refs/tags/" + ref, "refs/tags/" + ref + "^{}"}
	if strings.HasPrefix(ref, "refs/") {
		patterns = []string{ref, ref + "^{}"}
	}
	l, err := c.list(ctx, nil, patterns)
	if err != nil {
		return found{}, err
	}
	picked, err := l.find(ref)
	if err != nil {
		return found{}, err
	}
	failpoint.Here("git.resolved")
	if picked == nil {
		if !commitPrefix.MatchString(ref) {
			return found{}, fmt.Errorf("%s has no branch and no tag %q", c.remote.name, ref)
		}
		if err := c.fetchAll(ctx); err != nil {
			return found{}, err
		}
		return c.take(ctx, ref, found{Kind: KindCommit})
	}
	if err := c.fetch(ctx, picked.Name, depth); err != nil {
		return found{}, err
	}
	return c.take(ctx, wanted, found{Kind: picked.Kind, Name: picked.Name})
}

// fetchCommit gets a commit alone where the host gives it, and otherwise all there is.
func (c *cache) fetchCommit(ctx context.Context, commit string, depth int) (found, error) {
	f := found{Kind: KindCommit}
	if c.holds(ctx, commit) && depth == 1 {
		return c.take(ctx, commit, f)
	}
	err := c.fetch(ctx, commit, depth)
	var failed *gitError
	switch {
	case err == nil:
		return c.take(ctx, wanted, f)
	case says(err, `not our ref`):
		return f, fmt.Errorf("%s has no commit %s", c.remote.name, commit)
	case !errors.As(err, &failed) || remoteReason(err):
		return f, err
	}
	_, _ = io.WriteString(c.log, "the host does not give this commit by itself: everything is fetched\n")
	if err := c.fetchAll(ctx); err != nil {
		return f, err
	}
	return c.take(ctx, commit, f)
}

// holds says whether the cache has a commit, whole: it is the one that was fetched last.
func (c *cache) holds(ctx context.Context, commit string) bool {
	out := &limited{limit: maxLineBytes}
	err := c.git(ctx, gitCommand{doing: "look for " + commit, args: c.within("rev-parse", "--verify", wanted+"^{commit}"), stdout: out, quiet: true})
	return err == nil && hexLine.FindString(out.String()) == commit
}

func (c *cache) within(args ...string) []string {
	return append([]string{"--git-dir=" + c.dir}, args...)
}

// fetch gets one ref, or commit, into wanted.
func (c *cache) fetch(ctx context.Context, name string, depth int) error {
	args := []string{"fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"}
	switch {
	case depth > 0:
		args = append(args, "--depth="+strconv.Itoa(depth))
	case c.isShallow():
		args = append(args, "--unshallow")
	}
	args = append(args, "--", c.remote.url, "+"+name+":"+wanted)
	err := c.git(ctx, gitCommand{doing: "fetch from " + c.remote.name, args: c.within(args...)})
	if err != nil && depth > 0 && says(err, `does not support (shallow|--depth)`) {
		return c.fetch(ctx, name, 0)
	}
	return err
}

func (c *cache) isShallow() bool {
	info, err := os.Stat(filepath.Join(c.dir, "shallow"))
	return err == nil && info.Size() > 0
}

// fetchAll gets all branches and tags with their history.
func (c *cache) fetchAll(ctx context.Context) error {
	args := []string{"fetch", "--quiet", "--force", "--prune", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"}
	if c.isShallow() {
		args = append(args, "--unshallow")
	}
	args = append(args, "--", c.remote.url, "+refs/heads/*:refs/quicflow/heads/*", "+refs/tags/*:refs/quicflow/tags/*")
	return c.git(ctx, gitCommand{doing: "fetch from " + c.remote.name, args: c.within(args...)})
}

var hexLine = lazyregexp.New(`(?m)^([0-9a-f]{40}|[0-9a-f]{64})$`)

// take looks up the commit of a name in the cache and keeps it as what is wanted.
func (c *cache) take(ctx context.Context, name string, f found) (found, error) {
	out := &limited{limit: maxLineBytes}
	err := c.git(ctx, gitCommand{doing: "look up " + name, stdout: out, args: c.within("rev-parse", "--verify", "--end-of-options", name+"^{commit}")})
	switch {
	case err != nil && says(err, `is ambiguous`):
		return f, release.Invalid("git.ref", "several commits begin with %s: give more digits", name)
	case err != nil && ctx.Err() == nil && name != wanted:
		return f, fmt.Errorf("%s has no branch, tag or commit %s", c.remote.name, name)
	case err != nil:
		return f, err
	}
	f.Commit = hexLine.FindString(out.String())
	if f.Commit == "" {
		return f, fmt.Errorf("look up %s: git gave no commit", name)
	}
	if name == wanted {
		return f, nil
	}
	return f, c.git(ctx, gitCommand{doing: "keep " + name, args: c.within("update-ref", wanted, f.Commit)})
}

// checkOut makes a whole repository of its own of what is wanted, in an empty directory.
func (c *cache) checkOut(ctx context.Context, dir string, f found, spec *release.GitSpec) error {
	depth := 0
	if spec.Depth != nil {
		depth = *spec.Depth
	}
	ref := "refs/remotes/origin/quicflow"
	switch branch, isBranch := strings.CutPrefix(f.Name, "refs/heads/"); {
	case isBranch:
		ref = "refs/remotes/origin/" + branch
	case f.Kind == KindTag:
		ref = f.Name
	}
	fetch := []string{"fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--update-shallow"}
	if depth > 0 {
		fetch = append(fetch, "--depth="+strconv.Itoa(depth))
	}
	doing := "check out " + f.Commit[:12]
	for _, step := range []gitCommand{
		{args: []string{"init", "--quiet", "--template=", "--", dir}},
		{args: []string{"-C", dir, "remote", "add", "--", "origin", c.remote.url}},
		{args: append(append([]string{"-C", dir}, fetch...), "--", c.dir, "+"+wanted+":"+ref), local: true},
		{args: []string{"-C", dir, "checkout", "--quiet", "--force", "--detach", f.Commit, "--"}},
	} {
		step.doing = doing
		if err := c.git(ctx, step); err != nil {
			return err
		}
	}
	failpoint.Here("git.checkedout")
	if !spec.Submodules {
		return nil
	}
	args := []string{"-C", dir, "submodule", "--quiet", "update", "--init", "--recursive", "--force", "--jobs=1"}
	if depth > 0 {
		args = append(args, "--depth="+strconv.Itoa(depth))
	}
	return c.git(ctx, gitCommand{doing: "fetch the submodules", args: args})
}

// Refs lists the branches and tags of a repository: the default branch first, then branches, then tags, each with the highest version
// first. spec needs a repository and what it takes to log in.
func (w *Worker) Refs(ctx context.Context, spec *release.GitSpec) ([]release.GitRef, error) {
	spec = &release.GitSpec{Repository: spec.Repository, Auth: spec.Auth, User: spec.User}
	o, err := findOwner(spec.User)
	if err != nil {
		return nil, err
	}
	s := &session{program: runProgram, user: spec.User}
	if err := w.openSession(s, newScratch(), spec, o); err != nil {
		return nil, err
	}
	defer s.close()
	l, err := s.list(ctx, []string{"--symref", "--sort=-version:refname"}, []string{"HEAD", "refs/heads/*", "refs/tags/*"})
	if err != nil {
		return nil, err
	}
	var first, branches, tags []release.GitRef
	for _, name := range l.order {
		ref := release.GitRef{Kind: kindOf(name), Commit: l.commits[name], Default: name == l.head}
		if branch, ok := strings.CutPrefix(name, "refs/heads/"); ok {
			ref.Name = branch
			if ref.Default {
				first = append(first, ref)
			} else {
				branches = append(branches, ref)
			}
		} else if tag, ok := strings.CutPrefix(name, "refs/tags/"); ok {
			ref.Name = tag
			tags = append(tags, ref)
		}
	}
	return append(append(first, branches...), tags...), nil
}

// needLFS refuses a step that wants Git LFS on a host without it.
func (s *session) needLFS(ctx context.Context) error {
	if err := s.git(ctx, gitCommand{doing: "look for git-lfs", args: []string{"lfs", "version"}, quiet: true}); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return errors.New("git-lfs is not installed on this host")
	}
	return nil
}
