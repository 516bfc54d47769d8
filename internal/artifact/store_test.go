package artifact_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/internal/artifact"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

const patience = 30 * time.Second

// uploader turns the test's binary into a server that receives an upload that does not end.
const uploader = "QUICFLOW_TEST_UPLOAD_TO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(uploader); dir != "" {
		s, err := artifact.Open(artifact.Config{Dir: dir, Index: struct{ artifact.Index }{}})
		if err == nil {
			_, err = s.Put(context.Background(), artifact.Upload{}, io.MultiReader(strings.NewReader("some of it"), os.Stdin))
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// world is a store of artifacts with its index, a real one, and a clock.
type world struct {
	*artifact.Store
	t     *testing.T
	cfg   artifact.Config
	index *store.Store
	now   time.Time
}

// each runs a test on every kind of storage.
func each(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("disk", func(t *testing.T) { test(t, newWorld(t)) })
	t.Run("s3", func(t *testing.T) {
		test(t, newWorld(t, func(c *artifact.Config) { c.S3 = newBucket(t) }))
	})
}

func newBucket(t *testing.T) *artifact.S3 {
	backend := s3mem.New()
	require.NoError(t, backend.CreateBucket("artifacts"))
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	return &artifact.S3{
		Endpoint: strings.TrimPrefix(server.URL, "http://"), Bucket: "artifacts", Region: "us-east-1", Prefix: "quicflow/", AccessKey: "key",
		SecretKey: "secret", Insecure: true,
	}
}

func newWorld(t *testing.T, change ...func(*artifact.Config)) *world {
	t.Helper()
	w := &world{t: t, now: time.Now()}
	clock := func() time.Time { return w.now }
	var err error
	w.index, err = store.Open(t.Context(), store.Config{Driver: store.SQLite, DSN: filepath.Join(t.TempDir(), "db"), Now: clock,
		Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.index.Close()) })
	w.cfg = artifact.Config{Dir: t.TempDir(), Index: w.index, MaxBytes: 40 << 20, Retention: 24 * time.Hour, Now: clock, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&w.cfg)
	}
	w.Store, err = artifact.Open(w.cfg)
	require.NoError(t, err)
	return w
}

func contentOf(size int, seed byte) (content []byte, sum string) {
	content = make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(content)
	s := sha256.Sum256(content)
	return content, hex.EncodeToString(s[:])
}

func (w *world) put(content []byte) release.StoredArtifact {
	w.t.Helper()
	a, err := w.Put(w.t.Context(), artifact.Upload{Name: "app", By: "me"}, bytes.NewReader(content))
	require.NoError(w.t, err)
	return a
}

func (w *world) requireContent(sum string, offset int64, want []byte) {
	w.t.Helper()
	r, size, err := w.OpenArtifact(w.t.Context(), sum, offset)
	require.NoError(w.t, err)
	require.EqualValues(w.t, int(offset)+len(want), size)
	got, err := io.ReadAll(r)
	require.NoError(w.t, errors.Join(err, r.Close()))
	require.True(w.t, bytes.Equal(want, got))
}

func (w *world) requireMissing(sum string) {
	w.t.Helper()
	_, _, err := w.OpenArtifact(w.t.Context(), sum, 0)
	require.ErrorIs(w.t, err, release.ErrNotFound)
}

// requireNoTemp checks that nothing is left of uploads.
func (w *world) requireNoTemp() {
	w.t.Helper()
	files, err := os.ReadDir(filepath.Join(w.cfg.Dir, "tmp"))
	require.NoError(w.t, err)
	require.Empty(w.t, files)
}

