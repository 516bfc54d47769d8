// Package artifacts has the files that versions bring to their hosts: it gets them from the server or from a URL, checks them, and
// keeps them for a while.
package artifacts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// Source gives artifacts that were uploaded to the server. It is safe for concurrent use.
type Source interface {
	// Fetch gives a content from an offset on, and its whole size. Errors: ErrOffline, ErrMissing, ErrOffset; after any other one, and
	// when the content ends early, it may be asked again. The caller closes the content.
	Fetch(ctx context.Context, sha256 string, offset int64) (content io.ReadCloser, size int64, err error)
}

// What Fetch may say.
var (
	ErrOffline = errors.New("there is no connection to the server") // it is asked again until there is one
	ErrMissing = errors.New("the artifact is not on the server")
	ErrOffset  = errors.New("the artifact is shorter than what is there of it")
)

// What Get may say of an artifact.
var (
	ErrChecksum = errors.New("checksum mismatch") // what came is not what was asked for
	ErrNoSpace  = errors.New("no space left on the disk")
)

// errClosed ends what waits when the cache is closed.
var errClosed = errors.New("the agent stops")

// Config sets up a Cache.
type Config struct {
	// Dir is where the artifacts are kept; made with the first one. Required.
	Dir string
	// MaxBytes is what the artifacts that are not in use may take together with those that are; when there are more, those that were not
	// used for longest go. Defaults to 10 GiB.
	MaxBytes int64
	// MaxArtifact is how large one from a URL may be. Defaults to 10 GiB.
	MaxArtifact int64
	// Client fetches from URLs. Its CheckRedirect is replaced. Defaults to one of its own.
	Client *http.Client
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

const (
	defaultMax = 10 << 30
	partSuffix = ".part"
	// partAge is how long the beginning of an artifact is kept that nobody asks for any more.
	partAge = 7 * 24 * time.Hour
)

// Cache has artifacts on disk: DIR/SHA256, and DIR/SHA256.part while one comes. It is safe for concurrent use. A directory is for one
// Cache at a time.
type Cache struct {
	cfg    Config
	client *http.Client
	life   context.Context
	end    context.CancelCauseFunc
	work   sync.WaitGroup

	mu       sync.Mutex
	source   Source
	attached chan struct{} // closed when there is a source
	files    map[string]*file
	fetches  map[string]*fetch
}

// file is an artifact that is there. Guarded by Cache.mu, but for check.
type file struct {
	size     int64
	used     time.Time
	inUse    int
	check    sync.Mutex
	verified bool // in this life of the agent; guarded by check
}

// New makes a cache of what is in its directory.
func New(cfg Config) (*Cache, error) {
	if cfg.Dir == "" {
		return nil, errors.New("artifacts: Config.Dir is empty")
	}
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, defaultMax)
	cfg.MaxArtifact = cmp.Or(cfg.MaxArtifact, defaultMax)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	c := &Cache{cfg: cfg, client: newClient(cfg.Client), attached: make(chan struct{}), files: make(map[string]*file), fetches: make(map[string]*fetch)}
	c.life, c.end = context.WithCancelCause(context.Background())
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the directory of artifacts: %w", err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			continue // it has gone
		}
		sum, part := strings.CutSuffix(entry.Name(), partSuffix)
		switch {
		case check(sum) != nil: // nothing of ours
		case !part:
			c.files[sum] = &file{size: info.Size(), used: info.ModTime()}
		case time.Since(info.ModTime()) > partAge:
			_ = os.Remove(c.path(entry.Name()))
		}
	}
	return c, nil
}

// Attach says where artifacts come from that have no URL. Until then, and after detach, Get waits for them.
func (c *Cache) Attach(source Source) (detach func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.source == nil {
		close(c.attached)
	}
	c.source = source
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.source == source {
			c.source, c.attached = nil, make(chan struct{})
		}
	}
}

// Close ends what is being fetched, and waits for that. What has come of it is kept, and resumed by the next Cache.
func (c *Cache) Close() {
	c.mu.Lock()
	c.end(errClosed)
	c.mu.Unlock()
	c.work.Wait()
}

func (c *Cache) path(name string) string { return filepath.Join(c.cfg.Dir, name) }

