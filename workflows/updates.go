package workflows

import (
	"fmt"
	"slices"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// Names of updates and queries that workflows have in common. Every update takes a Decision.
const (
	UpdatePause  = "pause"
	UpdateResume = "resume"
	QueryState   = "state"
)

// ErrTypeConflict is the type of the application error of an update that does not fit where the workflow stands.
const ErrTypeConflict = "Conflict"

// maxCarriedUpdates is how many ids of updates a continued run knows.
const maxCarriedUpdates = 100

// Decision says who wants something, and why.
type Decision struct {
	By     string
	Reason string
}

func (d Decision) text(did string) string {
	text := did + " by " + d.By
	if d.Reason != "" {
		text += ": " + d.Reason
	}
	return text
}

// update is something that a person can do to a running workflow.
type update struct {
	name  string
	check func() error // whether it fits now
	do    func(ctx workflow.Context, d Decision) error
}

// handleUpdates registers the handlers. Updates take turns; one whose id is in done is answered and does nothing.
func handleUpdates(ctx workflow.Context, turns workflow.Mutex, done *[]string, updates []update) error {
	seen := func(ctx workflow.Context) bool {
		return slices.Contains(*done, workflow.GetCurrentUpdateInfo(ctx).ID)
	}
	for _, u := range updates {
		handler := func(ctx workflow.Context, d Decision) error {
			if seen(ctx) {
				return nil
			}
			// One at a time: a pause and a resume that overlap could leave the fence up and the work going on.
			if err := turns.Lock(ctx); err != nil {
				return err
			}
			defer turns.Unlock()
			// The check again: since the validation another update may have come first.
			if err := u.check(); err != nil {
				return err
			}
			*done = append(*done, workflow.GetCurrentUpdateInfo(ctx).ID)
			return u.do(ctx, d)
		}
		validator := func(ctx workflow.Context, _ Decision) error {
			if seen(ctx) {
				return nil
			}
			return u.check()
		}
		if err := workflow.SetUpdateHandlerWithOptions(ctx, u.name, handler, workflow.UpdateHandlerOptions{Validator: validator}); err != nil {
			return fmt.Errorf("set update handler %s: %w", u.name, err)
		}
	}
	return nil
}

// latestUpdates are the ids that a continued run takes over.
func latestUpdates(ids []string) []string {
	return slices.Clone(ids[max(0, len(ids)-maxCarriedUpdates):])
}

// allHandled waits until every update that was accepted has been answered: none must be lost with the run.
func allHandled(ctx workflow.Context) error {
	return workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) })
}

func conflict(format string, args ...any) error {
	return temporal.NewApplicationError(fmt.Sprintf(format, args...), ErrTypeConflict)
}
