package apitest

import (
	"context"
	"sync"
	"time"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/schedule"
	"github.com/quicflow/quicflow/internal/store"
)

// Schedules puts schedules into effect in the store alone, and answers as a test says. It is safe for concurrent use.
type Schedules struct {
	store *store.Store

	mu     sync.Mutex
	calls  []string
	answer error
}

var _ api.Schedules = (*Schedules)(nil)

// Answer makes all further calls but Next give err.
func (s *Schedules) Answer(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = err
}

// Calls gives what was asked for: "apply ID".
func (s *Schedules) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.calls...)
}

func (s *Schedules) call(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, text)
	return s.answer
}

// Apply implements api.Schedules.
func (s *Schedules) Apply(ctx context.Context, id string) error {
	if err := s.call("apply " + id); err != nil {
		return err
	}
	stored, err := s.store.Schedule(ctx, id)
	if err != nil {
		return s.store.ForgetSchedule(ctx, id)
	}
	return s.store.SetScheduleInEffect(ctx, id, stored.Revision)
}

// Next implements api.Schedules.
func (s *Schedules) Next(_ context.Context, stored release.Schedule) ([]time.Time, error) {
	spec, err := schedule.Parse(stored.When)
	if err != nil || stored.Paused {
		return nil, err
	}
	return schedule.InZone(stored.When, spec.Upcoming(time.Now(), 5)), nil
}

// Trigger implements api.Schedules.
func (s *Schedules) Trigger(ctx context.Context, stored release.Schedule, by string) (release.Fire, error) {
	if err := s.call("trigger " + stored.ID + " " + by); err != nil {
		return release.Fire{}, err
	}
	fire := release.Fire{ScheduleID: stored.ID, Due: time.Now().Truncate(time.Second), By: by}
	if err := s.store.RequestFire(ctx, fire); err != nil {
		return release.Fire{}, err
	}
	return s.store.Fire(ctx, stored.ID, fire.Due)
}