// Get gives the path of the artifact of this SHA-256, and gets it before that if it is not there: from the URL, or, where that is
// empty, from the server. All who want the same wait for one transfer. A transfer that breaks is resumed, in a later life of the agent
// too, and goes on until ctx ends.
//
// The file is only to be read. It stays at least until release is called, which may be done more than once; a process that outlives
// this one has to make a link of its own.
//
// Errors are one line: release.ErrInvalid for what is no SHA-256 or no URL, ErrMissing, ErrChecksum, ErrNoSpace, the cause of ctx, or
// what the URL's server says.
func (c *Cache) Get(ctx context.Context, sha256, url string) (path string, release func(), err error) {
	sum := strings.ToLower(sha256)
	if err := check(sum); err != nil {
		return "", nil, err
	}
	if url != "" {
		if _, err := parseURL(url); err != nil {
			return "", nil, err
		}
	}
	for {
		f, job, err := c.find(sum, url)
		switch {
		case err != nil:
			return "", nil, err
		case f != nil:
			if err := c.verify(sum, f); err != nil {
				c.drop(sum, f)
				c.cfg.Logger.Warn("artifact on disk is damaged and fetched again", "sha256", sum, "error", err)
				continue
			}
			return c.path(sum), sync.OnceFunc(func() { c.release(f) }), nil
		}
		select {
		case <-job.done:
		case <-ctx.Done():
			c.leave(job)
			return "", nil, context.Cause(ctx)
		}
		if job.err == nil {
			return c.path(sum), sync.OnceFunc(func() { c.release(job.result) }), nil
		}
		// It may have been given up as those who wanted it first have left, or have failed at another place than ours.
		if !errors.Is(job.err, errUnwanted) && job.url == url {
			return "", nil, job.err
		}
	}
}

// find gives the artifact, which the caller then uses, or the transfer that the caller waits for.
func (c *Cache) find(sum, url string) (*file, *fetch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.Err() != nil {
		return nil, nil, errClosed
	}
	if f := c.files[sum]; f != nil {
		f.inUse++
		f.used = time.Now()
		_ = os.Chtimes(c.path(sum), time.Time{}, f.used) // for the next life
		return f, nil, nil
	}
	job := c.fetches[sum]
	if job == nil {
		job = newFetch(c, sum, url)
		c.fetches[sum] = job
		c.work.Go(job.run)
	}
	job.waiting++
	return nil, job, nil
}

// leave takes one off who waits. The last one ends the transfer.
func (c *Cache) leave(job *fetch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if job.result != nil { // it was done at the same moment
		job.result.inUse--
		return
	}
	if job.waiting--; job.waiting == 0 {
		job.cancel(errUnwanted)
	}
}

// verify makes sure that a file of an earlier life is what it was.
func (c *Cache) verify(sum string, f *file) error {
	f.check.Lock()
	defer f.check.Unlock()
	if f.verified {
		return nil
	}
	got, size, err := sumOf(c.path(sum))
	if err == nil && got != sum {
		err = fmt.Errorf("%w: its %d bytes have SHA-256 %s", ErrChecksum, size, got)
	}
	f.verified = err == nil
	return err
}

// drop forgets a damaged file that the caller uses.
func (c *Cache) drop(sum string, f *file) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.inUse--
	if c.files[sum] == f {
		delete(c.files, sum)
		_ = os.Remove(c.path(sum))
	}
}

func (c *Cache) release(f *file) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.inUse--
	c.trim(func(total int64) bool { return total > c.cfg.MaxBytes })
}

// trim removes the artifacts that were not used for longest, none that is in use, while there are too many; it reports whether it
// removed any. c.mu is held.
func (c *Cache) trim(tooMany func(total int64) bool) (removed bool) {
	total := int64(0)
	for _, f := range c.files {
		total += f.size
	}
	oldest := slices.SortedFunc(maps.Keys(c.files), func(a, b string) int { return c.files[a].used.Compare(c.files[b].used) })
	for _, sum := range oldest {
		f := c.files[sum]
		if f.inUse > 0 || !tooMany(total) {
			continue
		}
		if err := os.Remove(c.path(sum)); err != nil && !errors.Is(err, os.ErrNotExist) {
			c.cfg.Logger.Error("artifact cannot be removed from the cache", "sha256", sum, "error", err)
			continue
		}
		delete(c.files, sum)
		total -= f.size
		removed = true
	}
	return removed
}

// check says whether a text, in small letters, is a SHA-256.
func check(sum string) error {
	if len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "" {
		return release.Invalid("sha256", "%.80q is not a SHA-256: 64 hexadecimal digits", sum)
	}
	return nil
}
