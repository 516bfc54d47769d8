package activities

import (
	"context"
	"fmt"

	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/heartbeat"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/workflows"
)

// LoadPlan reads what was decided when the task was created.
func (a *Activities) LoadPlan(ctx context.Context, req workflows.PlanRequest) (workflows.Plan, error) {
	task, err := a.store.Task(ctx, req.TaskID)
	if err != nil {
		return workflows.Plan{}, final(fmt.Errorf("read task: %w", err))
	}
	return workflows.Plan{Strategy: task.Strategy.WithDefaults(), Waves: task.Waves, Total: task.Counts.Total}, nil
}

// RecordProgress writes where the task stands, and tells whoever watches it.
func (a *Activities) RecordProgress(ctx context.Context, req workflows.ProgressRequest) error {
	err := a.store.SetProgress(ctx, req.TaskID, store.Progress{Status: req.Status, Phase: req.Phase, Wave: req.Wave,
		Reason: req.Reason, SoakUntil: req.SoakUntil, At: req.At})
	if err != nil {
		return final(fmt.Errorf("write progress: %w", err))
	}
	failpoint.Here("progress.recorded")
	a.bus.Notify(bus.Task(req.TaskID))
	return nil
}

// SetHalt raises or lifts the fence of the task.
func (a *Activities) SetHalt(ctx context.Context, req workflows.HaltRequest) error {
	if err := a.store.SetHalt(ctx, req.TaskID, req.Halted); err != nil {
		return final(fmt.Errorf("set halt: %w", err))
	}
	return nil
}

// CountTargets counts the targets of the task by wave and state.
func (a *Activities) CountTargets(ctx context.Context, req workflows.CountRequest) (workflows.TargetCounts, error) {
	byWave, err := a.store.WaveCounts(ctx, req.TaskID)
	if err != nil {
		return workflows.TargetCounts{}, final(fmt.Errorf("count targets: %w", err))
	}
	counts := workflows.TargetCounts{ByWave: byWave}
	for _, c := range byWave {
		counts.All = counts.All.Plus(c)
	}
	return counts, nil
}

// PlanChunks cuts the hosts that are left into chunks by the hub that holds their sessions.
func (a *Activities) PlanChunks(ctx context.Context, req workflows.ChunksRequest) (workflows.ChunkPlan, error) {
	defer heartbeat.Keep(ctx)()
	chunks, err := a.store.PlanChunks(ctx, req.TaskID, req.Step, req.Wave, req.Size, a.nodeID)
	if err != nil {
		return workflows.ChunkPlan{}, final(fmt.Errorf("plan chunks of %s: %w", req.Step, err))
	}
	failpoint.Here("chunks.planned")
	return a.planOf(chunks, req.Avoid), nil
}
