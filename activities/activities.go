// Package activities does for workflows what has effects: it reads and writes the store and brings steps to agents
// through the hub. The contract of each activity is in package workflows.
package activities

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
	"github.com/quicflow/quicflow/workflows"
)

// Store is what activities need of the store. All methods are safe for concurrent use.
type Store interface {
	Task(ctx context.Context, id string) (release.Task, error)
	Project(ctx context.Context, ref string) (release.Project, error)
	Version(ctx context.Context, projectRef, ref string) (release.Version, error)
	Snapshot(ctx context.Context, id string) (release.Snapshot, error)
	VariablesFor(ctx context.Context, of store.Scope) ([]release.Variable, error)
	SecretValues(ctx context.Context, of store.Scope, names []string) (map[string]string, error)
	SetProgress(ctx context.Context, taskID string, p store.Progress) error
	SetHalt(ctx context.Context, taskID string, halted bool) error
	WaveCounts(ctx context.Context, taskID string) (map[int]release.Counts, error)
	PlanChunks(ctx context.Context, taskID string, step release.StepName, wave int, size int, defaultNode string) ([]store.ChunkPlan, error)
	ChunkSteps(ctx context.Context, taskID string, step release.StepName, chunk int) ([]release.Step, error)
	MarkDispatched(ctx context.Context, taskID string, step release.StepName, clientIDs []string) (marked []string, halted bool, err error)
	ConcludeSteps(ctx context.Context, conclusions []store.Conclusion) error
	JobStore
	ScheduleStore
}

var _ Store = (*store.Store)(nil)

// Hub is what activities need of the hub. All methods are safe for concurrent use.
type Hub interface {
	// Request sends one request to an agent and waits for its answer, until ctx ends or the session does.
	Request(ctx context.Context, clientID string, req *quicflowv1.Request) (*quicflowv1.Response, error)
	// RequestIn is Request, but only in the session that Presence told of.
	RequestIn(ctx context.Context, clientID string, epoch int64, req *quicflowv1.Request) (*quicflowv1.Response, error)
	// AwaitTurn waits until there is room for one request more of many.
	AwaitTurn(ctx context.Context) (hub.Turn, error)
	// Presence says whether an agent can be reached.
	Presence(clientID string) hub.Presence
	// WatchClient gives a channel that fires when the agent's session comes or goes, until cancel is called.
	WatchClient(clientID string) (changed <-chan struct{}, cancel func())
}

var _ Hub = (*hub.Hub)(nil)

// Bus tells that something of a task was stored.
type Bus interface {
	Notify(topic string)
}

// Config holds what New needs. All fields but Results, Now, Logger and Limits are required.
type Config struct {
	Store  Store
	Hub    Hub
	Bus    Bus
	NodeID string // of this server; names its hub's queue
	// Results is told what the hub stores. Without it a dispatch learns that from the store, some seconds later.
	Results *Results
	Now     func() time.Time // Defaults to time.Now
	Logger  *slog.Logger     // Defaults to slog.Default()
	Limits  Limits
	Jobs    job.Limits // defaults for what the options of a job leave open
}

// Limits bound how long dispatching waits. The zero value means the defaults.
type Limits struct {
	// Answer is how long an agent may take to say that it accepted a step. Defaults to 10s.
	Answer time.Duration
	// NotAfter is how long after sending it an agent may still start a step. Defaults to 10m, which also covers clocks
	// that differ a little.
	NotAfter time.Duration
	// Grace is added to a step's own timeouts before its result is asked for again. Defaults to 30s.
	Grace time.Duration
	// Return is how much longer an agent with a step at work may stay away once it counts as offline: one that is being
	// restarted says goodbye, and is offline at once. Defaults to 30s.
	Return time.Duration
	// Settle is how long a cancelled dispatch waits for its agents to stop what runs. Defaults to 8s.
	Settle time.Duration
}

func (l Limits) withDefaults() Limits {
	set := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	set(&l.Answer, 10*time.Second)
	set(&l.NotAfter, 10*time.Minute)
	set(&l.Grace, 30*time.Second)
	set(&l.Return, 30*time.Second)
	set(&l.Settle, 8*time.Second)
	return l
}

// Activities carries out the activities of package workflows.
type Activities struct {
	store     Store
	hub       Hub
	bus       Bus
	results   *Results
	nodeID    string
	now       func() time.Time
	log       *slog.Logger
	limits    Limits
	jobLimits job.Limits

	mu    sync.Mutex
	slots map[string]*slots // of the jobs that are dispatched, by id
}

// New checks a Config and fills its defaults.
func New(c Config) (*Activities, error) {
	if c.Store == nil || c.Hub == nil || c.Bus == nil || c.NodeID == "" {
		return nil, errors.New("activities: Store, Hub, Bus and NodeID are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Results == nil {
		c.Results = new(Results)
	}
	return &Activities{store: c.Store, hub: c.Hub, bus: c.Bus, results: c.Results, nodeID: c.NodeID, now: c.Now, log: c.Logger,
		limits: c.Limits.withDefaults(), jobLimits: c.Jobs, slots: map[string]*slots{}}, nil
}

// Register makes the activities known to a worker, under the names of package workflows.
func (a *Activities) Register(r worker.ActivityRegistry) {
	for name, f := range map[string]any{
		workflows.ActivityLoadPlan:      a.LoadPlan,
		workflows.ActivityRecord:        a.RecordProgress,
		workflows.ActivitySetHalt:       a.SetHalt,
		workflows.ActivityPlanChunks:    a.PlanChunks,
		workflows.ActivityCountTargets:  a.CountTargets,
		workflows.ActivityDispatchChunk: a.DispatchChunk,

		workflows.ActivityLoadJob:          a.LoadJob,
		workflows.ActivityRecordJob:        a.RecordJob,
		workflows.ActivitySetJobHalt:       a.SetJobHalt,
		workflows.ActivityPlanJobChunks:    a.PlanJobChunks,
		workflows.ActivityDispatchJobChunk: a.DispatchJobChunk,
		workflows.ActivityCountJob:         a.CountJob,
		workflows.ActivityRetryJob:         a.RetryJob,
		workflows.ActivityAwaitJobHosts:    a.AwaitJobHosts,

		workflows.ActivityFireSchedule: a.FireSchedule,
		workflows.ActivityAwaitTask:    a.AwaitTask,
	} {
		r.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
}

// final marks the errors that trying again cannot mend, so that Temporal does not.
func final(err error) error {
	switch code := release.CodeOf(err); code {
	case release.CodeInvalid, release.CodeNotFound, release.CodeConflict:
		return temporal.NewNonRetryableApplicationError(err.Error(), string(code), err)
	}
	return err
}
