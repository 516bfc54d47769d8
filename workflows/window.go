package workflows

import (
	"errors"
	"slices"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// window is how a round of chunks is dispatched: each chunk is one activity on the queue of its hub.
type window struct {
	open     int         // chunks in flight at once, at most; at least 1
	stop     func() bool // says that no further chunk is begun
	activity string
	request  func(Chunk) any // the activity's argument, asked for when its turn has come
	done     func(DispatchReport)
}

// run dispatches the chunks and returns when none is in flight. It begins no further chunk once one has failed, which no host
// is charged for: the caller plans again. silent are the queues on which no one took the work up.
func (w window) run(ctx, inFlight workflow.Context, chunks []Chunk) (silent []string, failed bool, err error) {
	places := workflow.NewSemaphore(ctx, int64(w.open))
	all := workflow.NewWaitGroup(ctx)
	for _, chunk := range chunks {
		if err = places.Acquire(ctx, 1); err != nil {
			break
		}
		if w.stop() || failed {
			places.Release(1)
			break
		}
		request := w.request(chunk)
		all.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer all.Done()
			defer places.Release(1)
			var report DispatchReport
			err := workflow.ExecuteActivity(dispatchOptions(inFlight, chunk.Queue), w.activity, request).Get(ctx, &report)
			if err == nil {
				w.done(report)
				return
			}
			failed = true
			if isScheduleToStart(err) && !slices.Contains(silent, chunk.Queue) {
				silent = append(silent, chunk.Queue)
			}
			workflow.GetLogger(ctx).Warn("chunk did not finish; its hosts are planned again", "chunk", chunk.Number, "queue", chunk.Queue, "error", err)
		})
	}
	all.Wait(ctx)
	return silent, failed, err
}

func isScheduleToStart(err error) bool {
	var timeout *temporal.TimeoutError
	return errors.As(err, &timeout) && timeout.TimeoutType() == enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START
}
