package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/quicflow/quicflow/internal/job"
)

// BatchJobWorkflowName is the type under which BatchJobWorkflow is registered.
const BatchJobWorkflowName = "BatchJobWorkflow"

// BatchInput starts a BatchJobWorkflow.
type BatchInput struct {
	JobID            string
	SearchAttributes bool // whether the cluster knows ours
	// Carried is the state that a continued run takes over; nil in the first one.
	Carried *BatchState
}

// BatchState is all that a batch job remembers. It is what the query "state" answers and what a continued run carries.
type BatchState struct {
	Plan      JobPlan
	Status    job.Status
	Reason    string
	Rounds    int        // that were dispatched
	Deadline  time.Time  // of the job; it moves by the time that the job was paused
	PausedAt  time.Time  // zero while it is not paused
	WaitUntil time.Time  // for hosts that are offline; zero once that is over
	NextTry   time.Time  // of hosts that are tried again; the earliest that is known
	Idle      int        // rounds in a row without anyone to go over
	Failing   bool       // more failed than is tolerated: what runs is seen through, and that is the end
	Ending    job.Status // StatusCancelled or StatusTimeout once that was decided
	Avoid     []string   // queues that did not answer in the last round
	Updates   []string   // ids of the updates that were carried out, the latest last
}

type batchRun struct {
	input   BatchInput
	state   BatchState
	writes  workflow.Mutex // orders what RecordJob writes
	fences  workflow.Mutex // orders what SetJobHalt writes
	updates workflow.Mutex // lets updates take turns

	stopWork workflow.CancelFunc // cancels the activities that deal with hosts; nil when there are none
}

// BatchJobWorkflow has the hosts of one job run its command, each once: round after round, until every one is decided.
func BatchJobWorkflow(ctx workflow.Context, input BatchInput) error {
	b := &batchRun{input: input, writes: workflow.NewMutex(ctx), fences: workflow.NewMutex(ctx), updates: workflow.NewMutex(ctx)}
	if input.Carried != nil {
		b.state = *input.Carried
	} else {
		b.state = BatchState{Status: job.StatusRunning}
	}
	if err := b.handleUpdates(ctx); err != nil {
		return err
	}
	if err := b.run(ctx); err != nil {
		return err
	}
	return allHandled(ctx)
}

func (b *batchRun) run(ctx workflow.Context) error {
	if b.input.Carried == nil {
		if err := b.load(ctx); err != nil {
			return err
		}
		options := b.state.Plan.Options
		b.state.Deadline = workflow.Now(ctx).Add(options.JobTimeout.Std())
		b.state.WaitUntil = workflow.Now(ctx).Add(options.WaitOffline.Std())
	}
	workflow.Go(ctx, b.watchDeadline)
	if err := b.goOver(ctx); err != nil {
		return err
	}
	if b.state.Ending != "" {
		return b.stop(ctx)
	}
	return nil
}

// load reads the plan, and has it written down in the same activity that the job is running, unless someone was quicker.
func (b *batchRun) load(ctx workflow.Context) error {
	if err := b.writes.Lock(ctx); err != nil {
		return err
	}
	defer b.writes.Unlock()
	request := JobLoadRequest{JobID: b.input.JobID, Begin: b.state.Status == job.StatusRunning, At: workflow.Now(ctx)}
	if err := workflow.ExecuteActivity(storeOptions(ctx), ActivityLoadJob, request).Get(ctx, &b.state.Plan); err != nil {
		return fmt.Errorf("load job: %w", err)
	}
	return nil
}

