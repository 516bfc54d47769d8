package main

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// loadPlan is a closed loop: each worker has one request in flight, and asks again as soon as it is answered.
type loadPlan struct {
	InFlight int           `json:"in_flight"`
	WarmUp   time.Duration `json:"warm_up"` // before anything is counted
	Measure  time.Duration `json:"measure"`
}

// figures is what a load came to.
type figures struct {
	Requests  int64         `json:"requests"` // within the measured time
	All       int64         `json:"all"`      // the warm-up's too
	Failed    int64         `json:"failed"`
	Failure   string        `json:"failure,omitempty"` // the first one
	PerSecond float64       `json:"per_second"`
	P50       time.Duration `json:"p50"`
	P99       time.Duration `json:"p99"`
	Max       time.Duration `json:"max"`
}

// runLoad has call answered by plan.InFlight workers at the same time. An error of call is counted and does not end the load.
func runLoad(ctx context.Context, plan loadPlan, call func(ctx context.Context, worker int) error) figures {
	const (
		warmingUp = iota
		measuring
		over
	)
	var (
		phase       atomic.Int32
		all, failed atomic.Int64
		failure     atomic.Pointer[string]
		times       [16]histogram // a few, so that workers do not wait for each other's cache lines
		workers     sync.WaitGroup
	)
	for worker := range plan.InFlight {
		workers.Go(func() {
			h := &times[worker%len(times)]
			for phase.Load() != over && ctx.Err() == nil {
				start := time.Now()
				err := call(ctx, worker)
				took := time.Since(start)
				all.Add(1)
				switch {
				case phase.Load() != measuring:
				case err != nil:
					failed.Add(1)
					text := err.Error()
					failure.CompareAndSwap(nil, &text)
				default:
					h.add(took)
				}
			}
		})
	}
	wait(ctx, plan.WarmUp)
	phase.Store(measuring)
	start := time.Now()
	wait(ctx, plan.Measure)
	phase.Store(over)
	took := time.Since(start)
	workers.Wait()

	sum := new(histogram)
	for i := range times {
		sum.merge(&times[i])
	}
	f := figures{All: all.Load(), Failed: failed.Load(), Requests: sum.count(), P50: sum.percentile(50), P99: sum.percentile(99), Max: sum.percentile(100)}
	f.PerSecond = float64(f.Requests) / took.Seconds()
	if text := failure.Load(); text != nil {
		f.Failure = *text
	}
	return f
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// histogram counts times in steps of at most 1/32 of their value. The zero histogram is empty; adding is safe for concurrent use.
type histogram struct {
	counts [64 << stepBits]atomic.Int64
}

const stepBits = 5

func (h *histogram) add(d time.Duration) { h.counts[slot(d)].Add(1) }

func slot(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-1-stepBits, 0)
	return shift<<stepBits + int(v>>shift)
}

// middle is the time in the middle of a slot.
func middle(slot int) time.Duration {
	shift := max(slot>>stepBits-1, 0)
	low := uint64(slot-shift<<stepBits) << shift
	return time.Duration(low + (uint64(1)<<shift)/2)
}

func (h *histogram) merge(other *histogram) {
	for i := range h.counts {
		h.counts[i].Add(other.counts[i].Load())
	}
}

func (h *histogram) count() (n int64) {
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// percentile is the time that p percent of all times do not exceed, or 0 of none.
func (h *histogram) percentile(p float64) time.Duration {
	rank := max(int64(float64(h.count())*p/100), 1)
	for i := range h.counts {
		if rank -= h.counts[i].Load(); rank <= 0 {
			return middle(i)
		}
	}
	return 0
}
