package git

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/lazyregexp"
	"github.com/quicflow/quicflow/internal/release"
)

// Names below a project's path.
const (
	currentLink = "current"
	releasesDir = "releases"
	sharedDir   = "shared"
	ownDir      = ".quicflow"
	cacheDir    = ".quicflow/repo.git"
	ownerFile   = ".quicflow/project"
	lockFile    = ".quicflow/lock"
)

// releaseForm are the names that this package gives to releases; others below releases are not touched.
var releaseForm = lazyregexp.New(`^[0-9a-f]{12}-[0-9a-f]{8}$`)

// stage is how far a release has got.
type stage string

const (
	stageBuilding stage = "building" // it may be anything
	stageBuilt    stage = "built"    // the checkout is whole, and what is shared is linked
	stageDeployed stage = "deployed" // a step that deployed it has succeeded
)

// record is what is known of a release, beside it in .quicflow.
type record struct {
	Name     string    `json:"name"` // of its directory
	Stage    stage     `json:"stage"`
	Commit   string    `json:"commit"`
	Ref      string    `json:"ref"`  // as the configuration had it
	Kind     string    `json:"kind"` // branch, tag or commit
	Version  string    `json:"version"`
	ConfigID string    `json:"config_id"`
	TaskID   string    `json:"task_id"`
	StepID   string    `json:"step_id"`
	User     string    `json:"user,omitempty"` // that the files belong to
	Deployed time.Time `json:"deployed,omitzero"`
	Shared   []string  `json:"shared,omitempty"`
	LFS      bool      `json:"lfs,omitempty"`
	// Changes names what the deployment itself changed in files that git knows, so that what others change can be told from it.
	Changes string `json:"changes,omitempty"`
}

// site is the directory of a project. All that it does stays below it, whatever links are there.
type site struct {
	base  string
	root  *os.Root
	owner *wrapper.Account // nil: the agent's own
	lock  *os.File
}

// openSite opens a project's directory; fs.ErrNotExist if there is none.
func openSite(base string) (*site, error) {
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, err
	}
	return &site{base: base, root: root}, nil
}

// makeSite makes a project's directory where it is missing, and keeps others out until close.
func makeSite(base, project string, o *wrapper.Account) (*site, error) {
	if err := makeBase(base, o); err != nil {
		return nil, fmt.Errorf("make %s: %w", base, plain(err))
	}
	s, err := openSite(base)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", base, plain(err))
	}
	s.owner = o
	if err := s.prepare(project); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// makeBase makes the directory and those above it; only what it makes belongs to the owner, and only the last does.
func makeBase(base string, o *wrapper.Account) error {
	if info, err := os.Stat(base); err == nil {
		if !info.IsDir() {
			return errors.New("it is not a directory")
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(base, 0o755); err != nil || o == nil {
		return err
	}
	return os.Lchown(base, int(o.UID), int(o.GID))
}

// plain leaves the operation and the path out of an error of package os.
func plain(err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		err = of.Err
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		err = link.Err
	}
	if errors.Is(err, syscall.ENOSPC) {
		return errors.New("the disk is full")
	}
	return err
}

func (s *site) prepare(project string) error {
	if err := s.mkdir(ownDir, nil); err != nil {
		return err
	}
	lock, err := s.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock %s: %w", s.base, plain(err))
	}
	s.lock = lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s is in use by another step", s.base)
	}
	switch holder, err := s.root.ReadFile(ownerFile); {
	case errors.Is(err, fs.ErrNotExist):
		if err := s.writeFile(ownerFile, []byte(project+"\n")); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("read whose %s is: %w", s.base, plain(err))
	case strings.TrimSpace(string(holder)) != project:
		return release.Invalid("git.path", "%s holds the releases of another project, %s", s.base, strings.TrimSpace(string(holder)))
	}
	if err := s.mkdir(releasesDir, s.owner); err != nil {
		return err
	}
	info, err := s.root.Lstat(currentLink)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("look at %s/current: %w", s.base, plain(err))
	case info.Mode()&fs.ModeSymlink == 0:
		return fmt.Errorf("%s/current is not a symbolic link: move it out of the way", s.base)
	}
	return nil
}

// holder is the project that the directory belongs to; empty if none is known.
func (s *site) holder() string {
	text, _ := s.root.ReadFile(ownerFile)
	return strings.TrimSpace(string(text))
}

func (s *site) close() {
	if s.lock != nil {
		_ = s.lock.Close()
	}
	_ = s.root.Close()
}

func (s *site) path(names ...string) string {
	return filepath.Join(append([]string{s.base}, names...)...)
}

// mkdir makes a directory for an owner if it is missing. A link in its place is not followed.
func (s *site) mkdir(name string, o *wrapper.Account) error {
	if info, err := s.root.Lstat(name); err == nil && !info.IsDir() {
		return fmt.Errorf("%s is not a directory", s.path(name))
	}
	err := s.root.Mkdir(name, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
	case err != nil:
		return fmt.Errorf("make %s: %w", s.path(name), plain(err))
	}
	return s.hand(name, o)
}

// hand gives a file to an owner.
func (s *site) hand(name string, o *wrapper.Account) error {
	if o == nil {
		return nil
	}
	if err := s.root.Lchown(name, int(o.UID), int(o.GID)); err != nil {
		return fmt.Errorf("hand %s over: %w", s.path(name), plain(err))
	}
	return nil
}

