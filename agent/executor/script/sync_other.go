//go:build !linux

package script

import (
	"io/fs"
	"os"
	"path/filepath"

	"github.com/quicflow/quicflow/internal/durable"
)

// syncTree makes a directory with all that is in it durable.
func syncTree(path string) error {
	return filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || !entry.IsDir() && !entry.Type().IsRegular():
			return err
		case entry.IsDir():
			return durable.SyncDir(path)
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		return file.Sync()
	})
}
