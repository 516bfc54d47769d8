package hub

import (
	"errors"
	"fmt"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// An outbox is part of a session: frames are encoded into one buffer, and a goroutine that lives only while there is
// something to write hands the whole buffer to QUIC. So frames that come together leave together, and an idle session holds
// neither goroutine nor buffer.
const (
	// maxRequests is what requests may fill an outbox to, in bytes. The rest is for acknowledgements.
	maxRequests = 2 << 20
	// maxOutbox ends a session: its agent sends but does not read.
	maxOutbox = 4 << 20
	// maxSpare is the largest buffer that a writer keeps for its next round.
	maxSpare = 64 << 10
)

var errOutboxFull = errors.New("outbox is full")

// send queues a frame unless limit bytes are queued before it. It does not wait.
func (s *session) send(frame *quicflowv1.ToAgent, limit int) error {
	err := s.enqueue(frame, limit)
	s.sent(kindOf(frame), err)
	return err
}

// sent counts a frame that was, or could not be, queued. No lock may be held, as it calls a hook.
func (s *session) sent(kind string, err error) {
	if err != nil {
		s.hub.metrics.messagesFailed.Inc()
		return
	}
	s.hub.metrics.messagesSent.Inc()
	if hook := s.hub.cfg.Hooks.OnMessageSent; hook != nil {
		hook(s.event(), kind)
	}
}

func (s *session) enqueue(frame *quicflowv1.ToAgent, limit int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return fmt.Errorf("%w: %w", ErrSessionLost, s.cause)
	}
	if len(s.out) >= limit {
		return errOutboxFull
	}
	out, err := wire.AppendFrame(s.out, frame)
	if err != nil {
		s.hub.metrics.encodingErrors.Inc()
		return err
	}
	s.out = out
	if !s.writing {
		s.writing = true
		s.hub.conns.Go(s.write)
	}
	return nil
}

// reply queues a frame that the agent waits for; one that cannot be queued ends the session.
func (s *session) reply(frame *quicflowv1.ToAgent) *endError {
	if err := s.send(frame, maxOutbox); errors.Is(err, errOutboxFull) {
		return end(wire.CloseProtocol, fmt.Errorf("%w: %w", ErrProtocol, ErrBusy))
	}
	return nil // any other error means that the session ends already
}

// write empties the outbox and ends.
func (s *session) write() {
	stream := s.hub.metrics.writer(s.stream)
	var spare []byte
	for {
		s.mu.Lock()
		if len(s.out) == 0 || s.cause != nil {
			s.out, s.writing = nil, false
			s.mu.Unlock()
			return
		}
		frames := s.out
		s.out = spare
		s.mu.Unlock()
		if _, err := stream.Write(frames); err != nil {
			s.close(end(wire.CloseNormal, fmt.Errorf("%w: %w", ErrNetwork, err)))
		}
		spare = nil
		if cap(frames) <= maxSpare {
			spare = frames[:0]
		}
	}
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
	case *quicflowv1.ToAgent_Goodbye:
		return "goodbye"
	}
	return "unknown"
}
