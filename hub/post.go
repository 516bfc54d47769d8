package hub

import (
	"errors"
	"fmt"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Post sends a request to an agent, to which no answer is wanted or given: that it was handed to the session is all that is
// known. Errors, after which nothing was sent: ErrNotConnected, ErrDraining, ErrBusy, ErrSessionLost.
func (h *Hub) Post(clientID string, req *quicflowv1.Request) error {
	if err := h.post(clientID, req); err != nil {
		return fmt.Errorf("message to agent %s: %w", clientID, err)
	}
	return nil
}

func (h *Hub) post(clientID string, req *quicflowv1.Request) error {
	s, err := h.sessionOf(clientID)
	if err != nil {
		return err
	}
	s.mu.Lock()
	refuse := s.refuse
	s.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	if err := s.sendRequest(0, req, false); err != nil {
		if errors.Is(err, wire.ErrOutboxFull) {
			return ErrBusy
		}
		return err
	}
	return nil
}
