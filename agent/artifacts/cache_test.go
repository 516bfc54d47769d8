package artifacts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/internal/release"
)

const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func contentOf(size int, seed byte) (content []byte, sum string) {
	content = make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(content)
	return content, sumText(content)
}

func sumText(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func open(t *testing.T, dir string, change ...func(*Config)) *Cache {
	t.Helper()
	cfg := Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// shelf is a source with contents at hand.
type shelf struct {
	mu       sync.Mutex
	contents map[string][]byte
	asked    int
}

func (s *shelf) add(content []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contents == nil {
		s.contents = map[string][]byte{}
	}
	s.contents[sumText(content)] = content
	return sumText(content)
}

func (s *shelf) Fetch(_ context.Context, sum string, offset int64) (io.ReadCloser, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	content, there := s.contents[sum]
	if !there {
		return nil, 0, ErrMissing
	}
	return io.NopCloser(bytes.NewReader(content[offset:])), int64(len(content)), nil
}

func (c *Cache) mustGet(t *testing.T, sum, url string) (path string, done func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	path, done, err := c.Get(ctx, sum, url)
	require.NoError(t, err)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, sum, sumText(content))
	return path, done
}

func (c *Cache) failedGet(t *testing.T, sum, url string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, _, err := c.Get(ctx, sum, url)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "\n")
	return err
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	all := []string{}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// The cache keeps to its limit, and takes away what was not used for longest, but nothing that is in use.
func TestLimit(t *testing.T) {
	dir, source := t.TempDir(), &shelf{}
	c := open(t, dir, func(cfg *Config) { cfg.MaxBytes = 250 })
	t.Cleanup(c.Attach(source))
	var sums []string
	for seed := range byte(4) {
		content, _ := contentOf(100, seed)
		sums = append(sums, source.add(content))
	}
	_, done0 := c.mustGet(t, sums[0], "")
	_, done1 := c.mustGet(t, sums[1], "")
	done1()
	done1() // does no harm
	_, done2 := c.mustGet(t, sums[2], "")
	require.ElementsMatch(t, []string{sums[0], sums[2]}, names(t, dir), "the one in use stays, though it is older")
	_, done3 := c.mustGet(t, sums[3], "")
	require.Len(t, names(t, dir), 3, "all are in use")
	done2()
	require.ElementsMatch(t, []string{sums[0], sums[3]}, names(t, dir))
	done0()
	done3()
	require.Equal(t, 4, source.asked)

	// What was used last is known to the next life, too.
	c.Close()
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(dir, sums[3]), old, old))
	c = open(t, dir, func(cfg *Config) { cfg.MaxBytes = 250 })
	t.Cleanup(c.Attach(source))
	_, done := c.mustGet(t, sums[1], "")
	done()
	require.ElementsMatch(t, []string{sums[0], sums[1]}, names(t, dir))

	// One that is larger than the limit is there as long as it is used.
	content, _ := contentOf(1000, 9)
	large := source.add(content)
	_, done = c.mustGet(t, large, "")
	done()
	require.Empty(t, names(t, dir))
}

// What is on disk is checked once in each life of the agent.
func TestDamagedOnDisk(t *testing.T) {
	dir, source := t.TempDir(), &shelf{}
	content, sum := contentOf(1000, 1)
	source.add(content)
	c := open(t, dir)
	c.Attach(source)
	path, done := c.mustGet(t, sum, "")
	done()
	c.Close()
	require.NoError(t, os.WriteFile(path, content[:999], 0o600))
	c = open(t, dir)
	t.Cleanup(c.Attach(source))
	_, done = c.mustGet(t, sum, "")
	done()
	require.Equal(t, 2, source.asked)
}

