package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/heartbeat"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/workflows"
)

const (
	// pollInterval is how soon a dispatch learns of outcomes that another server stored.
	pollInterval = 2 * time.Second
	// maxSkippedPolls is how many are left out in a row while Results tells of outcomes.
	maxSkippedPolls = 5
)

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
	e := &releaseErrand{requests: requests, chunk: req, offline: requests.task.Strategy.WithDefaults().Offline}
	return a.newDispatch(order{task: req.TaskID, budget: req.Budget, cancel: req.Cancel}, e, newSlots(req.Parallel)).run(ctx)
}

var (
	errDraining = errors.New("the hub is stopping")
	errGivenUp  = errors.New("given up for another run")
)

// order says how a dispatch carries out its errand.
type order struct {
	task   string
	budget int  // charged hosts that are tolerated before nothing new starts; negative: any number
	cancel bool // start nothing; ask what was started to stop
}

// dispatch is one run of an activity that brings the hosts of a chunk through a step.
type dispatch struct {
	*Activities
	order       order
	errand      errand
	slots       *slots
	marks       *gathered[string, bool]
	conclusions *gathered[conclusion, struct{}]
	look        chan struct{} // holds one value when the store is to be read again
	stopped     chan struct{} // closed when the workflow cancelled the dispatch
	closing     chan struct{} // closed when nothing new starts

	mu      sync.Mutex
	steps   map[string]*dispatchStep // by step id; the map itself does not change after the start
	charged int
	closed  bool
	moved   bool // something was decided since the last look
}

// dispatchStep is a step of the chunk and what is known of it.
type dispatchStep struct {
	release.Step
	dispatch *dispatch
	decided  chan struct{} // closed when the store has an outcome
	over     bool
}

func (a *Activities) newDispatch(o order, e errand, s *slots) *dispatch {
	d := &dispatch{
		Activities: a, order: o, errand: e, slots: s, look: make(chan struct{}, 1),
		stopped: make(chan struct{}), closing: make(chan struct{}), steps: map[string]*dispatchStep{},
	}
	d.marks = newGathered(d.markMany)
	d.conclusions = newGathered(func(ctx context.Context, all []conclusion) ([]struct{}, error) {
		return make([]struct{}, len(all)), d.concludeMany(ctx, all)
	})
	return d
}

func (d *dispatch) run(ctx context.Context) (workflows.DispatchReport, error) {
	steps, err := d.errand.steps(ctx)
	if err != nil {
		return workflows.DispatchReport{}, fmt.Errorf("read steps of the chunk: %w", err)
	}
	var open []*dispatchStep
	all := make([]dispatchStep, len(steps))
	for i, s := range steps {
		step := &all[i]
		step.Step, step.dispatch, step.decided = s, d, make(chan struct{})
		d.steps[s.ID] = step
		if s.State == release.StepPending || s.State == release.StepDispatched {
			open = append(open, step)
			continue
		}
		step.over = true // and charged already, in the counts that the budget was computed from
		close(step.decided)
	}
	// What is at work is seen through, whatever becomes of the rest.
	slices.SortStableFunc(open, func(a, b *dispatchStep) int { return rank(a) - rank(b) })
	if len(open) > 0 && open[0].State == release.StepDispatched {
		d.lookAgain() // its result may have come since it was read
	}
	d.results.expect(d.order.task, open)
	defer d.results.forget(d.order.task, open)

	// work goes on when ctx was cancelled by the workflow, for as long as it takes to ask the agents to stop.
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	watch, workCtx := errgroup.WithContext(work)
	finished := make(chan struct{})
	working, finish := context.WithCancel(workCtx)
	defer finish()
	watch.Go(func() error { return d.heartbeat(ctx, working, stop) })
	watch.Go(func() error { return d.drain(ctx, working, stop) })
	watch.Go(func() error { return d.follow(workCtx, finished) })
	watch.Go(func() error { d.marks.run(workCtx, finished); return nil })
	watch.Go(func() error { d.conclusions.run(workCtx, finished); return nil })

	hosts, hostCtx := errgroup.WithContext(workCtx)
	hosts.Go(func() error { return d.beginAll(hostCtx, hosts, open) })
	hostsErr := hosts.Wait()
	close(finished)
	finish()
	err = errors.Join(hostsErr, watch.Wait())

	report := d.report()
	switch {
	case errors.Is(err, errDraining), errors.Is(context.Cause(work), errDraining), errors.Is(err, hub.ErrDraining):
		return report, temporal.NewApplicationErrorWithOptions("the hub is stopping", workflows.ErrTypeDraining, temporal.ApplicationErrorOptions{NonRetryable: true})
	case errors.Is(context.Cause(work), errGivenUp):
		return report, context.Cause(work)
	case err != nil && !isDone(d.stopped):
		return report, err
	}
	return report, nil
}

