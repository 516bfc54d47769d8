package release

import (
	"maps"
	"slices"
)

// Status is where a task stands. Transitions are in Next.
type Status string

// The statuses of a task.
const (
	StatusStarting    Status = "starting"     // stored; its workflow is about to start
	StatusRunning     Status = "running"      // see Phase for where
	StatusPaused      Status = "paused"       // nothing new starts until someone resumes it
	StatusAborting    Status = "aborting"     // nothing new starts; what runs is being stopped
	StatusRollingBack Status = "rolling_back" // the hosts that were touched return to what they ran before
	StatusSucceeded   Status = "succeeded"    // every target did it
	StatusPartial     Status = "partial"      // it ended within its failure budget, but not every target did it
	StatusFailed      Status = "failed"       // it stopped: the failure budget was spent, or a canary failed
	StatusAborted     Status = "aborted"      // someone stopped it
	StatusRolledBack  Status = "rolled_back"  // every host that was touched runs again what it ran before
)

var statusDescriptions = map[Status]string{
	StatusStarting:    "stored, about to start",
	StatusRunning:     "rolling out",
	StatusPaused:      "paused; nothing new starts until it is resumed",
	StatusAborting:    "stopping; nothing new starts",
	StatusRollingBack: "returning the touched hosts to what they ran before",
	StatusSucceeded:   "every target runs it",
	StatusPartial:     "ended within its failure budget, but not on every target",
	StatusFailed:      "stopped by failures",
	StatusAborted:     "stopped by a person",
	StatusRolledBack:  "every touched host runs what it ran before",
}

// Describe says the status in words for a person.
func (s Status) Describe() string { return statusDescriptions[s] }

// Statuses are all that there are.
func Statuses() []Status { return slices.Sorted(maps.Keys(statusDescriptions)) }

// Terminal says whether the task has ended.
func (s Status) Terminal() bool {
	switch s {
	case StatusSucceeded, StatusPartial, StatusFailed, StatusAborted, StatusRolledBack:
		return true
	}
	return false
}

var statusTransitions = map[Status][]Status{
	StatusStarting:    {StatusRunning, StatusPaused, StatusAborting, StatusRollingBack, StatusFailed},
	StatusRunning:     {StatusPaused, StatusAborting, StatusRollingBack, StatusSucceeded, StatusPartial, StatusFailed},
	StatusPaused:      {StatusRunning, StatusAborting, StatusRollingBack, StatusFailed},
	StatusAborting:    {StatusAborted, StatusRollingBack, StatusFailed},
	StatusRollingBack: {StatusRolledBack, StatusFailed},
}

// CanBecome says whether a task may go from s to next. Staying is always allowed.
func (s Status) CanBecome(next Status) bool {
	if s == next {
		return true
	}
	for _, t := range statusTransitions[s] {
		if t == next {
			return true
		}
	}
	return false
}

// Phase is what a task that has not ended is doing.
type Phase string

// The phases of a task, in their order.
const (
	PhasePlan      Phase = "plan"
	PhaseCanary    Phase = "canary"
	PhaseSoak      Phase = "soak"
	PhasePromotion Phase = "promotion" // waiting for a person to promote it
	PhaseWave      Phase = "wave"
	PhaseRollback  Phase = "rollback"
	PhaseDone      Phase = "done"
)

// TargetState is where one host of a task stands.
type TargetState string

// The states of a target.
const (
	TargetPending        TargetState = "pending"         // not begun
	TargetRunning        TargetState = "running"         // its step was dispatched; the host counts as touched
	TargetSucceeded      TargetState = "succeeded"       //
	TargetFailed         TargetState = "failed"          //
	TargetUnknown        TargetState = "unknown"         // it cannot be known whether, or how far, the step ran
	TargetOffline        TargetState = "offline"         // not reached; nothing was started there
	TargetCancelled      TargetState = "cancelled"       // stopped while it ran
	TargetSkipped        TargetState = "skipped"         // the task ended before its turn; nothing was started there
	TargetRolledBack     TargetState = "rolled_back"     // runs again what it ran before
	TargetRollbackFailed TargetState = "rollback_failed" // was touched, and did not return
)

// Touched says whether something of the task may have run on the host.
func (s TargetState) Touched() bool {
	switch s {
	case TargetPending, TargetOffline, TargetSkipped:
		return false
	}
	return true
}

// Decided says whether the deploy step of the host has come to an end for this task.
func (s TargetState) Decided() bool { return s != TargetPending && s != TargetRunning }
