// Package unpack puts files and archives into an empty directory, and nothing anywhere else: archives are taken for hostile.
package unpack

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"github.com/quicflow/quicflow/internal/release"
)

// Limits of what is unpacked into one directory.
const (
	// MaxBytes bounds all files together.
	MaxBytes = 32 << 30
	// MaxEntries bounds files, directories and links together.
	MaxEntries = 500_000
	// MaxRatio bounds how many times larger than the archive its content is, once that is more than MinBomb bytes.
	MaxRatio = 200
	// MinBomb is what an archive may always unpack to, in bytes, however small it is.
	MinBomb = 64 << 20
	// MaxDepth bounds the directories within one another.
	MaxDepth = 100
	// maxName and maxLink bound a path and a link's target, in bytes.
	maxName = 4096
	maxLink = 4096
	// maxWindow bounds what a zstd stream may make its reader keep in memory.
	maxWindow = 128 << 20
)

// Formats are the archive formats.
var Formats = []string{"tar", "tar.gz", "tar.zst", "zip"}

// Unpacker fills one directory. It is not safe for concurrent use. After an error the directory is to be removed.
type Unpacker struct {
	root    *os.Root
	seen    map[string]kind // by path
	links   []string
	written int64
	buffer  []byte

	// of the archive at hand:
	packed int64 // its size
	began  int64 // written before it
	strip  int
}

type kind byte

const (
	aFile kind = iota + 1
	aDir
	aLink
)

// New makes an Unpacker for an empty directory. Close lets go of it.
func New(dir string) (*Unpacker, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Unpacker{root: root, seen: map[string]kind{}, buffer: make([]byte, 256<<10)}, nil
}

// Close closes the directory.
func (u *Unpacker) Close() error { return u.root.Close() }

func invalid(format string, args ...any) error { return release.Invalid("", format, args...) }

// File puts the content of a file at a path within the directory.
func (u *Unpacker) File(ctx context.Context, from, name string, mode os.FileMode) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	u.packed, u.began, u.strip = max(info.Size(), 1), u.written, 0
	clean, err := u.name(name, false)
	if err != nil {
		return err
	}
	return u.file(ctx, clean, mode, time.Time{}, file)
}

// Archive puts the content of an archive into the directory, without the first strip directories of each path. What is wrong with the
// archive is release.ErrInvalid.
func (u *Unpacker) Archive(ctx context.Context, from, format string, strip int) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	u.packed, u.began, u.strip = max(info.Size(), 1), u.written, strip
	switch format {
	case "tar":
		err = u.tar(ctx, file)
	case "tar.gz":
		reader, wrong := gzip.NewReader(file)
		if wrong != nil {
			return invalid("it is no gzip file: %v", wrong)
		}
		err = u.tar(ctx, reader)
	case "tar.zst":
		reader, wrong := zstd.NewReader(file, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if wrong != nil {
			return invalid("it is no zstd file: %v", wrong)
		}
		defer reader.Close()
		err = u.tar(ctx, reader)
	case "zip":
		err = u.zip(ctx, file, info.Size())
	default:
		return invalid("%q is not an archive format; they are %s", format, strings.Join(Formats, ", "))
	}
	if err != nil {
		return err
	}
	return u.checkLinks()
}

func (u *Unpacker) tar(ctx context.Context, from io.Reader) error {
	reader := tar.NewReader(&counted{u: u, ctx: ctx, Reader: from})
	for {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			// A decompressor checks its sum at the end.
			_, err := io.Copy(io.Discard, &counted{u: u, ctx: ctx, Reader: from})
			return u.broken(ctx, err)
		}
		if err != nil {
			return u.broken(ctx, err)
		}
		if err := u.tarEntry(ctx, h, reader); err != nil {
			return err
		}
	}
}

