package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/quicflow/quicflow/agent/journal"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// maxAnswer leaves room for what surrounds an answer in its frame.
const maxAnswer = wire.MaxFrame - 1024

var errHandlerFailed = errors.New("the agent's handler failed")

// maxFailure bounds what the hub is told of an error, in bytes.
const maxFailure = 4 << 10

// request answers one request, later. It never blocks the reading.
func (s *session) request(ctx context.Context, group *errgroup.Group, request *quicflowv1.Request) {
	if answer := s.agent.builtin(request.GetMessage()); answer != nil {
		s.respond(request, answer)
		return
	}
	select {
	case s.requests <- struct{}{}:
	default:
		s.respond(request, failure(quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, "too many requests at the same time"))
		return
	}
	group.Go(func() error {
		defer func() { <-s.requests }()
		s.respond(request, s.answer(ctx, request))
		return nil
	})
}

func (s *session) respond(request *quicflowv1.Request, response *quicflowv1.Response) {
	if request.Id == 0 {
		return
	}
	response.Id = request.Id
	err := s.out.Send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Response{Response: response}}, maxAnswers)
	if errors.Is(err, wire.ErrOutboxFull) {
		s.agent.cfg.Logger.Warn("request was left unanswered, as the hub does not read", "request_id", request.Id)
		if result := response.GetStep().GetResult(); result != nil {
			s.agent.steps.resultSent(result.StepId, 0)
		}
	}
}

func (s *session) answer(ctx context.Context, request *quicflowv1.Request) *quicflowv1.Response {
	switch body := request.Body.(type) {
	case *quicflowv1.Request_Step:
		asked := s.number
		if request.Id == 0 {
			asked = 0
		}
		status, err := s.agent.steps.request(body.Step, asked)
		return stepResponse(body.Step.GetStepId(), status, err)
	case *quicflowv1.Request_CancelStep:
		status, err := s.agent.steps.cancelStep(body.CancelStep.GetStepId(), body.CancelStep.GetReason())
		return stepResponse(body.CancelStep.GetStepId(), status, err)
	case *quicflowv1.Request_Message:
		return s.message(ctx, body.Message)
	case *quicflowv1.Request_ListRefs:
		return s.listRefs(ctx, body.ListRefs)
	case *quicflowv1.Request_Describe:
		return s.describe(ctx, body.Describe)
	}
	return failure(quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, "the agent does not know this kind of request")
}

func (s *session) message(ctx context.Context, message *quicflowv1.Message) *quicflowv1.Response {
	handler, ok := s.agent.cfg.Handlers[message.GetType()]
	if !ok {
		return failure(quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, fmt.Sprintf("the agent has no handler for %q", message.GetType()))
	}
	answer, err := s.call(ctx, handler, message)
	if err != nil {
		return failure(quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, err.Error())
	}
	if answer == nil {
		answer = &quicflowv1.Message{}
	}
	if err := checkMessage(answer); err != nil {
		return failure(quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, "the answer is "+err.Error())
	}
	return &quicflowv1.Response{Body: &quicflowv1.Response_Message{Message: answer}}
}

// call runs a handler. One that panics must not end the agent.
func (s *session) call(ctx context.Context, handler Handler, message *quicflowv1.Message) (answer *quicflowv1.Message, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s.agent.cfg.Logger.Error("handler panicked", "type", message.GetType(), "panic", cause, "stack", string(debug.Stack()))
			answer, err = nil, errHandlerFailed
		}
	}()
	return handler(ctx, message)
}

func stepResponse(stepID string, status journal.Status, err error) *quicflowv1.Response {
	if err != nil {
		return failure(failureCode(err), err.Error())
	}
	answer := &quicflowv1.StepStatus{StepId: stepID, State: quicflowv1.StepState_STEP_STATE_ACCEPTED}
	if status.State == journal.Finished {
		answer.State, answer.Result = quicflowv1.StepState_STEP_STATE_FINISHED, status.Result
	}
	return &quicflowv1.Response{Body: &quicflowv1.Response_Step{Step: answer}}
}

func failureCode(err error) quicflowv1.FailureCode {
	switch {
	case errors.Is(err, journal.ErrFull):
		return quicflowv1.FailureCode_FAILURE_CODE_JOURNAL_FULL
	case errors.Is(err, errOverloaded), errors.Is(err, ErrStopping):
		return quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED
	case errors.Is(err, errInvalidStep), errors.Is(err, journal.ErrNoDeadline), errors.Is(err, release.ErrInvalid):
		return quicflowv1.FailureCode_FAILURE_CODE_INVALID
	case errors.Is(err, errUnsupportedStep):
		return quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED
	}
	return quicflowv1.FailureCode_FAILURE_CODE_INTERNAL
}

func failure(code quicflowv1.FailureCode, message string) *quicflowv1.Response {
	message = strings.ToValidUTF8(message[:min(len(message), maxFailure)], "") // what cannot be encoded would end the session
	return &quicflowv1.Response{Body: &quicflowv1.Response_Failure{Failure: &quicflowv1.Failure{Code: code, Message: message}}}
}
