package store

import (
	"context"
	"encoding/json"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

// RecordResults stores what agents reported, of tasks and of jobs, and gives the steps that this changed. The first final result of
// a step (succeeded, failed, cancelled, refused) is kept for good; unknown gives way to it. A result for a step that is not known,
// that a later try has followed, or from a client that the step is not of, is passed over: all results may be acknowledged when this
// returns without an error.
func (s *Store) RecordResults(ctx context.Context, results []release.StepResult) (recorded []release.Step, err error) {
	best := make(map[string]release.StepResult, len(results))
	ids := make([]string, 0, len(results))
	var commands []string
	for _, r := range results {
		if r.State != release.StepUnknown && !r.State.Final() {
			s.config.Logger.WarnContext(ctx, "result without an outcome ignored", "step", r.StepID, "client", r.ClientID, "state", r.State)
			continue
		}
		_, name, clientID, _, err := release.ParseStepID(r.StepID)
		if err != nil || clientID != r.ClientID {
			s.config.Logger.WarnContext(ctx, "result of a foreign step ignored", "step", r.StepID, "client", r.ClientID)
			continue
		}
		earlier, ok := best[r.StepID]
		if ok && (earlier.State.Final() || !r.State.Final()) {
			continue
		}
		switch {
		case ok:
		case name == job.StepCommand:
			commands = append(commands, r.StepID)
		default:
			ids = append(ids, r.StepID)
		}
		best[r.StepID] = r
	}
	if len(ids) == 0 && len(commands) == 0 {
		return nil, nil
	}
	err = s.write(ctx, "record results", func(tx conn) (err error) {
		recorded, err = settle(ctx, tx, ids, func(step *stepRow) (outcome, bool) {
			r := best[step.ID]
			if step.RecordedAt != 0 || step.ClientID != r.ClientID {
				return outcome{}, false
			}
			return outcome{
				state: r.State, err: r.Error, exit: r.ExitCode, stdout: r.StdoutTail, stderr: r.StderrTail,
				started: r.StartedAt, finished: s.orNow(r.FinishedAt), logEnd: r.LogEnd, final: r.State.Final(), running: runningOf(r.Result),
			}, true
		})
		if err != nil || len(commands) == 0 {
			return err
		}
		of := make([]release.StepResult, len(commands))
		for i, id := range commands {
			of[i] = best[id]
		}
		changed, err := s.recordCommands(ctx, tx, of)
		recorded = append(recorded, changed...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return recorded, nil
}

// runningOf gives what a step's result says to run, if it does.
func runningOf(result []byte) string {
	if len(result) == 0 || json.Unmarshal(result, new(release.Running)) != nil {
		return ""
	}
	return clean(string(result))
}