// rank puts what is at work first.
func rank(s *dispatchStep) int {
	if s.State == release.StepDispatched {
		return 0
	}
	return 1
}

// beginAll begins with the hosts as there are slots for them, and leaves each to a goroutine of its own. A host that was lost a
// moment ago gives its slot back until it has returned.
func (d *dispatch) beginAll(ctx context.Context, hosts *errgroup.Group, open []*dispatchStep) error {
	atWork := 0
	for atWork < len(open) && open[atWork].State == release.StepDispatched {
		atWork++
	}
	if err := d.beginSome(ctx, nil, hosts, open[:atWork]); err != nil || d.order.cancel {
		return err
	}
	return d.beginSome(ctx, d.closing, hosts, open[atWork:])
}

// beginSome takes slots until stop is closed.
func (d *dispatch) beginSome(ctx context.Context, stop <-chan struct{}, hosts *errgroup.Group, steps []*dispatchStep) error {
	for len(steps) > 0 {
		n, err := d.slots.take(ctx, stop, len(steps))
		if n == 0 || err != nil {
			return err
		}
		some := steps[:n]
		steps = steps[n:]
		if d.order.cancel {
			for _, step := range some {
				hosts.Go(func() error {
					defer d.slots.give(1)
					return d.cancel(ctx, step)
				})
			}
			continue
		}
		if err := d.begin(ctx, hosts, some); err != nil {
			return err
		}
	}
	return nil
}

// begin takes up hosts for which there are slots. Those with a session are marked in one write, those that are offline
// concluded in another.
func (d *dispatch) begin(ctx context.Context, hosts *errgroup.Group, steps []*dispatchStep) error {
	visits := make([]visit, 0, len(steps))
	ready := make([]string, 0, len(steps))
	var over []conclusion
	for _, step := range steps {
		request, longest, err := d.errand.request(ctx, &step.Step)
		if errors.Is(err, release.ErrInvalid) || errors.Is(err, release.ErrNotFound) {
			over = append(over, conclusion{step: step, verdict: verdictHopeless, why: err.Error()})
			continue
		}
		if err != nil {
			d.slots.give(len(steps))
			return err
		}
		v := visit{dispatch: d, step: step, request: request, longest: longest, stopped: d.stopped, sent: step.State == release.StepDispatched, slot: true}
		switch presence := d.hub.Presence(step.ClientID); {
		case presence.Status == release.ClientOnline:
			v.session, v.ready = presence.Session, true
			ready = append(ready, step.ClientID)
		case presence.Status == release.ClientOffline && !v.sent:
			over = append(over, conclusion{step: step, verdict: verdictOffline, why: whyOffline})
			continue
		}
		visits = append(visits, v)
	}
	given := len(over)
	err := d.concludeMany(ctx, over)
	var marked []bool
	if err == nil {
		marked, err = d.markMany(ctx, ready)
	}
	if err != nil {
		d.slots.give(len(steps))
		return err
	}
	failpoint.Here("dispatch.marked")
	i := 0
	for n := range visits {
		v := &visits[n]
		if v.ready {
			v.ready = marked[i]
			i++
			if !v.ready && !v.sent { // halted, or decided meanwhile
				given++
				continue
			}
		}
		hosts.Go(func() error { return v.run(ctx) })
	}
	if given > 0 {
		d.slots.give(given)
	}
	return nil
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

// heartbeat keeps the activity alive until beating ends, and ends the work where this run of the activity is to stop.
func (d *dispatch) heartbeat(ctx, beating context.Context, stop context.CancelCauseFunc) error {
	tick := time.NewTicker(heartbeat.Interval)
	defer tick.Stop()
	cancelled := ctx.Done()
	for pulse := heartbeat.New(ctx); ; {
		if err := pulse.Beat(ctx, beating); err != nil {
			stop(fmt.Errorf("%w: %w", errGivenUp, err))
			return nil
		}
		select {
		case <-beating.Done():
			return nil
		case <-cancelled:
			if cause := context.Cause(ctx); !temporal.IsCanceledError(cause) {
				// Not a decision of the workflow, which may have given the chunk to another run by now. The agents go on.
				stop(fmt.Errorf("%w: %w", errGivenUp, cause))
				return nil
			}
			cancelled = nil
			d.close()
			close(d.stopped)
		case <-tick.C:
		}
	}
}

// drain ends the work when this process is to stop.
func (d *dispatch) drain(ctx, working context.Context, stop context.CancelCauseFunc) error {
	select {
	case <-working.Done():
	case <-activity.GetWorkerStopChannel(ctx):
		stop(errDraining)
	}
	return nil
}

// follow reads from the store what Results did not tell: what another server stored, or what was decided before this began.
func (d *dispatch) follow(ctx context.Context, finished <-chan struct{}) error {
	again := time.NewTicker(pollInterval)
	defer again.Stop()
	for skipped := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-finished:
			return nil
		case <-d.look:
		case <-again.C:
			if skipped++; d.hasMoved() && skipped < maxSkippedPolls {
				continue
			}
			skipped = 0
		}
		steps, err := d.errand.steps(ctx)
		switch {
		case err == nil:
			for i := range steps {
				s := &steps[i]
				if step := d.steps[s.ID]; step != nil && s.State != release.StepPending && s.State != release.StepDispatched {
					d.decide(step, s.State)
				}
			}
		case ctx.Err() != nil:
			return nil
		default:
			d.log.Warn("cannot read the steps of a chunk, trying again", "task", d.order.task, "error", err)
		}
	}
}

