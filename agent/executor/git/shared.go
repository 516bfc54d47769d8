package git

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// share lets the paths of a release lead to those in shared. What is not there yet comes from the release if that has it; otherwise
// a directory is made, but for a name with a dot in it, such as .env or settings.php, which its owner puts there. It may be repeated.
func (s *site) share(name string, paths []string, note func(format string, args ...any)) error {
	if len(paths) == 0 {
		return nil
	}
	if err := s.mkdir(sharedDir, s.owner); err != nil {
		return err
	}
	for _, path := range paths {
		path = filepath.Clean(path)
		if err := s.shareOne(name, path, note); err != nil {
			return fmt.Errorf("share %s: %w", path, err)
		}
	}
	return nil
}

func (s *site) shareOne(name, path string, note func(format string, args ...any)) error {
	within := filepath.Join(releasesDir, name, path)
	shared := filepath.Join(sharedDir, path)
	// The link is relative: it holds wherever the whole directory is seen.
	target := filepath.Join(strings.Repeat("../", strings.Count(within, "/")), shared)
	for _, dir := range []string{filepath.Join(releasesDir, name), sharedDir} {
		if err := s.parents(dir, path); err != nil {
			return err
		}
	}
	here, err := s.root.Lstat(within)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return plain(err)
	}
	isThere := err == nil
	if isThere && here.Mode()&fs.ModeSymlink != 0 {
		if now, _ := s.root.Readlink(within); now == target {
			return nil
		}
	}
	_, err = s.root.Lstat(shared)
	switch {
	case err == nil:
	case !errors.Is(err, fs.ErrNotExist):
		return plain(err)
	case isThere && here.Mode()&fs.ModeSymlink != 0:
		return errors.New("it is a symbolic link in the repository, and what it leads to cannot be shared")
	case isThere:
		if err := s.root.Rename(within, shared); err != nil {
			return plain(err)
		}
		note("shared/%s now has what the repository has", path)
		isThere = false
	case strings.Contains(filepath.Base(path), "."):
		note("shared/%s is missing; put it there", path)
	default:
		if err := s.mkdir(shared, s.owner); err != nil {
			return err
		}
	}
	if isThere {
		if err := s.root.RemoveAll(within); err != nil {
			return plain(err)
		}
	}
	if err := s.root.Symlink(target, within); err != nil {
		return plain(err)
	}
	return s.hand(within, s.owner)
}

// parents makes the directories above a path. One that is a link would lead what is shared out of where it belongs.
func (s *site) parents(below, path string) error {
	dir := filepath.Dir(path)
	if dir == "." {
		return nil
	}
	for part := range strings.SplitSeq(dir, "/") {
		below = filepath.Join(below, part)
		info, err := s.root.Lstat(below)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := s.mkdir(below, s.owner); err != nil {
				return err
			}
		case err != nil:
			return plain(err)
		case info.Mode()&fs.ModeSymlink != 0:
			return fmt.Errorf("%s is a symbolic link: it would lead out of the release", s.path(below))
		case !info.IsDir():
			return fmt.Errorf("%s is not a directory", s.path(below))
		}
	}
	return nil
}
