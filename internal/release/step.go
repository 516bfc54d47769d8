package release

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// StepName is a step of a task on a host.
type StepName string

// The steps of a release task.
const (
	StepDeploy   StepName = "deploy"
	StepRollback StepName = "rollback"
)

// StepAction is what an executor does in a step.
type StepAction string

// The actions of a step.
const (
	StepInstall    StepAction = "install"
	StepUpdate     StepAction = "update"
	StepRollbackTo StepAction = "rollback"
	StepUninstall  StepAction = "uninstall"
)

// StepState is where a step stands for the server.
type StepState string

// The states of a step.
const (
	StepPending    StepState = "pending"    // planned, not sent
	StepDispatched StepState = "dispatched" // about to be sent, or sent; from here on it may have run
	StepSucceeded  StepState = "succeeded"
	StepFailed     StepState = "failed"
	StepCancelled  StepState = "cancelled"
	StepUnknown    StepState = "unknown" // no one can know; a result that arrives late replaces it
	StepRefused    StepState = "refused" // the agent provably never started it
)

// Final says whether an agent's own result has decided the step; the first such result is kept for good.
func (s StepState) Final() bool {
	switch s {
	case StepSucceeded, StepFailed, StepCancelled, StepRefused:
		return true
	}
	return false
}

// Step is one execution on one host.
type Step struct {
	ID              string // StepID(...)
	TaskID          string
	Name            StepName
	ClientID        string
	Epoch           int
	Action          StepAction
	ProjectID       string
	VersionID       string // what the host runs afterwards; empty after an uninstall
	PreviousVersion string // name of what ran before; empty if nothing did
	State           StepState
	ConfigID        string // of the Snapshot that it carries out; empty: planned before there were any
}

// StepID names a step so that the same decision always gives the same name.
func StepID(taskID string, name StepName, clientID string, epoch int) string {
	return fmt.Sprintf("%s/%s/%s/%d", taskID, name, clientID, epoch)
}

// ParseStepID takes a step id apart.
func ParseStepID(id string) (taskID string, name StepName, clientID string, epoch int, err error) {
	parts := strings.Split(id, "/")
	if len(parts) != 4 {
		return "", "", "", 0, fmt.Errorf("step id %q does not have four parts", id)
	}
	epoch, err = strconv.Atoi(parts[3])
	if err != nil {
		return "", "", "", 0, fmt.Errorf("step id %q ends in no epoch", id)
	}
	return parts[0], StepName(parts[1]), parts[2], epoch, nil
}

// StepResult is what came of a step, as its agent reported, or as the server had to conclude.
type StepResult struct {
	StepID     string
	ClientID   string // whose session brought it; the store checks it against the step's
	State      StepState
	ExitCode   int    // -1 if no script decided the outcome
	Error      string // one line
	StdoutTail []byte
	StderrTail []byte
	StartedAt  time.Time // zero if it never started
	FinishedAt time.Time
	LogEnd     uint64 // length of the step's spool

	// Of commands:
	Result      []byte // JSON, or empty
	ResultInLog bool   // Result was too large for a frame: it is what the step wrote to stdout
	StdoutBytes uint64 // in all
	StderrBytes uint64
	TimedOut    bool // with StepFailed: it was stopped as its time was over
	NotStarted  bool // with StepFailed: the agent found the request wrong before it started anything
}

// Stream tells the outputs of a step apart.
type Stream string

// The streams of a step.
const (
	StreamStdout Stream = "stdout"
	StreamStderr Stream = "stderr"
	StreamSystem Stream = "system" // lines by the agent itself
)

// LogRecord is a piece of a step's output. Seq is given by the store.
//
// One without a step is a notice by the store: it says why there is nothing between the record before it and itself.
type LogRecord struct {
	TaskID   string
	Seq      int64 // rises without gaps within the task; 0 until stored
	StepID   string
	ClientID string
	Position uint64 // where the record begins in the agent's spool
	Next     uint64 // where it ends
	Stream   Stream
	Offset   uint64 // of Data[0] within its stream
	Time     time.Time
	Data     []byte
}

// LogAck says that all records of a step before Position are stored.
type LogAck struct {
	StepID   string
	Position uint64
}
