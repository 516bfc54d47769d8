package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// How often an agent is asked again before the server gives up on it. All are far beyond what a healthy agent needs.
const (
	maxUnanswered  = 5 // requests that an agent with a session did not answer
	maxTurnedAway  = 8 // times an agent said that it is overloaded, or its journal full
	maxOverdue     = 5 // times an agent said that a step still runs after its time
	retryInterval  = 250 * time.Millisecond
	maxRetryDelay  = 5 * time.Second
	cancelPatience = 20 * time.Second
)

// visit is the work on one host of a chunk.
type visit struct {
	*dispatch
	step    *dispatchStep
	request *quicflowv1.StepRequest
	longest time.Duration   // that the step may take once started
	stopped <-chan struct{} // wakes wait

	sent                            bool // the store says that it may have been sent
	unanswered, turnedAway, overdue int
	left                            time.Time // when the agent was found offline with the step sent; zero while it is not
}

// bring brings a host through its step: waits for its session, sends the step, waits for its outcome. It returns when
// the host is decided, or nothing new may start. An error ends the whole chunk.
func (d *dispatch) bring(ctx context.Context, step *dispatchStep) error {
	if d.isClosed() && step.State != release.StepDispatched {
		return nil
	}
	request, err := d.requests.of(ctx, step.Step)
	if errors.Is(err, release.ErrInvalid) || errors.Is(err, release.ErrNotFound) {
		return d.conclude(ctx, step, release.TargetFailed, err.Error())
	}
	if err != nil {
		return err
	}
	v := &visit{dispatch: d, step: step, request: request, stopped: d.stopped, sent: step.State == release.StepDispatched}
	script := request.GetScript()
	v.longest = time.Duration(script.GetTimeoutMs())*time.Millisecond + healthLongest(script.GetHealth())
	return v.run(ctx)
}

func (v *visit) run(ctx context.Context) error {
	changed, unwatch := v.hub.WatchClient(v.step.ClientID)
	defer unwatch()
	for !isDone(v.step.decided) {
		if isDone(v.stopped) {
			if v.sent {
				return v.cancel(ctx, v.step)
			}
			return nil
		}
		if !v.sent && v.isClosed() {
			return nil
		}
		presence := v.hub.Presence(v.step.ClientID)
		switch presence.Status {
		case release.ClientOffline:
			if v.sent && v.left.IsZero() {
				v.left = v.now()
			}
			if back := v.left.Add(v.limits.Return).Sub(v.now()); v.sent && back > 0 {
				if err := v.wait(ctx, changed, back); err != nil {
					return err
				}
				continue
			}
			if v.sent {
				return v.conclude(ctx, v.step, release.TargetUnknown, "the agent went offline before it said how the step ended")
			}
			return v.conclude(ctx, v.step, release.TargetOffline, "the agent is offline; nothing was started")
		case release.ClientReconnecting:
			if err := v.wait(ctx, changed, presence.Until.Sub(v.now())); err != nil {
				return err
			}
			continue
		}
		v.left = time.Time{}
		// Before each sending, not just the first, and for this session alone: if the agent comes back with another
		// journal, which would take the step for a new one, the step is decided by then.
		marked, err := v.markOne(ctx, v.step.ClientID)
		switch {
		case err != nil:
			return fmt.Errorf("mark %s as dispatched: %w", v.step.ID, err)
		case !marked && v.sent:
			v.bus.Notify(bus.Task(v.req.TaskID)) // for follow, which does not know that yet
			return v.wait(ctx, nil, v.limits.Answer)
		case !marked:
			return nil // halted, or decided meanwhile
		}
		v.sent = true
		failpoint.Here("dispatch.marked")
		if err := v.send(ctx, changed, presence.Session); err != nil {
			return err
		}
	}
	return nil
}

// send asks the agent to carry out the step, or, if it knows the step, where it stands; then waits accordingly.
func (v *visit) send(ctx context.Context, changed <-chan struct{}, session int64) error {
	v.request.NotAfterUnixMs = v.now().Add(v.limits.NotAfter).UnixMilli()
	answerCtx, cancel := context.WithTimeout(ctx, v.limits.Answer)
	response, err := v.hub.RequestIn(answerCtx, v.step.ClientID, session, &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: v.request}})
	cancel()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, hub.ErrDraining):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		if v.unanswered++; v.unanswered >= maxUnanswered {
			return v.conclude(ctx, v.step, release.TargetUnknown, fmt.Sprintf("the agent did not answer %d requests", v.unanswered))
		}
		return nil
	case err != nil: // the session went, or there are too many promises
		return v.wait(ctx, changed, retryInterval)
	}
	failpoint.Here("dispatch.answered")
	v.unanswered = 0

	if failure := response.GetFailure(); failure != nil {
		return v.turnedDown(ctx, changed, failure)
	}
	status := response.GetStep()
	switch status.GetState() {
	case quicflowv1.StepState_STEP_STATE_FINISHED:
		return v.record(ctx, v.step, status.GetResult())
	case quicflowv1.StepState_STEP_STATE_ACCEPTED:
		patience := v.longest + v.limits.Grace
		if v.overdue > 0 {
			patience = v.limits.Grace
		}
		before := v.now()
		if err := v.wait(ctx, changed, patience); err != nil {
			return err
		}
		if v.now().Sub(before) >= patience {
			v.overdue++
		}
		if v.overdue >= maxOverdue && !isDone(v.step.decided) {
			return v.conclude(ctx, v.step, release.TargetUnknown, "the agent says that the step still runs, long after its timeout")
		}
		return nil
	}
	return v.conclude(ctx, v.step, release.TargetUnknown, "the agent gave an answer that this server does not understand")
}