// writeFile writes a file of QuicFlow's own, whole or not at all.
func (s *site) writeFile(name string, data []byte) error {
	wrong := func(err error) error { return fmt.Errorf("write %s: %w", s.path(name), plain(err)) }
	temporary := name + ".new"
	file, err := s.root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return wrong(err)
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = s.root.Rename(temporary, name)
	}
	if err != nil {
		return wrong(err)
	}
	return s.sync(filepath.Dir(name))
}

// sync makes the entries of a directory durable.
func (s *site) sync(name string) error {
	dir, err := s.root.Open(name)
	if err != nil {
		return fmt.Errorf("open %s: %w", s.path(name), plain(err))
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("sync %s: %w", s.path(name), plain(err))
	}
	return nil
}

func recordFile(name string) string { return filepath.Join(ownDir, name+".json") }

func (s *site) writeRecord(r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.writeFile(recordFile(r.Name), text)
}

// record gives nil for a release that none is known of.
func (s *site) record(name string) *record {
	text, err := s.root.ReadFile(recordFile(name))
	var r record
	if err != nil || json.Unmarshal(text, &r) != nil || r.Name != name {
		return nil
	}
	return &r
}

// releases gives the records of the releases that are there, those deployed last first.
func (s *site) releases() []record {
	var all []record
	for _, name := range s.releaseNames() {
		if r := s.record(name); r != nil {
			all = append(all, *r)
		}
	}
	slices.SortFunc(all, func(a, b record) int { return b.Deployed.Compare(a.Deployed) })
	return all
}

func (s *site) releaseNames() []string {
	entries, _ := fs.ReadDir(s.root.FS(), releasesDir)
	var names []string
	for _, e := range entries {
		if e.IsDir() && releaseForm.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// current gives what the link current holds, as it is; empty if there is none.
func (s *site) current() (string, error) {
	target, err := s.root.Readlink(currentLink)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read %s/current: %w", s.base, plain(err))
	}
	return target, nil
}

// releaseOf gives the name of the release that a link leads to; empty if it leads elsewhere.
func (s *site) releaseOf(target string) string {
	if filepath.IsAbs(target) {
		relative, err := filepath.Rel(s.base, target)
		if err != nil {
			return ""
		}
		target = relative
	}
	dir, name := filepath.Split(filepath.Clean(target))
	if filepath.Clean(dir) != releasesDir || !releaseForm.MatchString(name) {
		return ""
	}
	return name
}

func linkTo(name string) string { return filepath.Join(releasesDir, name) }

// point lets current lead to a target, at once; an empty one removes it. It may be repeated.
func (s *site) point(target, mark string) error {
	wrong := func(err error) error { return fmt.Errorf("switch %s/current: %w", s.base, plain(err)) }
	now, err := s.current()
	if err != nil || now == target {
		return err
	}
	if target == "" {
		if err := s.root.Remove(currentLink); err != nil {
			return wrong(err)
		}
		return s.sync(".")
	}
	temporary := ".current-" + mark
	if err := s.root.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return wrong(err)
	}
	if err := s.root.Symlink(target, temporary); err != nil {
		return wrong(err)
	}
	failpoint.Here("git.linked")
	if err := s.hand(temporary, s.owner); err != nil {
		return err
	}
	if err := s.root.Rename(temporary, currentLink); err != nil {
		return wrong(err)
	}
	return s.sync(".")
}

// remove removes a release and its record.
func (s *site) remove(name string) error {
	if err := s.root.RemoveAll(filepath.Join(releasesDir, name)); err != nil {
		return fmt.Errorf("remove %s: %w", s.path(releasesDir, name), plain(err))
	}
	if err := s.root.Remove(recordFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the record of %s: %w", name, plain(err))
	}
	return nil
}

// sweep removes what steps left behind that were killed and never came back: releases that were not deployed, links that were not
// renamed. It spares the releases named.
func (s *site) sweep(spare ...string) error {
	entries, _ := fs.ReadDir(s.root.FS(), ".")
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".current-") {
			_ = s.root.Remove(e.Name())
		}
	}
	for _, name := range s.releaseNames() {
		r := s.record(name)
		if slices.Contains(spare, name) || r != nil && r.Stage == stageDeployed {
			continue
		}
		if err := s.remove(name); err != nil {
			return err
		}
	}
	records, _ := fs.ReadDir(s.root.FS(), ownDir)
	for _, e := range records {
		name, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord || !releaseForm.MatchString(name) || slices.Contains(spare, name) {
			continue
		}
		if _, err := s.root.Lstat(filepath.Join(releasesDir, name)); errors.Is(err, fs.ErrNotExist) {
			_ = s.root.Remove(recordFile(name))
		}
	}
	return nil
}

// markOf names a step in file names.
func markOf(stepID string) string {
	sum := sha256.Sum256([]byte(stepID))
	return hex.EncodeToString(sum[:4])
}

// size of the shared directory's entries; 0 if there is none.
func (s *site) sharedEntries() int {
	entries, _ := fs.ReadDir(s.root.FS(), sharedDir)
	return len(entries)
}