func (u *Unpacker) tarEntry(ctx context.Context, h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := u.name(h.Name, h.Typeflag == tar.TypeDir)
	if err != nil || name == "" {
		return err
	}
	mode := h.FileInfo().Mode()
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir(name, mode)
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(ctx, name, mode, h.ModTime, content)
	case tar.TypeSymlink:
		return u.symlink(name, h.Linkname)
	case tar.TypeLink:
		target, err := u.name(h.Linkname, false)
		if err != nil {
			return err
		}
		return u.hardLink(name, target)
	}
	return invalid("%s is neither a file nor a directory nor a link (type %q)", quote(h.Name), h.Typeflag)
}

func (u *Unpacker) zip(ctx context.Context, file io.ReaderAt, size int64) error {
	reader, err := zip.NewReader(file, size)
	if err != nil {
		return u.broken(ctx, err)
	}
	for _, entry := range reader.File {
		if err := u.zipEntry(ctx, entry); err != nil {
			return err
		}
	}
	return nil
}

func (u *Unpacker) zipEntry(ctx context.Context, entry *zip.File) error {
	mode := entry.Mode()
	if strings.Contains(entry.Name, `\`) {
		return invalid("%s has a backslash in its name", quote(entry.Name))
	}
	name, err := u.name(entry.Name, mode.IsDir())
	switch {
	case err != nil || name == "":
		return err
	case entry.Flags&1 != 0:
		return invalid("%s is encrypted", quote(entry.Name))
	case mode.IsDir():
		return u.dir(name, mode)
	}
	content, err := entry.Open()
	if err != nil {
		return u.broken(ctx, err)
	}
	defer content.Close()
	limited := &counted{u: u, ctx: ctx, Reader: content}
	switch {
	case mode.IsRegular():
		return u.file(ctx, name, mode, entry.Modified, limited)
	case mode.Type() == os.ModeSymlink:
		target, err := io.ReadAll(io.LimitReader(limited, maxLink+1))
		if err != nil {
			return u.broken(ctx, err)
		}
		return u.symlink(name, string(target))
	}
	return invalid("%s is neither a file nor a directory nor a link", quote(entry.Name))
}

// broken says what is wrong with an archive that cannot be read.
func (u *Unpacker) broken(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case errors.Is(err, release.ErrInvalid):
		return err
	}
	return invalid("it is damaged, or not in this format: %v", err)
}

// name gives the path of an entry, empty for a directory that is left out.
func (u *Unpacker) name(name string, dir bool) (string, error) {
	switch {
	case name == "" || len(name) > maxName:
		return "", invalid("an entry has a name of %d bytes; the limit is %d", len(name), maxName)
	case strings.ContainsRune(name, 0) || !utf8.ValidString(name):
		return "", invalid("%s has a NUL character, or is not UTF-8", quote(name))
	case strings.HasPrefix(name, "/"):
		return "", invalid("%s is an absolute path", quote(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", invalid("%s leads out of the directory", quote(name))
		}
	}
	clean := path.Clean(name)
	parts := strings.Split(clean, "/")
	switch {
	case clean == ".":
		parts = nil
	case len(parts) > MaxDepth:
		return "", invalid("%s is more than %d directories deep", quote(name), MaxDepth)
	}
	switch {
	case len(parts) > u.strip:
		return strings.Join(parts[u.strip:], "/"), nil
	case dir:
		return "", nil
	}
	return "", invalid("%s has no %d directories that could be left out", quote(name), u.strip)
}

func quote(name string) string {
	if len(name) > 200 {
		name = name[:200] + "…"
	}
	return fmt.Sprintf("%q", name)
}

// enter takes a path for an entry, and makes the directories that lead to it.
func (u *Unpacker) enter(name string, what kind) error {
	if was := u.seen[name]; was != 0 && (was != aDir || what != aDir) {
		return invalid("%s comes twice", quote(name))
	}
	for i := range name {
		if name[i] != '/' {
			continue
		}
		parent := name[:i]
		switch u.seen[parent] {
		case aDir:
		case 0:
			if err := u.add(parent, aDir); err != nil {
				return err
			}
			if err := u.root.Mkdir(parent, 0o755); err != nil {
				return err
			}
		default:
			return invalid("%s goes through %s, which is no directory", quote(name), quote(parent))
		}
	}
	if u.seen[name] != 0 {
		return nil
	}
	return u.add(name, what)
}

func (u *Unpacker) add(name string, what kind) error {
	if len(u.seen) >= MaxEntries {
		return invalid("it has more than %d files and directories", MaxEntries)
	}
	u.seen[name] = what
	return nil
}

func (u *Unpacker) dir(name string, mode os.FileMode) error {
	known := u.seen[name] == aDir
	if err := u.enter(name, aDir); err != nil {
		return err
	}
	if !known {
		if err := u.root.Mkdir(name, 0o755); err != nil {
			return err
		}
	}
	// Whoever unpacks must be able to write, and nobody else.
	return u.root.Chmod(name, mode.Perm()&^0o022|0o700)
}

func (u *Unpacker) file(ctx context.Context, name string, mode os.FileMode, modified time.Time, content io.Reader) error {
	if mode&(os.ModeSetuid|os.ModeSetgid) != 0 {
		return invalid("%s has the setuid or setgid bit", quote(name))
	}
	if err := u.enter(name, aFile); err != nil {
		return err
	}
	file, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = u.copy(ctx, file, content)
	if err == nil {
		err = file.Chmod(mode.Perm()&^0o022 | 0o400)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if modified.IsZero() {
		return nil
	}
	return u.root.Chtimes(name, modified, modified)
}

// copy tells what cannot be read from what cannot be written.
func (u *Unpacker) copy(ctx context.Context, to io.Writer, from io.Reader) error {
	for {
		n, err := from.Read(u.buffer)
		if u.written += int64(n); u.written > MaxBytes {
			return invalid("it unpacks to more than %s", release.Bytes(MaxBytes))
		}
		if _, err := to.Write(u.buffer[:n]); err != nil {
			return err
		}
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return u.broken(ctx, err)
		}
	}
}

func (u *Unpacker) symlink(name, target string) error {
	switch {
	case target == "" || len(target) > maxLink || strings.ContainsRune(target, 0):
		return invalid("%s is a link to nothing", quote(name))
	case path.IsAbs(target):
		return invalid("%s is a link to the absolute path %s", quote(name), quote(target))
	}
	if end := path.Join(path.Dir(name), target); end == ".." || strings.HasPrefix(end, "../") {
		return invalid("%s is a link that leads out of the directory, to %s", quote(name), quote(target))
	}
	if err := u.enter(name, aLink); err != nil {
		return err
	}
	u.links = append(u.links, name)
	return u.root.Symlink(target, name)
}

func (u *Unpacker) hardLink(name, target string) error {
	if u.seen[target] != aFile {
		return invalid("%s is a link to %s, which is no file that came before it", quote(name), quote(target))
	}
	if err := u.enter(name, aFile); err != nil {
		return err
	}
	return u.root.Link(target, name)
}

// checkLinks follows each link: several of them together may lead where none does alone.
func (u *Unpacker) checkLinks() error {
	for _, name := range u.links {
		if _, err := u.root.Stat(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return invalid("%s is a link that leads out of the directory, or in a circle", quote(name))
		}
	}
	return nil
}

// counted ends an archive that expands beyond all measure, and one whose step is stopped.
type counted struct {
	u   *Unpacker
	ctx context.Context
	io.Reader
	read int64
}

func (c *counted) Read(p []byte) (int, error) {
	if cause := context.Cause(c.ctx); cause != nil {
		return 0, cause
	}
	n, err := c.Reader.Read(p)
	c.read += int64(n)
	if total := max(c.read, c.u.written-c.u.began); total > MinBomb && total > c.u.packed*MaxRatio {
		return 0, invalid("it expands to more than %d times its size", MaxRatio)
	}
	return n, err
}
