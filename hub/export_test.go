package hub

import "time"

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

// Handshakes is the number of handshake slots that are taken.
func Handshakes(h *Hub) int { return len(h.handshakes) }

// Admissions is the number of admission slots that are taken.
func Admissions(h *Hub) int { return len(h.admissions) }

// TurnedAway is the number of connections that are being told to come back.
func TurnedAway(h *Hub) int { return len(h.turned) }

// ComeBack is how long the n-th that is turned away within a second is told to wait.
func ComeBack(n, room int) (wait time.Duration) {
	var c crowd
	at := time.Now()
	for range n {
		wait = c.comeBack(at, room)
	}
	return wait
}

// Latencies gives average, p50, p95 and p99 of some times, in milliseconds, as they are seen after some time.
func Latencies(after time.Duration, all ...time.Duration) (average float64, quantiles [3]float64) {
	var l latencies
	at := time.Now()
	for _, d := range all {
		l.observe(at, d)
	}
	c := l.at(at.Add(after))
	return c.average(), [3]float64{c.quantile(0.5), c.quantile(0.95), c.quantile(0.99)}
}

// Throughput gives the rate seen after some seconds in each of which so many messages came.
func Throughput(each ...float64) float64 {
	var t throughput
	at, count := time.Now(), 0.0
	t.sample(at, count)
	for _, n := range each {
		at = at.Add(time.Second)
		count += n
		t.sample(at, count)
	}
	return t.rate(at, count)
}

// Transfers is the number of artifacts that wait for their turn, and of those that are being sent.
func Transfers(h *Hub) (waiting, busy int) { return h.couriers.load() }

// SetArtifactTurn changes how many bytes a transfer may send in its turn, before any is asked for.
func SetArtifactTurn(h *Hub, bytes int64) { h.couriers.bytes = bytes }

// Overrun is what decides about handshakes while the hub does not keep up.
var Overrun = overrun