// goOver goes over the hosts until all are decided, or an end was decided.
func (b *batchRun) goOver(ctx workflow.Context) error {
	var standing JobStanding
	for {
		if err := b.gate(ctx); err != nil || b.state.Ending != "" {
			return err
		}
		if b.state.Rounds > 0 {
			answer, err := b.retry(ctx)
			if err != nil || b.state.Ending != "" {
				return err
			}
			standing = answer.JobStanding
			over, err := b.judge(ctx, standing.Counts)
			if over || err != nil || b.state.Ending != "" {
				return err
			}
			if b.state.Status == job.StatusPaused {
				continue
			}
			if next := workflow.Now(ctx); answer.Retried > 0 && b.state.NextTry.Before(next) {
				b.state.NextTry = next.Add(b.state.Plan.Options.RetryInterval.Std())
			}
		}
		chunks, err := b.planChunks(ctx)
		if err != nil || b.state.Ending != "" {
			return err
		}
		if len(chunks) > 0 {
			b.state.Idle = 0
			err = b.dispatch(ctx, chunks, standing.Counts)
		} else {
			err = b.idle(ctx, standing)
		}
		if err != nil {
			return err
		}
		b.state.Rounds++
		if b.state.Ending == "" {
			if err := b.continueIfLong(ctx); err != nil {
				return err
			}
		}
	}
}

// judge ends the job if every host is decided, or if too many failed and none is at work any more.
func (b *batchRun) judge(ctx workflow.Context, counts job.Counts) (over bool, err error) {
	options := b.state.Plan.Options
	if !b.state.Failing && job.Exceeded(counts, options) && counts.Open() > 0 {
		b.state.Failing = true
		if err := b.halt(ctx, true); err != nil || b.state.Ending != "" {
			return false, err
		}
	}
	if counts.Open() > 0 && !(b.state.Failing && counts.Running == 0) {
		return false, nil
	}
	if b.state.Status == job.StatusPaused {
		return false, nil
	}
	status, reason := job.Final(counts, options)
	return true, b.end(ctx, status, reason)
}

// idle waits where no host can be gone over now: for hosts that are offline, or for the time of the next try.
func (b *batchRun) idle(ctx workflow.Context, standing JobStanding) error {
	if standing.Waiting == 0 || standing.Waiting < standing.Counts.Open() {
		pause := b.state.NextTry.Sub(workflow.Now(ctx))
		if pause <= 0 {
			// It was hosts of an earlier try, or the clocks of two servers differ.
			pause = min(replanInterval<<b.state.Idle, max(replanInterval, b.state.Plan.Options.RetryInterval.Std()))
			b.state.Idle = min(b.state.Idle+1, 10)
		}
		return b.sleep(ctx, pause)
	}
	inFlight, done := b.beginWork(ctx)
	defer done()
	request := JobHostsRequest{JobID: b.input.JobID, Until: b.state.WaitUntil}
	var answer JobHostsAnswer
	err := workflow.ExecuteActivity(hostsOptions(inFlight), ActivityAwaitJobHosts, request).Get(ctx, &answer)
	if err != nil && b.state.Ending == "" {
		return fmt.Errorf("wait for hosts: %w", err)
	}
	if answer.Over {
		b.state.WaitUntil = time.Time{}
	}
	return nil
}

// gate holds a paused job until it is resumed or ended.
func (b *batchRun) gate(ctx workflow.Context) error {
	return workflow.Await(ctx, func() bool { return b.state.Status != job.StatusPaused || b.state.Ending != "" })
}

// sleep waits, unless the job is about to end.
func (b *batchRun) sleep(ctx workflow.Context, d time.Duration) error {
	_, err := workflow.AwaitWithTimeout(ctx, d, func() bool { return b.state.Ending != "" })
	return err
}

// watchDeadline ends the job when its time is over. While it is paused its time stands still.
func (b *batchRun) watchDeadline(ctx workflow.Context) {
	for b.state.Ending == "" && !b.state.Status.Terminal() {
		moved := func() bool {
			return b.state.Status == job.StatusPaused || b.state.Status.Terminal() || b.state.Ending != ""
		}
		if b.state.Status == job.StatusPaused {
			if workflow.Await(ctx, func() bool { return b.state.Status != job.StatusPaused || b.state.Ending != "" }) != nil {
				return
			}
			continue
		}
		early, err := workflow.AwaitWithTimeout(ctx, b.state.Deadline.Sub(workflow.Now(ctx)), moved)
		if err != nil {
			return // the run is over
		}
		if early || moved() {
			continue
		}
		b.state.Ending, b.state.Status = job.StatusTimeout, job.StatusCancelling
		b.state.Reason = fmt.Sprintf("not done within %s", b.state.Plan.Options.JobTimeout)
		if b.stopWork != nil {
			b.stopWork()
		}
		return
	}
}

