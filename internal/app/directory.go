package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/quicflow/quicflow/internal/durable"
	"github.com/quicflow/quicflow/internal/pki"
)

const (
	lockFile   = "lock"
	nodeIDFile = "node-id"

	lockAttempts = 5
	lockPause    = 20 * time.Millisecond
)

// directory is the data directory, locked by this process.
type directory struct {
	path string
	lock *os.File
}

// openDirectory makes the data directory if it is missing and locks it. The lock goes with the process, however it ends.
func openDirectory(path string) (*directory, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the data directory: %w", err)
	}
	if err := pki.PrivateDir(path, lockFile); err != nil {
		return nil, fmt.Errorf("make the data directory (choose another with --data-dir): %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the data directory: %w", err)
	}
	if err := flock(lock); err != nil {
		pid, _ := os.ReadFile(lock.Name())
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another quic-server (process %s) uses the data directory %s: stop it, or choose another with --data-dir",
				strings.TrimSpace(string(pid)), path)
		}
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	err = lock.Truncate(0)
	if err == nil {
		_, err = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("write the lock of the data directory: %w", err)
	}
	return &directory{path: path, lock: lock}, nil
}

// flock insists a little: programs beside the server take the lock for an instant, to see whether it is held.
func flock(lock *os.File) (err error) {
	for range lockAttempts {
		if err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		<-time.After(lockPause) // nobody tells when a lock is given back
	}
	return err
}

func (d *directory) file(name ...string) string {
	return filepath.Join(append([]string{d.path}, name...)...)
}

// unlock leaves the file in place: removing it would let two processes lock two files of one name.
func (d *directory) unlock() error { return d.lock.Close() }

// nodeID is the identity of this server among those that share a Temporal; it is made at the first start.
func (d *directory) nodeID() (string, error) {
	file := d.file(nodeIDFile)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		id, err := uuid.NewV7()
		if err != nil {
			return "", fmt.Errorf("make a node id: %w", err)
		}
		if err := durable.WriteFile(file, []byte(id.String()+"\n"), 0o600); err != nil {
			return "", fmt.Errorf("write the node id: %w", err)
		}
		return id.String(), nil
	}
	if err != nil {
		return "", fmt.Errorf("read the node id: %w", err)
	}
	id, err := uuid.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return "", fmt.Errorf("%s is damaged: %w", file, err)
	}
	return id.String(), nil
}
