package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/quicflow/quicflow/internal/release"
)

// dispatch brings chunks through a step in a sliding window. Each open chunk has its share of the parallelism and of
// the failure budget (negative: no budget); what a chunk leaves undecided is for the next round to plan again.
func (r *releaseRun) dispatch(ctx workflow.Context, step release.StepName, chunks []Chunk, budget int) error {
	parallel := r.state.Plan.Strategy.MaxParallel
	window := min(len(chunks), MaxOpenChunks, parallel)
	share := func() int {
		if budget < 0 {
			return -1
		}
		return budget / window
	}
	i := 0
	return r.dispatchAll(ctx, chunks, func(chunk Chunk) any {
		part := parallel / window
		if i%window < parallel%window {
			part++
		}
		i++
		return DispatchRequest{TaskID: r.input.TaskID, Step: step, Chunk: chunk.Number, Parallel: part, Budget: share()}
	}, func(report DispatchReport) {
		if budget >= 0 {
			budget = max(0, budget-report.Charged)
		}
	})
}

// dispatchAll runs DispatchChunk for chunks, at most the window at once, and notes the queues that did not answer.
// It returns when none is in flight. A person who ends the rollout stops the rest and cancels what is in flight.
func (r *releaseRun) dispatchAll(ctx workflow.Context, chunks []Chunk, request func(Chunk) any, done func(DispatchReport)) error {
	inFlight, cancel := workflow.WithCancel(ctx)
	r.stopDispatch = cancel
	defer func() { r.stopDispatch = nil }()

	ending := r.state.Ending
	round := window{
		open:     min(max(len(chunks), 1), MaxOpenChunks, r.state.Plan.Strategy.MaxParallel),
		stop:     func() bool { return r.state.Ending != ending || r.state.Status == release.StatusPaused },
		activity: ActivityDispatchChunk, request: request, done: done,
	}
	silent, failed, err := round.run(ctx, inFlight, chunks)
	if err != nil {
		return err
	}
	r.state.Avoid = silent
	if failed && r.state.Ending == ending {
		// Whatever kept the hub from finishing, a moment later it may be back. No host is charged for it.
		_, err := workflow.AwaitWithTimeout(ctx, replanInterval, func() bool { return r.state.Ending != ending })
		return err
	}
	return nil
}
