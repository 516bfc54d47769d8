package job

import (
	"fmt"
	"slices"
)

// Status is where a job stands.
type Status string

// The statuses of a job.
const (
	StatusStarting   Status = "starting"   // stored; its workflow is about to start
	StatusRunning    Status = "running"    //
	StatusPaused     Status = "paused"     // nothing new starts until someone resumes it
	StatusCancelling Status = "cancelling" // nothing new starts; what runs is being stopped
	StatusCompleted  Status = "completed"  // every host did it
	StatusPartial    Status = "partial"    // all hosts are decided, but not every one did it
	StatusFailed     Status = "failed"     // no host did it, or more failed than max_failures
	StatusCancelled  Status = "cancelled"  // someone stopped it
	StatusTimeout    Status = "timeout"    // the job's time was over before all hosts were decided
)

// Statuses are all that there are.
func Statuses() []Status {
	return []Status{StatusStarting, StatusRunning, StatusPaused, StatusCancelling, StatusCompleted, StatusPartial,
		StatusFailed, StatusCancelled, StatusTimeout}
}

// Terminal says whether the job has ended.
func (s Status) Terminal() bool {
	switch s {
	case StatusCompleted, StatusPartial, StatusFailed, StatusCancelled, StatusTimeout:
		return true
	}
	return false
}

var transitions = map[Status][]Status{
	StatusStarting:   {StatusRunning, StatusPaused, StatusCancelling, StatusFailed, StatusCancelled},
	StatusRunning:    {StatusPaused, StatusCancelling, StatusCompleted, StatusPartial, StatusFailed, StatusTimeout},
	StatusPaused:     {StatusRunning, StatusCancelling, StatusFailed},
	StatusCancelling: {StatusCancelled, StatusTimeout, StatusFailed},
}

// CanBecome says whether a job may go from s to next. Staying is always allowed.
func (s Status) CanBecome(next Status) bool {
	if s == next {
		return true
	}
	for _, t := range transitions[s] {
		if t == next {
			return true
		}
	}
	return false
}

// State is where one host of a job stands.
type State string

// The states of a target.
const (
	StatePending   State = "pending"   // not begun, or to be tried again
	StateRunning   State = "running"   // about to be sent, or sent: from here on it may have run
	StateSucceeded State = "succeeded" //
	StateFailed    State = "failed"    // it ran and failed
	StateTimeout   State = "timeout"   // it ran, and was stopped as it took too long
	StateRefused   State = "refused"   // the agent did not start it: unknown command, overloaded, journal full, too late
	StateUnknown   State = "unknown"   // it cannot be known whether, or how far, it ran
	StateOffline   State = "offline"   // not reached; nothing was started there
	StateCancelled State = "cancelled" // stopped while it ran, or before it started
	StateSkipped   State = "skipped"   // the job ended before its turn; nothing was started there
)

// States are all that there are.
func States() []State {
	return []State{StatePending, StateRunning, StateSucceeded, StateFailed, StateTimeout, StateRefused, StateUnknown, StateOffline,
		StateCancelled, StateSkipped}
}

// Valid says whether there is such a state.
func (s State) Valid() bool { return slices.Contains(States(), s) }

// CommandStates are the states that CommandStatus tells with this word, none for a word that is not one of its.
func CommandStates(status string) []State {
	var states []State
	for _, s := range States() {
		if s.CommandStatus() == status {
			states = append(states, s)
		}
	}
	return states
}

// Decided says whether the host has come to an end for this job.
func (s State) Decided() bool { return s != StatePending && s != StateRunning }

// CommandStatus is the state in the words of the command API: pending, executing, completed, failed, timeout, cancelled.
func (s State) CommandStatus() string {
	switch s {
	case StatePending:
		return "pending"
	case StateRunning:
		return "executing"
	case StateSucceeded:
		return "completed"
	case StateTimeout:
		return "timeout"
	case StateCancelled, StateSkipped:
		return "cancelled"
	}
	return "failed"
}

// Counts is how many hosts of a job stand where.
type Counts struct {
	Total     int `json:"total"`
	Pending   int `json:"pending"`
	Running   int `json:"running"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Timeout   int `json:"timeout"`
	Refused   int `json:"refused"`
	Unknown   int `json:"unknown"`
	Offline   int `json:"offline"`
	Cancelled int `json:"cancelled"`
	Skipped   int `json:"skipped"`
}

// Add counts n more hosts in a state, all of which Total counts too; n may be negative.
func (c *Counts) Add(s State, n int) {
	*c.of(s) += n
	c.Total += n
}

// of gives the count of a state.
func (c *Counts) of(s State) *int {
	switch s {
	case StatePending:
		return &c.Pending
	case StateRunning:
		return &c.Running
	case StateSucceeded:
		return &c.Succeeded
	case StateFailed:
		return &c.Failed
	case StateTimeout:
		return &c.Timeout
	case StateRefused:
		return &c.Refused
	case StateUnknown:
		return &c.Unknown
	case StateOffline:
		return &c.Offline
	case StateCancelled:
		return &c.Cancelled
	case StateSkipped:
		return &c.Skipped
	}
	panic(fmt.Sprintf("job: no such state: %q", s))
}

// Charged is what counts against max_failures.
func (c Counts) Charged() int { return c.Failed + c.Timeout + c.Refused + c.Unknown + c.Offline }

// Open is how many hosts are not decided.
func (c Counts) Open() int { return c.Pending + c.Running }
