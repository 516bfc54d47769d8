package executor

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Worker does the work of one deployment type. Package wrapper makes an Executor of it: it runs Work in a process of its own, a
// wrapper, which outlives the agent, so that an agent may be restarted in the middle of a step.
//
// A Worker is made twice, in the agent and in the wrapper: making it does nothing, and it keeps nothing between two steps.
type Worker interface {
	// Type is what the worker carries out. It never changes.
	Type() release.Type
	// Check says what is wrong with a step before anything is begun: release.ErrInvalid. It looks at the step alone, not at the host.
	// Config is expanded.
	Check(step *Step) error
	// Work carries out a step, or goes on with it: a wrapper may die at any line, and then Work is called again in another one, with
	// the same step and run.Again set. What has been done by then it finds out from the host itself (labels, files, the cluster),
	// and from what it kept with run.Keep. It never does twice what may be done only once, and it leaves nothing half done: it goes
	// forward or back. Where that cannot be known it gives ErrUnknown.
	//
	// It returns nil if the step succeeded. When ctx ends, it stops as soon as what runs before the step runs again, and returns
	// context.Cause(ctx), wrapped or not: a Cancelled, a TimedOut. Its context does not end when the agent stops.
	//
	// Any other error is why the step failed: one line that a release manager understands. The full text belongs into the log.
	Work(ctx context.Context, run *Run) error

	// Probe, Logs and Describe are those of Executor. They are called in the agent's process.
	Probe(ctx context.Context) (Capability, error)
	Logs(ctx context.Context, what Deployed, options LogOptions, out io.Writer) error
	Describe(ctx context.Context, what Deployed) (Running, error)
}

// ArtifactUser is a Worker that needs artifacts. The agent has them in its cache before the step's Work begins.
type ArtifactUser interface {
	Worker
	// Artifacts gives what Work will ask Tools.Artifact for. Config is expanded.
	Artifacts(step *Step) []release.Artifact
}

// RefLister is a Worker, or an Executor, that can say what there is to deploy in a repository.
type RefLister interface {
	// Refs lists branches and tags, the default branch first, the highest version of each kind first. spec is expanded.
	Refs(ctx context.Context, spec *release.GitSpec) ([]release.GitRef, error)
}

// Commander is a Worker, or an Executor, that also carries out commands: steps that have Command set.
type Commander interface {
	// CommandTypes never change.
	CommandTypes() []string
	// CheckCommand says what is wrong with a command, by release.ErrInvalid with the field, before anything is stored.
	CheckCommand(*quicflowv1.CommandStep) error
}

// Fetcher brings artifacts to an agent.
type Fetcher interface {
	// Get gives the path of an artifact in the agent's cache, when its content is there and has been checked. Until release is called it
	// stays there. What came of it is kept for another try. Where a server or a network is away it tries again until ctx ends, and then
	// gives context.Cause(ctx); any other error is why it cannot be had, in one line. Without a URL it was uploaded to the server.
	Get(ctx context.Context, sha256, url string) (path string, release func(), err error)
}

// Run is one run of Work. Only Work's own goroutines use it.
type Run struct {
	*Step       // Config is expanded: no variable is left in it
	Again bool  // an earlier wrapper began this work
	Tools Tools // what every type needs
}

// Tools are what workers have in common. Package wrapper has the real ones.
type Tools interface {
	// Printf writes a line of the system stream: what begins, what was found. Never a secret.
	Printf(format string, args ...any)
	// Stdout and Stderr are the step's output, for programs that it runs.
	Stdout() io.Writer
	Stderr() io.Writer
	// Script runs a script of the step's to its end, at most once in the life of the step, however often Work is called again: nil if
	// it has ended well, now or in an earlier run; *ExitError if it failed, now or then; ErrUnknown if a wrapper died while it
	// ran. Output goes to the step's log. An empty script does nothing.
	Script(ctx context.Context, s Script) error
	// Program runs a program, of which it does not matter how often it runs, in a process group of its own that ends with ctx and
	// with the wrapper. Its output goes to the step's log unless Output is set.
	Program(ctx context.Context, p Program) error
	// Health makes the step's health check until it passes or has failed; nil if there is none. It may be repeated.
	Health(ctx context.Context, env map[string]string) error
	// Artifact gives the path of an artifact of this SHA-256 that ArtifactUser's Artifacts gave, or that is in the agent's cache. The
	// file is only to be read, and its content has been checked.
	Artifact(ctx context.Context, sha256 string) (path string, err error)
	// Keep makes a value durable under a name, for a later run; Kept reads it, and reports false if there is none.
	Keep(name string, value any) error
	Kept(name string, value any) (bool, error)
	// Environment is what scripts and workloads get: QUICFLOW_…, and with base also PATH, HOME, ….
	Environment(base bool) map[string]string
	// Report puts what now runs into the result of the step, which the server keeps. At most 8 KiB of JSON.
	Report(running Running)
}

// Script is a script of a step.
type Script struct {
	Name        string // pre_script, script, post_script, uninstall; unique within the step
	Text        string
	Interpreter string // may carry arguments, separated by spaces
	User        string // user or user:group; empty: the agent's own
	Dir         string // working directory, made if it is missing; empty: the project's own below the data directory
	Env         map[string]string
	Limits      *release.ProcessLimits // of all scripts of the step; nil: none
}

// Program is a program that a worker runs.
type Program struct {
	Path   string   // or a name to find in PATH
	Args   []string // without the program's own name; never a secret
	User   string
	Dir    string            // as in Script
	Env    map[string]string // nil: Environment(true)
	Stdin  io.Reader
	Output io.Writer // of both streams; nil: the step's log
}

// ExitError is the end of a script or a program that failed.
type ExitError struct {
	Name string
	Code int    // 128 + signal if one killed it
	Line string // the last it wrote to stderr; may be empty
}

func (e *ExitError) Error() string {
	text := fmt.Sprintf("exit code %d", e.Code)
	if e.Line != "" {
		text += ": " + e.Line
	}
	if e.Name != "" && e.Name != MainScript {
		text = e.Name + ": " + text
	}
	return text
}

// MainScript is the name of a step's main script, which messages leave out.
const MainScript = "script"

// ErrUnknown says that nobody can know how far a step got.
var ErrUnknown = errors.New("how far the step got cannot be known")
