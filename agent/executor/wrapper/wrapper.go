package wrapper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// The arguments by which a program of ours knows that it is to be a wrapper, or a drain.
const (
	wrapperMode = "step-wrapper"
	drainMode   = "step-drain"
)

// notifyFD is the wrapper's end of the pipe to the agent that started it.
const notifyFD = 3

// minAgain is the least time that Work has when it is called again: enough to go forward, or back.
const minAgain = time.Minute

var (
	workersMu sync.Mutex
	workers   = map[release.Type]executor.Worker{}
)

func workerOf(t release.Type) executor.Worker {
	workersMu.Lock()
	defer workersMu.Unlock()
	return workers[t]
}

// MaybeRun turns the process into a step's wrapper, and does not return, if an Executor started it as one. Every program that uses an
// Executor calls it first of all in main, or in TestMain, with a worker for each type. Making a worker must do nothing.
func MaybeRun(all ...executor.Worker) {
	workersMu.Lock()
	for _, w := range all {
		workers[w.Type()] = w
	}
	workersMu.Unlock()
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
	step   *executor.Step // expanded
	again  bool
	log    *spool.Writer
	stdout *spool.Capture
	stderr *spool.Capture
	clock  *clock
	hide   *strings.Replacer // of secrets

	mu      sync.Mutex
	pipes   []*pipe // of scripts whose children may still write
	cgroup  *cgroup
	running *executor.Running
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
	worker := workerOf(p.Type)
	if worker == nil {
		return fmt.Errorf("this program cannot carry out steps of type %q", p.Type)
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

	w := &wrapper{dir: dir, plan: p, hide: hideSecrets(p.Step.Secrets, nil)}
	w.log = spool.NewWriter(spool.Config{Path: dir.path(spoolFile), Wake: notify, MaxBytes: p.MaxLog})
	w.stdout, w.stderr = spool.NewCapture(w.log, quicflowv1.Stream_STREAM_STDOUT), spool.NewCapture(w.log, quicflowv1.Stream_STREAM_STDERR)
	result, err := w.run(ctx, worker)
	if err != nil {
		return err
	}
	letGo(w.pipes)
	w.cgroup.remove()
	result.StepId = p.Step.ID
	result.FinishedUnixMs = time.Now().UnixMilli()
	if result.LogEnd, err = w.log.End(); err != nil {
		fmt.Fprintln(os.Stderr, "the log is not complete:", err)
	}
	return dir.writeResult(resultFile, result)
}

// notify tells the agent that the spool has grown. It must neither block nor fail: the agent may be busy, or gone.
func notify() { _, _ = syscall.Write(notifyFD, []byte{0}) }

// shortestHidden is how long a secret must be to be taken out of messages; a shorter one would be found everywhere.
const shortestHidden = 4

// hideSecrets takes secrets out of what we say ourselves, wherever it came from. written gives a secret as the text has it; nil: as it is.
func hideSecrets(secrets map[string]string, written func(string) string) *strings.Replacer {
	names := slices.SortedFunc(maps.Keys(secrets), func(a, b string) int { // one that begins as another does goes before it
		return cmp.Or(cmp.Compare(len(secrets[b]), len(secrets[a])), cmp.Compare(a, b))
	})
	var pairs []string
	for _, name := range names {
		value := secrets[name]
		if len(value) < shortestHidden {
			continue
		}
		if written != nil {
			value = written(value)
		}
		pairs = append(pairs, value, "${"+name+"}")
	}
	return strings.NewReplacer(pairs...)
}

// run gives the result.
func (w *wrapper) run(ctx context.Context, worker executor.Worker) (*quicflowv1.StepResult, error) {
	w.again = w.dir.has(startedFile)
	if !w.again {
		if after := w.plan.Step.NotAfter; time.Now().After(after) && !w.dir.has(fetchingFile) {
			return executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED,
				fmt.Sprintf("the step came too late: it was not to start after %s", after.UTC().Format(time.RFC3339))), nil
		}
		if c := executor.CancelledBy(ctx); c != nil {
			return executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, executor.BeforeTheStart(c)), nil
		}
		if _, err := w.dir.mark(startedFile, nowText()); err != nil {
			return nil, err
		}
	} else if err := w.resumeCaptures(); err != nil {
		return nil, err
	}
	var err error
	if w.step, err = w.plan.Step.Expanded(); err != nil {
		if w.again {
			err = fmt.Errorf("%w: %w", err, executor.ErrUnknown)
		}
		return w.result(err), nil
	}
	w.step.Log = w.log
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w.clock = newClock(w.timeLeft(), func() { cancel(&executor.TimedOut{After: w.plan.timeout()}) })
	defer w.clock.pause()
	err = work(ctx, worker, &executor.Run{Step: w.step, Again: w.again, Tools: tools{w}})
	return w.result(err), nil
}

