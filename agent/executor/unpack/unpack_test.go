package unpack_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor/unpack"
	"github.com/quicflow/quicflow/internal/release"
)

// entry is one of an archive.
type entry struct {
	name string
	kind byte // of tar; 0: a file
	text string
	link string
	mode int64
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, ModTime: time.Unix(1_000_000_000, 0)}
		if e.kind == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.text))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		require.NoError(t, w.WriteHeader(h))
		if h.Size > 0 {
			_, err := io.WriteString(w, e.text)
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func gzipOf(t testing.TB, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(content)
	require.NoError(t, errors.Join(err, w.Close()))
	return out.Bytes()
}

func zstdOf(t testing.TB, content []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return w.EncodeAll(content, nil)
}

func zipOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		mode := os.FileMode(e.mode) & os.ModePerm
		if mode == 0 {
			mode = 0o644
		}
		switch e.kind {
		case tar.TypeSymlink:
			mode, e.text = mode|os.ModeSymlink, e.link
		case tar.TypeFifo:
			mode |= os.ModeNamedPipe
		}
		if e.mode&0o4000 != 0 {
			mode |= os.ModeSetuid
		}
		h.SetMode(mode)
		f, err := w.CreateHeader(h)
		require.NoError(t, err)
		_, err = io.WriteString(f, e.text)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

// archive unpacks into a directory within an empty one, and gives that.
func archive(t testing.TB, content []byte, format string, strip int) (outer string, err error) {
	t.Helper()
	outer = t.TempDir()
	dir := filepath.Join(outer, "dir")
	require.NoError(t, os.Mkdir(dir, 0o755))
	file := filepath.Join(t.TempDir(), "archive")
	require.NoError(t, os.WriteFile(file, content, 0o600))
	u, err := unpack.New(dir)
	require.NoError(t, err)
	defer u.Close()
	return outer, u.Archive(context.Background(), file, format, strip)
}

var good = []entry{
	{name: "app/", kind: tar.TypeDir, mode: 0o777},
	{name: "./app/bin/run", text: "#!/bin/sh", mode: 0o755},
	{name: "app/etc/conf", text: "conf", mode: 0o666},
	{name: "app/current", kind: tar.TypeSymlink, link: "etc/../etc/conf"},
	{name: "app/nowhere", kind: tar.TypeSymlink, link: "etc/missing"},
}

func TestFormats(t *testing.T) {
	t.Parallel()
	content := tarOf(t, append(good, entry{name: "app/hard", kind: tar.TypeLink, link: "app/etc/conf"})...)
	for format, packed := range map[string][]byte{
		"tar": content, "tar.gz": gzipOf(t, content), "tar.zst": zstdOf(t, content), "zip": zipOf(t, good[1:]...),
	} {
		outer, err := archive(t, packed, format, 1)
		require.NoError(t, err, format)
		dir := filepath.Join(outer, "dir")
		text, err := os.ReadFile(filepath.Join(dir, "current"))
		require.NoError(t, err)
		require.Equal(t, "conf", string(text))
		mode := func(name string) os.FileMode {
			info, err := os.Lstat(filepath.Join(dir, name))
			require.NoError(t, err)
			return info.Mode()
		}
		require.Equal(t, os.FileMode(0o755), mode("bin/run"))
		require.Equal(t, os.FileMode(0o644), mode("etc/conf"), "nobody else may write")
		require.Equal(t, os.ModeSymlink, mode("nowhere").Type())
		if format != "zip" {
			text, err = os.ReadFile(filepath.Join(dir, "hard"))
			require.NoError(t, err)
			require.Equal(t, "conf", string(text))
			info, err := os.Stat(filepath.Join(dir, "bin/run"))
			require.NoError(t, err)
			require.EqualValues(t, 1_000_000_000, info.ModTime().Unix())
		}
	}
}

func TestHostileArchives(t *testing.T) {
	t.Parallel()
	symlink, hard := byte(tar.TypeSymlink), byte(tar.TypeLink)
	for name, c := range map[string]struct {
		entries []entry
		want    string
		zip     bool // also as a zip
	}{
		"parent":             {[]entry{{name: "../evil", text: "x"}}, `"../evil" leads out of the directory`, true},
		"parent within":      {[]entry{{name: "a/../../evil", text: "x"}}, "leads out of the directory", true},
		"absolute":           {[]entry{{name: "/tmp/evil", text: "x"}}, "is an absolute path", true},
		"link out":           {[]entry{{name: "a", kind: symlink, link: "../evil"}}, `"a" is a link that leads out of the directory, to "../evil"`, true},
		"absolute link":      {[]entry{{name: "a", kind: symlink, link: "/etc"}}, `"a" is a link to the absolute path "/etc"`, true},
		"through a link":     {[]entry{{name: "d/x", text: "x"}, {name: "a", kind: symlink, link: "d"}, {name: "a/evil", text: "x"}}, `"a/evil" goes through "a", which is no directory`, true},
		"over a link":        {[]entry{{name: "d", text: "x"}, {name: "a", kind: symlink, link: "d"}, {name: "a", text: "x"}}, `"a" comes twice`, true},
		"links together":     {[]entry{{name: "b", kind: symlink, link: "."}, {name: "a", kind: symlink, link: "b/b/b/../../../x"}}, `"a" is a link that leads out of the directory`, true},
		"circle":             {[]entry{{name: "b", kind: symlink, link: "a"}, {name: "a", kind: symlink, link: "b"}}, "or in a circle", true},
		"hard link out":      {[]entry{{name: "a", kind: hard, link: "../../evil"}}, "leads out of the directory", false},
		"hard link to it":    {[]entry{{name: "a", kind: hard, link: "/etc/passwd"}}, "is an absolute path", false},
		"hard link to link":  {[]entry{{name: "a", kind: symlink, link: "b"}, {name: "c", kind: hard, link: "a"}}, "which is no file that came before it", false},
		"device":             {[]entry{{name: "null", kind: tar.TypeChar}}, `"null" is neither a file nor a directory nor a link`, false},
		"fifo":               {[]entry{{name: "pipe", kind: tar.TypeFifo}}, "is neither a file nor a directory nor a link", true},
		"setuid":             {[]entry{{name: "su", text: "x", mode: 0o4755}}, `"su" has the setuid or setgid bit`, true},
		"twice":              {[]entry{{name: "a", text: "1"}, {name: "./a", text: "2"}}, `"a" comes twice`, true},
		"file and directory": {[]entry{{name: "a", text: "1"}, {name: "a/b", text: "2"}}, "which is no directory", true},
		"deep":               {[]entry{{name: strings.Repeat("d/", 200) + "f", text: "x"}}, "is more than 100 directories deep", true},
		"long":               {[]entry{{name: strings.Repeat("d", 5000), text: "x"}}, "a name of 5000 bytes; the limit is 4096", true},
		"NUL":                {[]entry{{name: "a\xffb", text: "x"}}, "is not UTF-8", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			packed := map[string][]byte{"tar": tarOf(t, c.entries...)}
			if c.zip {
				packed["zip"] = zipOf(t, c.entries...)
			}
			for format, content := range packed {
				outer, err := archive(t, content, format, 0)
				require.ErrorIs(t, err, release.ErrInvalid, format)
				require.ErrorContains(t, err, c.want, format)
				require.NotContains(t, err.Error(), "\n")
				all, err := os.ReadDir(outer)
				require.NoError(t, err)
				require.Len(t, all, 1, "nothing was written beside the directory")
			}
		})
	}
	_, err := archive(t, zipOf(t, entry{name: `a\..\..\b`, text: "x"}), "zip", 0)
	require.ErrorContains(t, err, "has a backslash in its name")
}

