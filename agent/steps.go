package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
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

var (
	errOverloaded      = errors.New("the agent runs as many steps as it may")
	errInvalidStep     = errors.New("invalid step")
	errUnsupportedStep = executor.ErrUnsupported
)

// tombstoneLife is how long a step that was cancelled before it was ever asked for is remembered.
const tombstoneLife = 7 * 24 * time.Hour

// maxError and maxTail bound what a result carries of an error, and of a stream's end.
const (
	maxError = 1 << 10
	maxTail  = 4 << 10
)

// maxLight bounds the light commands at work, which take no place of Config.MaxSteps; more are answered as overloaded. It is what
// a session works on at the same time.
const maxLight = maxRequests

// steps carries out steps and keeps what the hub has not confirmed. The journal is the truth; the entries here say what
// it need not be asked for.
type steps struct {
	cfg     Config
	journal *journal.Journal
	dir     string

	commands map[string]command.Command // by type

	life    context.Context
	end     context.CancelCauseFunc
	running sync.WaitGroup

	resultsReady chan struct{} // a result may have become ready
	logsReady    chan struct{} // a spool may have grown, or an acknowledgement come
	confirmed    chan struct{} // the keeper has something to store

	mu      sync.Mutex
	entries map[string]*entry
	active  int                      // steps that run, or wait for their turn
	light   int                      // of these, light commands
	turns   map[string]chan struct{} // by project; holds a token while one of its steps runs
}

// entry is a step that is not finished or not confirmed. Its fields are guarded by steps.mu, but for id, light and begun.
type entry struct {
	id    string
	light bool          // a light command
	begun chan struct{} // closed when the intent is on disk, or when it is clear that it will not be
	err   error         // why it is not; valid when begun is closed

	cancel      context.CancelCauseFunc // nil when it does not run
	finished    bool
	sent        uint64 // the last session in which its result was sent
	resultAcked bool
	logAcked    uint64
	logEnd      uint64 // when finished
	changed     bool   // acknowledgements are not in the journal yet
}

func newSteps(cfg Config, j *journal.Journal, commands map[string]command.Command) *steps {
	s := &steps{
		cfg: cfg, journal: j, commands: commands, dir: filepath.Join(cfg.DataDir, "steps"),
		resultsReady: make(chan struct{}, 1),
		logsReady:    make(chan struct{}, 1),
		confirmed:    make(chan struct{}, 1),
		entries:      map[string]*entry{},
		turns:        map[string]chan struct{}{},
	}
	s.life, s.end = context.WithCancelCause(context.Background())
	return s
}

// wake leaves a signal where there is none.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// start goes on with what an earlier life of the agent left.
func (s *steps) start() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make steps directory: %w", err)
	}
	known, err := s.journal.Entries()
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	closed := make(chan struct{})
	close(closed)
	for _, k := range known {
		s.entries[k.StepID] = &entry{
			id: k.StepID, begun: closed, finished: k.Finished, resultAcked: k.ResultAcked, logAcked: k.LogAcked, logEnd: k.LogEnd,
			changed: k.ResultAcked,
		}
	}
	if err := s.removeStrays(); err != nil {
		return err
	}
	// One that has begun keeps its project's turn.
	slices.SortStableFunc(known, func(a, b journal.Entry) int { return cmp.Compare(s.waiting(a), s.waiting(b)) })
	if s.journal.Copied() {
		s.cfg.Logger.Warn("the journal is a copy, so it counts as a new one", "journal_id", s.journal.ID())
	}
	for _, k := range known {
		if k.Finished { // the agent may have died before it did that
			s.tidy(k.StepID)
		}
		if !k.Finished && s.journal.Copied() {
			// The original may have carried it out since the copy was made.
			if err := s.giveUp(k.StepID, "the agent's journal was restored from a copy; how far the step got cannot be known"); err != nil {
				return err
			}
			continue
		}
		if !k.Finished {
			s.cfg.Logger.Info("step goes on", "step_id", k.StepID)
			s.resume(s.entries[k.StepID], k.Request)
		}
	}
	s.running.Go(s.keep)
	wake(s.confirmed)
	return nil
}

// stop lets go of the steps that run; those under a wrapper go on.
func (s *steps) stop() {
	s.end(ErrStopping)
	s.running.Wait()
	s.store()
}

// waiting is 1 for a step that has left no trace but its intent and its secrets, else 0.
func (s *steps) waiting(k journal.Entry) int {
	if executor.Untouched(s.stepDir(k.StepID)) {
		return 1
	}
	return 0
}

