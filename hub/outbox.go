package hub

import (
	"errors"
	"fmt"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	// maxRequests is what requests may fill an outbox to, in bytes. The rest is for acknowledgements.
	maxRequests = 2 << 20
	// maxOutbox ends a session: its agent sends but does not read.
	maxOutbox = 4 << 20
)

var _ wire.OutboxOwner = (*session)(nil)

// Go runs a function that the hub waits for.
func (s *session) Go(f func()) { s.hub.conns.Go(f) }

// Wrote counts bytes.
func (s *session) Wrote(bytes int) { s.hub.metrics.bytesSent.Add(float64(bytes)) }

// WriteFailed ends the session.
func (s *session) WriteFailed(err error) {
	s.close(end(wire.CloseNormal, fmt.Errorf("%w: %w", ErrNetwork, err)))
}

// send queues a frame unless limit bytes are queued before it. It does not wait.
func (s *session) send(frame *quicflowv1.ToAgent, limit int) error {
	err := s.out.Send(frame, limit)
	s.sent(frame, err)
	return err
}

// sent counts a frame that was, or could not be, queued. No lock may be held, as it calls a hook.
func (s *session) sent(frame *quicflowv1.ToAgent, err error) {
	if err != nil {
		s.hub.metrics.messagesFailed.Inc()
		if !errors.Is(err, ErrSessionLost) && !errors.Is(err, wire.ErrOutboxFull) {
			s.hub.metrics.encodingErrors.Inc()
		}
		return
	}
	s.hub.metrics.messagesSent.Inc()
	if hook := s.hub.cfg.Hooks.OnMessageSent; hook != nil {
		hook(s.event(), kindOf(frame))
	}
}

// reply queues a frame that the agent waits for; one that cannot be queued ends the session.
func (s *session) reply(frame *quicflowv1.ToAgent) *endError {
	if err := s.send(frame, maxOutbox); errors.Is(err, wire.ErrOutboxFull) {
		return end(wire.CloseProtocol, fmt.Errorf("%w: %w", ErrProtocol, ErrBusy))
	}
	return nil // any other error means that the session ends already
}

func kindOf(frame *quicflowv1.ToAgent) string {
	switch frame.Body.(type) {
	case *quicflowv1.ToAgent_Welcome:
		return "welcome"
	case *quicflowv1.ToAgent_HeartbeatAck:
		return "heartbeat_ack"
	case *quicflowv1.ToAgent_Request:
		return "request"
	case *quicflowv1.ToAgent_Response:
		return "response"
	case *quicflowv1.ToAgent_ResultAck:
		return "result_ack"
	case *quicflowv1.ToAgent_LogAck:
		return "log_ack"
	case *quicflowv1.ToAgent_LogCredit:
		return "log_credit"
	case *quicflowv1.ToAgent_Goodbye:
		return "goodbye"
	}
	return "unknown"
}
