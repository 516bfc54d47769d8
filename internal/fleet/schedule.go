package fleet

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// schedule runs functions at their time, one after the other in one goroutine. They must not block.
type schedule struct {
	mu    sync.Mutex
	queue timeline
	wake  chan struct{}
}

type appointment struct {
	at time.Time
	do func()
}

type timeline []appointment

func (t timeline) Len() int           { return len(t) }
func (t timeline) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timeline) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timeline) Push(x any)        { *t = append(*t, x.(appointment)) }
func (t *timeline) Pop() any {
	last := len(*t) - 1
	x := (*t)[last]
	(*t)[last] = appointment{}
	*t = (*t)[:last]
	return x
}

func (s *schedule) after(d time.Duration, do func()) {
	a := appointment{time.Now().Add(d), do}
	s.mu.Lock()
	heap.Push(&s.queue, a)
	first := s.queue[0].at.Equal(a.at)
	s.mu.Unlock()
	if first {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// next gives the functions that are due, and how long the one after them is away.
func (s *schedule) next(now time.Time) (due []func(), wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 {
		if wait = s.queue[0].at.Sub(now); wait > 0 {
			return due, wait
		}
		due = append(due, heap.Pop(&s.queue).(appointment).do)
	}
	return due, time.Hour
}

func (s *schedule) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		due, wait := s.next(time.Now())
		for _, do := range due {
			do()
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
		}
	}
}