// removeStrays removes the directories of steps that the journal has let go of.
func (s *steps) removeStrays() error {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("read steps directory: %w", err)
	}
	for _, name := range names {
		id, err := url.PathUnescape(name.Name())
		if err == nil && s.entries[id] != nil {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.dir, name.Name())); err != nil {
			return fmt.Errorf("remove step directory: %w", err)
		}
	}
	return nil
}

func (s *steps) stepDir(id string) string { return filepath.Join(s.dir, url.PathEscape(id)) }

const spoolFile = "spool"

func (s *steps) spoolPath(id string) string { return filepath.Join(s.stepDir(id), spoolFile) }

// check refuses a step that cannot be this agent's.
func (s *steps) check(id string) error {
	_, _, client, _, err := release.ParseStepID(id)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errInvalidStep, err)
	case client != s.cfg.ClientID:
		return fmt.Errorf("%w: step %s is not for %s", errInvalidStep, id, s.cfg.ClientID)
	case len(url.PathEscape(id)) > 255:
		return fmt.Errorf("%w: its id is too long", errInvalidStep)
	}
	return nil
}

// giveUp ends a step that an earlier life of the agent began, and of which nobody can know.
func (s *steps) giveUp(id, reason string) error {
	result := executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, reason)
	result.StepId = id
	end, err := spool.End(s.spoolPath(id))
	if err != nil {
		s.cfg.Logger.Error("log of step is not complete", "step_id", id, "error", err)
	}
	result.LogEnd = end
	if err := s.journal.Finish(result); err != nil {
		return err
	}
	s.tidy(id)
	s.settle(id, result, 0)
	return nil
}

// resume goes on with a step that an earlier life of the agent began.
func (s *steps) resume(e *entry, step *quicflowv1.StepRequest) {
	if c := step.GetCommand(); c != nil {
		if own, ok := s.commands[c.Type]; ok {
			e.light = own.Light
			r := s.newCommandRun(e, step, own)
			r.begun = true
			s.launchCommand(r, true)
			return
		}
	}
	s.launch(e, step, true)
}

// request starts a step, unless it is known, and says where it stands. Once it says Running, the intent is on disk. asked is
// the session that gets the answer, 0 if no one does.
func (s *steps) request(step *quicflowv1.StepRequest, asked uint64) (journal.Status, error) {
	id := step.GetStepId()
	if err := s.check(id); err != nil {
		return journal.Status{}, err
	}
	status, err := s.journal.Lookup(id)
	if err != nil || status.State == journal.Finished {
		return status, err
	}
	if status.State == journal.New {
		if err := s.supports(step); err != nil {
			return journal.Status{}, err
		}
	}
	own, mine := s.commands[step.GetCommand().GetType()]
	e, first, err := s.claim(id, own.Light)
	if err != nil {
		return journal.Status{}, err
	}
	if !first {
		<-e.begun
		if e.err != nil {
			return journal.Status{}, e.err
		}
		return s.journal.Lookup(id)
	}
	if mine {
		return s.requestCommand(e, step, own, asked)
	}
	bare, err := s.withoutSecrets(step)
	if err != nil {
		s.discard(id)
		s.reject(e, err)
		return journal.Status{}, err
	}
	step = bare
	status, err = s.begin(e, step)
	if err == nil && status.State == journal.New {
		if c := step.GetCommand(); c != nil {
			s.cfg.Logger.Info("command begins", "step_id", id, "command_type", c.Type)
		} else {
			s.cfg.Logger.Info("step begins", "step_id", id, "action", step.Action, "project", step.Project, "version", step.Version)
		}
		status.State = journal.Running
		s.launch(e, step, false)
		close(e.begun)
	}
	return status, err
}

// begin stores the intent of a claimed step. New means that it is to be launched, and e.begun closed; in any other case the
// entry is done with.
func (s *steps) begin(e *entry, step *quicflowv1.StepRequest) (journal.Status, error) {
	status, err := s.journal.Begin(step)
	failpoint.Here("agent.intent.stored")
	switch {
	case err != nil:
		s.cfg.Logger.Warn("step was not accepted", "step_id", step.StepId, "error", err)
		s.discard(step.StepId)
		s.reject(e, err)
	case status.State == journal.New:
		return status, nil
	default:
		s.discard(step.StepId)
		s.withdraw(e)
		if status.State == journal.Finished {
			s.cfg.Logger.Warn("step will not run", "step_id", step.StepId, "error", status.Result.Error)
			s.settle(step.StepId, status.Result, 0)
		}
		close(e.begun)
	}
	return status, err
}

