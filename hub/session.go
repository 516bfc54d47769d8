package hub

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// session is one connection of an agent. An idle one holds one goroutine, which reads the control stream, and no buffer.
type session struct {
	hub       *Hub
	id        string // the client id, as the certificate says
	conn      *quic.Conn
	stream    *quic.Stream // the control stream
	journalID string
	bootID    string
	serial    string // of its certificate
	checked   bool   // the certificate was checked before the registrar does so; written once, before it has a place

	// Guarded by hub.mu.
	accepted   bool
	superseded bool  // another session has its place in hub.sessions
	epoch      int64 // set when accepted

	lastBeat atomic.Int64 // the last heartbeat, unix nanoseconds
	lastSeen atomic.Int64 // the last frame of any kind
	blocked  atomic.Int32 // readers held up by the hub itself; a session is not blamed for what it cannot say meanwhile
	strikes  int          // of the heartbeat check alone
	answered bool         // a request; of the goroutine that reads the control stream

	frames   *wire.Reader // of the control stream
	out      *wire.Outbox
	offering offering // of logs; guarded by hub.credits
	fetches  int      // artifacts that it asked for and does not have; guarded by hub.couriers

	mu      sync.Mutex
	cause   *endError  // why it ends; the first one counts
	refuse  error      // why it takes no more promises
	waiting []*promise // the oldest first; few, as an agent works on few at a time
}

func (s *session) event() Event {
	return Event{ClientID: s.id, Address: s.conn.RemoteAddr().String(), At: s.hub.cfg.Now()}
}

// read takes in the control stream until it ends, and says why it did.
func (s *session) read() *endError {
	s.frames.Limit(wire.MaxFrame)
	for {
		frame := new(quicflowv1.ToHub)
		if err := s.frames.Read(frame); err != nil {
			return s.readError("control stream", err)
		}
		s.seen()
		if err := s.handle(frame); err != nil {
			return err
		}
	}
}

func (s *session) seen() { s.lastSeen.Store(s.hub.cfg.Now().UnixNano()) }

// handle does what a frame of the control stream asks for. It never waits for the agent.
func (s *session) handle(frame *quicflowv1.ToHub) *endError {
	switch body := frame.Body.(type) {
	case *quicflowv1.ToHub_Heartbeat:
		s.received("heartbeat")
		s.lastBeat.Store(s.lastSeen.Load())
		s.hub.metrics.heartbeatsReceived.Inc()
		if err := s.hub.credits.uninvited(s); err != nil {
			return err
		}
		if body.Heartbeat.GetQuiet() {
			return nil
		}
		s.hub.metrics.heartbeatsSent.Inc()
		return s.reply(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_HeartbeatAck{
			HeartbeatAck: &quicflowv1.HeartbeatAck{Sequence: body.Heartbeat.GetSequence()}}})
	case *quicflowv1.ToHub_Response:
		s.received("response")
		// A result counts as received wherever it stands; the journal may have answered with an old one.
		if status := body.Response.GetStep(); status.GetState() == quicflowv1.StepState_STEP_STATE_FINISHED && status.GetResult() != nil {
			if err := s.takeResult(status.GetResult()); err != nil {
				return err
			}
		}
		s.complete(body.Response)
		return nil
	case *quicflowv1.ToHub_Result:
		s.received("result")
		return s.takeResult(body.Result)
	case *quicflowv1.ToHub_LogOffer:
		s.received("log_offer")
		if err := s.hub.credits.uninvited(s); err != nil {
			return err
		}
		return s.hub.credits.offer(s, body.LogOffer.GetBytes())
	case *quicflowv1.ToHub_Request:
		s.received("request")
		if want := body.Request.GetFetchArtifact(); want != nil {
			return s.hub.couriers.fetch(s, body.Request.GetId(), want)
		}
		return s.hub.messages.dispatch(s, body.Request)
	case *quicflowv1.ToHub_Facts:
		s.received("facts")
		return s.takeFacts(body.Facts)
	case *quicflowv1.ToHub_Goodbye:
		s.received("goodbye")
		return end(wire.CloseNormal, ErrGoodbye)
	case *quicflowv1.ToHub_Hello:
		return violation("second hello")
	default:
		return violation("control frame without a known body")
	}
}