func TestDamagedArchives(t *testing.T) {
	t.Parallel()
	content := tarOf(t, entry{name: "a", text: strings.Repeat("some text ", 10_000)})
	for format, packed := range map[string][]byte{
		"tar": content, "tar.gz": gzipOf(t, content), "tar.zst": zstdOf(t, content), "zip": zipOf(t, entry{name: "a", text: strings.Repeat("some text ", 10_000)}),
	} {
		_, err := archive(t, packed[:len(packed)/2], format, 0)
		require.ErrorIs(t, err, release.ErrInvalid, format)
		require.ErrorContains(t, err, "damaged", format)
		_, err = archive(t, []byte("not an archive"), format, 0)
		require.ErrorIs(t, err, release.ErrInvalid, format)
		require.NotContains(t, err.Error(), "\n")
	}
	bad := gzipOf(t, content)
	bad[len(bad)-6] ^= 1 // its checksum
	_, err := archive(t, bad, "tar.gz", 0)
	require.ErrorIs(t, err, release.ErrInvalid)
	_, err = archive(t, content, "rar", 0)
	require.ErrorContains(t, err, `"rar" is not an archive format; they are tar, tar.gz, tar.zst, zip`)
	_, err = archive(t, tarOf(t, good...), "tar", 2)
	require.ErrorContains(t, err, "has no 2 directories that could be left out")
}

