// Package artifact keeps the files that versions bring to their hosts: each under the SHA-256 of its content, on disk or in an
// S3-compatible storage.
package artifact

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// Index is where it is written down what there is. Errors that a user is to see are *release.Error.
type Index interface {
	// PutArtifact adds an artifact, or, if there is one of its SHA-256, takes over its name and notes that it was used. It fills in what
	// the index has.
	PutArtifact(ctx context.Context, a *release.StoredArtifact) error
	// UseArtifact notes that an artifact was used now. One that there is not is passed over.
	UseArtifact(ctx context.Context, sha256 string) error
	// DeleteArtifact forgets an artifact: release.ErrConflict while a version uses it, release.ErrNotFound.
	DeleteArtifact(ctx context.Context, sha256 string) error
	// UnusedArtifacts gives those that no version uses and that were not used since.
	UnusedArtifacts(ctx context.Context, since time.Time) ([]string, error)
	// DeleteUnusedArtifact forgets an artifact if it still is among them, and reports whether it was.
	DeleteUnusedArtifact(ctx context.Context, sha256 string, since time.Time) (bool, error)
	// KnownArtifacts gives which of these there are.
	KnownArtifacts(ctx context.Context, sha256 []string) (map[string]bool, error)
}

// backend holds contents. Sums are valid ones.
type backend interface {
	// put keeps the content of a file, whose size and sum were checked, and which is on disk. It may take the file away.
	put(ctx context.Context, sum string, file *os.File, size int64) error
	// open gives a content from an offset on, and its whole size: fs.ErrNotExist, errOffset.
	open(ctx context.Context, sum string, offset int64) (io.ReadCloser, int64, error)
	// remove is content with what is not there.
	remove(ctx context.Context, sum string) error
	// each calls f for every content, until it gives an error.
	each(ctx context.Context, f func(sum string, changed time.Time) error) error
}

var errOffset = errors.New("the offset is beyond the end of the artifact")

// Config sets up a Store.
type Config struct {
	Dir   string // of contents that are kept on disk, and of uploads that are not complete; made if it is missing. Required.
	Index Index  // Required.
	S3    *S3    // where contents are kept in place of Dir. Defaults to nil.

	MaxBytes  int64         // of one artifact. Defaults to 10 GiB.
	Retention time.Duration // how long an artifact is kept that no version uses. Defaults to 0: for ever.
	Interval  time.Duration // between two rounds of Run. Defaults to 1 h.
	Logger    *slog.Logger  // Defaults to slog.Default().
	Now       func() time.Time
}

// Store keeps artifacts. It is safe for concurrent use.
type Store struct {
	config  Config
	backend backend
	seed    maphash.Seed
	locks   [64]sync.Mutex // by sum: putting and deleting one content are not to cross

	mu   sync.Mutex
	used map[string]time.Time // when the index was told, by sum
}

const (
	defaultMaxBytes = 10 << 30
	tempDir         = "tmp"
	// orphanAge is how old a content without an entry must be to be removed: one that is being put has none for a moment.
	orphanAge = time.Hour
	// useEvery is how often the index is told that an artifact is in use.
	useEvery = time.Hour
)

// Open makes a Store and removes what uploads that were cut off have left behind.
func Open(config Config) (*Store, error) {
	if config.Dir == "" || config.Index == nil {
		return nil, errors.New("artifact: Config.Dir and Config.Index are needed")
	}
	config.MaxBytes = cmp.Or(config.MaxBytes, defaultMaxBytes)
	config.Interval = cmp.Or(config.Interval, time.Hour)
	config.Logger = cmp.Or(config.Logger, slog.Default())
	if config.Now == nil {
		config.Now = time.Now
	}
	s := &Store{config: config, seed: maphash.MakeSeed(), used: make(map[string]time.Time)}
	if err := os.MkdirAll(filepath.Join(config.Dir, tempDir), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of artifacts: %w", err)
	}
	s.backend = disk{config.Dir}
	if config.S3 != nil {
		var err error
		if s.backend, err = config.S3.open(); err != nil {
			return nil, err
		}
	}
	return s, s.sweepTemp()
}

// MaxBytes is how large an artifact may be.
func (s *Store) MaxBytes() int64 { return s.config.MaxBytes }

// TooLargeError says that an artifact is larger than artifacts.max_bytes.
type TooLargeError struct{ Limit int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the artifact is larger than artifacts.max_bytes allows (%d bytes)", e.Limit)
}

// Upload says what is known of a content before it has come.
type Upload struct {
	Name string // for people; may be empty
	By   string // who uploads it
	// SHA256, unless it is empty, is what the content must have.
	SHA256 string
}

