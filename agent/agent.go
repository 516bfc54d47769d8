package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/agent/journal"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	lockFile     = "lock" // in the data directory
	lockAttempts = 20
	lockPause    = 50 * time.Millisecond
)

// Agent is one identity on one host. Join and Run may be called one at a time, SendMessage at any time.
type Agent struct {
	cfg     Config
	journal *journal.Journal
	steps   *steps

	started  time.Time     // of Run
	sessions atomic.Uint64 // tried

	factsWanted chan struct{} // someone asks for a look at the facts

	mu        sync.Mutex
	identity  *identity
	session   *session // the accepted one, if there is one
	facts     *quicflowv1.Facts
	alternate string // where a draining hub told us to go
}

// ErrStopping is the cause of contexts that end because the agent stops.
var ErrStopping = errors.New("agent is stopping")

// ErrRestarting is what ends Run without a goodbye, as the cause of its context: the agent is back in a moment, and counts as
// reconnecting until then.
var ErrRestarting = errors.New("agent is restarting")

// New checks the configuration. Nothing is opened or started before Join or Run.
func New(cfg Config) (*Agent, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Agent{cfg: cfg, factsWanted: make(chan struct{}, 1)}, nil
}

// Joined says whether the data directory holds an identity.
func (a *Agent) Joined() bool {
	if a.cfg.Identity != nil {
		return true
	}
	_, err := os.Stat(filepath.Join(a.cfg.DataDir, identityDir, certificateFile))
	return err == nil
}

// Join gets an identity by the token; it replaces the one there is. Without a token it is enough that there is one. It
// tries again until ctx ends or the server says no.
func (a *Agent) Join(ctx context.Context) error {
	unlock, err := a.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if a.cfg.Token == "" || a.cfg.Identity != nil {
		return a.ensureIdentity(ctx)
	}
	return a.join(ctx)
}

// Run joins if there is no identity yet, and then keeps a session with a hub until ctx ends, which gives nil. Steps that
// run under a wrapper go on after that, and the next Run finds them.
func (a *Agent) Run(ctx context.Context) (err error) {
	unlock, err := a.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := a.ensureIdentity(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	a.journal, err = journal.Open(journal.Config{
		Path: filepath.Join(a.cfg.DataDir, "journal.db"), MaxEntries: a.cfg.MaxJournal, MaxRemembered: a.cfg.MaxRemembered, NoSync: a.cfg.NoSync,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.journal.Close()) }()
	a.started = time.Now()
	a.steps = newSteps(a.cfg, a.journal, a.commands())
	if err := a.steps.start(); err != nil {
		return err
	}
	defer a.steps.stop()
	if a.cfg.Artifacts != nil {
		defer a.cfg.Artifacts.Attach(newArtifactSource(a))()
	}

	beside, cancel := context.WithCancelCause(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel(ErrStopping)
	looked := make(chan struct{})
	group.Go(func() { a.keepFacts(beside, looked) })
	timer := time.NewTimer(factsWait)
	defer timer.Stop()
	select {
	case <-looked:
	case <-timer.C: // a disk that hangs must not keep the agent from its work
		a.cfg.Logger.Warn("facts of the host are not known yet")
	case <-ctx.Done():
	}
	if a.cfg.Identity == nil {
		group.Go(func() { a.keepRenewing(beside) })
	}
	return a.keepConnected(ctx)
}

// keepConnected dials the servers in turn until ctx ends.
func (a *Agent) keepConnected(ctx context.Context) error {
	backoff := newBackoff(a.cfg.Backoff)
	for turn := 0; ; turn++ {
		server := a.nextServer(turn)
		accepted, err := a.connect(ctx, server)
		if ctx.Err() != nil {
			return nil
		}
		if accepted {
			backoff.reset()
			a.cfg.Logger.Info("session ended", "server", server, "reason", err)
		} else {
			a.cfg.Logger.Warn("could not connect", "server", server, "error", err)
		}
		if limit := a.cfg.MaxRetries; limit > 0 && backoff.attempts >= limit {
			return release.Unavailable(err, "gave up after %d attempts to connect: %v", limit, err)
		}
		if !sleep(ctx, backoff.after(err)) {
			return nil
		}
	}
}

// nextServer is the one that a draining hub named, once, or else the next in the list.
func (a *Agent) nextServer(turn int) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if server := a.alternate; server != "" {
		a.alternate = ""
		return server
	}
	return a.cfg.Servers[turn%len(a.cfg.Servers)]
}

// lock keeps a second agent out of the data directory.
func (a *Agent) lock() (unlock func(), err error) {
	if err := pki.PrivateDir(a.cfg.DataDir, lockFile); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(a.cfg.DataDir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	// A child that an agent was starting when it was killed holds its lock for a moment longer.
	for attempt := 0; attempt < lockAttempts && errors.Is(err, syscall.EWOULDBLOCK); attempt++ {
		<-time.After(lockPause) // nobody tells when a lock is given back
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, release.Conflict("another agent uses the data directory %s", a.cfg.DataDir)
		}
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	// Whoever wants to signal the agent finds it by the file.
	if err := errors.Join(file.Truncate(0), writeAt(file, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	return func() {
		// Unlocked explicitly: a process that is being forked at this moment has the file open too.
		_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
		_ = file.Close()
	}, nil
}

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}

// Running gives the process id of the agent that uses a data directory, 0 if none does.
func Running(dataDir string) (int, error) {
	file, err := os.Open(filepath.Join(dataDir, lockFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("find running agent: %w", err)
	}
	defer file.Close()
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if err == nil {
		return 0, nil
	}
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return 0, fmt.Errorf("find running agent: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(file, 32))
	if err != nil {
		return 0, fmt.Errorf("find running agent: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("find running agent: %s holds no process id", file.Name())
	}
	return pid, nil
}

// sleep waits, and reports false if ctx ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
