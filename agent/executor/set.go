package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// ErrUnsupported says that no executor does this kind of step.
var ErrUnsupported = errors.New("the agent does not know this kind of step")

// probeTimeout bounds one Probe.
const probeTimeout = 10 * time.Second

// Set is the executors of a host by their types. It is what an agent carries out steps with.
type Set struct {
	host     Host
	byType   map[release.Type]Executor
	commands map[string]Executor // by the command's type
}

// NewSet makes a set. host.DataDir must be absolute.
func NewSet(host Host, executors ...Executor) (*Set, error) {
	s := &Set{host: host, byType: map[release.Type]Executor{}, commands: map[string]Executor{}}
	for _, x := range executors {
		if s.byType[x.Type()] != nil {
			return nil, fmt.Errorf("there are two executors for %s", x.Type())
		}
		s.byType[x.Type()] = x
		if c, ok := x.(Commander); ok {
			for _, name := range c.CommandTypes() {
				s.commands[name] = x
			}
		}
	}
	return s, nil
}

// Host is the one that the set is for.
func (s *Set) Host() Host { return s.host }

// Executor gives the executor of a type, nil if there is none.
func (s *Set) Executor(t release.Type) Executor { return s.byType[t] }

// Types lists what there are executors for.
func (s *Set) Types() []release.Type { return slices.Sorted(maps.Keys(s.byType)) }

// Probe gives what this host can do now, in the order of the types, and why it cannot do the others.
func (s *Set) Probe(ctx context.Context) (able []Capability, unable map[release.Type]error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	unable = map[release.Type]error{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for t, x := range s.byType {
		group.Go(func() {
			c, err := x.Probe(ctx)
			c.Type = t
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				unable[t] = err
				return
			}
			able = append(able, c)
		})
	}
	group.Wait()
	slices.SortFunc(able, func(a, b Capability) int { return strings.Compare(string(a.Type), string(b.Type)) })
	return able, unable
}

// CommandTypes lists the commands that the executors carry out.
func (s *Set) CommandTypes() []string { return slices.Sorted(maps.Keys(s.commands)) }

// CheckCommand says what is wrong with a command.
func (s *Set) CheckCommand(c *quicflowv1.CommandStep) error {
	x, err := s.forCommand(c)
	if err != nil {
		return err
	}
	return x.(Commander).CheckCommand(c)
}

func (s *Set) forCommand(c *quicflowv1.CommandStep) (Executor, error) {
	if x := s.commands[c.GetType()]; x != nil {
		return x, nil
	}
	return nil, fmt.Errorf("%w: there is no command %q", ErrUnsupported, c.GetType())
}

// CheckStep says what is wrong with a request, before anything is stored: ErrUnsupported, release.ErrInvalid.
func (s *Set) CheckStep(request *quicflowv1.StepRequest) error {
	if _, err := s.forRequest(request); err != nil {
		return err
	}
	if deploy := request.GetDeploy(); deploy != nil {
		_, err := readConfig(request, deploy)
		return err
	}
	return nil
}

func (s *Set) forRequest(request *quicflowv1.StepRequest) (Executor, error) {
	if c := request.GetCommand(); c != nil {
		return s.forCommand(c)
	}
	deploy := request.GetDeploy()
	if deploy == nil {
		return nil, ErrUnsupported
	}
	return s.forType(deploy)
}

func (s *Set) forType(deploy *quicflowv1.DeployStep) (Executor, error) {
	if x := s.byType[release.Type(deploy.GetType())]; x != nil {
		return x, nil
	}
	return nil, fmt.Errorf("%w: it is of type %q, this agent does %s", ErrUnsupported, deploy.GetType(), s.names())
}

func (s *Set) names() string {
	var names []string
	for _, t := range s.Types() {
		names = append(names, string(t))
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// Run carries out a step and gives its result. The step's files are kept in the directory of log, which is the step's own. When ctx
// ends with Cancelled, the step is stopped; when it ends otherwise, Run gives nil and the step goes on without it.
func (s *Set) Run(ctx context.Context, request *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult {
	return s.carryOut(ctx, request, log, false)
}

// Resume goes on with a step whose Run an earlier life of the agent did not see the end of. Its arguments are those of Run.
func (s *Set) Resume(ctx context.Context, request *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult {
	return s.carryOut(ctx, request, log, true)
}

func (s *Set) carryOut(ctx context.Context, request *quicflowv1.StepRequest, log *spool.Writer, again bool) *quicflowv1.StepResult {
	x, err := s.forRequest(request)
	var step *Step
	if err == nil {
		step, err = NewStep(s.host, request, log)
	}
	if err != nil {
		return notBegun(err, again)
	}
	state := NotStarted
	if again {
		if state, err = x.Recover(ctx, step); err != nil {
			return EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "cannot look after the step: "+err.Error())
		}
	}
	switch state {
	case NotStarted:
		if c := CancelledBy(ctx); c != nil {
			return EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, BeforeTheStart(c))
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := x.Start(ctx, step); err != nil {
			return notBegun(err, false)
		}
	case Unknown:
		return EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, ErrUnknown.Error())
	}
	return await(ctx, x, step)
}

type lifeKey struct{}

// WithLife gives a step's context that knows the agent's life: it ends when the agent stops, also after the step was cancelled.
func WithLife(ctx, life context.Context) context.Context {
	return context.WithValue(ctx, lifeKey{}, life)
}

// await waits for the result, and passes a cancellation on.
func await(ctx context.Context, x Executor, step *Step) *quicflowv1.StepResult {
	waiting, end := context.WithCancel(context.WithoutCancel(ctx))
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer end()
	watcher.Go(func() {
		select {
		case <-waiting.Done():
		case <-ctx.Done():
			if c := CancelledBy(ctx); c != nil {
				x.Stop(step, c)
				if life, ok := ctx.Value(lifeKey{}).(context.Context); ok {
					select {
					case <-waiting.Done():
					case <-life.Done():
						end()
					}
				}
				return
			}
			end()
		}
	})
	return x.Wait(waiting, step)
}

// BeforeTheStart says why a step that was cancelled never ran.
func BeforeTheStart(c *Cancelled) string { return "before the start: " + c.Error() }

// notBegun is the result of a step that was not begun in this life of the agent, nor in another unless again is set.
func notBegun(err error, again bool) *quicflowv1.StepResult {
	switch {
	case again:
		return EndedWith(quicflowv1.Outcome_OUTCOME_UNKNOWN, "the agent cannot go on with the step: "+err.Error())
	case errors.Is(err, release.ErrInvalid): // as it was not when the step was accepted, or as only the host can tell
		result := EndedWith(quicflowv1.Outcome_OUTCOME_FAILED, err.Error())
		result.NotStarted = true
		return result
	}
	return EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, "cannot prepare the step: "+err.Error())
}
