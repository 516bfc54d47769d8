package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quicflow/quicflow/agent/command"
	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/journal"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// CommandExecutor is an Executor whose Run also carries out commands: steps whose spec is a CommandStep of one of these types.
type CommandExecutor interface {
	Executor
	// CommandTypes never change.
	CommandTypes() []string
	// CheckCommand says what is wrong with a command, by release.ErrInvalid with the field, before anything is stored.
	CheckCommand(*quicflowv1.CommandStep) error
}

// StepChecker is an Executor that knows what it cannot carry out: executor.ErrUnsupported, or release.ErrInvalid, before anything is
// stored.
type StepChecker interface {
	Executor
	CheckStep(*quicflowv1.StepRequest) error
}

// quickCommand is how long a request waits for its command to end, so that the first answer has the result. It is a small
// part of the time that a server waits for an answer.
const quickCommand = 500 * time.Millisecond

// errNotBegun is a command whose time to start was over when its intent was to be stored.
var errNotBegun = errors.New("the command came too late")

// supports says what is wrong with a step that is not known yet.
func (s *steps) supports(step *quicflowv1.StepRequest) error {
	c := step.GetCommand()
	if c == nil {
		if step.Spec == nil || s.cfg.Executor == nil {
			return errUnsupportedStep
		}
		if x, ok := s.cfg.Executor.(StepChecker); ok {
			return x.CheckStep(step)
		}
		return nil
	}
	if _, ok := s.commands[c.Type]; ok {
		return nil
	}
	if x, ok := s.cfg.Executor.(CommandExecutor); ok && slices.Contains(x.CommandTypes(), c.Type) {
		return x.CheckCommand(c)
	}
	return &unknownCommandError{c.Type, s.commandTypes()}
}

// unknownCommandError is a type of command that the agent does not have.
type unknownCommandError struct {
	kind string
	have []string
}

func (e *unknownCommandError) Error() string {
	return fmt.Sprintf("unknown command type %q; this agent has %s", e.kind, strings.Join(e.have, ", "))
}

func (*unknownCommandError) Is(target error) bool { return target == errUnsupportedStep }

// commandTypes lists what there is, in a stable order.
func (s *steps) commandTypes() []string { return commandTypes(s.cfg, s.commands) }

