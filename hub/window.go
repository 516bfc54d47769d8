package hub

import (
	"math"
	"math/bits"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	latencyParts = 6 // that make up the window of a minute
	latencyPart  = 10 * time.Second
	// A bucket is 1/32 of a power of two wide, so that a quantile is at most 3 % off.
	bucketBits  = 5
	bucketCount = (64 - bucketBits) << bucketBits

	throughputWindow = 10 // seconds
)

// timing is a histogram for ever, and one of the last minute.
type timing struct {
	prometheus.Histogram
	recent latencies
}

// Observe takes a time in seconds.
func (t *timing) Observe(seconds float64) {
	t.Histogram.Observe(seconds)
	t.recent.observe(time.Now(), time.Duration(seconds*float64(time.Second)))
}

// latencies counts times of the last minute, to a precision of 3 %.
type latencies struct {
	mu    sync.Mutex
	parts [latencyParts]latencyCounts
}

// latencyCounts are the times of some part of the window, in buckets of microseconds.
type latencyCounts struct {
	part    int64 // which one, counted from the epoch
	n       uint64
	sum     time.Duration
	buckets map[int]uint64
}

func partOf(at time.Time) int64 { return at.UnixNano() / int64(latencyPart) }

func (l *latencies) observe(at time.Time, d time.Duration) {
	part := partOf(at)
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.parts[part%latencyParts]
	if c.part != part || c.buckets == nil {
		*c = latencyCounts{part: part, buckets: make(map[int]uint64)}
	}
	c.n++
	c.sum += d
	c.buckets[bucketOf(d)]++
}

// at sums the window up.
func (l *latencies) at(now time.Time) latencyCounts {
	oldest := partOf(now) - latencyParts + 1
	total := latencyCounts{buckets: make(map[int]uint64)}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.parts {
		c := &l.parts[i]
		if c.part < oldest {
			continue
		}
		total.n += c.n
		total.sum += c.sum
		for bucket, n := range c.buckets {
			total.buckets[bucket] += n
		}
	}
	return total
}

// average is in milliseconds; 0 if there was nothing.
func (c latencyCounts) average() float64 {
	if c.n == 0 {
		return 0
	}
	return milliseconds(c.sum) / float64(c.n)
}

// quantile is in milliseconds; 0 if there was nothing.
func (c latencyCounts) quantile(q float64) float64 {
	rank := max(1, uint64(math.Ceil(q*float64(c.n))))
	for bucket := range bucketCount {
		n := c.buckets[bucket]
		if n >= rank {
			return milliseconds(middleOf(bucket))
		}
		rank -= n
	}
	return 0
}

// bucketOf finds the bucket of a time: the first ones are a microsecond wide, the others 1/32 of a power of two.
func bucketOf(d time.Duration) int {
	us := uint64(max(0, d.Microseconds()))
	shift := max(0, bits.Len64(us)-bucketBits-1)
	return shift<<bucketBits + int(us>>shift)
}

func middleOf(bucket int) time.Duration {
	shift := max(0, bucket>>bucketBits-1)
	low := uint64(bucket-shift<<bucketBits) << shift
	return time.Duration(low)*time.Microsecond + time.Microsecond<<shift/2
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// throughput remembers a count as it was at each of the last seconds.
type throughput struct {
	mu      sync.Mutex
	samples []sample // the oldest first
}

type sample struct {
	at    time.Time
	count float64
}

func (t *throughput) sample(at time.Time, count float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.samples) > throughputWindow {
		t.samples = append(t.samples[:0], t.samples[1:]...)
	}
	t.samples = append(t.samples, sample{at, count})
}

// reset forgets the samples, as of an earlier hub.
func (t *throughput) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.samples = nil
}

// rate is by how much the count grew a second since the oldest sample.
func (t *throughput) rate(now time.Time, count float64) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.samples) == 0 || !now.After(t.samples[0].at) {
		return 0
	}
	return (count - t.samples[0].count) / now.Sub(t.samples[0].at).Seconds()
}

// measure samples the number of messages each second.
func (h *Hub) measure() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	h.metrics.throughput.reset()
	h.metrics.throughput.sample(time.Now(), h.metrics.messages())
	for {
		select {
		case <-h.accepting.Done():
			return
		case at := <-ticker.C:
			h.metrics.throughput.sample(at, h.metrics.messages())
		}
	}
}
