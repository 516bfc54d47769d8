package activities

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/workflows"
)

// heartbeatInterval is how often DispatchChunk tells Temporal that it lives; also how soon it learns of a cancellation.
const heartbeatInterval = time.Second

// DispatchChunk brings every host of a chunk through a step.
//
// It first reads which steps are finished, so it may be run any number of times for the same chunk: a step keeps its
// id, and its agent never runs it again. Nothing is sent before the store says that it is about to be.
// It ends when each host is decided, or when nothing new may start (task halted, budget spent) and what had started is
// decided. Cancelled by its workflow, it asks the agents to stop what runs. When its hub stops it ends with
// workflows.ErrTypeDraining and leaves the agents alone.
func (a *Activities) DispatchChunk(ctx context.Context, req workflows.DispatchRequest) (workflows.DispatchReport, error) {
	requests, err := a.requestsOf(ctx, req.TaskID)
	if err != nil {
		return workflows.DispatchReport{}, final(err)
	}
	d := &dispatch{
		Activities: a, req: req, requests: requests,
		marks: make(chan mark), stopped: make(chan struct{}), steps: map[string]*dispatchStep{},
		offline: requests.task.Strategy.WithDefaults().Offline,
	}
	return d.run(ctx)
}

var errDraining = errors.New("the hub is stopping")

// dispatch is one run of DispatchChunk.
type dispatch struct {
	*Activities
	req      workflows.DispatchRequest
	requests *requests
	marks    chan mark
	stopped  chan struct{} // closed when the workflow cancelled the dispatch
	offline  release.Offline

	mu      sync.Mutex
	steps   map[string]*dispatchStep // by step id; the map itself does not change after the start
	charged int
	closed  bool // nothing new starts
}

// dispatchStep is a step of the chunk and what is known of it.
type dispatchStep struct {
	release.Step
	decided chan struct{} // closed when the store has an outcome
	over    bool
}

func (d *dispatch) run(ctx context.Context) (workflows.DispatchReport, error) {
	steps, err := d.store.ChunkSteps(ctx, d.req.TaskID, d.req.Step, d.req.Chunk)
	if err != nil {
		return workflows.DispatchReport{}, fmt.Errorf("read steps of the chunk: %w", err)
	}
	var open []*dispatchStep
	for _, s := range steps {
		step := &dispatchStep{Step: s, decided: make(chan struct{})}
		d.steps[s.ID] = step
		if s.State.Final() || s.State == release.StepUnknown {
			step.over = true // and charged already, in the counts that the budget was computed from
			close(step.decided)
		} else {
			open = append(open, step)
		}
	}

	// work goes on when ctx was cancelled by the workflow, for as long as it takes to ask the agents to stop.
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	watch, workCtx := errgroup.WithContext(work)
	finished := make(chan struct{})
	watch.Go(func() error { return d.heartbeat(ctx, finished, stop) })
	watch.Go(func() error { return d.follow(workCtx, finished) })
	watch.Go(func() error { return d.markAll(workCtx, finished) })

	hosts, hostCtx := errgroup.WithContext(workCtx)
	hosts.SetLimit(max(1, d.req.Parallel))
	for _, step := range open {
		if d.req.Cancel {
			if step.State == release.StepDispatched {
				hosts.Go(func() error { return d.cancel(hostCtx, step) })
			}
			continue
		}
		hosts.Go(func() error { return d.bring(hostCtx, step) })
	}
	hostsErr := hosts.Wait()
	close(finished)
	err = errors.Join(hostsErr, watch.Wait())

	report := d.report()
	switch {
	case errors.Is(err, errDraining), errors.Is(context.Cause(work), errDraining), errors.Is(err, hub.ErrDraining):
		return report, temporal.NewApplicationErrorWithOptions("the hub is stopping", workflows.ErrTypeDraining, temporal.ApplicationErrorOptions{NonRetryable: true})
	case err != nil && ctx.Err() == nil:
		return report, err
	}
	return report, nil
}

func (d *dispatch) report() workflows.DispatchReport {
	d.mu.Lock()
	defer d.mu.Unlock()
	report := workflows.DispatchReport{Charged: d.charged}
	for _, step := range d.steps {
		if !step.over {
			report.Undecided++
		}
	}
	return report
}