func commandTypes(cfg Config, own map[string]command.Command) []string {
	types := slices.Collect(maps.Keys(own))
	if x, ok := cfg.Executor.(CommandExecutor); ok {
		types = append(types, x.CommandTypes()...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// commandRun is a command that the agent itself carries out.
type commandRun struct {
	s       *steps
	entry   *entry
	step    *quicflowv1.StepRequest
	command command.Command
	log     *spool.Writer
	done    chan struct{} // closed when it is concluded

	mu       sync.Mutex
	begun    bool // its intent is on disk
	asked    uint64
	captures map[quicflowv1.Stream]*spool.Capture
}

func (s *steps) newCommandRun(e *entry, step *quicflowv1.StepRequest, c command.Command) *commandRun {
	return &commandRun{
		s: s, entry: e, step: step, command: c, done: make(chan struct{}),
		log:      s.newLog(step.StepId),
		captures: map[quicflowv1.Stream]*spool.Capture{},
	}
}

// requestCommand starts a command that is claimed, and waits a little for its end. asked is the session that gets the
// answer.
func (s *steps) requestCommand(e *entry, step *quicflowv1.StepRequest, c command.Command, asked uint64) (journal.Status, error) {
	r := s.newCommandRun(e, step, c)
	r.asked = asked
	// What changes nothing may run again after a crash, so its intent needs no fsync of its own: it is stored with the
	// result, or as soon as anyone is to hear that the step was accepted, or it writes output. Everything else begins on disk.
	ready := false
	if c.ReadOnly {
		var err error
		if ready, err = s.journal.Ready(step); err != nil {
			s.reject(e, err)
			return journal.Status{}, err
		}
	}
	if !ready {
		if status, err := s.begin(e, step); err != nil || status.State != journal.New {
			return status, err
		}
		r.begun = true
	}
	s.cfg.Logger.Debug("command begins", "step_id", step.StepId, "command_type", step.GetCommand().Type)
	s.launchCommand(r, false)
	if !ready {
		close(e.begun) // now it can be cancelled
	}
	timer := time.NewTimer(quickCommand)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
		r.mu.Lock()
		r.asked = 0 // its result is sent when it is there
		err := r.begin()
		r.mu.Unlock()
		if status, lookup := s.journal.Lookup(step.StepId); lookup != nil || status.State != journal.New {
			return status, lookup
		}
		return journal.Status{}, cmp.Or(err, ErrStopping)
	}
	if e.err != nil {
		return journal.Status{}, e.err
	}
	return s.journal.Lookup(step.StepId)
}

// launchCommand runs a claimed command in a goroutine of its own. Commands have no project, so they take no turns.
func (s *steps) launchCommand(r *commandRun, again bool) {
	ctx, cancel := context.WithCancelCause(s.life)
	s.mu.Lock()
	r.entry.cancel = cancel
	if again {
		s.arrive(r.entry)
	}
	s.mu.Unlock()
	s.running.Go(func() {
		defer close(r.done)
		defer cancel(nil)
		defer r.log.Close()
		started := time.Now()
		result, invalid := r.carryOut(ctx, again)
		switch {
		case result == nil && invalid == nil && s.life.Err() != nil:
			invalid = ErrStopping
			fallthrough
		case invalid != nil:
			if r.abandon(invalid) {
				return // its entry is gone
			}
		default:
			if result.StartedUnixMs == 0 && result.Outcome != quicflowv1.Outcome_OUTCOME_REFUSED {
				result.StartedUnixMs = started.UnixMilli()
			}
			r.conclude(result)
		}
		s.mu.Lock()
		s.leave(r.entry)
		s.mu.Unlock()
	})
}

// carryOut gives the result, or what is wrong with a command of which nothing is stored, or neither if the agent stops.
func (r *commandRun) carryOut(ctx context.Context, again bool) (*quicflowv1.StepResult, error) {
	spec := r.step.GetCommand()
	switch {
	case again && !r.command.ReadOnly:
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "the agent was restarted while the command ran; how far it got cannot be known"), nil
	case again && exists(r.log.Path()):
		// Another run would write other bytes to positions that the hub may have stored.
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_FAILED, "the agent was restarted before the command had ended"), nil
	case executor.CancelledBy(ctx) != nil:
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, executor.BeforeTheStart(executor.CancelledBy(ctx))), nil
	}
	timeout := time.Duration(spec.TimeoutMs) * time.Millisecond
	if timeout <= 0 {
		timeout = release.DefaultStepTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, &executor.TimedOut{After: timeout})
	defer cancel()
	value, err := r.call(ctx, &command.Call{StepID: r.step.StepId, Type: spec.Type, Payload: spec.Payload, Output: r.output})
	result := &quicflowv1.StepResult{Outcome: quicflowv1.Outcome_OUTCOME_SUCCEEDED}
	cause := context.Cause(ctx)
	if err == nil || cause == nil {
		// What it says is its own.
	} else if r.s.life.Err() != nil && executor.CancelledBy(ctx) == nil {
		return nil, nil
	} else {
		err = cause
	}
	if err == nil && value != nil {
		err = r.keep(result, value)
	}
	switch {
	case err == nil:
	case executor.CancelledBy(ctx) != nil:
		result.Outcome, result.ExitCode, result.Error = quicflowv1.Outcome_OUTCOME_CANCELLED, -1, err.Error()
	case errors.Is(err, release.ErrInvalid):
		r.mu.Lock()
		begun := r.begun
		r.mu.Unlock()
		if !begun {
			return nil, err
		}
		result.NotStarted = true
		fallthrough
	default:
		result.Outcome, result.ExitCode, result.Error = quicflowv1.Outcome_OUTCOME_FAILED, -1, err.Error()
		result.TimedOut = errors.As(err, new(*executor.TimedOut))
	}
	return result, nil
}