func (d *dispatch) lookAgain() {
	select {
	case d.look <- struct{}{}:
	default:
	}
}

// hasMoved says whether anything was decided since the last call.
func (d *dispatch) hasMoved() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	moved := d.moved
	d.moved = false
	return moved
}

// decide notes a step's outcome, once, and closes the chunk when the budget is spent.
func (d *dispatch) decide(step *dispatchStep, state release.StepState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.moved = true
	d.finish(step, state == release.StepFailed || state == release.StepUnknown || state == release.StepRefused)
}

// finish ends the wait for a step. d.mu is held.
func (d *dispatch) finish(step *dispatchStep, charged bool) {
	if step.over {
		return
	}
	step.over = true
	if charged {
		d.charged++
		if d.order.budget >= 0 && d.charged > d.order.budget {
			d.closeLocked()
		}
	}
	close(step.decided) // last, as who waits for it makes room for the next host
}

func (d *dispatch) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closeLocked()
}

func (d *dispatch) closeLocked() {
	if !d.closed {
		d.closed = true
		close(d.closing)
	}
}

func (d *dispatch) isClosed() bool { return isDone(d.closing) }

// conclude writes the server's own verdict on a host.
func (d *dispatch) conclude(ctx context.Context, step *dispatchStep, v verdict, why string) error {
	_, err := d.conclusions.ask(ctx, conclusion{step: step, verdict: v, why: why})
	return err
}

func (d *dispatch) concludeMany(ctx context.Context, all []conclusion) error {
	if len(all) == 0 {
		return nil
	}
	now := d.now()
	for i := range all {
		all[i].at = now
	}
	if err := d.errand.conclude(ctx, all); err != nil {
		return fmt.Errorf("conclude %s and others, %d in all: %w", all[0].step.ID, len(all), err)
	}
	d.bus.Notify(bus.Task(d.order.task))
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range all {
		d.finish(c.step, c.verdict != verdictOffline || d.errand.chargesOffline())
	}
	return nil
}

// markMany marks hosts as dispatched in one write, and says which of them may be sent to.
func (d *dispatch) markMany(ctx context.Context, clientIDs []string) ([]bool, error) {
	if len(clientIDs) == 0 {
		return nil, nil
	}
	marked, halted, err := d.errand.mark(ctx, clientIDs)
	if err != nil {
		return nil, fmt.Errorf("mark %s and others as dispatched, %d in all: %w", clientIDs[0], len(clientIDs), err)
	}
	if halted {
		d.close()
	}
	may := make([]bool, len(clientIDs))
	if len(marked) == len(clientIDs) {
		for i := range may {
			may[i] = true
		}
		return may, nil
	}
	known := make(map[string]bool, len(marked))
	for _, id := range marked {
		known[id] = true
	}
	for i, id := range clientIDs {
		may[i] = known[id]
	}
	return may, nil
}
