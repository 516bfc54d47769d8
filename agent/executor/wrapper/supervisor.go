package wrapper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// supervisor sees one step through on the agent's side.
type supervisor struct {
	cfg Config
	dir stepDir

	mu      sync.Mutex
	why     *executor.Cancelled
	stopped chan struct{} // closed when why is set
}

// maxAttempts bounds how often a wrapper is started that ends without a result.
const maxAttempts = 5

// stop is for any moment after Start: the note is there before a wrapper could miss it, and one that waits for its turn never begins.
func (s *supervisor) stop(why *executor.Cancelled) {
	s.mu.Lock()
	first := s.why == nil
	if first {
		s.why = why
		close(s.stopped)
	}
	s.mu.Unlock()
	if !s.dir.has(planFile) {
		return // there is no such step any more
	}
	if err := s.dir.requestCancel(why.Reason); err != nil {
		s.cfg.Logger.Error("step could not be cancelled", "dir", string(s.dir), "error", err)
	}
}

// cancelled gives why the step is to stop, nil if it is not.
func (s *supervisor) cancelled() *executor.Cancelled {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil {
		return s.why
	}
	if reason, ok := s.dir.cancelRequested(); ok { // in an earlier life of the agent
		return &executor.Cancelled{Reason: reason}
	}
	return nil
}

// run is called by one Wait, or several.
func (s *supervisor) run(ctx context.Context, step *executor.Step) *quicflowv1.StepResult {
	poll := time.NewTicker(s.cfg.Poll)
	defer poll.Stop()
	wake := func() {
		if step.Log != nil {
			step.Log.Wake()
		}
	}
	for attempts := 0; ctx.Err() == nil; {
		lock, err := s.dir.tryLock()
		if err != nil {
			return executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "cannot look after the step: "+err.Error())
		}
		if lock == nil {
			select {
			case <-poll.C:
				wake()
			case <-ctx.Done():
			}
			continue
		}
		// No wrapper lives, and none can begin while the lock is held here.
		result, err := s.judge(attempts)
		if result == nil && err == nil {
			result, err = s.prepare(ctx, wake)
		}
		lock.release()
		if err != nil {
			return executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "cannot look after the step: "+err.Error())
		}
		if result != nil {
			return result
		}
		if ctx.Err() != nil {
			return nil
		}
		attempts++
		if err := s.wrap(ctx, wake); err != nil {
			s.cfg.Logger.Warn("step wrapper failed", "dir", string(s.dir), "error", err)
		}
	}
	return nil
}

// judge gives the result of a step that has no wrapper, nil if one is to be started.
func (s *supervisor) judge(attempts int) (*quicflowv1.StepResult, error) {
	result, err := s.dir.readResult(resultFile)
	switch {
	case err == nil:
		return result, nil
	case !errors.Is(err, os.ErrNotExist):
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "cannot read the step's result: "+err.Error()), nil
	}
	s.dir.killLeftovers()
	_ = os.Remove(s.dir.path(pidFile)) // a dead wrapper's; its id may be another's by now
	begun := s.dir.has(startedFile)
	why := s.cancelled()
	if attempts < maxAttempts && (why == nil || begun) {
		return nil, nil
	}
	if begun {
		return s.conclude(executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "the step's wrapper ended again and again: "+s.dir.wrapperOutput()))
	}
	if why != nil {
		return s.conclude(executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, executor.BeforeTheStart(why)))
	}
	return s.conclude(executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, "the step's wrapper failed to start: "+s.dir.wrapperOutput()))
}

// conclude makes a result, that no wrapper gave, the step's. The lock is held.
func (s *supervisor) conclude(result *quicflowv1.StepResult) (*quicflowv1.StepResult, error) {
	result.StartedUnixMs = s.dir.startedAt()
	var err error
	if result.LogEnd, err = spool.End(s.dir.path(spoolFile)); err != nil {
		s.cfg.Logger.Error("log of step is not complete", "dir", string(s.dir), "error", err)
	}
	return result, s.dir.writeResult(resultFile, result)
}