// heartbeat keeps the activity alive, and ends the work where this process, or this run of the activity, is to stop.
func (d *dispatch) heartbeat(ctx context.Context, finished <-chan struct{}, stop context.CancelCauseFunc) error {
	tick := time.NewTicker(heartbeatInterval)
	defer tick.Stop()
	cancelled := ctx.Done()
	for {
		activity.RecordHeartbeat(ctx, d.report())
		select {
		case <-finished:
			return nil
		case <-activity.GetWorkerStopChannel(ctx):
			stop(errDraining)
			return nil
		case <-cancelled:
			if !temporal.IsCanceledError(context.Cause(ctx)) {
				// Not a decision of the workflow: the run was given up for another, or the server is gone. The agents go on.
				stop(errDraining)
				return nil
			}
			cancelled = nil
			d.close()
			close(d.stopped)
		case <-tick.C:
		}
	}
}

// follow learns outcomes from the store, woken by the bus. The bus may miss something; the store does not.
func (d *dispatch) follow(ctx context.Context, finished <-chan struct{}) error {
	changed, unsubscribe := d.bus.Subscribe(bus.Task(d.req.TaskID))
	defer unsubscribe()
	again := time.NewTicker(2 * time.Second)
	defer again.Stop()
	for {
		steps, err := d.store.ChunkSteps(ctx, d.req.TaskID, d.req.Step, d.req.Chunk)
		switch {
		case err == nil:
			for _, s := range steps {
				if step := d.steps[s.ID]; step != nil && (s.State.Final() || s.State == release.StepUnknown) {
					d.decide(step, s.State)
				}
			}
		case ctx.Err() != nil:
			return nil
		default:
			d.log.Warn("cannot read the steps of a chunk, trying again", "task", d.req.TaskID, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-finished:
			return nil
		case <-changed:
		case <-again.C:
		}
	}
}

// decide notes a step's outcome, once, and closes the chunk when the budget is spent.
func (d *dispatch) decide(step *dispatchStep, state release.StepState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if step.over {
		return
	}
	step.over = true
	close(step.decided)
	if state == release.StepFailed || state == release.StepUnknown || state == release.StepRefused {
		d.charge()
	}
}

// charge counts a host against the budget. d.mu is held.
func (d *dispatch) charge() {
	d.charged++
	if d.req.Budget >= 0 && d.charged > d.req.Budget {
		d.closed = true
	}
}

func (d *dispatch) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}

func (d *dispatch) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// conclude writes the server's own verdict on a host.
func (d *dispatch) conclude(ctx context.Context, step *dispatchStep, state release.TargetState, why string) error {
	conclusion := store.Conclusion{StepID: step.ID, Target: state, Error: why, At: d.now()}
	if err := d.store.ConcludeSteps(ctx, []store.Conclusion{conclusion}); err != nil {
		return fmt.Errorf("conclude %s: %w", step.ID, err)
	}
	d.bus.Notify(bus.Task(d.req.TaskID))
	d.mu.Lock()
	defer d.mu.Unlock()
	if step.over {
		return nil
	}
	step.over = true
	close(step.decided)
	if state != release.TargetOffline || d.offline == release.OfflineFail {
		d.charge()
	}
	return nil
}

// mark asks for a host to be marked as dispatched; the answer says whether it may be sent to.
type mark struct {
	clientID string
	answer   chan markAnswer // buffered
}

type markAnswer struct {
	marked bool
	err    error
}

// markAll marks hosts as dispatched, all that wait at a moment in one write.
func (d *dispatch) markAll(ctx context.Context, finished <-chan struct{}) error {
	for {
		var waiting []mark
		select {
		case <-ctx.Done():
			return nil
		case <-finished:
			return nil
		case m := <-d.marks:
			waiting = append(waiting, m)
		}
	gather:
		for {
			select {
			case m := <-d.marks:
				waiting = append(waiting, m)
			default:
				break gather
			}
		}
		ids := make([]string, len(waiting))
		for i, m := range waiting {
			ids[i] = m.clientID
		}
		marked, halted, err := d.store.MarkDispatched(ctx, d.req.TaskID, d.req.Step, ids)
		if halted {
			d.close()
		}
		ok := map[string]bool{}
		for _, id := range marked {
			ok[id] = true
		}
		for _, m := range waiting {
			m.answer <- markAnswer{ok[m.clientID], err}
		}
	}
}

func (d *dispatch) markOne(ctx context.Context, clientID string) (bool, error) {
	m := mark{clientID, make(chan markAnswer, 1)}
	select {
	case d.marks <- m:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	select {
	case answer := <-m.answer:
		return answer.marked, answer.err
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}