func TestOldPartsGo(t *testing.T) {
	dir := t.TempDir()
	_, sum := contentOf(1, 1)
	_, other := contentOf(1, 2)
	old := time.Now().Add(-2 * partAge)
	for _, name := range []string{sum + partSuffix, other + partSuffix, "notes.txt"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	require.NoError(t, os.Chtimes(filepath.Join(dir, sum+partSuffix), old, old))
	open(t, dir)
	require.ElementsMatch(t, []string{other + partSuffix, "notes.txt"}, names(t, dir))
}

// small mounts a disk of so many bytes.
func small(t *testing.T, size int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	return dir
}

func TestDiskFull(t *testing.T) {
	dir := small(t, 8<<20)
	source := &shelf{}
	c := open(t, dir)
	t.Cleanup(c.Attach(source))
	first, _ := contentOf(4<<20, 1)
	second, _ := contentOf(5<<20, 2)
	large, _ := contentOf(9<<20, 3)
	source.add(first)
	source.add(second)
	source.add(large)

	// It is known beforehand, and nothing is written.
	err := c.failedGet(t, sumText(large), "")
	require.ErrorIs(t, err, ErrNoSpace)
	require.ErrorContains(t, err, "takes 9437184 bytes")
	require.Empty(t, names(t, dir))

	_, done := c.mustGet(t, sumText(first), "")
	require.ErrorIs(t, c.failedGet(t, sumText(second), ""), ErrNoSpace, "the first one is in use")
	require.Equal(t, []string{sumText(first)}, names(t, dir), "nothing is left of what did not fit")
	done()
	_, done = c.mustGet(t, sumText(second), "")
	require.Equal(t, []string{sumText(second)}, names(t, dir), "the first one made room")
	done()

	// It turns out in the middle, as nobody said how much comes.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(large[:100])
		w.(http.Flusher).Flush()
		_, _ = w.Write(large[100:])
	}))
	defer server.Close()
	require.ErrorIs(t, c.failedGet(t, sumText(large), server.URL), ErrNoSpace)
	require.Empty(t, names(t, dir))
}

// web is a server with one file that a test makes trouble at.
type web struct {
	*httptest.Server
	content []byte
	mu      sync.Mutex
	ranges  []string
	cut     int // bytes until the connection breaks, each time; 0: never
}

func newWeb(t *testing.T, content []byte) *web {
	w := &web{content: content}
	mux := http.NewServeMux()
	file := func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.ranges = append(w.ranges, r.Header.Get("Range"))
		cut := w.cut
		w.mu.Unlock()
		if cut > 0 {
			rw = &cutWriter{rw, cut}
		}
		http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(w.content))
	}
	mux.HandleFunc("/file", file)
	mux.HandleFunc("/secret", func(rw http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "me" || password != "hunter2" || r.URL.Query().Get("key") != "k3y" {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		file(rw, r)
	})
	mux.HandleFunc("/whole", func(rw http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		file(rw, r)
	})
	mux.HandleFunc("/hop/{n}", func(rw http.ResponseWriter, r *http.Request) {
		n := int(r.PathValue("n")[0] - '0')
		to := fmt.Sprintf("/hop/%d", n-1)
		if n == 1 {
			to = "/file"
		}
		http.Redirect(rw, r, to, http.StatusFound)
	})
	mux.HandleFunc("/elsewhere", func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/status/{code}", func(rw http.ResponseWriter, r *http.Request) {
		var code int
		_, _ = fmt.Sscan(r.PathValue("code"), &code)
		rw.WriteHeader(code)
	})
	w.Server = httptest.NewServer(mux)
	t.Cleanup(w.Close)
	return w
}

// cutWriter breaks the connection after so many bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestURL(t *testing.T) {
	content, sum := contentOf(1_000_000, 1)
	w := newWeb(t, content)
	c := open(t, t.TempDir())
	_, done := c.mustGet(t, sum, w.URL+"/file")
	defer done()
	require.Equal(t, []string{""}, w.ranges)

	w.cut = 300_000
	c = open(t, t.TempDir())
	_, done = c.mustGet(t, sum, w.URL+"/file")
	defer done()
	require.Len(t, w.ranges, 5)
	require.Equal(t, []string{"bytes=300000-", "bytes=600000-", "bytes=900000-"}, w.ranges[2:])

	// A server that knows no ranges: it begins again.
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, sum+partSuffix), content[:5000], 0o600))
	w.cut = 0
	_, done = open(t, dir).mustGet(t, sum, w.URL+"/whole")
	defer done()

	_, done = open(t, t.TempDir()).mustGet(t, sum, w.URL+"/hop/5")
	defer done()
	err := open(t, t.TempDir()).failedGet(t, sum, w.URL+"/hop/6")
	require.ErrorContains(t, err, "redirects more than 5 times")
}

