package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quicflow/quicflow/hub"
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

const (
	whyOffline = "the agent is offline; nothing was started"
	whyGone    = "the agent went offline before it said how the step ended"
)

// visit is the work on one host of a chunk.
type visit struct {
	*dispatch
	step    *dispatchStep
	request *quicflowv1.StepRequest
	longest time.Duration   // that the step may take once started
	stopped <-chan struct{} // wakes wait
	session int64           // of the agent, in which to send
	ready   bool            // it was marked for that session, and not sent yet
	slot    bool            // it has a place at work

	sent                            bool // the store says that it may have been sent
	unanswered, turnedAway, overdue int
	left                            time.Time // when the agent was found offline with the step sent; zero while it is not

	changed <-chan struct{} // fires when the agent's session comes or goes; nil until it is watched
	unwatch func()
}

// watch begins to follow the agent's session. Its presence is asked for afterwards.
func (v *visit) watch() {
	if v.unwatch == nil {
		v.changed, v.unwatch = v.hub.WatchClient(v.step.ClientID)
	}
}

// enter waits for a place at work, and reports false if nothing new may start before there is one.
func (v *visit) enter(ctx context.Context) (bool, error) {
	n, err := v.slots.take(ctx, v.closing, 1)
	v.slot = n > 0
	return v.slot, err
}

// leave gives the place at work back.
func (v *visit) leave() {
	if v.slot {
		v.slot = false
		v.slots.give(1)
	}
}

// run brings a host through its step: waits for its session, sends the step, waits for its outcome. It returns when
// the host is decided, or nothing new may start. An error ends the whole chunk.
func (v *visit) run(ctx context.Context) error {
	defer func() {
		v.leave()
		if v.unwatch != nil {
			v.unwatch()
		}
	}()
	v.sent = v.sent || v.ready
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
		if !v.ready {
			again, err := v.mark(ctx)
			if err != nil || !again && !v.ready {
				return err
			}
		}
		if v.ready {
			v.ready = false
			if err := v.send(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// mark waits for the agent's session, and marks the host before each sending, not just the first, and for this session
// alone: if the agent comes back with another journal, which would take the step for a new one, the step is decided by then.
// Where it says again, the host is to be looked at afresh.
func (v *visit) mark(ctx context.Context) (again bool, err error) {
	v.watch()
	presence := v.hub.Presence(v.step.ClientID)
	switch presence.Status {
	case release.ClientOffline:
		if v.sent && v.left.IsZero() {
			v.left = v.now()
		}
		switch back := v.left.Add(v.limits.Return).Sub(v.now()); {
		case v.sent && back > 0:
			return true, v.wait(ctx, back)
		case v.sent:
			return false, v.conclude(ctx, v.step, verdictUnknown, whyGone)
		}
		return false, v.conclude(ctx, v.step, verdictOffline, whyOffline)
	case release.ClientReconnecting:
		if !v.sent {
			v.leave() // for one who can begin; where it was sent, it may be at work
		}
		return true, v.wait(ctx, presence.Until.Sub(v.now()))
	}
	v.left = time.Time{}
	if !v.slot {
		entered, err := v.enter(ctx)
		return entered, err // it may have gone meanwhile
	}
	marked, err := v.marks.ask(ctx, v.step.ClientID)
	switch {
	case err != nil:
		return false, err
	case !marked && v.sent: // decided, which this dispatch does not know yet
		v.lookAgain()
		return false, v.wait(ctx, v.limits.Answer)
	case !marked: // halted, or decided meanwhile
		return false, nil
	}
	v.session, v.ready, v.sent = presence.Session, true, true
	failpoint.Here("dispatch.marked")
	return false, nil
}

// send asks the agent to carry out the step, or, if it knows the step, where it stands; then waits accordingly.
func (v *visit) send(ctx context.Context) error {
	turn, err := v.hub.AwaitTurn(ctx)
	if err != nil {
		return err
	}
	v.request.NotAfterUnixMs = v.now().Add(v.limits.NotAfter).UnixMilli()
	answerCtx, cancel := context.WithTimeout(ctx, v.limits.Answer)
	response, err := v.hub.RequestIn(answerCtx, v.step.ClientID, v.session, &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: v.request}})
	cancel()
	turn.Done()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, hub.ErrDraining):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		if v.unanswered++; v.unanswered >= maxUnanswered {
			return v.conclude(ctx, v.step, verdictUnknown, fmt.Sprintf("the agent did not answer %d requests", v.unanswered))
		}
		return nil
	case err != nil: // the session went, or there are too many promises
		v.watch()
		return v.wait(ctx, retryInterval)
	}
	failpoint.Here("dispatch.answered")
	v.unanswered = 0

	if failure := response.GetFailure(); failure != nil {
		return v.turnedDown(ctx, failure)
	}
	patience := v.limits.Grace
	switch response.GetStep().GetState() {
	case quicflowv1.StepState_STEP_STATE_FINISHED:
		// The hub stores the result that came with the answer.
	case quicflowv1.StepState_STEP_STATE_ACCEPTED:
		if v.overdue == 0 {
			patience += v.longest
		}
	default:
		return v.conclude(ctx, v.step, verdictUnknown, "the agent gave an answer that this server does not understand")
	}
	v.watch()
	if p := v.hub.Presence(v.step.ClientID); p.Status != release.ClientOnline || p.Session != v.session {
		return nil // it went before it was watched
	}
	before := v.now()
	if err := v.wait(ctx, patience); err != nil {
		return err
	}
	if v.now().Sub(before) >= patience {
		v.overdue++
	}
	if v.overdue >= maxOverdue && !isDone(v.step.decided) {
		return v.conclude(ctx, v.step, verdictUnknown, "the agent says that the step still runs, long after its timeout")
	}
	return nil
}

