// Package job is the domain of commands and batch jobs: one command, many hosts, each of which runs it once.
//
// A single command is a job with one target. Everything here is pure; what is kept is the store's, what happens next the
// workflow's.
package job

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// Kind says through which door a job came. It changes nothing about how it is carried out.
type Kind string

// The kinds of a job.
const (
	KindCommand Kind = "command" // one host
	KindMulti   Kind = "multi"   // several hosts, somebody waits for all of them
	KindStream  Kind = "stream"  // several hosts, somebody watches; cancelled when asked to
	KindBatch   Kind = "batch"
)

// Job is a command for some hosts.
type Job struct {
	ID         string          `json:"job_id"`
	Kind       Kind            `json:"kind" enum:"command,multi,stream,batch"`
	Command    Command         `json:"command"`
	Targets    release.Targets `json:"targets" doc:"As they were asked for"`
	Options    Options         `json:"options"`
	Status     Status          `json:"status" enum:"starting,running,paused,cancelling,completed,partial,failed,cancelled,timeout"`
	Reason     string          `json:"reason,omitempty" doc:"One line: why it did not complete"`
	Counts     Counts          `json:"counts"`
	WorkflowID string          `json:"workflow_id"`
	CreatedBy  string          `json:"created_by"`
	CreatedAt  time.Time       `json:"created_at"`
	UpdatedAt  time.Time       `json:"updated_at"`
	FinishedAt *time.Time      `json:"finished_at,omitempty"`
}

// Command is what each host runs.
type Command struct {
	Type    string          `json:"command_type"`
	Payload json.RawMessage `json:"payload,omitempty" doc:"An object; what is in it depends on the type"`
}

// Options say how a job goes over its hosts. Validate fills nothing in; see WithDefaults.
type Options struct {
	Concurrency    int              `json:"concurrency,omitempty" minimum:"1" doc:"Hosts at work at once; batch.max_concurrency is the default and the most"`
	TaskTimeout    release.Duration `json:"task_timeout,omitempty" doc:"For one host; it counts from the start there. Defaults to batch.task_timeout"`
	JobTimeout     release.Duration `json:"job_timeout,omitempty" doc:"For all hosts together; what has not started by then does not start, what runs is stopped. Defaults to batch.job_timeout, or what one host may take where that is more"`
	Retries        *int             `json:"retries,omitempty" doc:"How often a host that did not start it is tried again. Defaults to batch.max_retries"`
	RetryInterval  release.Duration `json:"retry_interval,omitempty" doc:"Between two tries. Defaults to batch.retry_interval"`
	RetryOnFailure bool             `json:"retry_on_failure,omitempty" doc:"Try again too where the command ran and failed, or took too long. What cannot be known is never tried again"`
	MaxFailures    *release.Limit   `json:"max_failures,omitempty" doc:"More failed hosts than this, such as 10 or 5%, end the job. Without it any number may fail"`
	WaitOffline    release.Duration `json:"wait_offline,omitempty" doc:"How long hosts that are offline are waited for. Without it they are reported at once"`
}

// Target is one host of a job.
type Target struct {
	JobID           string          `json:"job_id"`
	ClientID        string          `json:"client_id"`
	State           State           `json:"state" enum:"pending,running,succeeded,failed,timeout,refused,unknown,offline,cancelled,skipped"`
	Epoch           int             `json:"epoch" doc:"0 at first; each new try that was decided on raises it"`
	ExitCode        *int            `json:"exit_code,omitempty"`
	Error           string          `json:"error,omitempty" doc:"One line: why it did not succeed"`
	Stdout          []byte          `json:"stdout,omitempty" doc:"The last bytes, at most 4 KiB"`
	Stderr          []byte          `json:"stderr,omitempty"`
	StdoutBytes     int64           `json:"stdout_bytes"` // in all; more than len(Stdout) means that Stdout is its end
	StderrBytes     int64           `json:"stderr_bytes"`
	Result          json.RawMessage `json:"result,omitempty" doc:"Of a command with a typed result"`
	ResultInLog     bool            `json:"-"` // Result was too large for a frame: it is what the step wrote to stdout
	StartedAt       *time.Time      `json:"started_at,omitempty"`
	FinishedAt      *time.Time      `json:"finished_at,omitempty"`
	Decided         int64           `json:"-"` // its place in the order of the job's results; 0 if it has none
	Hopeless        bool            `json:"-"` // another try would end the same
	NotBefore       *time.Time      `json:"-"` // of the next try
	WaitsForSession bool            `json:"-"` // it is offline and waited for
}

// ID names what one host does for a job: the id of a command. It can stand in a path.
func (t *Target) ID() string { return CommandID(t.JobID, t.ClientID) }

// CommandID names what one host does for a job.
func CommandID(jobID, clientID string) string { return jobID + "." + clientID }

// ParseCommandID takes the id of a command apart.
func ParseCommandID(id string) (jobID, clientID string, err error) {
	jobID, clientID, ok := strings.Cut(id, ".") // ids of jobs have no dot
	if !ok || jobID == "" || clientID == "" {
		return "", "", release.NotFound("command", id)
	}
	return jobID, clientID, nil
}

// StepCommand is the step of a job; its steps are named by release.StepID(job, StepCommand, client, epoch).
const StepCommand release.StepName = "command"

// WorkflowID names the workflow of a job.
func WorkflowID(jobID string) string { return "batch/" + jobID }
