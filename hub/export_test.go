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

// Buffered is the number of bytes of logs that are not stored yet.
func Buffered(h *Hub) int64 { return h.logs.buffered() }

// Kill ends a hub like a crash does: its connections are told nothing.
func Kill(h *Hub) {
	_ = h.transport.Conn.Close()
	h.cancel(ErrDraining)
	h.stopAccepting()
	_ = h.Stop(h.ctx)
}

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
