package fleet

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caio/go-tdigest/v5"
)

// Snapshot is what a fleet has seen so far. What it calls accepted, the hub has welcomed.
type Snapshot struct {
	Agents       int            `json:"agents"`
	Accepted     int            `json:"accepted"`      // sessions there are now
	EverAccepted int            `json:"ever_accepted"` // agents that had a session at least once
	Failed       map[string]int `json:"failed"`        // agents that have given up, by the cause of their last failure
	Attempts     map[string]int `json:"attempts"`      // attempts to connect that failed, by cause
	Dropped      map[string]int `json:"dropped"`       // accepted sessions that ended without our doing, by cause
	Reconnected  int            `json:"reconnected"`   // sessions of agents that had had one before
	Sessions     int            `json:"sessions"`      // accepted in all
	Resumed      int            `json:"resumed"`       // of them, those whose TLS session was resumed

	Connecting          time.Duration `json:"connecting_ns"`         // from the first attempt to the last acceptance of an agent that had had no session
	HandshakesPerSecond float64       `json:"handshakes_per_second"` // in that time, one an agent
	Latency             Percentiles   `json:"latency"`               // from dialling to acceptance
	RoundTrip           Percentiles   `json:"roundtrip"`             // of heartbeats
	Confirm             Percentiles   `json:"confirm"`               // of the questions of Confirm, which all agents ask at once

	Requests   uint64 `json:"requests"` // answered
	Steps      uint64 `json:"steps"`    // run to their end
	LogBytes   uint64 `json:"log_bytes"`
	Heartbeats uint64 `json:"heartbeats"` // sent
}

// DroppedTotal is the number of sessions that were dropped.
func (s Snapshot) DroppedTotal() int {
	n := 0
	for _, k := range s.Dropped {
		n += k
	}
	return n
}

// Percentiles of a duration, in nanoseconds where they are JSON.
type Percentiles struct {
	Count uint64        `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P90   time.Duration `json:"p90_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
}

type stats struct {
	accepted, ever, sessions, resumed, reconnected atomic.Int64
	requests, steps, logBytes, heartbeats          atomic.Uint64
	latency, roundTrip, confirm                    digest

	mu                        sync.Mutex
	failed, attempts, dropped map[string]int
	firstDial, lastAccept     time.Time
}

func newStats() *stats {
	return &stats{failed: map[string]int{}, attempts: map[string]int{}, dropped: map[string]int{}}
}

func (s *stats) dialled(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.firstDial.IsZero() {
		s.firstDial = now
	}
}

func (s *stats) welcomed(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastAccept = now
}

func (s *stats) count(m map[string]int, cause string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m[cause]++
}

// Snapshot gives the counters of this moment.
func (f *Fleet) Snapshot() Snapshot {
	s := f.stats
	snapshot := Snapshot{
		Agents:       len(f.agents),
		Accepted:     int(s.accepted.Load()),
		EverAccepted: int(s.ever.Load()),
		Reconnected:  int(s.reconnected.Load()),
		Sessions:     int(s.sessions.Load()),
		Resumed:      int(s.resumed.Load()),
		Latency:      s.latency.percentiles(),
		RoundTrip:    s.roundTrip.percentiles(),
		Confirm:      s.confirm.percentiles(),
		Requests:     s.requests.Load(),
		Steps:        s.steps.Load(),
		LogBytes:     s.logBytes.Load(),
		Heartbeats:   s.heartbeats.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	snapshot.Failed, snapshot.Attempts, snapshot.Dropped = maps.Clone(s.failed), maps.Clone(s.attempts), maps.Clone(s.dropped)
	if !s.lastAccept.IsZero() {
		snapshot.Connecting = s.lastAccept.Sub(s.firstDial)
	}
	if snapshot.Connecting > 0 {
		snapshot.HandshakesPerSecond = float64(snapshot.EverAccepted) / snapshot.Connecting.Seconds()
	}
	return snapshot
}

// digest estimates percentiles without keeping the samples. The zero value is ready.
type digest struct {
	mu  sync.Mutex
	t   *tdigest.TDigest
	max time.Duration
}

func (d *digest) add(v time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.t == nil {
		d.t, _ = tdigest.New() // fails on bad options only
	}
	d.max = max(d.max, v)
	_ = d.t.Add(float64(v)) // fails for NaN and the like only
}

func (d *digest) percentiles() Percentiles {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.t == nil {
		return Percentiles{}
	}
	at := func(q float64) time.Duration { return min(time.Duration(d.t.Quantile(q)), d.max) }
	return Percentiles{Count: d.t.Count(), P50: at(.5), P90: at(.9), P99: at(.99), Max: d.max}
}