// prepare brings the artifacts of a step that has not begun into its directory. It gives a result if that failed. The time it takes
// is the step's. The lock is held.
func (s *supervisor) prepare(ctx context.Context, wake func()) (*quicflowv1.StepResult, error) {
	if s.dir.has(startedFile) {
		return nil, nil
	}
	p, err := s.dir.readPlan()
	if err != nil {
		return nil, nil //nolint:nilerr // the wrapper says what is wrong
	}
	artifacts := s.artifacts(p.Step)
	if len(artifacts) == 0 {
		return nil, nil
	}
	if !s.dir.has(fetchingFile) {
		if time.Now().After(p.Step.NotAfter) {
			return nil, nil
		}
		if _, err := s.dir.mark(fetchingFile, nowText()); err != nil {
			return nil, err
		}
	}
	left := max(p.timeout()-time.Since(s.dir.timeIn(fetchingFile)), 0)
	fetching, cancel := context.WithTimeoutCause(ctx, left, &executor.TimedOut{After: p.timeout()})
	defer cancel()
	fetching, give := context.WithCancelCause(fetching)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer give(nil)
	watcher.Go(func() {
		select {
		case <-fetching.Done():
		case <-s.stopped:
			give(s.cancelled())
		}
	})
	log := spool.NewWriter(spool.Config{Path: s.dir.path(spoolFile), Wake: wake})
	defer log.Close()
	err = s.fetch(fetching, artifacts, log)
	if _, err := log.End(); err != nil {
		return nil, err
	}
	if err == nil || ctx.Err() != nil {
		return nil, nil
	}
	result := executor.EndedWith(quicflowv1.Outcome_OUTCOME_FAILED, err.Error())
	var cancelled *executor.Cancelled
	switch {
	case errors.As(err, &cancelled):
		result = executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, executor.BeforeTheStart(cancelled))
	case errors.As(err, new(*executor.TimedOut)):
		result.TimedOut, result.Error = true, "the artifacts did not come in time: "+err.Error()
	}
	for _, written := range []func(string) string{nil, inURL} { // a URL may have one in it
		result.Error = hideSecrets(p.Step.Secrets, written).Replace(result.Error)
	}
	if result.Outcome == quicflowv1.Outcome_OUTCOME_FAILED {
		log.Printf("%s", result.Error)
	}
	_ = log.Close()
	return s.conclude(result)
}

// artifacts are those that are to be fetched for a step. They are never written down: a URL may have a secret in it.
func (s *supervisor) artifacts(step *executor.Step) []release.Artifact {
	user, ok := s.cfg.Worker.(executor.ArtifactUser)
	if !ok || s.cfg.Fetcher == nil || step.Command != nil {
		return nil
	}
	expanded, err := step.Expanded()
	if err != nil {
		return nil // the wrapper says what is wrong
	}
	return user.Artifacts(expanded)
}

// fetch leaves the artifacts in the step's directory: they stay there whatever becomes of the cache.
func (s *supervisor) fetch(ctx context.Context, artifacts []release.Artifact, log *spool.Writer) error {
	for _, artifact := range artifacts {
		own := s.dir.artifact(artifact.SHA256)
		if s.dir.has(filepath.Base(own)) {
			continue
		}
		log.Printf("artifact %s is fetched", artifact.Name)
		path, done, err := s.cfg.Fetcher.Get(ctx, artifact.SHA256, artifact.URL)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && errors.Is(err, cause) {
				return err
			}
			return fmt.Errorf("artifact %s: %w", artifact.Name, err)
		}
		err = takeOver(path, own)
		done()
		if err != nil {
			return fmt.Errorf("artifact %s: %w", artifact.Name, err)
		}
	}
	return nil
}

// takeOver links a file, or copies it where it cannot be linked.
func takeOver(from, to string) error {
	if err := os.Link(from, to); err == nil || errors.Is(err, os.ErrExist) {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to+"~", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(to+"~", to)
}
