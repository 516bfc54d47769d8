package agent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/artifacts"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/artifact"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// noIndex is for a store of artifacts of which nothing is asked but its contents.
type noIndex struct{ artifact.Index }

func (noIndex) PutArtifact(context.Context, *release.StoredArtifact) error { return nil }
func (noIndex) UseArtifact(context.Context, string) error                  { return nil }

// depot is a real store of artifacts that a test looks over the shoulder of.
type depot struct {
	*artifact.Store
	t   testing.TB
	dir string

	mu      sync.Mutex
	offsets []int64       // that were asked for
	stop    int64         // reading stands still at this offset, unless it is 0
	stands  chan struct{} // closed when it does
	goOn    chan struct{}
	broken  bool
}

func newDepot(t testing.TB) *depot {
	t.Helper()
	dir := t.TempDir()
	store, err := artifact.Open(artifact.Config{Dir: dir, Index: noIndex{}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return &depot{Store: store, t: t, dir: dir}
}

func (d *depot) use(c *hub.Config) { c.Artifacts = d }

// put keeps so many random bytes, and gives their sum.
func (d *depot) put(size int64, seed byte) string {
	d.t.Helper()
	content := io.LimitReader(rand.NewChaCha8([32]byte{seed}), size)
	a, err := d.Put(d.t.Context(), artifact.Upload{}, content)
	require.NoError(d.t, err)
	require.Equal(d.t, size, a.Size)
	return a.SHA256
}

func (d *depot) path(sum string) string { return filepath.Join(d.dir, sum[:2], sum[2:]) }

// standAt makes the next reading stand still at an offset, until goOn is closed.
func (d *depot) standAt(offset int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop, d.stands, d.goOn = offset, make(chan struct{}), make(chan struct{})
}

// Asked gives the offsets that were asked for.
func (d *depot) asked() []int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.offsets)
}

// OpenArtifact implements hub.Artifacts.
func (d *depot) OpenArtifact(ctx context.Context, sum string, offset int64) (io.ReadCloser, int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.offsets = append(d.offsets, offset)
	if d.broken {
		return nil, 0, errors.New("the disk is on fire")
	}
	content, size, err := d.Store.OpenArtifact(ctx, sum, offset)
	if err != nil || d.stop == 0 {
		return content, size, err
	}
	gate := &gatedContent{ReadCloser: content, left: d.stop - offset, stands: d.stands, goOn: d.goOn}
	d.stop = 0
	return gate, size, nil
}

type gatedContent struct {
	io.ReadCloser
	left         int64
	stands, goOn chan struct{}
}

func (g *gatedContent) Read(p []byte) (int, error) {
	if g.left <= 0 && g.stands != nil {
		close(g.stands)
		g.stands = nil
		<-g.goOn
	}
	n, err := g.ReadCloser.Read(p)
	g.left -= int64(n)
	return n, err
}

// cached is the configuration of an agent with a cache of artifacts.
func (w *world) cached(id string) (agent.Config, *artifacts.Cache) {
	w.t.Helper()
	cfg := w.config(id)
	cfg.Artifacts = newCache(w.t, filepath.Join(cfg.DataDir, "artifacts"))
	return cfg, cfg.Artifacts
}

func newCache(t testing.TB, dir string) *artifacts.Cache {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(dir), 0o700))
	c, err := artifacts.New(artifacts.Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// got is what Get gave.
type got struct {
	path string
	err  error
}

func get(c *artifacts.Cache, sum string) <-chan got {
	result := make(chan got, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		defer cancel()
		path, release, err := c.Get(ctx, sum, "")
		if err == nil {
			defer release()
		}
		result <- got{path, err}
	}()
	return result
}

func awaitArtifact(t testing.TB, result <-chan got, sum string) {
	t.Helper()
	g := receive(t, result)
	require.NoError(t, g.err)
	requireSum(t, sum, g.path)
}

func receive[T any](t testing.TB, c <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-c:
	case <-time.After(2 * patience):
		require.Fail(t, "it takes too long")
	}
	return value
}

func requireSum(t testing.TB, sum, path string) {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	h := sha256.New()
	_, err = io.Copy(h, file)
	require.NoError(t, err)
	require.Equal(t, sum, hex.EncodeToString(h.Sum(nil)))
}

