package fleet

import (
	"fmt"
	"time"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// maxSleep bounds the messages of type sleep.
const maxSleep = time.Hour

// request answers one request, now or later. agent.mu is held.
func (s *session) request(request *quicflowv1.Request) {
	switch body := request.Body.(type) {
	case *quicflowv1.Request_Step:
		answered := s
		if request.Id == 0 {
			answered = nil
		}
		s.respond(request.Id, s.agent.requestStep(body.Step, answered))
	case *quicflowv1.Request_CancelStep:
		s.respond(request.Id, s.agent.cancelStep(body.CancelStep.GetStepId(), body.CancelStep.GetReason()))
	case *quicflowv1.Request_Message:
		s.message(request.Id, body.Message)
	default:
		s.respond(request.Id, failure(quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, "the agent does not know this kind of request"))
	}
	s.agent.settleSteps()
}

// message answers ping with pong and echo with itself; sleep is answered after the duration that its payload says.
func (s *session) message(id uint64, m *quicflowv1.Message) {
	switch kind := m.GetType(); kind {
	case "ping":
		s.respond(id, messageResponse("pong", m.Payload))
	case "echo":
		s.respond(id, messageResponse("echo", m.Payload))
	case "sleep":
		d, err := time.ParseDuration(string(m.Payload))
		if err != nil || d < 0 || d > maxSleep {
			s.respond(id, failure(quicflowv1.FailureCode_FAILURE_CODE_INVALID, fmt.Sprintf("the payload must be a duration of 0s to %s, such as 5s", maxSleep)))
			return
		}
		s.agent.fleet.schedule.after(d, func() {
			s.agent.mu.Lock()
			defer s.agent.mu.Unlock()
			s.respond(id, messageResponse("sleep", m.Payload))
		})
	default:
		s.respond(id, failure(quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, fmt.Sprintf("the agent has no handler for %q", kind)))
	}
}

// respond answers, if someone waits. agent.mu is held.
func (s *session) respond(id uint64, response *quicflowv1.Response) {
	if id == 0 || s.ended {
		return
	}
	response.Id = id
	s.agent.fleet.stats.requests.Add(1)
	s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Response{Response: response}})
}

func messageResponse(kind string, payload []byte) *quicflowv1.Response {
	return &quicflowv1.Response{Body: &quicflowv1.Response_Message{Message: &quicflowv1.Message{Type: kind, Payload: payload}}}
}

func failure(code quicflowv1.FailureCode, message string) *quicflowv1.Response {
	return &quicflowv1.Response{Body: &quicflowv1.Response_Failure{Failure: &quicflowv1.Failure{Code: code, Message: message}}}
}
