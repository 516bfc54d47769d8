package script

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/spool"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// The arguments by which a program of ours knows that it is to be a wrapper, or a drain.
const (
	wrapperMode = "script-wrapper"
	drainMode   = "script-drain"
)

// notifyFD is the wrapper's end of the pipe to the agent that started it.
const notifyFD = 3

var wrapperEnabled atomic.Bool

// MaybeRunWrapper turns the process into a step's wrapper, and does not return, if an Executor started it as one. Every
// program that uses an Executor calls it first of all in main, or in TestMain.
func MaybeRunWrapper() {
	wrapperEnabled.Store(true)
	if len(os.Args) != 3 {
		return
	}
	switch os.Args[1] {
	case wrapperMode:
		if err := runWrapper(stepDir(os.Args[2])); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case drainMode:
		drain(os.Args[2])
		os.Exit(0)
	}
}

// wrapper carries out one step, or what is left of it.
type wrapper struct {
	dir    stepDir
	plan   *plan
	log    *spool.Writer
	stdout *capture
	stderr *capture
	pipes  []*pipe    // of scripts whose children may still write
	files  []*os.File // open for the scripts
}

var errTerminated = errors.New("the step's wrapper was told to stop by SIGTERM")

func runWrapper(dir stepDir) error {
	syscall.CloseOnExec(notifyFD)
	lock, err := dir.tryLock()
	if err != nil || lock == nil {
		return err
	}
	defer lock.release()
	if dir.has(resultFile) {
		return nil
	}
	p, err := dir.readPlan()
	if err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	// SIGHUP is caught, not ignored: what is ignored here would be ignored in the scripts too.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if err := dir.writePID(); err != nil {
		return fmt.Errorf("write process id: %w", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if reason, ok := dir.cancelRequested(); ok {
		cancel(&executor.Cancelled{Reason: reason})
	}
	go func() {
		for sig := range signals {
			if sig == syscall.SIGHUP {
				continue
			}
			if reason, ok := dir.cancelRequested(); ok {
				cancel(&executor.Cancelled{Reason: reason})
			} else {
				cancel(errTerminated)
			}
		}
	}()

	w := &wrapper{dir: dir, plan: p, log: spool.NewWriter(spool.Config{Path: dir.path(spoolFile), Wake: notify})}
	w.stdout, w.stderr = newCapture(w.log, quicflowv1.Stream_STREAM_STDOUT), newCapture(w.log, quicflowv1.Stream_STREAM_STDERR)
	result, err := w.run(ctx)
	if err != nil || result == nil {
		return err
	}
	w.release()
	result.StepId = p.StepID
	result.FinishedUnixMs = time.Now().UnixMilli()
	if result.LogEnd, err = w.log.End(); err != nil {
		fmt.Fprintln(os.Stderr, "the log is not complete:", err)
	}
	return dir.writeResult(resultFile, result)
}

// notify tells the agent that the spool has grown. It must neither block nor fail: the agent may be busy, or gone.
func notify() { _, _ = syscall.Write(notifyFD, []byte{0}) }

// run gives the result, or nil if it is not for this wrapper to give.
func (w *wrapper) run(ctx context.Context) (*quicflowv1.StepResult, error) {
	result, err := w.dir.readResult(scriptsDoneFile)
	if errors.Is(err, os.ErrNotExist) {
		if result, err = w.runScripts(ctx); err != nil || result == nil || result.Outcome != quicflowv1.Outcome_OUTCOME_UNSPECIFIED {
			return result, err
		}
		// From here on, whoever comes back goes on with the health check. What the scripts wrote is made durable first,
		// so that positions that the hub knows keep their meaning.
		if _, err := w.log.End(); err != nil {
			fmt.Fprintln(os.Stderr, "the log is not complete:", err)
		}
		if err := w.dir.writeResult(scriptsDoneFile, result); err != nil {
			return nil, fmt.Errorf("note that the scripts are done: %w", err)
		}
	}
	if err != nil {
		return nil, err
	}
	result.Outcome = quicflowv1.Outcome_OUTCOME_SUCCEEDED
	if w.plan.Health != nil {
		if err := w.checkHealth(ctx); err != nil {
			return w.failed(result, -1, err), nil
		}
	}
	return result, nil
}

// runScripts gives a result without an outcome if all scripts succeeded, and nil if another wrapper ran them.
func (w *wrapper) runScripts(ctx context.Context) (*quicflowv1.StepResult, error) {
	if late := time.Since(w.plan.NotAfter); late > 0 {
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED,
			fmt.Sprintf("the step came too late: it was not to start after %s", w.plan.NotAfter.UTC().Format(time.RFC3339))), nil
	}
	if c := executor.CancelledBy(ctx); c != nil {
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, beforeTheStart(c)), nil
	}
	if first, err := w.dir.start(); err != nil || !first {
		return nil, err
	}
	result := &quicflowv1.StepResult{StartedUnixMs: time.Now().UnixMilli()}
	if w.plan.Command {
		if info, err := os.Stat(w.plan.WorkDir); err != nil || !info.IsDir() {
			result := w.failed(result, -1, fmt.Errorf("payload.work_dir: %s is not a directory of this host", w.plan.WorkDir))
			result.NotStarted, result.StartedUnixMs = true, 0
			return result, nil
		}
	} else if err := os.MkdirAll(w.plan.WorkDir, 0o755); err != nil {
		return w.failed(result, -1, fmt.Errorf("cannot make the work directory: %w", err)), nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, w.plan.Timeout, &executor.TimedOut{After: w.plan.Timeout})
	defer cancel()
	for _, s := range w.plan.Scripts {
		if !w.plan.Command {
			w.log.Printf("%s begins", s.Name)
		}
		w.stderr.begin()
		code, err := w.runScript(ctx, s)
		if err == nil && code == 0 {
			continue
		}
		if err == nil {
			err = exitError(code, w.stderr.line())
		}
		if s.Name != mainScript {
			err = fmt.Errorf("%s: %w", s.Name, err)
		}
		return w.failed(result, code, err), nil
	}
	w.ends(result)
	return result, nil
}

func exitError(code int, line string) error {
	if line == "" {
		return fmt.Errorf("exit code %d", code)
	}
	return fmt.Errorf("exit code %d: %s", code, line)
}

// failed completes the result of a step that did not succeed.
func (w *wrapper) failed(result *quicflowv1.StepResult, code int, err error) *quicflowv1.StepResult {
	result.Outcome = quicflowv1.Outcome_OUTCOME_FAILED
	if c := new(executor.Cancelled); errors.As(err, &c) {
		result.Outcome = quicflowv1.Outcome_OUTCOME_CANCELLED
	}
	result.ExitCode, result.Error = int32(code), err.Error()
	result.TimedOut = errors.As(err, new(*executor.TimedOut))
	if w.stdout.Total()+w.stderr.Total() > 0 { // else a wrapper before this one may have run the scripts
		w.ends(result)
	}
	if !w.plan.Command {
		w.log.Printf("%s", result.Error)
	}
	return result
}

// ends puts the ends and lengths of the scripts' output into a result.
func (w *wrapper) ends(result *quicflowv1.StepResult) {
	result.StdoutTail, result.StdoutBytes = w.stdout.Tail(), w.stdout.Total()
	result.StderrTail, result.StderrBytes = w.stderr.Tail(), w.stderr.Total()
}