func TestArtifactFromTheHub(t *testing.T) {
	t.Parallel()
	depot := newDepot(t)
	w := newWorld(t, depot.use)
	cfg, cache := w.cached("a")
	large, small, empty := depot.put(9_000_000, 1), depot.put(3, 2), depot.put(0, 3)

	early := get(cache, small) // before there is an agent
	w.connect(cfg)
	awaitArtifact(t, early, small)

	// All who want the same wait for one transfer.
	var all []<-chan got
	for range 8 {
		all = append(all, get(cache, large))
	}
	for _, result := range all {
		awaitArtifact(t, result, large)
	}
	awaitArtifact(t, get(cache, empty), empty)
	awaitArtifact(t, get(cache, large), large)
	require.Equal(t, []int64{0, 0}, depot.asked(), "each came once; what is empty does not have to come")
}

func TestArtifactGoesOnAfterTheConnectionIsLost(t *testing.T) {
	t.Parallel()
	depot := newDepot(t)
	w := newWorld(t, depot.use)
	cfg, cache := w.cached("a")
	sum := depot.put(20<<20, 1)
	w.connect(cfg)
	depot.standAt(8 << 20)
	result := get(cache, sum)
	receive(t, depot.stands)
	w.hub.Disconnect("a")
	close(depot.goOn)
	awaitArtifact(t, result, sum)
	requireResumed(t, depot)
}

func requireResumed(t *testing.T, d *depot) {
	t.Helper()
	asked := d.asked()
	require.Greater(t, len(asked), 1)
	require.Zero(t, asked[0])
	require.Greater(t, asked[len(asked)-1], int64(1<<20), "it began again")
}

func TestArtifactGoesOnAfterTheServerIsBack(t *testing.T) {
	t.Parallel()
	depot := newDepot(t)
	w := newWorld(t, depot.use)
	cfg, cache := w.cached("a")
	sum := depot.put(20<<20, 1)
	w.connect(cfg)
	depot.standAt(8 << 20)
	result := get(cache, sum)
	receive(t, depot.stands)
	close(depot.goOn)
	w.stopHub()
	w.startHub()
	awaitArtifact(t, result, sum)
	requireResumed(t, depot)
}

// artifactProcess turns the test's binary into an agent that gets one artifact, and says so.
const artifactProcess = "QUICFLOW_TEST_ARTIFACT_AGENT"

type artifactOrder struct{ Server, DataDir, Token, SHA256 string }

func init() {
	if text := os.Getenv(artifactProcess); text != "" {
		var o artifactOrder
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			panic(err)
		}
		os.Exit(o.run())
	}
}

func (o artifactOrder) run() int {
	cache, err := artifacts.New(artifacts.Config{Dir: filepath.Join(o.DataDir, "artifacts")})
	if err != nil {
		panic(err)
	}
	a, err := agent.New(agent.Config{Servers: []string{o.Server}, ClientID: "a", DataDir: o.DataDir, Token: o.Token, Artifacts: cache,
		Backoff: agent.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond}})
	if err != nil {
		panic(err)
	}
	go func() { _ = a.Run(context.Background()) }()
	path, _, err := cache.Get(context.Background(), o.SHA256, "")
	fmt.Println(path, err)
	if err != nil {
		return 1
	}
	return 0
}

func (o artifactOrder) start(t *testing.T) *exec.Cmd {
	program, err := os.Executable()
	require.NoError(t, err)
	text, err := json.Marshal(o)
	require.NoError(t, err)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), artifactProcess+"="+string(text))
	cmd.Stderr = testWriter{t}
	cmd.WaitDelay = time.Second
	require.NoError(t, cmd.Start())
	return cmd
}

func TestArtifactGoesOnAfterTheAgentWasKilled(t *testing.T) {
	t.Parallel()
	depot := newDepot(t)
	w := newWorld(t, depot.use)
	sum := depot.put(20<<20, 1)
	order := artifactOrder{Server: w.addr, DataDir: filepath.Join(t.TempDir(), "data"), Token: w.token(nil), SHA256: sum}
	depot.standAt(8 << 20)
	cmd := order.start(t)
	receive(t, depot.stands)
	part := filepath.Join(order.DataDir, "artifacts", sum+".part")
	w.eventually(func() bool {
		info, err := os.Stat(part)
		return err == nil && info.Size() > 4<<20
	}, "some of it is written")
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	close(depot.goOn)
	require.NoFileExists(t, filepath.Join(order.DataDir, "artifacts", sum))

	cmd = order.start(t)
	require.NoError(t, cmd.Wait())
	requireSum(t, sum, filepath.Join(order.DataDir, "artifacts", sum))
	require.NoFileExists(t, part)
	requireResumed(t, depot)
}

