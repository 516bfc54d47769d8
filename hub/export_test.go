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

// Held is what logs take: credit that is not used, and what is not stored yet, in bytes.
func Held(h *Hub) (unused, buffered int64) { return h.credits.sums() }

// Waiting is the number of sessions that wait for credit.
func Waiting(h *Hub) int {
	h.credits.mu.Lock()
	defer h.credits.mu.Unlock()
	return h.credits.queue.Len()
}

// Reading says whether a goroutine takes in an agent's log streams, or waits for one.
func Reading(h *Hub, clientID string) bool {
	h.mu.RLock()
	s := h.sessions[clientID]
	h.mu.RUnlock()
	h.credits.mu.Lock()
	defer h.credits.mu.Unlock()
	return s != nil && s.offering.reading
}

// LimitResults changes how many bytes of results may wait for the Sink.
func LimitResults(h *Hub, bytes int64) {
	h.resultRoom.mu.Lock()
	defer h.resultRoom.mu.Unlock()
	h.resultRoom.limit = bytes
}

// Kill ends a hub like a crash does: its connections are told nothing.
func Kill(h *Hub) {
	_ = h.transport.Conn.Close()
	h.cancel(ErrDraining)
	h.stopAccepting()
	_ = h.Stop(h.ctx)
}

// Promises is the number of requests that await an answer.
func Promises(h *Hub) int { return int(h.promises.Load()) }
