package activities

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/heartbeat"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
	"github.com/quicflow/quicflow/workflows"
)

// JobStore is what the activities of jobs need of the store. All methods are safe for concurrent use.
type JobStore interface {
	Job(ctx context.Context, id string) (job.Job, error)
	SetJobProgress(ctx context.Context, jobID string, p store.JobProgress) error
	SetJobHalt(ctx context.Context, jobID string, halted bool) error
	PlanJobChunks(ctx context.Context, jobID string, size int, defaultNode string) ([]store.ChunkPlan, error)
	JobSteps(ctx context.Context, jobID string, chunk int) ([]store.JobStep, error)
	MarkJobChunk(ctx context.Context, jobID string, chunk int, clientIDs []string) (marked []string, halted bool, err error)
	ConcludeJobTargets(ctx context.Context, jobID string, conclusions []store.JobConclusion) error
	RetryJob(ctx context.Context, jobID string, r store.JobRetry) (retried int, counts job.Counts, err error)
	AwaitingJobTargets(ctx context.Context, jobID string) (waiting, connected int, err error)
	WakeJobTargets(ctx context.Context, jobID string) (woken int, err error)
	GiveUpJobTargets(ctx context.Context, jobID string, at time.Time) (offline int, err error)
}

// awaitInterval is how often AwaitJobHosts looks who has come back; those who come within one are gone over together.
const awaitInterval = time.Second

// LoadJob reads how the job goes over its hosts, and writes down that it begins to.
func (a *Activities) LoadJob(ctx context.Context, req workflows.JobLoadRequest) (workflows.JobPlan, error) {
	j, err := a.store.Job(ctx, req.JobID)
	if err != nil {
		return workflows.JobPlan{}, final(fmt.Errorf("read job: %w", err))
	}
	if req.Begin {
		if err := a.RecordJob(ctx, workflows.JobProgressRequest{JobID: req.JobID, Status: job.StatusRunning, At: req.At}); err != nil {
			return workflows.JobPlan{}, err
		}
	}
	return workflows.JobPlan{Options: j.Options.WithDefaults(a.jobLimits), Total: j.Counts.Total}, nil
}

// RecordJob writes where the job stands, and tells whoever watches it.
func (a *Activities) RecordJob(ctx context.Context, req workflows.JobProgressRequest) error {
	err := a.store.SetJobProgress(ctx, req.JobID, store.JobProgress{Status: req.Status, Reason: req.Reason, At: req.At})
	if err != nil {
		return final(fmt.Errorf("write progress: %w", err))
	}
	failpoint.Here("job.recorded")
	a.bus.Notify(bus.Task(req.JobID))
	return nil
}

// SetJobHalt raises or lifts the fence of the job.
func (a *Activities) SetJobHalt(ctx context.Context, req workflows.JobHaltRequest) error {
	if err := a.store.SetJobHalt(ctx, req.JobID, req.Halted); err != nil {
		return final(fmt.Errorf("set halt: %w", err))
	}
	failpoint.Here("job.halted")
	return nil
}

// CountJob counts the hosts of the job by their state.
func (a *Activities) CountJob(ctx context.Context, req workflows.JobRequest) (workflows.JobStanding, error) {
	j, err := a.store.Job(ctx, req.JobID)
	if err != nil {
		return workflows.JobStanding{}, final(fmt.Errorf("count hosts: %w", err))
	}
	return a.standing(ctx, &j, j.Counts)
}

// standing says with the counts how many hosts are waited for.
func (a *Activities) standing(ctx context.Context, j *job.Job, counts job.Counts) (standing workflows.JobStanding, err error) {
	standing.Counts = counts
	if j.Options.WaitOffline > 0 {
		if standing.Waiting, _, err = a.store.AwaitingJobTargets(ctx, j.ID); err != nil {
			return standing, final(fmt.Errorf("count hosts that are waited for: %w", err))
		}
	}
	return standing, nil
}

// RetryJob decides which hosts are tried again. The decision is stored before anything is sent because of it.
func (a *Activities) RetryJob(ctx context.Context, req workflows.JobRetryRequest) (answer workflows.JobRetryAnswer, err error) {
	defer heartbeat.Keep(ctx)()
	j, err := a.store.Job(ctx, req.JobID)
	if err != nil {
		return answer, final(fmt.Errorf("read job: %w", err))
	}
	options := j.Options.WithDefaults(a.jobLimits)
	retried, counts, err := a.store.RetryJob(ctx, req.JobID, store.JobRetry{
		Max: *options.Retries, OnFailure: options.RetryOnFailure, After: a.now().Add(options.RetryInterval.Std()), Offline: req.WaitOffline,
	})
	if err != nil {
		return answer, final(fmt.Errorf("retry hosts: %w", err))
	}
	failpoint.Here("job.retried")
	answer.Retried = retried
	answer.JobStanding, err = a.standing(ctx, &j, counts)
	return answer, err
}

// PlanJobChunks cuts the hosts whose turn it is into chunks by the hub that holds their sessions.
func (a *Activities) PlanJobChunks(ctx context.Context, req workflows.JobChunksRequest) (workflows.ChunkPlan, error) {
	defer heartbeat.Keep(ctx)()
	chunks, err := a.store.PlanJobChunks(ctx, req.JobID, req.Size, a.nodeID)
	if err != nil {
		return workflows.ChunkPlan{}, final(fmt.Errorf("plan chunks: %w", err))
	}
	failpoint.Here("job.planned")
	return a.planOf(chunks, req.Avoid), nil
}

