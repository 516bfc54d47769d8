package hub

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	maxTail  = 4 << 10 // bytes kept of each output of a step
	maxError = 1 << 10

	maxResult = 8 << 10 // bytes of a step's typed result, whose JSON the Sink looks at
)

var stateOf = map[quicflowv1.Outcome]release.StepState{
	quicflowv1.Outcome_OUTCOME_SUCCEEDED: release.StepSucceeded,
	quicflowv1.Outcome_OUTCOME_FAILED:    release.StepFailed,
	quicflowv1.Outcome_OUTCOME_CANCELLED: release.StepCancelled,
	quicflowv1.Outcome_OUTCOME_UNKNOWN:   release.StepUnknown,
	quicflowv1.Outcome_OUTCOME_REFUSED:   release.StepRefused,
}

// takeResult queues a result to be stored.
func (s *session) takeResult(r *quicflowv1.StepResult) *endError {
	if _, err := s.ownStep(r.GetStepId()); err != nil {
		return err
	}
	result, ok := StepResult(s.id, r)
	if !ok {
		return violation("result of step %s: outcome %d is not known", r.StepId, r.Outcome)
	}
	size := int64(len(result.StdoutTail)+len(result.StderrTail)+len(result.Result)+len(result.Error)) + itemOverhead
	// An error means that the session is over, which its reader is about to find out.
	if s.hub.resultRoom.take(s, size) == nil {
		s.hub.results.put(s, result, size)
	}
	return nil
}

// StepResult gives what an agent reported in the domain's terms, its texts cut to what the store keeps. A typed result that is longer
// than may be is left out; a command that succeeded but for that has failed, as an agent of ours says itself. It says false when the
// outcome is not one that this hub knows.
func StepResult(clientID string, r *quicflowv1.StepResult) (release.StepResult, bool) {
	state, ok := stateOf[r.GetOutcome()]
	result := release.StepResult{
		StepID:     r.GetStepId(),
		ClientID:   clientID,
		State:      state,
		ExitCode:   int(r.GetExitCode()),
		Error:      oneLine(r.GetError()),
		StdoutTail: tail(r.GetStdoutTail()),
		StderrTail: tail(r.GetStderrTail()),
		StartedAt:  fromMillis(r.GetStartedUnixMs()),
		FinishedAt: fromMillis(r.GetFinishedUnixMs()),
		LogEnd:     r.GetLogEnd(),

		Result:      r.GetResult(),
		ResultInLog: r.GetResultInLog(),
		StdoutBytes: r.GetStdoutBytes(),
		StderrBytes: r.GetStderrBytes(),
		TimedOut:    r.GetTimedOut(),
		NotStarted:  r.GetNotStarted(),
	}
	if n := len(result.Result); n > maxResult {
		result.Result = nil
		// What a deployment reports beside its success may be missing.
		if _, name, _, _, err := release.ParseStepID(result.StepID); err == nil && name == job.StepCommand && state == release.StepSucceeded {
			result.State, result.ExitCode, result.Error = release.StepFailed, -1, fmt.Sprintf("its result takes %d bytes, at most %d are allowed", n, maxResult)
		}
	}
	return result, ok
}

// storeResults is how the intake stores results.
func (h *Hub) storeResults(ctx context.Context, batch []received[release.StepResult]) error {
	changed, err := h.cfg.Sink.RecordResults(ctx, items(batch))
	if err != nil {
		return err
	}
	failpoint.Here("hub.results.stored")
	h.metrics.results.Add(float64(len(batch)))
	tasks := make(map[string]struct{})
	for _, r := range batch {
		tasks[taskOf(r.item.StepID)] = struct{}{}
		r.from.acknowledge(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_ResultAck{
			ResultAck: &quicflowv1.ResultAck{StepId: r.item.StepID}}})
	}
	if h.cfg.OnResults != nil && len(changed) > 0 {
		h.cfg.OnResults(changed)
	}
	h.publish(tasks)
	return nil
}

// acknowledge tells an agent what it waits for, as that something is stored. If that is not possible the session ends, and the agent sends again.
func (s *session) acknowledge(frame *quicflowv1.ToAgent) {
	if err := s.reply(frame); err != nil {
		s.close(err)
	}
}

// publish says that something of these tasks was stored.
func (h *Hub) publish(tasks map[string]struct{}) {
	if h.cfg.OnStored == nil {
		return
	}
	for id := range tasks {
		h.cfg.OnStored(id)
	}
}

// ownStep gives the task of a step, if the step is one of this session's own client.
func (s *session) ownStep(stepID string) (taskID string, err *endError) {
	taskID, _, clientID, _, parseErr := release.ParseStepID(stepID)
	if parseErr != nil {
		return "", violation("%w", parseErr)
	}
	if text(stepID) != stepID {
		return "", violation("step id %q holds what no text holds", stepID)
	}
	if clientID != s.id {
		return "", violation("step %s is not one of client %s", stepID, s.id)
	}
	return taskID, nil
}

func taskOf(stepID string) string {
	task, _, _ := strings.Cut(stepID, "/")
	return task
}

func tail(b []byte) []byte { return b[max(0, len(b)-maxTail):] }

func oneLine(s string) string {
	s, _, _ = strings.Cut(text(s), "\n")
	return strings.ToValidUTF8(s[:min(len(s), maxError)], "")
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
