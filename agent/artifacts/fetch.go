package artifacts

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/internal/durable"
)

const (
	// maxStandstills is how many attempts in a row may bring nothing.
	maxStandstills = 8
	firstPause     = 100 * time.Millisecond
	lastPause      = 5 * time.Second
	// spareBytes is what a disk has to have left beside an artifact.
	spareBytes = 1 << 20
	// chunk is what is written at a time, in bytes: not so much that it has left the processor's caches by the time it is full.
	chunk = 32 << 10
)

// errUnwanted ends a transfer that nobody waits for any more.
var errUnwanted = errors.New("nobody waits for the artifact any more")

// permanentError is one that another attempt will not mend.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// fetch gets one artifact.
type fetch struct {
	cache  *Cache
	sum    string
	url    string
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when err says what came of it

	waiting int   // guarded by cache.mu
	result  *file // in use by all who wait; guarded by cache.mu until done
	err     error

	// Of the one goroutine.
	file  *os.File // the part
	hash  hash.Hash
	have  int64
	fresh bool // all of the part came in one go of this transfer
}

func newFetch(c *Cache, sum, url string) *fetch {
	f := &fetch{cache: c, sum: sum, url: url, done: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancelCause(c.life)
	return f
}

// run carries the transfer to its end, and puts the artifact among the others.
func (f *fetch) run() {
	defer close(f.done)
	size, err := f.get()
	c := f.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	f.cancel(nil)
	delete(c.fetches, f.sum)
	if err != nil {
		f.err = fmt.Errorf("artifact %.12s…: %w", f.sum, err)
		return
	}
	f.result = &file{size: size, used: time.Now(), inUse: f.waiting, verified: true}
	c.files[f.sum] = f.result
	c.trim(func(total int64) bool { return total > c.cfg.MaxBytes })
}

// get fetches until all is there and right.
func (f *fetch) get() (size int64, err error) {
	if err := f.openPart(); err != nil {
		return 0, err
	}
	defer func() { _ = f.file.Close() }()
	standstills, told := 0, ""
	for !f.complete() {
		before := f.have
		err := f.attempt()
		if f.ctx.Err() != nil {
			return 0, context.Cause(f.ctx)
		}
		if err == nil {
			continue
		}
		var permanent permanentError
		switch {
		case noSpace(err):
			if f.makeRoom(0) {
				continue
			}
			err = f.explainSpace(f.have)
			f.discard() // it would keep the disk full
			return 0, err
		case errors.As(err, &permanent), errors.Is(err, ErrMissing):
			return 0, err
		case errors.Is(err, ErrOffline):
			standstills = 1
			f.waitForSource()
		case f.have > before:
			standstills = 0
		default:
			standstills++
		}
		if standstills >= maxStandstills {
			return 0, fmt.Errorf("given up after %d attempts: %w", standstills, err)
		}
		if why := forLog(err); why != told { // not each time while a server is away
			told = why
			f.cache.cfg.Logger.Info("artifact is to be fetched further", "sha256", f.sum, "offset", f.have, "reason", why)
		}
		pause(f.ctx, min(firstPause<<standstills, lastPause))
	}
	return f.have, f.keep()
}

// waitForSource returns when there is an agent that may have a connection.
func (f *fetch) waitForSource() {
	f.cache.mu.Lock()
	attached := f.cache.attached
	f.cache.mu.Unlock()
	select {
	case <-attached:
	case <-f.ctx.Done():
	}
}

// openPart opens what there is, and takes its sum.
func (f *fetch) openPart() (err error) {
	if err := os.MkdirAll(f.cache.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of artifacts: %w", err)
	}
	f.file, err = os.OpenFile(f.cache.path(f.sum+partSuffix), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	f.hash = sha256.New()
	if f.have, err = io.Copy(f.hash, f.file); err != nil {
		return errors.Join(fmt.Errorf("read what there is: %w", err), f.file.Close())
	}
	f.fresh = f.have == 0
	return nil
}

// complete says whether what there is is the whole artifact.
func (f *fetch) complete() bool { return hex.EncodeToString(f.hash.Sum(nil)) == f.sum }

// restart throws away what there is.
func (f *fetch) restart() error {
	f.hash.Reset()
	f.have, f.fresh = 0, true
	if err := f.file.Truncate(0); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	_, err := f.file.Seek(0, io.SeekStart)
	return err
}

// discard removes what there is.
func (f *fetch) discard() {
	if err := os.Remove(f.file.Name()); err != nil {
		f.cache.cfg.Logger.Error("what came of an artifact cannot be removed", "sha256", f.sum, "error", err)
	}
}

// attempt gets as much as comes. Without an error there is as much as there is to be had, which may be wrong.
func (f *fetch) attempt() error {
	content, from, size, err := f.open()
	if errors.Is(err, ErrOffset) && f.have > 0 {
		return f.restart()
	}
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	unwatch := context.AfterFunc(f.ctx, func() { _ = content.Close() }) // a wait for more ends
	defer unwatch()
	if from != f.have { // the server does not know how to resume
		if err := f.restart(); err != nil {
			return err
		}
	}
	limit := size
	if f.url != "" {
		limit = f.cache.cfg.MaxArtifact
		if size > limit {
			return permanentError{fmt.Errorf("it has %d bytes, and at most %d are allowed", size, limit)}
		}
	}
	if size > 0 && !f.spaceFor(size-f.have) {
		err := f.explainSpace(size)
		f.discard()
		return permanentError{err}
	}
	err = f.copy(content, limit)
	if err != nil {
		return err
	}
	switch {
	case f.complete():
		return nil
	case size >= 0 && f.have < size:
		return io.ErrUnexpectedEOF
	case !f.fresh: // what was there before may be what is wrong
		return f.restart()
	}
	f.discard()
	return permanentError{fmt.Errorf("%w: what came has SHA-256 %x (%d bytes)", ErrChecksum, f.hash.Sum(nil), f.have)}
}

// copy writes what comes, up to so many bytes in all, and takes its sum.
func (f *fetch) copy(content io.Reader, limit int64) error {
	buffer := make([]byte, chunk)
	for {
		n, err := fill(content, buffer)
		if f.have+int64(n) > limit {
			return permanentError{fmt.Errorf("more than the %d bytes come that are allowed", limit)}
		}
		if n > 0 {
			if _, err := f.file.Write(buffer[:n]); err != nil {
				// What is there is no longer what the sum says.
				_, _ = f.file.Seek(f.have, io.SeekStart)
				_ = f.file.Truncate(f.have)
				return fmt.Errorf("write: %w", err)
			}
			_, _ = f.hash.Write(buffer[:n]) // never fails
			f.have += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// fill is io.ReadFull that leaves apart the end of a content and its being cut off.
func fill(from io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var some int
		some, err = from.Read(p[n:])
		n += some
	}
	return n, err
}

// keep makes the part the artifact.
func (f *fetch) keep() error {
	c := f.cache
	if err := f.file.Sync(); err != nil {
		if noSpace(err) {
			err = f.explainSpace(f.have)
			f.discard()
			return err
		}
		return fmt.Errorf("write: %w", err)
	}
	if err := os.Rename(f.file.Name(), c.path(f.sum)); err != nil {
		return fmt.Errorf("keep: %w", err)
	}
	return durable.SyncDir(c.cfg.Dir)
}

// open gives the rest of the content, where that begins, and the whole size: -1 if it is not known.
func (f *fetch) open() (content io.ReadCloser, from, size int64, err error) {
	if f.url != "" {
		return f.openURL()
	}
	f.cache.mu.Lock()
	source := f.cache.source
	f.cache.mu.Unlock()
	if source == nil {
		return nil, 0, 0, ErrOffline
	}
	content, size, err = source.Fetch(f.ctx, f.sum, f.have)
	return content, f.have, size, err
}

// spaceFor makes sure, as far as that can be known, that so many bytes fit on the disk.
func (f *fetch) spaceFor(bytes int64) bool {
	fits := func() bool {
		free := f.free()
		return free < 0 || free >= bytes+spareBytes
	}
	return fits() || f.makeRoom(bytes) && fits()
}

// makeRoom removes artifacts that are not in use until so many bytes are free, or with 0, all of them. It reports whether there
// were any.
func (f *fetch) makeRoom(bytes int64) bool {
	c := f.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trim(func(int64) bool { return bytes == 0 || f.free() < bytes+spareBytes })
}

// free is how many bytes the disk has left; -1 if that is not known.
func (f *fetch) free() int64 { return freeBytes(f.cache.cfg.Dir) }

func (f *fetch) explainSpace(size int64) error {
	return fmt.Errorf("%w of %s: the artifact takes %d bytes, and %d are free", ErrNoSpace, f.cache.cfg.Dir, size, max(0, f.free()))
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// sumOf takes the SHA-256 of a file.
func sumOf(path string) (sum string, size int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	h := sha256.New()
	size, err = io.Copy(h, file)
	return hex.EncodeToString(h.Sum(nil)), size, cmp.Or(err, file.Close())
}

// pause waits, but not longer than ctx lives.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