// readError says what a failed read of one of the session's streams means.
func (s *session) readError(where string, err error) *endError {
	switch {
	case errors.Is(err, wire.ErrFrameTooLarge):
		s.hub.metrics.decodingErrors.Inc()
		return end(wire.CloseFrameTooLarge, fmt.Errorf("%w: %s: %w", ErrProtocol, where, err))
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, io.ErrUnexpectedEOF):
		s.hub.metrics.decodingErrors.Inc()
		return violation("%s: %w", where, err)
	case errors.Is(err, io.EOF):
		return end(wire.CloseNormal, fmt.Errorf("%w: agent closed the %s", ErrNetwork, where))
	}
	return end(wire.CloseNormal, fmt.Errorf("%w: %w", ErrNetwork, err))
}

// close ends the session for a reason; the first reason counts. It does not wait: hub.finish follows in the goroutine that
// reads the control stream.
func (s *session) close(cause *endError) {
	s.mu.Lock()
	if s.cause == nil {
		s.cause = cause
	}
	cause = s.cause
	s.mu.Unlock()
	s.out.Close(fmt.Errorf("%w: %w", ErrSessionLost, cause))
	closeConn(s.conn, cause)
}

// finish takes an ended session off the books. Its connection is closed.
func (h *Hub) finish(s *session) {
	now := h.cfg.Now()
	s.mu.Lock()
	cause := s.cause
	s.mu.Unlock()
	goodbye := errors.Is(cause, ErrGoodbye)

	h.mu.Lock()
	if h.sessions[s.id] == s {
		delete(h.sessions, s.id)
		h.ends[s.id] = sessionEnd{at: now, goodbye: goodbye}
	}
	h.mu.Unlock()

	if errors.Is(cause, ErrDraining) {
		s.failPromises(ErrDraining)
	} else {
		s.failPromises(fmt.Errorf("%w: %w", ErrSessionLost, cause))
	}
	h.registrar.disconnect(release.ClientEnd{ClientID: s.id, Epoch: s.epoch, Goodbye: goodbye, At: now, Seen: time.Unix(0, s.lastSeen.Load())})
	h.watchers.notify(s.id)
	h.report(s, cause)
}

// report tells logs, metrics and hooks about the end of a session.
func (h *Hub) report(s *session, cause *endError) {
	h.metrics.disconnects.Inc()
	e := s.event()
	level := h.log.Info
	switch {
	case errors.Is(cause, ErrProtocol), errors.Is(cause, ErrNotStored):
		level = h.log.Warn
		call2(h.cfg.Hooks.OnError, e, error(cause))
	case errors.Is(cause, ErrNetwork):
		h.metrics.networkErrors.Inc()
	}
	level("agent disconnected", "client_id", s.id, "addr", e.Address, "epoch", s.epoch, "cause", cause)
	call2(h.cfg.Hooks.OnDisconnect, e, error(cause))
}

// received counts a control frame.
func (s *session) received(kind string) {
	s.hub.metrics.messagesReceived.Inc()
	if hook := s.hub.cfg.Hooks.OnMessageReceived; hook != nil {
		hook(s.event(), kind)
	}
}

// since is how long ago a stored moment was.
func (s *session) since(moment *atomic.Int64) time.Duration {
	return time.Duration(s.hub.cfg.Now().UnixNano() - moment.Load())
}

func call[A any](hook func(A), a A) {
	if hook != nil {
		hook(a)
	}
}

func call2[A, B any](hook func(A, B), a A, b B) {
	if hook != nil {
		hook(a, b)
	}
}
