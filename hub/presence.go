package hub

import (
	"fmt"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
)

// sessionEnd is what is remembered of a session as long as its agent may come back.
type sessionEnd struct {
	at      time.Time
	goodbye bool
}

// Presence is whether this hub can reach a client.
type Presence struct {
	Status  release.ClientStatus
	Session int64     // epoch of the session while online, zero otherwise
	Until   time.Time // end of the grace while reconnecting, zero otherwise
}

// Presence says whether a client can be reached here. One that was not seen since the hub started counts as reconnecting for
// the grace, as it may not have found its way back yet: ask only for clients that belong to this hub.
func (h *Hub) Presence(clientID string) Presence {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if s := h.sessions[clientID]; s != nil && s.accepted {
		return Presence{Status: release.ClientOnline, Session: s.epoch}
	}
	last, seen := h.ends[clientID]
	if !seen {
		last.at = h.startedAt
	}
	until := last.at.Add(h.cfg.OfflineGrace)
	if last.goodbye || !h.cfg.Now().Before(until) {
		return Presence{Status: release.ClientOffline}
	}
	return Presence{Status: release.ClientReconnecting, Until: until}
}

// reconnecting counts the clients whose session was lost within the grace.
func (h *Hub) reconnecting() (n int) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	now := h.cfg.Now()
	for id, last := range h.ends {
		if s := h.sessions[id]; (s == nil || !s.accepted) && !last.goodbye && now.Before(last.at.Add(h.cfg.OfflineGrace)) {
			n++
		}
	}
	return n
}

// forgetEnds drops what Presence would answer the same without.
func (h *Hub) forgetEnds() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.cfg.Now()
	if now.Before(h.startedAt.Add(h.cfg.OfflineGrace)) {
		return // a goodbye must outlast the grace that counts from the start
	}
	for id, last := range h.ends {
		if now.After(last.at.Add(h.cfg.OfflineGrace)) {
			delete(h.ends, id)
		}
	}
}

// Disconnect ends the session of a client whose certificates were revoked, and says whether there was one. It cannot come
// back, as every handshake asks the Registry.
func (h *Hub) Disconnect(clientID string) bool {
	h.mu.RLock()
	s := h.sessions[clientID]
	h.mu.RUnlock()
	if s == nil {
		return false
	}
	s.close(end(wire.CloseRevoked, fmt.Errorf("%w: an administrator ended the session", ErrRevoked)))
	return true
}

// WatchClient gives a channel that fires when the session of a client comes or goes, and a function that ends the watch.
// Several changes may make it fire once; it never blocks the hub. Watch first, then ask for the Presence.
func (h *Hub) WatchClient(clientID string) (changed <-chan struct{}, cancel func()) {
	return h.watchers.add(clientID)
}

type watchers struct {
	mu       sync.Mutex
	byClient map[string]map[chan struct{}]struct{}
}

func (w *watchers) add(clientID string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byClient[clientID] == nil {
		w.byClient[clientID] = make(map[chan struct{}]struct{})
	}
	w.byClient[clientID][c] = struct{}{}
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.byClient[clientID], c)
		if len(w.byClient[clientID]) == 0 {
			delete(w.byClient, clientID)
		}
	}
}

func (w *watchers) notify(clientID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.byClient[clientID] {
		select {
		case c <- struct{}{}:
		default: // it has not seen the last change yet
		}
	}
}
