// Package script carries out script steps: pre-script, script and post-script, each run by an interpreter, then a health
// check.
//
// A step runs under a wrapper, a mode of the program's own binary (see MaybeRunWrapper), in a session of its own. The
// wrapper owns the scripts' pipes, writes the spool and leaves the result in a file, so that an agent may die, come back
// and find its steps going on, or ended. Whether a step has started is decided by the creation of one file, which
// succeeds only once: whatever dies at whatever moment, its scripts never run twice.
package script

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Config says for whom an Executor works.
type Config struct {
	// ClientID is the agent's identity; scripts see it as QUICFLOW_TARGET. Required.
	ClientID string
	// DataDir is the agent's data directory, absolute. Projects without a work_dir get one below it. Required.
	DataDir string
	// Labels of the agent; scripts see each as QUICFLOW_LABEL_NAME.
	Labels map[string]string
	// KillGrace is how long a script that is stopped has between SIGTERM and SIGKILL. Defaults to 5s.
	KillGrace time.Duration
	// Poll is how often a wrapper is looked at that another run of the agent started. Defaults to 100ms.
	Poll time.Duration
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Executor runs script steps. It is safe for concurrent use; the steps' spools must lie in different directories.
type Executor struct {
	cfg Config
}

// New makes an executor. The program must have called MaybeRunWrapper.
func New(cfg Config) (*Executor, error) {
	switch {
	case !wrapperEnabled.Load():
		return nil, errors.New("script.MaybeRunWrapper was not called at the beginning of main")
	case cfg.ClientID == "":
		return nil, errors.New("script.Config.ClientID is empty")
	case !filepath.IsAbs(cfg.DataDir):
		return nil, fmt.Errorf("script.Config.DataDir %q is not an absolute path", cfg.DataDir)
	}
	if cfg.KillGrace == 0 {
		cfg.KillGrace = 5 * time.Second
	}
	if cfg.Poll == 0 {
		cfg.Poll = 100 * time.Millisecond
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Executor{cfg: cfg}, nil
}

// Run carries out a step and gives its result. The step's files are kept in the directory of log, which is the
// step's own. When ctx ends with executor.Cancelled, the step is stopped; when it ends otherwise, Run gives nil and the
// step goes on without it.
func (e *Executor) Run(ctx context.Context, step *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult {
	dir := stepDir(filepath.Dir(log.Path()))
	if !dir.has(planFile) {
		p, err := e.plan(step)
		if err == nil {
			err = dir.create(p)
		}
		if errors.Is(err, release.ErrInvalid) { // as it was not when the step was accepted
			result := executor.EndedWith(quicflowv1.Outcome_OUTCOME_FAILED, err.Error())
			result.NotStarted = true
			return result
		}
		if err != nil {
			return executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, "cannot prepare the step: "+err.Error())
		}
	}
	return (&supervisor{cfg: e.cfg, dir: dir, log: log}).run(ctx)
}

// Resume goes on with a step whose Run an earlier life of the agent did not see the end of: it attaches to the wrapper
// if that lives, gives the result if it is there, starts a step that did not start, goes on with a health check, and
// says unknown where nobody can know. Its arguments are those of Run.
func (e *Executor) Resume(ctx context.Context, step *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult {
	return e.Run(ctx, step, log)
}

// supervisor sees one step through on the agent's side.
type supervisor struct {
	cfg      Config
	dir      stepDir
	log      *spool.Writer
	attempts int
}

// maxAttempts bounds how often a wrapper is started that ends without having got anywhere.
const maxAttempts = 5

func (s *supervisor) run(ctx context.Context) *quicflowv1.StepResult {
	poll := time.NewTicker(s.cfg.Poll)
	defer poll.Stop()
	for cancelSent := false; ; {
		lock, err := s.dir.tryLock()
		if err != nil {
			return executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "cannot look after the step: "+err.Error())
		}
		if lock != nil {
			// No wrapper lives, and none can begin while the lock is held here.
			result := s.judge(ctx)
			lock.release()
			if result != nil {
				return result
			}
			if ctx.Err() != nil && executor.CancelledBy(ctx) == nil {
				return nil
			}
			if err := s.wrap(ctx); err != nil {
				s.cfg.Logger.Warn("step wrapper failed", "dir", string(s.dir), "error", err)
			}
			if ctx.Err() != nil && executor.CancelledBy(ctx) == nil {
				return nil
			}
			continue
		}
		done := ctx.Done()
		if cancelSent {
			done = nil
		}
		select {
		case <-poll.C:
			s.log.Wake()
		case <-done:
			c := executor.CancelledBy(ctx)
			if c == nil {
				return nil
			}
			s.cancel(c)
			cancelSent = true
		}
	}
}

// judge gives the result of a step that has no wrapper, nil if one is to be started.
func (s *supervisor) judge(ctx context.Context) *quicflowv1.StepResult {
	result, err := s.dir.readResult(resultFile)
	switch {
	case err == nil:
		return result
	case !errors.Is(err, os.ErrNotExist):
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "cannot read the step's result: "+err.Error())
	}
	if s.dir.has(startedFile) && !s.dir.has(scriptsDoneFile) {
		s.dir.killLeftovers()
		result := executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN,
			"the host restarted, or the step's wrapper was killed, while the scripts ran; how far they got cannot be known")
		result.StartedUnixMs = s.dir.startedAt()
		return result
	}
	_ = os.Remove(s.dir.path(pidFile)) // a dead wrapper's; its id may be another's by now
	if s.attempts++; s.attempts <= maxAttempts && (executor.CancelledBy(ctx) == nil || s.dir.has(scriptsDoneFile)) {
		return nil
	}
	if s.dir.has(scriptsDoneFile) {
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN,
			"the scripts succeeded, but the wrapper for the health check failed: "+s.dir.wrapperOutput())
	}
	if started, err := s.dir.start(); err != nil || !started {
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "the step's state cannot be kept")
	}
	if c := executor.CancelledBy(ctx); c != nil {
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, beforeTheStart(c))
	}
	return executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, "the step's wrapper failed to start: "+s.dir.wrapperOutput())
}

func beforeTheStart(c *executor.Cancelled) string { return "before the start: " + c.Error() }

// cancel leaves a note for the wrapper and wakes it. A wrapper that does not listen yet reads the note when it does.
func (s *supervisor) cancel(c *executor.Cancelled) {
	if err := s.dir.requestCancel(c.Reason); err != nil {
		s.cfg.Logger.Error("step could not be cancelled", "dir", string(s.dir), "error", err)
	}
}