func TestStore(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		content, sum := contentOf(3_000_000, 1)
		a := w.put(content)
		require.Equal(t, sum, a.SHA256)
		require.EqualValues(t, 3_000_000, a.Size)
		require.Equal(t, "app me", a.Name+" "+a.CreatedBy)
		w.requireContent(sum, 0, content)
		w.requireContent(sum, 1234567, content[1234567:])
		w.requireContent(sum, 3_000_000, nil)
		w.requireNoTemp()
		_, _, err := w.OpenArtifact(t.Context(), sum, 3_000_001)
		require.ErrorIs(t, err, release.ErrInvalid)
		empty, emptySum := contentOf(0, 1)
		w.put(empty)
		w.requireContent(emptySum, 0, nil)

		r, err := w.Reader(t.Context(), sum)
		require.NoError(t, err)
		part := make([]byte, 1000)
		for _, at := range []int64{0, 2_000_000, 500, 2_999_000} {
			_, err := r.Seek(at, io.SeekStart)
			require.NoError(t, err)
			_, err = io.ReadFull(r, part)
			require.NoError(t, err)
			require.True(t, bytes.Equal(content[at:at+1000], part))
		}
		end, err := r.Seek(0, io.SeekEnd)
		require.NoError(t, err)
		require.EqualValues(t, 3_000_000, end)
		_, err = r.Seek(1, io.SeekCurrent)
		require.Error(t, err)
		require.NoError(t, r.Close())

		require.NoError(t, w.Delete(t.Context(), sum))
		w.requireMissing(sum)
		require.ErrorIs(t, w.Delete(t.Context(), sum), release.ErrNotFound)
		for _, name := range []string{"", "../../db", strings.ToUpper(sum), sum + "0"} {
			_, _, err := w.OpenArtifact(t.Context(), name, 0)
			require.ErrorIs(t, err, release.ErrInvalid, name)
			require.ErrorIs(t, w.Delete(t.Context(), name), release.ErrInvalid, name)
		}
	})
}

// Large enough for an upload in parts.
func TestLargeArtifact(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		content, sum := contentOf(35<<20, 1)
		w.put(content)
		w.requireContent(sum, 0, content)
		w.requireContent(sum, 33<<20, content[33<<20:])
	})
}

// Nothing is kept of what does not come in full, or is not what was announced.
func TestUploadsThatAreNot(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		content, sum := contentOf(100_000, 1)
		broken := errors.New("broken")
		_, err := w.Put(t.Context(), artifact.Upload{}, io.MultiReader(bytes.NewReader(content), failing{broken}))
		require.ErrorIs(t, err, broken)
		_, other := contentOf(1, 2)
		_, err = w.Put(t.Context(), artifact.Upload{SHA256: other}, bytes.NewReader(content))
		require.ErrorIs(t, err, release.ErrInvalid)
		require.ErrorContains(t, err, sum)
		_, err = w.Put(t.Context(), artifact.Upload{SHA256: "nonsense"}, bytes.NewReader(content))
		require.ErrorIs(t, err, release.ErrInvalid)
		var large *artifact.TooLargeError
		_, err = w.Put(t.Context(), artifact.Upload{}, io.LimitReader(rand.NewChaCha8([32]byte{}), w.MaxBytes()+1))
		require.ErrorAs(t, err, &large)
		require.ErrorContains(t, err, "artifacts.max_bytes")
		w.requireMissing(sum)
		w.requireNoTemp()
		_, total, err := w.index.Artifacts(t.Context(), store.ArtifactFilter{})
		require.NoError(t, err)
		require.Zero(t, total)
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestUploadsOfTheSame(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		content, sum := contentOf(1_000_000, 1)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				a, err := w.Put(t.Context(), artifact.Upload{SHA256: sum}, bytes.NewReader(content))
				if err != nil || a.SHA256 != sum {
					t.Errorf("%v %v", a, err)
				}
			})
		}
		group.Wait()
		w.requireContent(sum, 0, content)
		w.requireNoTemp()
	})
}

// The content goes by; it is not held.
func TestUploadTakesNoMemory(t *testing.T) {
	w := newWorld(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := w.Put(t.Context(), artifact.Upload{}, io.LimitReader(rand.NewChaCha8([32]byte{}), 40<<20))
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
}

func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	w := newWorld(t, func(c *artifact.Config) { c.Dir = dir })
	content, sum := contentOf(2<<20, 1)
	_, err := w.Put(t.Context(), artifact.Upload{}, bytes.NewReader(content))
	require.ErrorIs(t, err, release.ErrUnavailable)
	require.ErrorContains(t, err, "no space left")
	w.requireMissing(sum)
	w.requireNoTemp()
	small, _ := contentOf(1000, 2)
	w.put(small)
}

