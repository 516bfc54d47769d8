package store

import (
	"context"

	"github.com/quicflow/quicflow/internal/release"
)

// RecordResults stores what agents reported, and gives the steps that this changed. The first final result of a step
// (succeeded, failed, cancelled, refused) is kept for good; unknown gives way to it. A result for a step that is not
// known, or from a client that the step is not of, is passed over: all results may be acknowledged when this returns
// without an error.
func (s *Store) RecordResults(ctx context.Context, results []release.StepResult) (recorded []release.Step, err error) {
	best := make(map[string]release.StepResult, len(results))
	ids := make([]string, 0, len(results))
	for _, r := range results {
		if r.State != release.StepUnknown && !r.State.Final() {
			s.config.Logger.WarnContext(ctx, "result without an outcome ignored", "step", r.StepID, "client", r.ClientID, "state", r.State)
			continue
		}
		if _, _, clientID, _, err := release.ParseStepID(r.StepID); err != nil || clientID != r.ClientID {
			s.config.Logger.WarnContext(ctx, "result of a foreign step ignored", "step", r.StepID, "client", r.ClientID)
			continue
		}
		earlier, ok := best[r.StepID]
		if ok && (earlier.State.Final() || !r.State.Final()) {
			continue
		}
		if !ok {
			ids = append(ids, r.StepID)
		}
		best[r.StepID] = r
	}
	if len(ids) == 0 {
		return nil, nil
	}
	err = s.write(ctx, "record results", func(tx conn) error {
		recorded, err = settle(ctx, tx, ids, func(step *stepRow) (outcome, bool) {
			r := best[step.ID]
			if step.RecordedAt != 0 || step.ClientID != r.ClientID {
				return outcome{}, false
			}
			return outcome{
				state: r.State, err: r.Error, exit: r.ExitCode, stdout: r.StdoutTail, stderr: r.StderrTail,
				started: r.StartedAt, finished: s.orNow(r.FinishedAt), logEnd: r.LogEnd, final: r.State.Final(),
			}, true
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return recorded, nil
}