// Put keeps a content. Unless all of it has come, and is what was announced, nothing is kept. Errors: release.ErrInvalid for another
// content than announced, release.ErrUnavailable where there is no space, *TooLargeError, those of content.
func (s *Store) Put(ctx context.Context, u Upload, content io.Reader) (release.StoredArtifact, error) {
	none := release.StoredArtifact{}
	if u.SHA256 != "" {
		if err := Check(u.SHA256); err != nil {
			return none, err
		}
	}
	file, err := s.temp()
	if err != nil {
		return none, noSpace(err)
	}
	defer func() {
		_ = os.Remove(file.Name()) // if it is still there
		_ = file.Close()
	}()
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, hash), io.LimitReader(content, s.config.MaxBytes+1))
	switch {
	case err != nil:
		return none, noSpace(fmt.Errorf("receive artifact: %w", err))
	case size > s.config.MaxBytes:
		return none, &TooLargeError{s.config.MaxBytes}
	}
	sum := hex.EncodeToString(hash.Sum(nil))
	if u.SHA256 != "" && u.SHA256 != sum {
		return none, release.Invalid("sha256", "what came has SHA-256 %s, and not %s as announced; nothing is stored", sum, u.SHA256)
	}
	if err := file.Sync(); err != nil {
		return none, noSpace(fmt.Errorf("write artifact: %w", err))
	}
	unlock := s.lock(sum)
	defer unlock()
	if err := s.backend.put(ctx, sum, file, size); err != nil {
		return none, noSpace(fmt.Errorf("keep artifact %s: %w", sum, err))
	}
	a := release.StoredArtifact{SHA256: sum, Size: size, Name: u.Name, CreatedBy: u.By}
	return a, s.config.Index.PutArtifact(ctx, &a) // without an entry, the content is removed in time
}

func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return release.Unavailable(err, "there is no space left where the server keeps artifacts")
	}
	return err
}

// OpenArtifact gives a content from an offset on, and its whole size. Errors: release.ErrNotFound; release.ErrInvalid for an offset
// beyond the end, and for what is no SHA-256.
func (s *Store) OpenArtifact(ctx context.Context, sum string, offset int64) (io.ReadCloser, int64, error) {
	if err := Check(sum); err != nil {
		return nil, 0, err
	}
	content, size, err := s.backend.open(ctx, sum, offset)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, 0, release.NotFound("artifact", sum)
	case errors.Is(err, errOffset):
		return nil, 0, release.Invalid("offset", "%d is beyond the end of the artifact", offset)
	case err != nil:
		return nil, 0, fmt.Errorf("read artifact %s: %w", sum, err)
	}
	s.use(ctx, sum)
	return content, size, nil
}

// use keeps an artifact from being taken for unused.
func (s *Store) use(ctx context.Context, sum string) {
	now := s.config.Now()
	s.mu.Lock()
	recent := now.Sub(s.used[sum]) < useEvery
	if !recent {
		s.used[sum] = now
	}
	s.mu.Unlock()
	if recent {
		return
	}
	if err := s.config.Index.UseArtifact(ctx, sum); err != nil {
		s.config.Logger.WarnContext(ctx, "use of an artifact not noted", "sha256", sum, "error", err)
	}
}

// Delete removes an artifact: release.ErrConflict while a version uses it, release.ErrNotFound.
func (s *Store) Delete(ctx context.Context, sum string) error {
	if err := Check(sum); err != nil {
		return err
	}
	unlock := s.lock(sum)
	defer unlock()
	if err := s.config.Index.DeleteArtifact(ctx, sum); err != nil {
		return err
	}
	return s.remove(ctx, sum)
}

// remove deletes a content that the index does not have. The lock of the sum is held.
func (s *Store) remove(ctx context.Context, sum string) error {
	s.mu.Lock()
	delete(s.used, sum)
	s.mu.Unlock()
	if err := s.backend.remove(ctx, sum); err != nil {
		return fmt.Errorf("remove artifact %s: %w", sum, err)
	}
	return nil
}

func (s *Store) lock(sum string) (unlock func()) {
	l := &s.locks[maphash.String(s.seed, sum)%uint64(len(s.locks))]
	l.Lock()
	return l.Unlock
}

// Check says whether a text is a SHA-256 as artifacts are named by: 64 hexadecimal digits, small letters. release.ErrInvalid.
func Check(sum string) error {
	valid := len(sum) == 2*sha256.Size
	for _, r := range sum {
		valid = valid && (r >= '0' && r <= '9' || r >= 'a' && r <= 'f')
	}
	if !valid {
		return release.Invalid("sha256", "%.80q is not a SHA-256: 64 hexadecimal digits, in small letters", sum)
	}
	return nil
}