// call keeps a panic of a command from taking the agent, and all that runs there, with it.
func (r *commandRun) call(ctx context.Context, call *command.Call) (value any, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.s.cfg.Logger.Error("command panicked", "step_id", call.StepID, "command_type", call.Type, "panic", p)
			value, err = nil, fmt.Errorf("the command panicked: %v", p)
		}
	}()
	return r.command.Run(ctx, call)
}

// keep puts a typed result into the step's, or where it is too large for that into the step's log.
func (r *commandRun) keep(result *quicflowv1.StepResult, value any) error {
	text, err := json.Marshal(value)
	switch {
	case err != nil:
		return fmt.Errorf("encode result: %w", err)
	case len(text) <= command.MaxResult:
		result.Result = text
		return nil
	case len(text) > command.MaxLogResult:
		return fmt.Errorf("its result takes %d bytes, at most %d are allowed", len(text), command.MaxLogResult)
	}
	stdout, err := r.output(quicflowv1.Stream_STREAM_STDOUT)
	if err != nil {
		return err
	}
	if capture, ok := stdout.(*spool.Capture); ok && capture.Total() > 0 {
		return fmt.Errorf("its result takes %d bytes, at most %d are allowed beside output", len(text), command.MaxResult)
	}
	result.ResultInLog = true
	_, err = stdout.Write(text)
	return err
}

// output makes the intent durable: what is in a spool belongs to a step that the journal knows.
func (r *commandRun) output(stream quicflowv1.Stream) (io.Writer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.begin(); err != nil {
		return nil, err
	}
	if r.captures[stream] == nil {
		r.captures[stream] = spool.NewCapture(r.log, stream)
	}
	return r.captures[stream], nil
}

// begin stores the intent, unless that was done. r.mu is held.
func (r *commandRun) begin() error {
	if r.begun {
		return nil
	}
	select {
	case <-r.entry.begun: // it has ended meanwhile
		return r.entry.err
	default:
	}
	status, err := r.s.journal.Begin(r.step)
	if err == nil && status.State != journal.New {
		err = errNotBegun
	}
	if err != nil {
		return err
	}
	r.begun = true
	close(r.entry.begun)
	return nil
}

// abandon forgets a command of which nothing is stored, for a reason that whoever asked is told. It reports false for one
// that is in the journal: that goes on in the agent's next life.
func (r *commandRun) abandon(reason error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun {
		return false
	}
	r.s.reject(r.entry, reason)
	return true
}

// conclude stores the result and passes it on.
func (r *commandRun) conclude(result *quicflowv1.StepResult) {
	s := r.s
	for stream, capture := range r.captures {
		switch stream {
		case quicflowv1.Stream_STREAM_STDOUT:
			result.StdoutTail, result.StdoutBytes = capture.Tail(), capture.Total()
		case quicflowv1.Stream_STREAM_STDERR:
			result.StderrTail, result.StderrBytes = capture.Tail(), capture.Total()
		}
	}
	if err := s.complete(result, r.step, r.log); err != nil {
		s.cfg.Logger.Error("output of command is not complete", "step_id", r.step.StepId, "error", err)
	}
	failpoint.Here("agent.step.ended")
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun {
		if s.finish(result) {
			s.settle(r.step.StepId, result, r.asked)
		}
		return
	}
	status, err := s.journal.Record(result, time.UnixMilli(r.step.NotAfterUnixMs))
	if err == nil && status.State == journal.Finished {
		result = status.Result // as its begin came too late
	}
	if err != nil {
		s.cfg.Logger.Warn("command was not accepted", "step_id", r.step.StepId, "error", err)
		s.forget(r.entry, err)
		return
	}
	failpoint.Here("agent.result.stored")
	s.settle(r.step.StepId, result, r.asked)
	close(r.entry.begun)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
