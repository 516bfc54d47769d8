package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/internal/durable"
)

// disk keeps contents in files: ab/cdef… for the sum abcdef….
type disk struct{ dir string }

func (d disk) path(sum string) string { return filepath.Join(d.dir, sum[:2], sum[2:]) }

// put moves the file to its place. One that is there already is replaced: it may be damaged, and this one is not.
func (d disk) put(_ context.Context, sum string, file *os.File, _ int64) error {
	path := d.path(sum)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	} else if err == nil {
		if err := durable.SyncDir(d.dir); err != nil {
			return err
		}
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

func (d disk) open(_ context.Context, sum string, offset int64) (io.ReadCloser, int64, error) {
	file, err := os.Open(d.path(sum))
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err == nil && offset > info.Size() {
		err = errOffset
	}
	if err == nil && offset > 0 {
		_, err = file.Seek(offset, io.SeekStart)
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

func (d disk) remove(_ context.Context, sum string) error {
	if err := os.Remove(d.path(sum)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d disk) each(ctx context.Context, f func(string, time.Time) error) error {
	dirs, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if len(dir.Name()) != 2 {
			continue
		}
		files, err := os.ReadDir(filepath.Join(d.dir, dir.Name()))
		if err != nil {
			return err
		}
		for _, file := range files {
			sum := dir.Name() + file.Name()
			info, err := file.Info()
			if errors.Is(err, fs.ErrNotExist) || Check(sum) != nil {
				continue // it was deleted meanwhile, or is nothing of ours
			}
			if err != nil {
				return err
			}
			if err := errors.Join(ctx.Err(), f(sum, info.ModTime())); err != nil {
				return err
			}
		}
	}
	return nil
}

// temp makes the file of an upload. It is locked as long as its process lives and has it open.
func (s *Store) temp() (*os.File, error) {
	file, err := os.CreateTemp(filepath.Join(s.config.Dir, tempDir), "upload-*")
	if err != nil {
		return nil, fmt.Errorf("make a file for the upload: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the file of the upload: %w", err), os.Remove(file.Name()), file.Close())
	}
	return file, nil
}

// sweepTemp removes the files of uploads whose server has died: those that nobody holds a lock of.
func (s *Store) sweepTemp() error {
	dir := filepath.Join(s.config.Dir, tempDir)
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for uploads that were cut off: %w", err)
	}
	for _, entry := range files {
		file, err := os.Open(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // it was complete at this moment
		}
		// One that another process of this directory has just made is not locked yet; it is young, too.
		info, err := file.Stat()
		young := err != nil || s.config.Now().Sub(info.ModTime()) < tempGrace
		if !young && syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			s.config.Logger.Info("upload that was cut off removed", "file", file.Name(), "bytes", info.Size())
			_ = os.Remove(file.Name())
		}
		_ = file.Close()
	}
	return nil
}

// tempGrace is the age from which on the file of an upload must be locked by who writes it.
const tempGrace = time.Second
