package fleet

import (
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// maxOut is how much may wait to be written, in bytes; above it the session ends.
const maxOut = 4 << 20

// session is one accepted connection to a hub. Its fields are guarded by agent.mu, but for those of the first group.
type session struct {
	agent   *simulated
	conn    *quic.Conn
	control *quic.Stream
	frames  *wire.Reader // of the goroutine that reads
	out     *wire.Outbox

	cause error // why we ended it
	ended bool

	pulse agent.Pulse
	acked uint64 // the sequence of the last heartbeat answered: when it was sent, in unix ns
	asked uint64 // the sequence of the heartbeat of Confirm
	heard time.Time

	logs logSession
}

// read takes frames until there are no more.
func (s *session) read() error {
	a := s.agent
	for {
		frame := new(quicflowv1.ToAgent)
		if err := s.frames.Read(frame); err != nil {
			return fmt.Errorf("read control stream: %w", err)
		}
		now := time.Now()
		a.mu.Lock()
		s.heard = now
		var err error
		switch body := frame.Body.(type) {
		case *quicflowv1.ToAgent_HeartbeatAck:
			if sent := body.HeartbeatAck.Sequence; sent > s.acked && sent <= uint64(now.UnixNano()) {
				s.acked = sent
				took := &a.fleet.stats.roundTrip
				if sent == s.asked {
					took = &a.fleet.stats.confirm
				}
				took.add(time.Duration(now.UnixNano() - int64(sent)))
			}
		case *quicflowv1.ToAgent_Request:
			s.request(body.Request)
		case *quicflowv1.ToAgent_ResultAck:
			a.resultAcked(body.ResultAck.StepId)
		case *quicflowv1.ToAgent_LogAck:
			a.logAcked(body.LogAck.StepId, body.LogAck.Position)
		case *quicflowv1.ToAgent_LogCredit:
			s.credited(body.LogCredit.Bytes)
		case *quicflowv1.ToAgent_Goodbye:
			a.mu.Unlock()
			a.follow(body.Goodbye)
			return fmt.Errorf("%w: %s", errGoodbye, body.Goodbye.Reason)
		case *quicflowv1.ToAgent_Refusal:
			err = refusal(body.Refusal)
		}
		a.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// send queues a frame. agent.mu is held.
func (s *session) send(frame *quicflowv1.ToHub) {
	if s.ended {
		return
	}
	switch err := s.out.Send(frame, maxOut); {
	case errors.Is(err, wire.ErrOutboxFull):
		s.end(errStuck)
	case err != nil:
		s.agent.fleet.cfg.Logger.Error("frame could not be sent", "client_id", s.agent.id, "error", err)
	}
}

var _ wire.OutboxOwner = (*session)(nil)

// Go runs a writer.
func (s *session) Go(f func()) { s.agent.fleet.work.Go(f) }

// Wrote does not count.
func (s *session) Wrote(int) {}

// WriteFailed does nothing: after any error the reader finds out.
func (s *session) WriteFailed(error) {}

// end closes the connection for a reason of ours, without waiting. agent.mu is held.
func (s *session) end(cause error) {
	if s.cause != nil || s.ended {
		return
	}
	s.cause, s.ended = cause, true
	s.agent.fleet.work.Go(func() { _ = s.conn.CloseWithError(wire.CloseNormal, "") })
}
