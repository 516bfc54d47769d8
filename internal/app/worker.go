package app

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/sdk/worker"

	"github.com/quicflow/quicflow/activities"
	"github.com/quicflow/quicflow/internal/heartbeat"
	"github.com/quicflow/quicflow/internal/service"
	"github.com/quicflow/quicflow/workflows"
)

const (
	// workerDrain is how long activities may take to hand over their work when the server stops.
	workerDrain = 5 * time.Second
	// pollers is the number that SQLite gains from.
	pollers = 10
	// maxDispatches is how many chunks are at work at a time. Each single command is one, for as long as it takes.
	maxDispatches = 10_000
	// deadlockTimeout is longer than the SDK's second, which a busy machine exceeds without any deadlock.
	deadlockTimeout = 10 * time.Second
)

// startWorkers takes work from the queue that all servers share, and from the one of this node's hub.
func (a *App) startWorkers(ctx context.Context) error {
	acts, err := activities.New(activities.Config{Store: a.store, Hub: a.hub, Bus: a.bus, Results: &a.results, NodeID: a.nodeID, Logger: a.logger,
		Jobs: a.jobLimits()})
	if err != nil {
		return err
	}
	options := worker.Options{
		MaxConcurrentActivityTaskPollers: pollers,
		MaxConcurrentWorkflowTaskPollers: pollers,
		MaxHeartbeatThrottleInterval:     heartbeat.SDKThrottle,
		DefaultHeartbeatThrottleInterval: heartbeat.SDKThrottle,
		WorkerStopTimeout:                workerDrain,
		DeadlockDetectionTimeout:         deadlockTimeout,
		OnFatalError:                     a.fail,
	}
	shared := worker.New(a.temporal, workflows.TaskQueue, options)
	workflows.Register(shared)
	acts.Register(shared)

	options.DisableWorkflowWorker = true
	options.MaxConcurrentActivityExecutionSize = maxDispatches
	own := worker.New(a.temporal, workflows.HubQueue(a.nodeID), options)
	acts.Register(own)

	return a.services.Start(ctx, service.Service{
		Name: "workers",
		Start: func(context.Context) error {
			if err := shared.Start(); err != nil {
				return err
			}
			if err := own.Start(); err != nil {
				shared.Stop()
				return err
			}
			return nil
		},
		Stop: func(ctx context.Context) error { return stopWorkers(ctx, shared, own) },
	})
}

// stopWorkers stops workers side by side and bounds what takes no context.
func stopWorkers(ctx context.Context, workers ...worker.Worker) error {
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(w.Stop)
	}
	done := make(chan struct{})
	go func() { // ends by itself, within workerDrain
		defer close(done)
		wg.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("activities did not end: %w", context.Cause(ctx))
	}
}
