package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"strings"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

// lineHash hashes a program's output without its warnings.
type lineHash struct {
	hash    hash.Hash
	partial []byte
}

func (h *lineHash) Write(p []byte) (int, error) {
	n := len(p)
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			h.partial = append(h.partial, p...)
			return n, nil
		}
		if h.partial = append(h.partial, p[:end+1]...); !bytes.HasPrefix(h.partial, []byte("warning: ")) {
			_, _ = h.hash.Write(h.partial)
		}
		h.partial, p = h.partial[:0], p[end+1:]
	}
}

// Describe looks at where current leads to, and whether the files that git knows are as the deployment left them.
func (w *Worker) Describe(ctx context.Context, what executor.Deployed) (executor.Running, error) {
	running := executor.Running{Project: what.Project, Type: release.TypeGit}
	as := func(state executor.RunState, format string, args ...any) (executor.Running, error) {
		running.State, running.Reason = state, fmt.Sprintf(format, args...)
		return running, nil
	}
	spec := release.GitSpec{}
	if what.Config.Git != nil {
		spec = *what.Config.Git
	}
	if hasVariable(spec.Path) {
		return as(executor.RunUnknown, "where it is cannot be told: %s has a variable that only a step knows", spec.Path)
	}
	if err := checkPath(spec.Path); err != nil {
		return as(executor.RunUnknown, "%v", err)
	}
	s, err := openSite(basePath(&spec, what.Host, what.Project))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return as(executor.RunMissing, "%s is not there", basePath(&spec, what.Host, what.Project))
	case err != nil:
		return running, err
	}
	defer s.close()
	if holder := s.holder(); holder != "" && holder != what.Project {
		return as(executor.RunMissing, "%s belongs to the project %s", s.base, holder)
	}
	now, err := s.current()
	if err != nil {
		return as(executor.RunChanged, "%s is no symbolic link any more", s.path(currentLink))
	}
	if now == "" {
		return as(executor.RunMissing, "%s is not there", s.path(currentLink))
	}
	r := s.record(s.releaseOf(now))
	if r == nil {
		return as(executor.RunChanged, "%s leads to %s, which was not deployed", s.path(currentLink), now)
	}
	running = r.running(what.Project, s)
	if r.Stage != stageDeployed {
		running.Version, running.ConfigID, running.TaskID = "", "", ""
		return as(executor.RunUnknown, "a step that deploys version %s has not ended", r.Version)
	}
	dir := s.path(releasesDir, r.Name)
	if info, err := s.root.Stat(linkTo(r.Name)); err != nil || !info.IsDir() {
		return as(executor.RunMissing, "%s leads to %s, which is gone", s.path(currentLink), now)
	}
	changed, err := w.changed(ctx, dir, r)
	switch {
	case err != nil && ctx.Err() != nil:
		return running, err
	case err != nil:
		return as(executor.RunUnknown, "%v", err)
	case changed != "":
		return as(executor.RunChanged, "%s", changed)
	}
	return running, nil
}

// changed says what differs from the deployment; empty if nothing does.
func (w *Worker) changed(ctx context.Context, dir string, r *record) (string, error) {
	s := &session{program: runProgram, user: r.User, env: quietEnvironment()}
	if o, err := findOwner(r.User); err != nil {
		return "", err
	} else if o == nil {
		s.user = ""
	}
	s.prefix = []string{"-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-C", dir, "--no-optional-locks"}
	if r.LFS {
		for _, setting := range lfsFilter {
			s.prefix = append(s.prefix, "-c", "filter.lfs."+setting)
		}
	}
	head := &limited{limit: maxLineBytes}
	if err := s.git(ctx, gitCommand{doing: "look at " + dir, stdout: head, args: []string{"rev-parse", "--verify", "HEAD^{commit}"}}); err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		return dir + " is no git repository any more", nil
	}
	if commit := strings.TrimSpace(head.String()); commit != r.Commit {
		return fmt.Sprintf("commit %.12s is checked out instead of %.12s", commit, r.Commit), nil
	}
	changes, err := s.changes(ctx, dir, r)
	if err != nil || changes == r.Changes {
		return "", err
	}
	names := &limited{limit: maxListingLen}
	args := append([]string{"diff", "--name-only", "--no-ext-diff", "--ignore-submodules=untracked"}, within(r)...)
	if err := s.git(ctx, gitCommand{doing: "look for changes", stdout: names, args: args}); err != nil {
		return "", err
	}
	const most = 5
	files := strings.Split(strings.TrimSpace(names.String()), "\n")
	switch {
	case files[0] == "":
		return "files that the deployment had changed are as in the repository again", nil
	case len(files) > most:
		files = append(files[:most], "…")
	}
	return "files differ: " + strings.Join(files, ", "), nil
}
