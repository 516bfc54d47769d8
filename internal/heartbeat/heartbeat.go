// Package heartbeat tells Temporal that an activity lives.
//
// The SDK's own heartbeat ends the activity when Temporal takes longer to answer it than the worker's throttle interval, however long
// the activity's heartbeat timeout is, and once its context has ended it sends nothing more. Here a heartbeat that is answered
// late, or not at all, ends nothing as long as one gets through within the timeout; and an activity that was cancelled is known to
// live for as long as it takes to stop.
package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
)

const (
	// Interval is how often an activity tells Temporal that it lives; also how soon it learns of a cancellation.
	Interval = time.Second
	// SDKThrottle is the throttle interval that workers are to have: it bounds the SDK's own heartbeat, through which an activity
	// learns that it is to end.
	SDKThrottle = 5 * time.Second
	// defaultTimeout is for an activity that has no heartbeat timeout.
	defaultTimeout = 10 * time.Second
)

// ErrSilent says that no heartbeat has got through for as long as the activity's heartbeat timeout: Temporal takes it for dead.
var ErrSilent = errors.New("no heartbeat has got through to Temporal")

// Pulse is that of one run of an activity. It is not safe for concurrent use.
type Pulse struct {
	timeout time.Duration
	heard   time.Time // when Temporal was last known to have taken a heartbeat
	ended   bool      // the SDK has been told that the activity is to end
}

// New begins with an activity that Temporal has just handed out.
func New(ctx context.Context) *Pulse {
	p := &Pulse{timeout: activity.GetInfo(ctx).HeartbeatTimeout, heard: time.Now()}
	if p.timeout <= 0 {
		p.timeout = defaultTimeout
	}
	return p
}

// Beat sends one heartbeat and waits for its answer, at most until stop ends. When Temporal wants the activity to end, ctx ends, with
// the SDK's cause. Errors: ErrSilent, wrapped, once the timeout has passed; ctx stays as it is.
func (p *Pulse) Beat(ctx, stop context.Context) error {
	info := activity.GetInfo(ctx)
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.timeout)
	defer cancel()
	defer context.AfterFunc(stop, cancel)()
	sent := time.Now()
	answer, err := activity.GetClient(ctx).WorkflowService().RecordActivityTaskHeartbeat(asking,
		&workflowservice.RecordActivityTaskHeartbeatRequest{Namespace: info.Namespace, TaskToken: info.TaskToken})
	switch {
	case err != nil && stop.Err() != nil:
		return nil
	case err == nil && !answer.GetCancelRequested() && !answer.GetActivityPaused() && !answer.GetActivityReset():
		p.heard = sent
		return nil
	case err == nil, isDefinite(err):
		p.heard = sent
		if !p.ended && ctx.Err() == nil {
			p.ended = true
			activity.RecordHeartbeat(ctx) // gets the same answer and ends ctx as activities expect
		}
		return nil
	case time.Since(p.heard) >= p.timeout:
		return fmt.Errorf("%w for %s: %w", ErrSilent, p.timeout, err)
	}
	return nil
}

// isDefinite says whether Temporal does not know the run of the activity any more, so that trying again is of no use.
func isDefinite(err error) bool {
	var notFound *serviceerror.NotFound
	var inactive *serviceerror.NamespaceNotActive
	var noNamespace *serviceerror.NamespaceNotFound
	return errors.As(err, &notFound) || errors.As(err, &inactive) || errors.As(err, &noNamespace)
}

// Keep sends heartbeats until the function that it gives is called. What is not called by Temporal it leaves alone.
func Keep(ctx context.Context) (stop func()) {
	if !activity.IsActivity(ctx) {
		return func() {} // a caller that nobody watches
	}
	beating, stopBeating := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(Interval)
		defer tick.Stop()
		for pulse := New(ctx); ; {
			select {
			case <-beating.Done():
				return
			case <-tick.C:
				_ = pulse.Beat(ctx, beating) // a silent Temporal hands the activity out again; to run it twice does no harm
			}
		}
	}()
	return func() {
		stopBeating()
		<-done
	}
}