// reject is the end of a claimed step of which nothing is stored.
func (s *steps) reject(e *entry, err error) {
	s.withdraw(e)
	e.err = err
	close(e.begun)
}

// forget is reject for a step that counts as running until its goroutine ends.
func (s *steps) forget(e *entry, err error) {
	s.mu.Lock()
	delete(s.entries, e.id)
	s.mu.Unlock()
	e.err = err
	close(e.begun)
}

// claim gives the entry of a step, and whether it is new; then the caller is to begin the step, or to withdraw it.
func (s *steps) claim(id string, light bool) (e *entry, first bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[id]; e != nil {
		return e, false, nil
	}
	if s.life.Err() != nil {
		return nil, false, ErrStopping
	}
	if light && s.light >= maxLight || !light && s.active-s.light >= s.cfg.MaxSteps {
		return nil, false, errOverloaded
	}
	e = &entry{id: id, light: light, begun: make(chan struct{})}
	s.entries[id] = e
	s.arrive(e)
	return e, true, nil
}

// arrive counts a step as running. s.mu is held.
func (s *steps) arrive(e *entry) {
	s.active++
	if e.light {
		s.light++
	}
}

// leave is the end of what arrive begins. s.mu is held.
func (s *steps) leave(e *entry) {
	s.active--
	if e.light {
		s.light--
	}
}

func (s *steps) withdraw(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, e.id)
	s.leave(e)
}

// settle notes a result that the journal has, so that it is sent; answered is the session in which an answer carries it, 0 if
// none does.
func (s *steps) settle(id string, result *quicflowv1.StepResult, answered uint64) {
	s.mu.Lock()
	e := s.entries[id]
	if e == nil {
		e = &entry{id: id, begun: make(chan struct{})}
		close(e.begun)
		s.entries[id] = e
	}
	e.finished, e.cancel, e.logEnd, e.sent = true, nil, result.LogEnd, answered
	s.mu.Unlock()
	if answered == 0 {
		wake(s.resultsReady)
	}
	wake(s.logsReady)
	wake(s.confirmed)
}

// launch runs a step of which this is the only run, when its turn comes: a project's steps run one after the other. One
// that is cancelled before its turn needs none, as it will not start.
func (s *steps) launch(e *entry, step *quicflowv1.StepRequest, again bool) {
	ctx, cancel := context.WithCancelCause(s.life)
	s.mu.Lock()
	e.cancel = cancel
	if again {
		s.arrive(e)
	}
	turn := s.turns[step.Project]
	switch {
	case step.GetCommand() != nil:
		turn = make(chan struct{}, 1) // commands have no project, so they take no turns
	case turn == nil:
		turn = make(chan struct{}, 1)
		s.turns[step.Project] = turn
	}
	s.supersede(step.StepId)
	mine := false
	select {
	case turn <- struct{}{}: // taken here, so that the first one launched is the first to run
		mine = true
	default:
	}
	s.mu.Unlock()
	s.running.Go(func() {
		defer cancel(nil)
		if !mine {
			select {
			case turn <- struct{}{}:
				mine = true
			case <-ctx.Done():
			}
		}
		if ctx.Err() == nil || executor.CancelledBy(ctx) != nil {
			s.run(executor.WithLife(ctx, s.life), step, again)
		}
		if mine {
			<-turn
		}
		s.mu.Lock()
		s.leave(e)
		s.mu.Unlock()
	})
}

// supersede stops the deploy step that a rollback step undoes: the server may have given it up while it ran. s.mu is held.
func (s *steps) supersede(id string) {
	taskID, name, clientID, _, err := release.ParseStepID(id)
	if err != nil || name != release.StepRollback {
		return
	}
	for _, e := range s.entries {
		task, name, client, _, err := release.ParseStepID(e.id)
		if err == nil && task == taskID && client == clientID && name == release.StepDeploy && e.cancel != nil {
			e.cancel(&executor.Cancelled{Reason: "the task is being rolled back"})
		}
	}
}

// newLog gives the writer of a step's spool.
func (s *steps) newLog(id string) *spool.Writer {
	return spool.NewWriter(spool.Config{Path: s.spoolPath(id), MaxBytes: uint64(s.cfg.MaxLog), Wake: func() { wake(s.logsReady) }})
}

