// Package executor holds what the executors of steps share.
package executor

import (
	"context"
	"errors"
	"time"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Cancelled is the cause of a step's context when someone asked for the step to be stopped. Any other cause means that
// the agent itself stops, and says nothing about the step.
type Cancelled struct {
	Reason string // may be empty
}

func (c *Cancelled) Error() string {
	if c.Reason == "" {
		return "cancelled"
	}
	return "cancelled: " + c.Reason
}

// CancelledBy gives the cause if ctx ended because its step was cancelled, nil otherwise.
func CancelledBy(ctx context.Context) *Cancelled {
	var c *Cancelled
	if errors.As(context.Cause(ctx), &c) {
		return c
	}
	return nil
}

// Ended gives a result, finished now, whose outcome no script decided.
func Ended(outcome quicflowv1.Outcome, reason string) *quicflowv1.StepResult {
	return &quicflowv1.StepResult{Outcome: outcome, ExitCode: -1, Error: reason, FinishedUnixMs: time.Now().UnixMilli()}
}

// TimedOut is the cause of a step's end when its time is over.
type TimedOut struct {
	After time.Duration
}

func (t *TimedOut) Error() string { return "timed out after " + t.After.String() }