// turnedDown handles an agent that did not start the step.
func (v *visit) turnedDown(ctx context.Context, failure *quicflowv1.Failure) error {
	switch failure.GetCode() {
	case quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, quicflowv1.FailureCode_FAILURE_CODE_JOURNAL_FULL:
		if v.turnedAway++; v.turnedAway < maxTurnedAway {
			v.watch()
			return v.wait(ctx, min(retryInterval<<v.turnedAway, maxRetryDelay))
		}
		return v.conclude(ctx, v.step, verdictRefused, "not started: "+failure.GetMessage())
	case quicflowv1.FailureCode_FAILURE_CODE_INVALID, quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED:
		return v.conclude(ctx, v.step, verdictHopeless, "not started: "+failure.GetMessage())
	}
	return v.conclude(ctx, v.step, verdictUnknown, "the agent had an error of its own: "+failure.GetMessage())
}

// wait waits until the step is decided, the session changed, the dispatch is stopped, the time is over, or, where nothing was
// sent, nothing new may start.
func (v *visit) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(max(d, 10*time.Millisecond))
	defer timer.Stop()
	closing := v.closing
	if v.sent {
		closing = nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-v.step.decided:
	case <-v.changed:
	case <-v.stopped:
	case <-closing:
	case <-timer.C:
	}
	return nil
}

// cancel asks an agent to stop a step, and waits for its outcome. In a dispatch that is only for stopping, a host that
// does not answer in time is given up as unknown; otherwise it is left to such a dispatch.
func (d *dispatch) cancel(ctx context.Context, step *dispatchStep) error {
	patience := d.limits.Settle
	if d.order.cancel {
		patience = cancelPatience
	}
	deadline := d.now().Add(patience)
	v := &visit{dispatch: d, step: step, sent: true} // a dispatch that was stopped does not wake it again
	v.watch()
	defer v.unwatch()
	for !isDone(step.decided) && d.now().Before(deadline) {
		if d.hub.Presence(step.ClientID).Status == release.ClientOffline {
			return d.conclude(ctx, step, verdictUnknown, whyGone)
		}
		answerCtx, stop := context.WithTimeout(ctx, min(d.limits.Answer, deadline.Sub(d.now())))
		_, err := d.hub.Request(answerCtx, step.ClientID, &quicflowv1.Request{Body: &quicflowv1.Request_CancelStep{
			CancelStep: &quicflowv1.CancelStep{StepId: step.ID, Reason: "the task was stopped"}}})
		stop()
		pause := retryInterval
		switch {
		case errors.Is(err, hub.ErrDraining):
			return err
		case err == nil:
			pause = deadline.Sub(d.now()) // it is being stopped, or has ended; the result comes by itself
		}
		if err := v.wait(ctx, pause); err != nil {
			return err
		}
	}
	if d.order.cancel && !isDone(step.decided) {
		return d.conclude(ctx, step, verdictUnknown, "the agent did not say in time how the step ended")
	}
	return nil
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
