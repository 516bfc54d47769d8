package hub

// Queued is the number of sessions that wait to be written down.
func Queued(h *Hub) int {
	h.registrar.mu.Lock()
	defer h.registrar.mu.Unlock()
	return len(h.registrar.connects)
}

// HeldUp says whether the hub does not read from an agent because its intake is full.
func HeldUp(h *Hub, clientID string) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	s := h.sessions[clientID]
	return s != nil && s.blocked.Load() > 0
}

// Buffered is the number of bytes of logs that are not stored yet.
func Buffered(h *Hub) int64 { return h.logs.buffered() }

// Kill ends a hub like a crash does: its connections are told nothing.
func Kill(h *Hub) {
	_ = h.transport.Conn.Close()
	h.cancel(ErrDraining)
	h.stopAccepting()
	_ = h.Stop(h.ctx)
}

// Promises is the number of requests that await an answer.
func Promises(h *Hub) int { return int(h.promises.Load()) }