// zeroes reads as many.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A small archive that expands beyond all measure ends before the disk is full.
func TestBombs(t *testing.T) {
	t.Parallel()
	const size = unpack.MinBomb + 16<<20
	bomb := func(compressed func(io.Writer) io.WriteCloser) []byte {
		var out bytes.Buffer
		z := compressed(&out)
		w := tar.NewWriter(z)
		require.NoError(t, w.WriteHeader(&tar.Header{Name: "bomb", Typeflag: tar.TypeReg, Mode: 0o644, Size: size}))
		_, err := io.CopyN(w, zeroes{}, size)
		require.NoError(t, errors.Join(err, w.Close(), z.Close()))
		return out.Bytes()
	}
	for format, packed := range map[string][]byte{
		"tar.gz": bomb(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }),
		"tar.zst": bomb(func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
			require.NoError(t, err)
			return z
		}),
	} {
		_, err := archive(t, packed, format, 0)
		require.ErrorIs(t, err, release.ErrInvalid, format)
		require.ErrorContains(t, err, "it expands to more than 200 times its size")
	}
}

func TestFilesAndArchivesShareADirectory(t *testing.T) {
	t.Parallel()
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("content"), 0o600))
	u, err := unpack.New(dir)
	require.NoError(t, err)
	defer u.Close()
	ctx := context.Background()
	require.NoError(t, u.File(ctx, file, "etc/app/conf", 0o640))
	require.ErrorContains(t, u.File(ctx, file, "etc/app/conf", 0o640), "comes twice")
	require.ErrorIs(t, u.File(ctx, file, "../conf", 0o640), release.ErrInvalid)
	info, err := os.Stat(filepath.Join(dir, "etc/app/conf"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode())
	require.ErrorIs(t, u.File(ctx, file+"x", "y", 0o640), os.ErrNotExist)

	ended, end := context.WithCancelCause(ctx)
	why := errors.New("stopped")
	end(why)
	require.ErrorIs(t, u.File(ended, file, "z", 0o640), why)
}

// What it is given may be anything: it gives an error, or leaves its directory only with what is in it.
func FuzzArchive(f *testing.F) {
	f.Add(tarOf(f, good...), 0)
	f.Add(gzipOf(f, tarOf(f, good...)), 1)
	f.Add(zstdOf(f, tarOf(f, good...)), 2)
	f.Add(zipOf(f, good[1:]...), 3)
	f.Add(tarOf(f, entry{name: "b", kind: tar.TypeSymlink, link: "."}, entry{name: "a", kind: tar.TypeSymlink, link: "b/../x"}), 0)
	f.Fuzz(func(t *testing.T, content []byte, format int) {
		outer, err := archive(t, content, unpack.Formats[(format%len(unpack.Formats)+len(unpack.Formats))%len(unpack.Formats)], 0)
		all, wrong := os.ReadDir(outer)
		require.NoError(t, wrong)
		require.Len(t, all, 1)
		if err != nil {
			require.NotEmpty(t, fmt.Sprint(err))
			return
		}
		dir := filepath.Join(outer, "dir")
		require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.Type() != os.ModeSymlink {
				return err
			}
			end, err := filepath.EvalSymlinks(path)
			if err == nil {
				require.True(t, end == dir || strings.HasPrefix(end, dir+"/"), "%s leads to %s", path, end)
			}
			return nil
		}))
	})
}
