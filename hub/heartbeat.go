package hub

import (
	"context"
	"fmt"
	"time"

	"github.com/quicflow/quicflow/internal/wire"
)

// checkHeartbeats looks at all sessions in one sweep per interval; so no session needs a timer.
func (h *Hub) checkHeartbeats() {
	ticker := time.NewTicker(h.cfg.HeartbeatCheckInterval)
	defer ticker.Stop()
	began := time.Now() // the last check
	for {
		select {
		case <-h.accepting.Done():
			return
		case <-ticker.C:
			since := time.Since(began)
			began = time.Now()
			fair := h.fair(since)
			for _, s := range h.acceptedSessions() {
				if fair {
					s.checkHeartbeat()
				}
				s.checkStreams()
			}
			h.forgetEnds()
		}
	}
}

// fair says whether a check so long after the last one may count against an agent. One that comes late shows that this
// process itself was held up, and what agents have sent may not be read yet; the tick after it comes early.
func (h *Hub) fair(since time.Duration) bool {
	return since > h.cfg.HeartbeatCheckInterval/2 && since < 2*h.cfg.HeartbeatCheckInterval
}

func (h *Hub) acceptedSessions() []*session {
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := make([]*session, 0, len(h.sessions))
	for _, s := range h.sessions {
		if s.accepted {
			all = append(all, s)
		}
	}
	return all
}

// checkHeartbeat is one check: a strike if the last heartbeat is too old, and the end at the last strike in a row.
func (s *session) checkHeartbeat() {
	if s.blocked.Load() > 0 {
		s.lastBeat.Store(s.hub.cfg.Now().UnixNano())
	}
	age := s.since(&s.lastBeat)
	if age <= s.hub.cfg.HeartbeatTimeout {
		s.strikes = 0
		return
	}
	s.strikes++
	s.hub.metrics.heartbeatsLate.Inc()
	s.hub.log.Warn("heartbeat missed", "client_id", s.id, "age", age, "strikes", s.strikes)
	call2(s.hub.cfg.Hooks.OnHeartbeatTimeout, s.event(), s.strikes)
	if s.strikes >= s.hub.cfg.MaxTimeoutCount {
		s.close(end(wire.CloseHeartbeat, fmt.Errorf("%w: none for %s", ErrHeartbeatLost, age.Round(time.Millisecond))))
	}
}

// noWait is a context that has ended: with it, AcceptStream and AcceptUniStream do not wait.
var noWait = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// checkStreams ends a session whose agent opened a bidirectional stream beside the control stream: no one would read what
// comes on it. Looking now and then spares each session a goroutine; meanwhile the limits of the transport hold.
func (s *session) checkStreams() {
	if _, err := s.conn.AcceptStream(noWait); err == nil {
		s.close(violation("a second bidirectional stream"))
	}
}

// touch tells the Registry once per heartbeat interval that the sessions are alive.
func (h *Hub) touch() {
	ticker := time.NewTicker(h.cfg.HeartbeatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-h.accepting.Done():
			return
		case <-ticker.C:
		}
		ctx, cancel := context.WithTimeout(h.accepting, storeTimeout)
		if err := h.cfg.Registry.TouchNode(ctx, h.cfg.NodeID, h.cfg.Now()); err != nil {
			h.log.Warn("node not touched", "error", err)
		}
		cancel()
	}
}