// AwaitJobHosts waits until some of the hosts that are waited for have a session, and makes it their turn. When their time is
// over the rest are offline.
func (a *Activities) AwaitJobHosts(ctx context.Context, req workflows.JobHostsRequest) (answer workflows.JobHostsAnswer, err error) {
	defer heartbeat.Keep(ctx)()
	tick := time.NewTicker(awaitInterval)
	defer tick.Stop()
	for {
		waiting, connected, err := a.store.AwaitingJobTargets(ctx, req.JobID)
		switch {
		case err != nil:
			return answer, final(fmt.Errorf("look for hosts: %w", err))
		case connected > 0:
			if answer.Back, err = a.store.WakeJobTargets(ctx, req.JobID); err != nil {
				return answer, final(fmt.Errorf("take up hosts: %w", err))
			}
			failpoint.Here("job.woken")
			return answer, nil
		case waiting == 0:
			answer.Over = true
			return answer, nil
		case !a.now().Before(req.Until):
			if _, err := a.store.GiveUpJobTargets(ctx, req.JobID, a.now()); err != nil {
				return answer, final(fmt.Errorf("give up hosts: %w", err))
			}
			a.bus.Notify(bus.Task(req.JobID))
			answer.Over = true
			return answer, nil
		}
		select {
		case <-ctx.Done():
			return answer, ctx.Err()
		case <-activity.GetWorkerStopChannel(ctx):
			return answer, errDraining // another server goes on
		case <-tick.C:
		}
	}
}

// DispatchJobChunk has every host of a chunk run the command of the job, as DispatchChunk does for a step of a release.
func (a *Activities) DispatchJobChunk(ctx context.Context, req workflows.JobDispatchRequest) (workflows.DispatchReport, error) {
	j, err := a.store.Job(ctx, req.JobID)
	if err != nil {
		return workflows.DispatchReport{}, final(fmt.Errorf("read job: %w", err))
	}
	e := newJobErrand(a.store, j, req.Chunk, a.jobLimits)
	slots, done := a.jobSlots(req.JobID, req.Parallel)
	defer done()
	return a.newDispatch(order{task: req.JobID, budget: req.Budget, cancel: req.Cancel}, e, slots).run(ctx)
}

// jobErrand is the command of a job.
type jobErrand struct {
	store JobStore
	id    string
	chunk int
	spec  *quicflowv1.StepRequest_Command // one for all hosts
	limit time.Duration
}

var _ errand = (*jobErrand)(nil)

func newJobErrand(s JobStore, j job.Job, chunk int, limits job.Limits) *jobErrand {
	timeout := j.Options.WithDefaults(limits).TaskTimeout.Std()
	return &jobErrand{store: s, id: j.ID, chunk: chunk, limit: timeout, spec: &quicflowv1.StepRequest_Command{Command: &quicflowv1.CommandStep{
		Type: j.Command.Type, Payload: j.Command.Payload, TimeoutMs: timeout.Milliseconds()}}}
}

func (e *jobErrand) steps(ctx context.Context) ([]release.Step, error) {
	targets, err := e.store.JobSteps(ctx, e.id, e.chunk)
	if err != nil {
		return nil, err
	}
	steps := make([]release.Step, len(targets))
	for i, t := range targets {
		steps[i] = release.Step{
			ID: release.StepID(e.id, job.StepCommand, t.ClientID, t.Epoch), TaskID: e.id, Name: job.StepCommand, ClientID: t.ClientID,
			Epoch: t.Epoch, State: stepState(t.State),
		}
	}
	return steps, nil
}

// stepState says where the step of a target stands.
func stepState(s job.State) release.StepState {
	switch s {
	case job.StatePending:
		return release.StepPending
	case job.StateRunning:
		return release.StepDispatched
	case job.StateSucceeded:
		return release.StepSucceeded
	case job.StateFailed, job.StateTimeout:
		return release.StepFailed
	case job.StateRefused, job.StateOffline:
		return release.StepRefused
	case job.StateUnknown:
		return release.StepUnknown
	}
	return release.StepCancelled
}

func (e *jobErrand) request(_ context.Context, step *release.Step) (*quicflowv1.StepRequest, time.Duration, error) {
	return &quicflowv1.StepRequest{StepId: step.ID, TaskId: e.id, Spec: e.spec}, e.limit, nil
}

func (e *jobErrand) mark(ctx context.Context, clientIDs []string) ([]string, bool, error) {
	return e.store.MarkJobChunk(ctx, e.id, e.chunk, clientIDs)
}

func (e *jobErrand) conclude(ctx context.Context, conclusions []conclusion) error {
	all := make([]store.JobConclusion, len(conclusions))
	for i, c := range conclusions {
		state := map[verdict]job.State{
			verdictOffline: job.StateOffline, verdictRefused: job.StateRefused, verdictHopeless: job.StateRefused, verdictUnknown: job.StateUnknown,
		}[c.verdict]
		all[i] = store.JobConclusion{ClientID: c.step.ClientID, Epoch: c.step.Epoch, State: state, Error: c.why,
			Hopeless: c.verdict == verdictHopeless, At: c.at}
	}
	return e.store.ConcludeJobTargets(ctx, e.id, all)
}

func (e *jobErrand) chargesOffline() bool { return true }

// planOf names the queues of planned chunks.
func (a *Activities) planOf(chunks []store.ChunkPlan, avoid []string) (plan workflows.ChunkPlan) {
	for _, c := range chunks {
		queue := workflows.HubQueue(c.NodeID)
		if c.NodeID == "" || slices.Contains(avoid, queue) {
			queue = workflows.HubQueue(a.nodeID)
		}
		plan.Chunks = append(plan.Chunks, workflows.Chunk{Number: c.Chunk, Queue: queue, Size: c.Size})
	}
	return plan
}