func TestURLThatFails(t *testing.T) {
	content, sum := contentOf(100_000, 1)
	_, other := contentOf(100_000, 2)
	w := newWeb(t, content)
	dir := t.TempDir()
	c := open(t, dir, func(cfg *Config) { cfg.MaxArtifact = 100_000 })
	for name, test := range map[string]struct{ sum, url, says string }{
		"not there":        {sum, w.URL + "/nothing", w.URL + "/nothing answers 404 Not Found"},
		"forbidden":        {sum, strings.Replace(w.URL, "://", "://you:hunter2@", 1) + "/secret?key=k3y", "answers 403 Forbidden"},
		"another content":  {other, w.URL + "/file", "checksum mismatch"},
		"another scheme":   {sum, "ftp://example.com/file", "not an http or https URL"},
		"a path":           {sum, "/etc/passwd", "not an http or https URL"},
		"to a file":        {sum, w.URL + "/elsewhere", "only http and https are followed"},
		"an answer of 500": {sum, w.URL + "/status/500", "given up after 8 attempts"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := c.failedGet(t, test.sum, test.url)
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), "hunter2")
			require.NotContains(t, err.Error(), "k3y")
		})
	}
	large, largeSum := contentOf(100_001, 3)
	err := c.failedGet(t, largeSum, newWeb(t, large).URL+"/file")
	require.ErrorContains(t, err, "at most 100000 are allowed")
}

func TestURLWithSecrets(t *testing.T) {
	content, sum := contentOf(1000, 1)
	w := newWeb(t, content)
	w.cut = 400
	var log bytes.Buffer
	c := open(t, t.TempDir(), func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	_, done := c.mustGet(t, sum, strings.Replace(w.URL, "://", "://me:hunter2@", 1)+"/secret?key=k3y")
	defer done()
	c.Close()
	require.Contains(t, log.String(), "fetched further")
	require.NotContains(t, log.String(), "hunter2")
	require.NotContains(t, log.String(), "k3y")

	// A path may be a secret, too.
	var asked atomic.Int32
	busy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(busy.Close)
	log.Reset()
	c = open(t, t.TempDir(), func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	_, done = c.mustGet(t, sum, busy.URL+"/t0ken/file")
	defer done()
	c.Close()
	require.Contains(t, log.String(), busy.URL+" answers 503")
	require.NotContains(t, log.String(), "t0ken")
}

// A certificate that is not trusted is no reason to try again.
func TestURLWithWrongCertificate(t *testing.T) {
	_, sum := contentOf(1000, 1)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	err := open(t, t.TempDir()).failedGet(t, sum, server.URL)
	require.ErrorContains(t, err, "certificate")
	require.NotContains(t, err.Error(), "attempts")
}

// The one who waits for another place is not told of the trouble at the first one.
func TestTwoPlaces(t *testing.T) {
	content, sum := contentOf(1000, 1)
	good := newWeb(t, content)
	asked, answer := make(chan struct{}), make(chan struct{})
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-answer
		w.WriteHeader(http.StatusGone)
	}))
	defer bad.Close()
	c := open(t, t.TempDir())
	var group sync.WaitGroup
	var first, second error
	group.Go(func() { _, _, first = c.Get(t.Context(), sum, bad.URL) })
	<-asked
	group.Go(func() { _, _, second = c.Get(t.Context(), sum, good.URL+"/file") })
	require.Eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.fetches[sum] != nil && c.fetches[sum].waiting == 2
	}, patience, time.Millisecond)
	close(answer)
	group.Wait()
	require.NoError(t, second)
	if first != nil { // it may have found what the second one fetched
		require.ErrorContains(t, first, "410 Gone")
	}
}

func TestInvalid(t *testing.T) {
	c := open(t, t.TempDir())
	for _, sum := range []string{"", "abc", "../../../etc/passwd", strings.Repeat("g", 64), strings.Repeat("a", 65)} {
		require.ErrorIs(t, c.failedGet(t, sum, ""), release.ErrInvalid)
	}
	c.Close()
	_, sum := contentOf(1, 1)
	require.ErrorIs(t, c.failedGet(t, sum, ""), errClosed)
}

// Close ends who waits for a source that never comes.
func TestCloseEndsWaiting(t *testing.T) {
	c := open(t, t.TempDir())
	_, sum := contentOf(1, 1)
	result := make(chan error, 1)
	go func() {
		_, _, err := c.Get(context.Background(), sum, "")
		result <- err
	}()
	require.Eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.fetches) == 1
	}, patience, time.Millisecond)
	c.Close()
	select {
	case err := <-result:
		require.ErrorIs(t, err, errClosed)
	case <-time.After(patience):
		require.Fail(t, "it still waits")
	}
	require.Contains(t, names(t, c.cfg.Dir), sum+partSuffix)
}