// turnedDown handles an agent that did not start the step.
func (v *visit) turnedDown(ctx context.Context, changed <-chan struct{}, failure *quicflowv1.Failure) error {
	switch failure.GetCode() {
	case quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, quicflowv1.FailureCode_FAILURE_CODE_JOURNAL_FULL:
		if v.turnedAway++; v.turnedAway < maxTurnedAway {
			return v.wait(ctx, changed, min(retryInterval<<v.turnedAway, maxRetryDelay))
		}
		return v.conclude(ctx, v.step, release.TargetFailed, "not started: "+failure.GetMessage())
	case quicflowv1.FailureCode_FAILURE_CODE_INVALID, quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED:
		return v.conclude(ctx, v.step, release.TargetFailed, "not started: "+failure.GetMessage())
	}
	return v.conclude(ctx, v.step, release.TargetUnknown, "the agent had an error of its own: "+failure.GetMessage())
}

// wait waits until the step is decided, the session changed, the dispatch is stopped, or the time is over.
func (v *visit) wait(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(max(d, 10*time.Millisecond))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-v.step.decided:
	case <-changed:
	case <-v.stopped:
	case <-timer.C:
	}
	return nil
}

// cancel asks an agent to stop a step, and waits for its outcome. In a dispatch that is only for stopping, a host that
// does not answer in time is given up as unknown; otherwise it is left to such a dispatch.
func (d *dispatch) cancel(ctx context.Context, step *dispatchStep) error {
	patience := d.limits.Settle
	if d.req.Cancel {
		patience = cancelPatience
	}
	deadline := d.now().Add(patience)
	changed, unwatch := d.hub.WatchClient(step.ClientID)
	defer unwatch()
	v := &visit{dispatch: d, step: step, sent: true} // a dispatch that was stopped does not wake it again
	for !isDone(step.decided) && d.now().Before(deadline) {
		if d.hub.Presence(step.ClientID).Status == release.ClientOffline {
			return d.conclude(ctx, step, release.TargetUnknown, "the agent went offline before it said how the step ended")
		}
		answerCtx, stop := context.WithTimeout(ctx, min(d.limits.Answer, deadline.Sub(d.now())))
		response, err := d.hub.Request(answerCtx, step.ClientID, &quicflowv1.Request{Body: &quicflowv1.Request_CancelStep{
			CancelStep: &quicflowv1.CancelStep{StepId: step.ID, Reason: "the task was stopped"}}})
		stop()
		pause := retryInterval
		switch {
		case errors.Is(err, hub.ErrDraining):
			return err
		case err == nil && response.GetStep().GetState() == quicflowv1.StepState_STEP_STATE_FINISHED:
			if err := d.record(ctx, step, response.GetStep().GetResult()); err != nil {
				return err
			}
			continue
		case err == nil:
			pause = deadline.Sub(d.now()) // it is being stopped; its result comes by itself
		}
		if err := v.wait(ctx, changed, pause); err != nil {
			return err
		}
	}
	if d.req.Cancel && !isDone(step.decided) {
		return d.conclude(ctx, step, release.TargetUnknown, "the agent did not say in time how the step ended")
	}
	return nil
}

// record stores a result that came as an answer. The agent sends it on its own too; the first one stored stays.
func (d *dispatch) record(ctx context.Context, step *dispatchStep, result *quicflowv1.StepResult) error {
	r, ok := hub.StepResult(step.ClientID, result)
	if !ok || r.StepID != step.ID {
		return d.conclude(ctx, step, release.TargetUnknown, "the agent answered with a result that this server does not understand")
	}
	if _, err := d.store.RecordResults(ctx, []release.StepResult{r}); err != nil {
		return fmt.Errorf("store the result of %s: %w", step.ID, err)
	}
	d.bus.Notify(bus.Task(d.req.TaskID))
	d.decide(step, r.State)
	return nil
}

func healthLongest(h *quicflowv1.HealthCheck) time.Duration {
	if h == nil {
		return 0
	}
	ms := func(n int64) release.Duration { return release.Duration(time.Duration(n) * time.Millisecond) }
	return release.Health{Interval: ms(h.GetIntervalMs()), Timeout: ms(h.GetTimeoutMs()), Retries: int(h.GetRetries()),
		StartPeriod: ms(h.GetStartPeriodMs())}.Longest()
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
