package app

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/service"
	"github.com/quicflow/quicflow/internal/telemetry"
)

// startSampler begins to keep the figures of the last hour.
func (a *App) startSampler(ctx context.Context) error {
	a.sampler = telemetry.NewSampler(telemetry.SamplerConfig{
		Gatherer: a.registry,
		Settled: func() (steps, commands int) {
			for _, n := range a.store.StepOutcomes() {
				steps += n
			}
			for _, n := range a.store.CommandOutcomes() {
				commands += n
			}
			return steps, commands
		},
		Sampled: func() { a.bus.Notify(bus.System) },
		Logger:  a.logger,
	})
	return a.services.Start(ctx, service.Loop("figures", a.sampler.Run))
}

// system is what the API tells of this server.
func (a *App) system() api.SystemConfig {
	c := api.SystemConfig{
		NodeID: a.nodeID, Started: time.Now(), HubAddr: a.endpoint.QUIC, SessionsMax: a.cfg.Server.MaxClients,
		TemporalAddr: a.cfg.Temporal.Address, Disk: func() (free, size uint64, err error) { return room(a.dir.path) },
		Samples: a.sampler.Samples,
	}
	if c.TemporalAddr == "" {
		c.TemporalVersion = TemporalVersion
	}
	return c
}

// room gives the bytes of the disk that has path: those that this process may use, and all.
func room(path string) (free, size uint64, err error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(path, &disk); err != nil {
		return 0, 0, fmt.Errorf("ask for the room of %s: %w", path, err)
	}
	block := uint64(disk.Bsize)
	return disk.Bavail * block, disk.Blocks * block, nil
}