// What a server that was killed has left is removed by the next one, and by one that runs; what others write is not.
func TestUploadOfAServerThatDied(t *testing.T) {
	w := newWorld(t)
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), uploader+"="+w.cfg.Dir)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	require.NoError(t, cmd.Start())
	temp := filepath.Join(w.cfg.Dir, "tmp")
	require.Eventually(t, func() bool {
		files, err := os.ReadDir(temp)
		if err != nil || len(files) == 0 {
			return false
		}
		info, err := files[0].Info()
		return err == nil && info.Size() > 0
	}, patience, 5*time.Millisecond)
	w.now = w.now.Add(time.Hour)
	w.Sweep(t.Context())
	files, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Len(t, files, 1, "somebody writes it")

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	_, err = artifact.Open(w.cfg)
	require.NoError(t, err)
	w.requireNoTemp()
}

func TestRetention(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		used, usedSum := contentOf(1000, 1)
		unused, unusedSum := contentOf(1000, 2)
		read, readSum := contentOf(1000, 3)
		for _, content := range [][]byte{used, unused, read} {
			w.put(content)
		}
		require.NoError(t, w.index.CreateProject(t.Context(), &release.Project{Name: "shop", Type: release.TypeScript}))
		require.NoError(t, w.index.CreateVersion(t.Context(), &release.Version{Project: "shop", Name: "1", Spec: release.Spec{
			Script: &release.ScriptSpec{Artifacts: []release.Artifact{{Name: "a", SHA256: usedSum}}}}}))
		w.now = w.now.Add(20 * time.Hour)
		w.requireContent(readSum, 0, read)
		w.Sweep(t.Context())
		w.requireContent(readSum, 0, read)
		w.now = w.now.Add(5 * time.Hour)
		w.Sweep(t.Context())
		w.requireMissing(unusedSum)
		w.requireContent(usedSum, 0, used)
		w.requireContent(readSum, 0, read)
		require.ErrorIs(t, w.Delete(t.Context(), usedSum), release.ErrConflict)
		w.requireContent(usedSum, 0, used)
		w.now = w.now.Add(25 * time.Hour)
		w.Sweep(t.Context())
		w.requireMissing(readSum)
	})
}

// A content that has no entry, as a server died before it made one, goes after an hour.
func TestOrphans(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		orphan, orphanSum := contentOf(1000, 1)
		known, knownSum := contentOf(1000, 2)
		w.put(orphan)
		w.put(known)
		require.NoError(t, w.index.DeleteArtifact(t.Context(), orphanSum))
		w.Sweep(t.Context())
		w.requireContent(orphanSum, 0, orphan)
		w.now = w.now.Add(2 * time.Hour)
		w.Sweep(t.Context())
		w.requireMissing(orphanSum)
		w.requireContent(knownSum, 0, known)
	})
}

// What is damaged is mended by an upload.
func TestUploadMends(t *testing.T) {
	w := newWorld(t)
	content, sum := contentOf(1000, 1)
	w.put(content)
	path := filepath.Join(w.cfg.Dir, sum[:2], sum[2:])
	require.NoError(t, os.WriteFile(path, []byte("damaged"), 0o600))
	w.put(content)
	w.requireContent(sum, 0, content)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())
}

func TestStorageThatIsNotThere(t *testing.T) {
	wrong := newBucket(t)
	wrong.Bucket = "other"
	w := newWorld(t, func(c *artifact.Config) { c.S3 = wrong })
	content, _ := contentOf(1000, 1)
	_, err := w.Put(t.Context(), artifact.Upload{}, bytes.NewReader(content))
	require.ErrorContains(t, err, "NoSuchBucket")
}

func TestRunEnds(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	cancel()
	select {
	case <-done:
	case <-time.After(patience):
		require.Fail(t, "it runs on")
	}
}