// work keeps a panic of a worker from being taken for a dead wrapper, and Work from being called again.
func work(ctx context.Context, worker executor.Worker, run *executor.Run) (err error) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s\n", p, debug.Stack())
			err = fmt.Errorf("the agent's %s worker panicked: %v: %w", worker.Type(), p, executor.ErrUnknown)
		}
	}()
	return worker.Work(ctx, run)
}

// timeLeft is what is left of the step's time, which its health check does not take from.
func (w *wrapper) timeLeft() time.Duration {
	limit := w.plan.timeout()
	spent := time.Since(time.UnixMilli(w.dir.startedAt()))
	if text, err := os.ReadFile(w.dir.path(spentFile)); err == nil {
		if d, err := time.ParseDuration(string(text)); err == nil {
			spent = d
		}
	}
	if w.again {
		return max(limit-spent, min(limit, minAgain))
	}
	return max(limit-spent, 0)
}

// resumeCaptures finds out what earlier wrappers of the step have written.
func (w *wrapper) resumeCaptures() error {
	reader := spool.NewReader(w.dir.path(spoolFile), 0)
	defer reader.Close()
	for {
		records, err := reader.Next(1 << 20)
		for _, r := range records {
			switch r.Stream {
			case quicflowv1.Stream_STREAM_STDOUT:
				w.stdout.Count(r.Data)
			case quicflowv1.Stream_STREAM_STDERR:
				w.stderr.Count(r.Data)
			}
		}
		if err != nil && !errors.Is(err, spool.ErrCorrupt) {
			return err
		}
		if err != nil || len(records) == 0 {
			return nil
		}
	}
}

// result says what came of Work.
func (w *wrapper) result(err error) *quicflowv1.StepResult {
	result := &quicflowv1.StepResult{Outcome: quicflowv1.Outcome_OUTCOME_SUCCEEDED, StartedUnixMs: w.dir.startedAt(), Result: w.report()}
	result.StdoutTail, result.StdoutBytes = w.stdout.Tail(), w.stdout.Total()
	result.StderrTail, result.StderrBytes = w.stderr.Tail(), w.stderr.Total()
	if err == nil {
		return result
	}
	result.Outcome, result.ExitCode, result.Error = quicflowv1.Outcome_OUTCOME_FAILED, -1, oneLine(w.hide.Replace(err.Error()))
	var exit *executor.ExitError
	switch {
	case errors.Is(err, executor.ErrUnknown):
		result.Outcome = quicflowv1.Outcome_OUTCOME_UNKNOWN
		return result // where the log ends is not known either, so nothing is added to it
	case errors.As(err, new(*executor.Cancelled)):
		result.Outcome = quicflowv1.Outcome_OUTCOME_CANCELLED
	case errors.As(err, new(*executor.TimedOut)):
		result.TimedOut = true
	case errors.As(err, &exit):
		result.ExitCode = int32(exit.Code)
	case w.step != nil && w.step.Command != nil && errors.Is(err, release.ErrInvalid):
		result.NotStarted, result.StartedUnixMs = true, 0
	}
	if w.plan.Step.Command == nil {
		w.log.Printf("%s", result.Error)
	}
	return result
}

// oneLine makes one line of the text of an error, which may be several that were joined.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// clock ends a step when its time is over. It stands still while it is paused.
type clock struct {
	mu    sync.Mutex
	limit time.Duration // left when it last went on
	since time.Time     // it goes; zero: it stands
	timer *time.Timer
	over  func()
}

func newClock(limit time.Duration, over func()) *clock {
	c := &clock{limit: limit, over: over}
	c.goOn()
	return c
}

// pause gives what is left.
func (c *clock) pause() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.since.IsZero() {
		c.timer.Stop()
		c.limit, c.since = c.limit-time.Since(c.since), time.Time{}
	}
	return c.limit
}

func (c *clock) goOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		c.since, c.timer = time.Now(), time.AfterFunc(c.limit, c.over)
	}
}
