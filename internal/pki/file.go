package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// PrivateDir makes a directory for secrets, or closes one that is there to other users. One that is open and holds
// something else than ours (somebody's home, /tmp) is left alone, with an error; ours is known by a file, mark.
func PrivateDir(path, mark string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	_, err = os.Stat(filepath.Join(path, mark))
	if len(entries) > 0 && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is open to other users and holds something else: choose an empty or new directory", path)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return fmt.Errorf("%s is open to other users, and this user may not close it: choose another directory: %w", path, err)
	}
	return nil
}