func TestArtifactThatTheServerHasNot(t *testing.T) {
	t.Parallel()
	depot := newDepot(t)
	w := newWorld(t, depot.use)
	cfg, cache := w.cached("a")
	w.connect(cfg)
	sum := depot.put(1000, 1)
	require.NoError(t, os.Remove(depot.path(sum)))
	g := receive(t, get(cache, sum))
	require.ErrorIs(t, g.err, artifacts.ErrMissing)
	require.NotContains(t, g.err.Error(), "\n")

	// It is asked for by its sum alone, never by a path.
	for _, name := range []string{"../../etc/passwd", "", sum[:63], sum + "0"} {
		g := receive(t, get(cache, name))
		require.ErrorIs(t, g.err, release.ErrInvalid)
	}
}

func TestArtifactDamagedOnTheServer(t *testing.T) {
	t.Parallel()
	depot := newDepot(t)
	w := newWorld(t, depot.use)
	cfg, cache := w.cached("a")
	w.connect(cfg)
	sum := depot.put(3<<20, 1)
	content, err := os.ReadFile(depot.path(sum))
	require.NoError(t, err)
	for name, damaged := range map[string][]byte{
		"a bit":      append(slices.Clone(content[:1000]), append([]byte{content[1000] ^ 1}, content[1001:]...)...),
		"too long":   append(slices.Clone(content), 1),
		"cut off":    content[:1<<20],
		"is nothing": {},
	} {
		require.NoError(t, os.WriteFile(depot.path(sum), damaged, 0o600))
		g := receive(t, get(cache, sum))
		require.ErrorIs(t, g.err, artifacts.ErrChecksum, name)
		require.NotContains(t, g.err.Error(), "\n")
	}
	left, err := os.ReadDir(filepath.Join(cfg.DataDir, "artifacts"))
	require.NoError(t, err)
	require.Empty(t, left)

	// Uploaded once more, it is whole again.
	_, err = depot.Put(t.Context(), artifact.Upload{SHA256: sum}, bytes.NewReader(content))
	require.NoError(t, err)
	awaitArtifact(t, get(cache, sum), sum)
}

// What is there of an artifact may be wrong: then it begins again, once.
func TestArtifactWhosePartIsDamaged(t *testing.T) {
	t.Parallel()
	depot := newDepot(t)
	w := newWorld(t, depot.use)
	sum := depot.put(3<<20, 1)
	for name, part := range map[string][]byte{"wrong": make([]byte, 1<<20), "longer than the artifact": make([]byte, 5<<20)} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "artifacts")
			require.NoError(t, os.Mkdir(dir, 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, sum+".part"), part, 0o600))
			cache := newCache(t, dir)
			cfg := w.config("a-" + name[:5])
			cfg.Artifacts = cache
			w.connect(cfg)
			awaitArtifact(t, get(cache, sum), sum)
		})
	}
}

// A server that cannot read its artifacts does not keep an agent for ever.
func TestArtifactThatCannotBeRead(t *testing.T) {
	t.Parallel()
	depot := newDepot(t)
	w := newWorld(t, depot.use)
	cfg, cache := w.cached("a")
	w.connect(cfg)
	sum := depot.put(1000, 1)
	depot.mu.Lock()
	depot.broken = true
	depot.mu.Unlock()
	g := receive(t, get(cache, sum))
	require.ErrorContains(t, g.err, "given up after")
	require.ErrorContains(t, g.err, "its log says why")
	require.Equal(t, release.ClientOnline, w.hub.Presence("a").Status)
}

// A storage that fails now and then, at the first byte too, is asked again.
func TestArtifactOfAStorageThatFailsNowAndThen(t *testing.T) {
	t.Parallel()
	depot := newDepot(t)
	failing := &failingDepot{depot: depot, fails: 6}
	w := newWorld(t, func(c *hub.Config) { c.Artifacts = failing })
	cfg, cache := w.cached("a")
	w.connect(cfg)
	sum := depot.put(9<<20, 1)
	awaitArtifact(t, get(cache, sum), sum)
	require.Zero(t, failing.fails)
}

