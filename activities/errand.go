package activities

import (
	"context"
	"time"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
	"github.com/quicflow/quicflow/workflows"
)

// errand is what a dispatch carries out on the hosts of a chunk: a step of a release task, or the command of a job. Its
// methods may be called concurrently.
type errand interface {
	// steps reads the steps of the chunk. Each is pending, dispatched, or decided: in any other state.
	steps(ctx context.Context) ([]release.Step, error)
	// request makes the request for a step, without the time after which it must not start, and says how long the step may
	// take once started. Where the errand itself is wrong the error is release.ErrInvalid or release.ErrNotFound.
	request(ctx context.Context, step *release.Step) (req *quicflowv1.StepRequest, longest time.Duration, err error)
	// mark writes down that hosts are about to be sent to; nothing may be sent before. It gives those that may be. If nothing
	// new may start, halted is true and those are the hosts alone that were marked before.
	mark(ctx context.Context, clientIDs []string) (marked []string, halted bool, err error)
	// conclude writes verdicts of the server. A step that its agent decided is left alone.
	conclude(ctx context.Context, conclusions []conclusion) error
	// chargesOffline says whether a host that is offline counts against the failure budget.
	chargesOffline() bool
}

// verdict is what the server itself finds of a step.
type verdict int

const (
	verdictOffline  verdict = iota // nothing was started there
	verdictRefused                 // nor there: the agent does not do it now
	verdictHopeless                // nor there: the request is wrong, or nothing that the agent does
	verdictUnknown                 // no one can know
)

// conclusion is a verdict on a step.
type conclusion struct {
	step    *dispatchStep
	verdict verdict
	why     string // one line
	at      time.Time
}

// releaseErrand is one step of a release task.
type releaseErrand struct {
	*requests
	chunk   workflows.DispatchRequest
	offline release.Offline
}

var _ errand = (*releaseErrand)(nil)

func (e *releaseErrand) steps(ctx context.Context) ([]release.Step, error) {
	return e.store.ChunkSteps(ctx, e.chunk.TaskID, e.chunk.Step, e.chunk.Chunk)
}

func (e *releaseErrand) request(ctx context.Context, step *release.Step) (*quicflowv1.StepRequest, time.Duration, error) {
	return e.of(ctx, *step)
}

func (e *releaseErrand) mark(ctx context.Context, clientIDs []string) ([]string, bool, error) {
	return e.store.MarkDispatched(ctx, e.chunk.TaskID, e.chunk.Step, clientIDs)
}

func (e *releaseErrand) conclude(ctx context.Context, conclusions []conclusion) error {
	all := make([]store.Conclusion, len(conclusions))
	for i, c := range conclusions {
		target := map[verdict]release.TargetState{
			verdictOffline: release.TargetOffline, verdictRefused: release.TargetFailed, verdictHopeless: release.TargetFailed, verdictUnknown: release.TargetUnknown,
		}[c.verdict]
		all[i] = store.Conclusion{StepID: c.step.ID, Target: target, Error: c.why, At: c.at}
	}
	return e.store.ConcludeSteps(ctx, all)
}

func (e *releaseErrand) chargesOffline() bool { return e.offline == release.OfflineFail }
