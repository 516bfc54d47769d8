// Package executor is what carries out the steps of the deployment types on a host.
//
// An agent gives a step to the Executor of its type and waits for the result. Most of what makes a step run once and survive the
// death of anything is the same for all types: package wrapper has it, and each type adds a Worker, which does the work itself.
package executor

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Executor carries out the steps of one deployment type. It is safe for concurrent use; the agent calls Start or Recover once for a
// step in each of its lives, then Wait, and Stop at any time after Start or Recover. The agent gives steps of one project one after
// the other.
type Executor interface {
	// Type is what the executor carries out. It never changes.
	Type() release.Type
	// Probe says whether this host can do it now, and with what; the error says why not, in one line. It returns soon.
	Probe(ctx context.Context) (Capability, error)
	// Start begins a step. After an error nothing was begun, and never will be. release.ErrInvalid: the step itself is wrong.
	Start(ctx context.Context, step *Step) error
	// Recover finds out what became of a step that Start was called for in an earlier life of the agent, whether Start returned or
	// not, and goes on with it where that is possible.
	Recover(ctx context.Context, step *Step) (State, error)
	// Wait gives the result of a step that runs or has ended. It gives nil if ctx ends first; the step goes on.
	Wait(ctx context.Context, step *Step) *quicflowv1.StepResult
	// Stop asks a step to end soon; Wait says what came of that. A step that did not begin its work never will. It may be repeated.
	Stop(step *Step, why *Cancelled)
	// Logs writes the output of what runs of a project, not that of steps, until it ends, or ctx does with Follow.
	Logs(ctx context.Context, what Deployed, options LogOptions, out io.Writer) error
	// Describe says what runs of a project on this host, by looking at the host and not at what was stored of it.
	Describe(ctx context.Context, what Deployed) (Running, error)
}

// Capability is what a host brings for a deployment type.
type Capability struct {
	Type    release.Type      `json:"type"`
	Version string            `json:"version,omitempty"` // of the engine, the program or the cluster
	Details map[string]string `json:"details,omitempty"` // such as a storage driver
}

// State is what Recover found.
type State int

// What may have become of a step.
const (
	NotStarted State = iota // provably: Start may be called
	GoesOn                  // Wait gives its result in time
	Ended                   // Wait gives its result at once
	Unknown                 // nobody can know how far it got
)

// Step is a step as an executor sees it.
type Step struct {
	ID       string
	TaskID   string
	Action   release.StepAction
	Project  string
	Version  string // what the host runs when the step is done; empty after an uninstall
	Previous string // version that ran before, empty if none did

	Environment string            // empty without one
	Config      release.Merged    // merged; ${NAME} of this host's variables is not replaced yet (see Expanded)
	ConfigID    string            // names Config
	Secrets     map[string]string `json:"-"` // values of secret variables; never to be written to disk, to logs or to arguments

	// Command is set for a command, which has no project, no action and no configuration.
	Command *quicflowv1.CommandStep `json:"-"`

	Host     Host
	NotAfter time.Time     // it must not begin later
	Dir      string        `json:"-"` // of the step's own; what is in it survives the agent, until the result is stored
	Log      *spool.Writer `json:"-"` // in Dir
}

// Host is the host that a step is for.
type Host struct {
	ClientID string            // identity of the agent
	DataDir  string            // of the agent, absolute
	Labels   map[string]string // of the agent
}

// Deployed says what was deployed of a project, as far as the server knows.
type Deployed struct {
	Project  string
	Version  string
	Config   release.Merged // merged; a variable that neither the host nor the server knows, such as a secret, is still in it as ${NAME}
	ConfigID string
	Host     Host
}

// LogOptions say which output is wanted.
type LogOptions struct {
	Tail       int       // lines at the end; 0: all
	Since      time.Time // zero: from the beginning
	Follow     bool      // go on with what is written later
	Timestamps bool
}

// Running is what an executor found of a project on its host.
type Running = release.Running

// RunState is whether something runs as it was deployed.
type RunState = release.RunState

// The states of what was deployed.
const (
	RunOK       = release.RunOK
	RunDegraded = release.RunDegraded
	RunStopped  = release.RunStopped
	RunMissing  = release.RunMissing
	RunChanged  = release.RunChanged
	RunUnknown  = release.RunUnknown
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

// EndedWith gives a result, finished now, whose outcome no script decided.
func EndedWith(outcome quicflowv1.Outcome, reason string) *quicflowv1.StepResult {
	return &quicflowv1.StepResult{Outcome: outcome, ExitCode: -1, Error: reason, FinishedUnixMs: time.Now().UnixMilli()}
}

// TimedOut is the cause of a step's end when its time is over.
type TimedOut struct {
	After time.Duration
}

func (t *TimedOut) Error() string { return "timed out after " + t.After.String() }