func (s *steps) run(ctx context.Context, step *quicflowv1.StepRequest, again bool) {
	log := s.newLog(step.StepId)
	defer log.Close()
	result := s.execute(ctx, step, log, again)
	if result == nil {
		return
	}
	failpoint.Here("agent.step.ended")
	if err := s.complete(result, step, log); err != nil {
		s.cfg.Logger.Error("log of step is not complete", "step_id", step.StepId, "error", err)
	}
	if s.finish(result) {
		s.cfg.Logger.Info("step ended", "step_id", step.StepId, "outcome", result.Outcome.String(), "exit_code", result.ExitCode, "error", result.Error)
		s.settle(step.StepId, result, 0)
	}
}

// finish stores a result, however often that takes. It reports false if the agent stops before: then the step is unfinished
// in the journal, and will be resumed.
func (s *steps) finish(result *quicflowv1.StepResult) bool {
	backoff := newBackoff(Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second})
	for {
		err := s.journal.Finish(result)
		if err == nil {
			failpoint.Here("agent.result.stored")
			s.tidy(result.StepId)
			return true
		}
		s.cfg.Logger.Error("result could not be stored", "step_id", result.StepId, "error", err)
		if !sleep(s.life, backoff.next()) {
			return false
		}
	}
}

// execute gives nil if the agent stops before the step has ended.
func (s *steps) execute(ctx context.Context, step *quicflowv1.StepRequest, log *spool.Writer, again bool) *quicflowv1.StepResult {
	if s.cfg.Executor == nil {
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "the agent carries out no steps any more; how far this one got cannot be known")
	}
	run := s.cfg.Executor.Run
	if again {
		resumer, ok := s.cfg.Executor.(Resumer)
		if !ok {
			return executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "the agent was restarted while the step ran; how far it got cannot be known")
		}
		run = resumer.Resume
	} else if c := executor.CancelledBy(ctx); c != nil {
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, executor.BeforeTheStart(c))
	}
	result := run(ctx, step, log)
	if result == nil && s.life.Err() == nil {
		return executor.EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "the executor gave no result")
	}
	return result
}

// complete fills in what the executor left out and cuts what is too long.
func (s *steps) complete(result *quicflowv1.StepResult, step *quicflowv1.StepRequest, log *spool.Writer) error {
	result.StepId = step.StepId
	if result.FinishedUnixMs == 0 {
		result.FinishedUnixMs = time.Now().UnixMilli()
	}
	result.StdoutTail = lastBytes(result.StdoutTail, maxTail)
	result.StderrTail = lastBytes(result.StderrTail, maxTail)
	line := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(result.Error, "�"), func(r rune) bool { return r == '\n' || r == '\r' }), " ")
	if len(line) > maxError {
		line = strings.ToValidUTF8(line[:maxError], "") + "…"
	}
	result.Error = line
	end, err := log.End()
	result.LogEnd = end
	return err
}

func lastBytes(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// cancelStep stops a step that runs, and keeps one that is not known from ever starting.
func (s *steps) cancelStep(id, reason string) (journal.Status, error) {
	if err := s.check(id); err != nil {
		return journal.Status{}, err
	}
	cause := &executor.Cancelled{Reason: reason}
	for {
		s.mu.Lock()
		e := s.entries[id]
		s.mu.Unlock()
		if e != nil {
			<-e.begun
			s.mu.Lock()
			if e.cancel != nil {
				s.cfg.Logger.Info("step is cancelled", "step_id", id, "reason", reason)
				e.cancel(cause)
			}
			s.mu.Unlock()
			if e.err == nil {
				return s.journal.Lookup(id)
			}
		}
		result := executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, executor.BeforeTheStart(cause))
		result.StepId = id
		status, err := s.journal.Tombstone(result, time.Now().Add(tombstoneLife))
		switch {
		case err != nil:
			return journal.Status{}, err
		case status.State == journal.New:
			s.settle(id, result, 0)
			return journal.Status{State: journal.Finished, Result: result}, nil
		case status.State == journal.Finished:
			return status, nil
		}
		// It began in between; look again.
	}
}

// unsentResults are the ids of the steps whose result the hub has not confirmed, and which was not sent in this session.
func (s *steps) unsentResults(session uint64) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(s.entries)) {
		if e := s.entries[id]; e.finished && !e.resultAcked && e.sent != session {
			ids = append(ids, id)
		}
	}
	return ids
}

// resultSent notes in which session a result was sent, 0 if in none.
func (s *steps) resultSent(id string, session uint64) {
	s.mu.Lock()
	if e := s.entries[id]; e != nil {
		e.sent = session
	}
	s.mu.Unlock()
	if session == 0 {
		wake(s.resultsReady)
	}
}