// failingDepot fails some times: at once, or after some bytes.
type failingDepot struct {
	*depot
	mu    sync.Mutex
	fails int
}

// OpenArtifact implements hub.Artifacts.
func (f *failingDepot) OpenArtifact(ctx context.Context, sum string, offset int64) (io.ReadCloser, int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	content, size, err := f.depot.OpenArtifact(ctx, sum, offset)
	if err != nil || f.fails == 0 {
		return content, size, err
	}
	f.fails--
	good := int64(f.fails%2) << 20
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(content, good), badSector{}), content}, size, nil
}

type badSector struct{}

func (badSector) Read([]byte) (int, error) { return 0, errors.New("bad sector") }

func TestArtifactOfAHubWithoutAny(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, cache := w.cached("a")
	w.connect(cfg)
	g := receive(t, get(cache, hex.EncodeToString(make([]byte, 32))))
	require.ErrorIs(t, g.err, artifacts.ErrMissing)
}

// Who does not wait any more does not hold up the hub: the transfer ends.
func TestArtifactThatNobodyWaitsForAnyMore(t *testing.T) {
	t.Parallel()
	depot := newDepot(t)
	w := newWorld(t, depot.use, func(c *hub.Config) { c.MaxTransfers = 1 })
	cfg, cache := w.cached("a")
	w.connect(cfg)
	sum, other := depot.put(30<<20, 1), depot.put(1<<20, 2)
	depot.standAt(4 << 20)
	ctx, cancel := context.WithCancelCause(t.Context())
	result := make(chan error, 1)
	go func() {
		_, _, err := cache.Get(ctx, sum, "")
		result <- err
	}()
	receive(t, depot.stands)
	gone := errors.New("gone")
	cancel(gone)
	require.ErrorIs(t, receive(t, result), gone)
	close(depot.goOn)
	awaitArtifact(t, get(cache, other), other)
	awaitArtifact(t, get(cache, sum), sum)
	requireResumed(t, depot)
}

// Twenty agents at a time: every one gets it, the memory stays flat, and what else the connections carry comes through.
func TestArtifactForManyAgents(t *testing.T) {
	const agents = 20
	size := int64(50 << 20)
	if raceDetector { // which takes 80 s of CPU time for the whole; this much is still twice what the memory may grow by
		size = 20 << 20
	}
	depot := newDepot(t)
	var lost atomic.Int64
	w := newWorld(t, depot.use, func(c *hub.Config) {
		c.HeartbeatInterval, c.HeartbeatTimeout, c.HeartbeatCheckInterval = 500*time.Millisecond, 5*time.Second, time.Second
		c.Hooks.OnDisconnect = func(hub.Event, error) { lost.Add(1) }
	})
	sum := depot.put(size, 1)
	var results []<-chan got
	var caches []*artifacts.Cache
	for i := range agents {
		cfg, cache := w.cached(fmt.Sprintf("a%02d", i))
		cfg.Logger = slog.New(slog.DiscardHandler)
		w.connect(cfg)
		caches = append(caches, cache)
	}
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	for _, cache := range caches {
		results = append(results, get(cache, sum))
	}
	done := make(chan struct{})
	var times []time.Duration
	var most uint64
	var group sync.WaitGroup
	group.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			asked := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			_, err := w.hub.Request(ctx, fmt.Sprintf("a%02d", i%agents), &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: "ping"}}})
			cancel()
			if err != nil {
				t.Errorf("a request is not answered: %v", err)
				return
			}
			times = append(times, time.Since(asked))
			if i%20 == 0 {
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc)
			}
		}
	})
	for _, result := range results {
		awaitArtifact(t, result, sum)
	}
	took := time.Since(began)
	close(done)
	group.Wait()
	slices.Sort(times)
	p99 := times[len(times)*99/100]
	t.Logf("%d × %d MiB in %s; %d requests meanwhile, p50 %s, p99 %s; heap %d MiB before, at most %d MiB", agents, size>>20, took.Round(time.Millisecond),
		len(times), times[len(times)/2], p99, before.HeapAlloc>>20, most>>20)
	require.Zero(t, lost.Load(), "sessions were lost")
	require.Greater(t, len(times), 20)
	require.Less(t, p99, 2*time.Second)
	// Both ends are in this process: 2 MiB on their way for each agent, on either side, and what waits for the collector.
	require.Less(t, most, before.HeapAlloc+200<<20, "of %d MiB that went by", agents*size>>20)
}