// stop lets nothing new start, asks the hosts at work to stop, and gives up on those that do not answer.
func (b *batchRun) stop(ctx workflow.Context) error {
	if err := b.halt(ctx, true); err != nil {
		return err
	}
	if err := b.record(ctx); err != nil {
		return err
	}
	for range maxSettleRounds {
		standing, err := b.count(ctx)
		if err != nil {
			return err
		}
		if standing.Counts.Running == 0 {
			break
		}
		chunks, err := b.planChunks(ctx)
		if err != nil {
			return err
		}
		err = b.dispatchAll(ctx, chunks, func(chunk Chunk) any {
			return JobDispatchRequest{JobID: b.input.JobID, Chunk: chunk.Number, Parallel: b.state.Plan.Options.Concurrency, Cancel: true}
		}, func(DispatchReport) {})
		if err != nil {
			return err
		}
	}
	status, reason := b.state.Ending, b.state.Reason
	if b.state.Failing {
		standing, err := b.count(ctx)
		if err != nil {
			return err
		}
		status, reason = job.Final(standing.Counts, b.state.Plan.Options)
	}
	return b.end(ctx, status, reason)
}

func (b *batchRun) end(ctx workflow.Context, status job.Status, reason string) error {
	b.state.Status, b.state.Reason = status, reason
	return b.record(ctx)
}

// record writes the present state. Writers take turns and each writes what holds at its turn, so the last one is right.
func (b *batchRun) record(ctx workflow.Context) error {
	if err := b.writes.Lock(ctx); err != nil {
		return err
	}
	defer b.writes.Unlock()
	if b.input.SearchAttributes {
		if err := workflow.UpsertTypedSearchAttributes(ctx, AttributeStatus.ValueSet(string(b.state.Status))); err != nil {
			return fmt.Errorf("set search attribute: %w", err)
		}
	}
	request := JobProgressRequest{JobID: b.input.JobID, Status: b.state.Status, Reason: b.state.Reason, At: workflow.Now(ctx)}
	if err := workflow.ExecuteActivity(storeOptions(ctx), ActivityRecordJob, request).Get(ctx, nil); err != nil {
		return fmt.Errorf("record progress: %w", err)
	}
	return nil
}

// halt raises or lifts the fence. Writers take turns; it stays up for a job that is failing, or about to end.
func (b *batchRun) halt(ctx workflow.Context, halted bool) error {
	if err := b.fences.Lock(ctx); err != nil {
		return err
	}
	defer b.fences.Unlock()
	request := JobHaltRequest{JobID: b.input.JobID, Halted: halted || b.state.Failing || b.state.Ending != ""}
	if err := workflow.ExecuteActivity(storeOptions(ctx), ActivitySetJobHalt, request).Get(ctx, nil); err != nil {
		return fmt.Errorf("set halt: %w", err)
	}
	return nil
}

func (b *batchRun) count(ctx workflow.Context) (standing JobStanding, err error) {
	if err := workflow.ExecuteActivity(storeOptions(ctx), ActivityCountJob, JobRequest{JobID: b.input.JobID}).Get(ctx, &standing); err != nil {
		return standing, fmt.Errorf("count hosts: %w", err)
	}
	return standing, nil
}

// retry decides who is tried again. A job that is failing tries no one again.
func (b *batchRun) retry(ctx workflow.Context) (answer JobRetryAnswer, err error) {
	if b.state.Failing {
		answer.JobStanding, err = b.count(ctx)
		return answer, err
	}
	request := JobRetryRequest{JobID: b.input.JobID, WaitOffline: workflow.Now(ctx).Before(b.state.WaitUntil)}
	if err := workflow.ExecuteActivity(planOptions(ctx), ActivityRetryJob, request).Get(ctx, &answer); err != nil {
		return answer, fmt.Errorf("retry hosts: %w", err)
	}
	return answer, nil
}

