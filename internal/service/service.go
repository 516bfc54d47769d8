// Package service starts things in order and stops them in the reverse order.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Service is something that is started once and stopped once. Nil functions do nothing.
type Service struct {
	// Name is for logs and errors.
	Name string
	// Start returns when the service works. Its context bounds the start alone, not the service's life. After an error
	// nothing may be left running.
	Start func(ctx context.Context) error
	// Stop returns when nothing of the service runs any more, or with an error when the context ends first. It is called
	// only after a Start without an error.
	Stop func(ctx context.Context) error
}

// ErrStopped is the error of a Start after Stop.
var ErrStopped = errors.New("stopped")

// Group starts services one after the other. It is safe for concurrent use; the zero value is ready.
type Group struct {
	// Logger is told how long each stop took, at level debug. Defaults to none.
	Logger *slog.Logger

	mu      sync.Mutex
	running []Service
	stopped bool
}

// Start starts one more service, after those before. After an error the group runs on without it; the caller usually
// calls Stop.
func (g *Group) Start(ctx context.Context, s Service) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return fmt.Errorf("start %s: %w", s.Name, ErrStopped)
	}
	if s.Start != nil {
		if err := s.Start(ctx); err != nil {
			return fmt.Errorf("start %s: %w", s.Name, err)
		}
	}
	g.running = append(g.running, s)
	return nil
}

// Stop stops all services, the last one first. One that fails does not keep the others from being stopped. Calling it
// again does nothing.
func (g *Group) Stop(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	var errs []error
	for _, s := range slices.Backward(g.running) {
		if s.Stop == nil {
			continue
		}
		begin := time.Now()
		err := s.Stop(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.Name, err))
		}
		if g.Logger != nil {
			g.Logger.Debug("stopped", "service", s.Name, "took", time.Since(begin))
		}
	}
	g.running = nil
	return errors.Join(errs...)
}

// Loop is a service that runs a function until its context is cancelled.
func Loop(name string, run func(ctx context.Context)) Service {
	var cancel context.CancelCauseFunc
	done := make(chan struct{})
	return Service{
		Name: name,
		Start: func(ctx context.Context) error {
			ctx, cancel = context.WithCancelCause(context.WithoutCancel(ctx))
			go func() {
				defer close(done)
				run(ctx)
			}()
			return nil
		},
		Stop: func(ctx context.Context) error {
			cancel(ErrStopped)
			select {
			case <-done:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		},
	}
}
