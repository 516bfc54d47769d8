// Package wrapper makes an executor.Executor of an executor.Worker: it runs a step's Work in a process of its own, so that an agent
// may die, come back and find its steps going on, or ended.
//
// The process is a wrapper, a mode of the program's own binary (see MaybeRun), in a session of its own. It owns the pipes of the
// scripts and programs that Work runs, writes the spool and leaves the result in a file. Whatever dies at whatever moment, a script
// never runs twice: whether one has started is decided by the creation of one file, which succeeds only once. Where a wrapper died,
// another one calls Work again, and that finds out what has been done.
package wrapper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Config says whose steps an Executor carries out, and how.
type Config struct {
	// Worker does the work. Required; the program gave one of its type to MaybeRun.
	Worker executor.Worker
	// Fetcher gets the artifacts of the Worker's steps. Defaults to nil: those that are in the agent's cache can be used.
	Fetcher executor.Fetcher
	// KillGrace is how long a script that is stopped has between SIGTERM and SIGKILL. Defaults to 5s.
	KillGrace time.Duration
	// Poll is how often a wrapper is looked at that another run of the agent started. Defaults to 100ms.
	Poll time.Duration
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Executor runs a Worker's steps under wrappers. It owns no goroutine: what it does in the agent's process is done in Wait.
type Executor struct {
	cfg Config

	mu   sync.Mutex
	runs map[stepDir]*supervisor
}

// New makes an executor. The program must have called MaybeRun.
func New(cfg Config) (*Executor, error) {
	switch {
	case cfg.Worker == nil:
		return nil, errors.New("wrapper.Config.Worker is nil")
	case workerOf(cfg.Worker.Type()) == nil:
		return nil, fmt.Errorf("wrapper.MaybeRun was not called with the worker for %s at the beginning of main", cfg.Worker.Type())
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
	return &Executor{cfg: cfg, runs: map[stepDir]*supervisor{}}, nil
}

// Type is the Worker's.
func (e *Executor) Type() release.Type { return e.cfg.Worker.Type() }

// Probe is the Worker's.
func (e *Executor) Probe(ctx context.Context) (executor.Capability, error) {
	return e.cfg.Worker.Probe(ctx)
}

// Logs is the Worker's.
func (e *Executor) Logs(ctx context.Context, what executor.Deployed, options executor.LogOptions, out io.Writer) error {
	return e.cfg.Worker.Logs(ctx, what, options, out)
}

// Describe is the Worker's.
func (e *Executor) Describe(ctx context.Context, what executor.Deployed) (executor.Running, error) {
	return e.cfg.Worker.Describe(ctx, what)
}

// CommandTypes lists the commands that the Worker carries out.
func (e *Executor) CommandTypes() []string {
	if c, ok := e.cfg.Worker.(executor.Commander); ok {
		return c.CommandTypes()
	}
	return nil
}

// CheckCommand says what is wrong with a command.
func (e *Executor) CheckCommand(command *quicflowv1.CommandStep) error {
	if c, ok := e.cfg.Worker.(executor.Commander); ok && slices.Contains(c.CommandTypes(), command.GetType()) {
		return c.CheckCommand(command)
	}
	return executor.ErrUnsupported
}

// Start checks the step and makes its plan durable; Wait does the rest.
func (e *Executor) Start(_ context.Context, step *executor.Step) error {
	dir := stepDir(step.Dir)
	if dir.has(planFile) {
		return fmt.Errorf("step %s was started before", step.ID)
	}
	if err := e.check(step); err != nil {
		return err
	}
	p, err := newPlan(e.Type(), step, e.cfg.KillGrace)
	if err != nil {
		return err
	}
	if kept, err := executor.ReadSecrets(step.Dir); err != nil {
		return err
	} else if !maps.Equal(kept, step.Secrets) { // as a rule the agent has kept them
		if err := executor.KeepSecrets(step.Dir, step.Secrets); err != nil {
			return err
		}
	}
	if err := dir.create(p); err != nil {
		return errors.Join(err, os.Remove(dir.path(planFile)))
	}
	e.supervise(step)
	return nil
}

// check says what is wrong with a step.
func (e *Executor) check(step *executor.Step) error {
	if step.Command != nil {
		return e.CheckCommand(step.Command)
	}
	if step.Config.Type != e.Type() {
		return release.Invalid("type", "it is %q, not %q", step.Config.Type, e.Type())
	}
	expanded, err := step.Expanded()
	if err != nil {
		return err
	}
	return e.cfg.Worker.Check(expanded)
}

// Recover says Ended or GoesOn for every step that has a plan: what became of it, its Worker finds out if its wrapper is dead.
func (e *Executor) Recover(_ context.Context, step *executor.Step) (executor.State, error) {
	dir := stepDir(step.Dir)
	_, err := os.Stat(dir.path(planFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return executor.NotStarted, nil
	case err != nil:
		return executor.Unknown, err
	}
	e.supervise(step)
	if dir.has(resultFile) {
		return executor.Ended, nil
	}
	return executor.GoesOn, nil
}

func (e *Executor) supervise(step *executor.Step) *supervisor {
	e.mu.Lock()
	defer e.mu.Unlock()
	dir := stepDir(filepath.Clean(step.Dir))
	s := e.runs[dir]
	if s == nil {
		s = &supervisor{cfg: e.cfg, dir: dir, stopped: make(chan struct{})}
		e.runs[dir] = s
	}
	return s
}

// Wait starts a wrapper if there is none, and sees the step through.
func (e *Executor) Wait(ctx context.Context, step *executor.Step) *quicflowv1.StepResult {
	s := e.supervise(step)
	result := s.run(ctx, step)
	if result != nil {
		e.mu.Lock()
		delete(e.runs, s.dir)
		e.mu.Unlock()
	}
	return result
}

// Stop leaves a note for the wrapper, which one that starts later finds, too.
func (e *Executor) Stop(step *executor.Step, why *executor.Cancelled) {
	dir := stepDir(filepath.Clean(step.Dir))
	e.mu.Lock()
	s := e.runs[dir]
	e.mu.Unlock()
	if s == nil { // nobody waits for it
		s = &supervisor{cfg: e.cfg, dir: dir, stopped: make(chan struct{})}
	}
	s.stop(why)
}

var _ executor.RefLister = (*Executor)(nil)

// Refs is that of the Worker, if it has one.
func (e *Executor) Refs(ctx context.Context, spec *release.GitSpec) ([]release.GitRef, error) {
	lister, ok := e.cfg.Worker.(executor.RefLister)
	if !ok {
		return nil, fmt.Errorf("%w: %s projects have no repository", executor.ErrUnsupported, e.Type())
	}
	return lister.Refs(ctx, spec)
}
