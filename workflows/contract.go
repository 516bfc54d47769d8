// Package workflows holds QuicFlow's durable decisions: what happens next in a rollout, whatever dies meanwhile.
//
// A workflow carries ids, counts and decisions. Target lists, results and logs stay in the store and are read and
// written by activities (see Activities for their contract). Nothing here does I/O or reads a clock.
package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/quicflow/quicflow/internal/release"
)

// TaskQueue is the queue that every server listens on, for workflows and for activities that any server can do.
const TaskQueue = "quicflow"

// HubQueue names the queue of the activities that need the sessions of one hub.
func HubQueue(nodeID string) string { return "hub-" + nodeID }

// Names of the activities.
const (
	ActivityLoadPlan      = "LoadPlan"
	ActivityRecord        = "RecordProgress"
	ActivitySetHalt       = "SetHalt"
	ActivityPlanChunks    = "PlanChunks"
	ActivityCountTargets  = "CountTargets"
	ActivityDispatchChunk = "DispatchChunk"
)

// PlanRequest asks LoadPlan for what was decided when the task was created.
type PlanRequest struct {
	TaskID string
}

// Plan is how a task goes over its targets.
type Plan struct {
	Strategy release.Strategy // with defaults filled
	Waves    []release.Wave
	Total    int // targets
}

// ProgressRequest asks RecordProgress to write where a task stands.
type ProgressRequest struct {
	TaskID    string
	Status    release.Status
	Phase     release.Phase
	Wave      int
	Reason    string
	SoakUntil *time.Time
	At        time.Time
}

// HaltRequest asks SetHalt to raise or lift the fence that lets no deploy step of the task start.
type HaltRequest struct {
	TaskID string
	Halted bool
}

// ChunksRequest asks PlanChunks to cut what is left of a wave (deploy) or of the touched hosts (rollback) into chunks.
type ChunksRequest struct {
	TaskID string
	Step   release.StepName
	Wave   int      // ignored for a rollback
	Size   int      // hosts in a chunk, at most
	Avoid  []string // queues that did not answer; their hosts are given to the hub that plans
}

// Chunk is a group of hosts whose sessions one hub holds. Its members are in the store.
type Chunk struct {
	Number int
	Queue  string
	Size   int
}

// ChunkPlan is PlanChunks' answer; no chunks means that nothing is left.
type ChunkPlan struct {
	Chunks []Chunk
}

// CountRequest asks CountTargets how many targets stand where.
type CountRequest struct {
	TaskID string
}

// TargetCounts is CountTargets' answer.
type TargetCounts struct {
	All    release.Counts
	ByWave map[int]release.Counts
}

// DispatchRequest asks DispatchChunk to bring every host of a chunk through a step.
type DispatchRequest struct {
	TaskID   string
	Step     release.StepName
	Chunk    int
	Parallel int  // hosts at work at once
	Budget   int  // charged hosts that are tolerated before nothing new starts; negative: any number
	Cancel   bool // start nothing; ask what was started to stop
}

// DispatchReport is DispatchChunk's answer.
type DispatchReport struct {
	Charged   int // hosts charged to the failure budget
	Undecided int // hosts left over, because the task was halted, or the budget spent
}

// ErrTypeDraining is the type of the application error that DispatchChunk ends with when its hub is stopping.
const ErrTypeDraining = "ErrHubDraining"

// Limits of dispatching. A chunk is one activity.
const (
	ChunkSize      = 500
	MaxOpenChunks  = 8
	replanInterval = time.Second
)

// storeOptions are for the short activities that any server can do. They are retried until they succeed: while the
// database is away, a rollout waits. Their timeout is also how long a rollout stands still when a server dies in one.
func storeOptions(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           TaskQueue,
		StartToCloseTimeout: 10 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 10 * time.Second,
		},
	})
}

// planOptions are for PlanChunks, which takes its time for a large fleet, and heartbeats meanwhile.
func planOptions(ctx workflow.Context) workflow.Context {
	options := workflow.GetActivityOptions(storeOptions(ctx))
	options.StartToCloseTimeout = 5 * time.Minute
	options.HeartbeatTimeout = 5 * time.Second
	return workflow.WithActivityOptions(ctx, options)
}

// dispatchOptions are for DispatchChunk: one attempt, as the workflow plans again from the store instead.
func dispatchOptions(ctx workflow.Context, queue string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              queue,
		ScheduleToStartTimeout: 15 * time.Second,
		StartToCloseTimeout:    7 * 24 * time.Hour,
		HeartbeatTimeout:       10 * time.Second,
		WaitForCancellation:    true,
		RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
	})
}