func (b *batchRun) planChunks(ctx workflow.Context) ([]Chunk, error) {
	request := JobChunksRequest{JobID: b.input.JobID, Size: JobChunkSize, Avoid: b.state.Avoid}
	var plan ChunkPlan
	if err := workflow.ExecuteActivity(planOptions(ctx), ActivityPlanJobChunks, request).Get(ctx, &plan); err != nil {
		return nil, fmt.Errorf("plan chunks: %w", err)
	}
	return plan.Chunks[:min(len(plan.Chunks), maxRoundChunks)], nil
}

// dispatch has chunks run the command in a sliding window. All chunks of a hub share its part of the places at work; what is
// left undecided is for the next round to plan again.
func (b *batchRun) dispatch(ctx workflow.Context, chunks []Chunk, counts job.Counts) error {
	share := shares(chunks, b.state.Plan.Options.Concurrency)
	budget := budgetLeft(b.state.Plan.Options, b.state.Plan.Total, counts)
	open := b.window(chunks)
	hosts, undecided := 0, 0
	for _, chunk := range chunks {
		hosts += chunk.Size
	}
	err := b.dispatchAll(ctx, chunks, func(chunk Chunk) any {
		part := -1
		if budget >= 0 {
			part = budget / open
		}
		return JobDispatchRequest{JobID: b.input.JobID, Chunk: chunk.Number, Parallel: share[chunk.Queue], Budget: part}
	}, func(report DispatchReport) {
		undecided += report.Undecided
		if budget >= 0 {
			budget = max(0, budget-report.Charged)
		}
	})
	if err == nil && undecided == hosts {
		return b.sleep(ctx, replanInterval) // whatever holds them, a moment later it may not
	}
	return err
}

// window is how many chunks are in flight at once. Each has a place at work at least.
func (b *batchRun) window(chunks []Chunk) int {
	return min(max(len(chunks), 1), MaxOpenJobChunks, b.state.Plan.Options.Concurrency)
}

// dispatchAll runs DispatchJobChunk for chunks and notes the queues that did not answer. It returns when none is in flight.
// Whoever ends the job stops the rest and cancels what is in flight.
func (b *batchRun) dispatchAll(ctx workflow.Context, chunks []Chunk, request func(Chunk) any, done func(DispatchReport)) error {
	inFlight, endWork := b.beginWork(ctx)
	defer endWork()
	ending := b.state.Ending
	round := window{
		open:     b.window(chunks),
		stop:     func() bool { return b.state.Ending != ending || b.state.Status == job.StatusPaused },
		activity: ActivityDispatchJobChunk, request: request, done: done,
	}
	silent, failed, err := round.run(ctx, inFlight, chunks)
	if err != nil {
		return err
	}
	b.state.Avoid = silent
	if failed && b.state.Ending == ending {
		// Whatever kept the hub from finishing, a moment later it may be back. No host is charged for it.
		_, err := workflow.AwaitWithTimeout(ctx, replanInterval, func() bool { return b.state.Ending != ending })
		return err
	}
	return nil
}

// beginWork gives a context for activities that deal with hosts: whoever ends the job cancels it.
func (b *batchRun) beginWork(ctx workflow.Context) (inFlight workflow.Context, done func()) {
	inFlight, b.stopWork = workflow.WithCancel(ctx)
	return inFlight, func() { b.stopWork = nil }
}

// continueIfLong starts a fresh run before history grows. It is called with no activity in flight.
func (b *batchRun) continueIfLong(ctx workflow.Context) error {
	info := workflow.GetInfo(ctx)
	if !info.GetContinueAsNewSuggested() && info.GetCurrentHistoryLength() < maxBatchHistory {
		return nil
	}
	if err := allHandled(ctx); err != nil {
		return err
	}
	next, state := b.input, b.state
	state.Updates = latestUpdates(state.Updates)
	next.Carried = &state
	return workflow.NewContinueAsNewError(ctx, BatchJobWorkflowName, next)
}
