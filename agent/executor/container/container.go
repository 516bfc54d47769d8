// Package container carries out the steps of container projects through the API of the host's Docker engine, version 1.40 or later.
//
// What exists is read from the engine each time: every container that a step makes carries labels that say which project, version
// and step it belongs to, and no other container is ever touched. A new container lives under a name of its own until it has proved
// itself; the one before is then renamed and kept, or, if the new one failed, it goes on as if nothing had been.
package container

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

// Config says which engine a Worker works with.
type Config struct {
	// Host is the engine's address, such as unix:///run/docker.sock or tcp://10.0.0.1:2376. Defaults to $DOCKER_HOST, and without
	// that to Docker's own. $DOCKER_TLS_VERIFY and $DOCKER_CERT_PATH count as they do for the docker program.
	Host string
	// Patience is how long a step in progress waits for an engine that is away, as when it is upgraded. Defaults to 1m.
	Patience time.Duration
}

// Worker does the work of container projects. It keeps nothing between calls.
type Worker struct {
	cfg Config
}

var _ executor.Worker = (*Worker)(nil)

// New gives a Worker. It does not look for the engine yet.
func New(cfg Config) *Worker {
	if cfg.Patience <= 0 {
		cfg.Patience = time.Minute
	}
	return &Worker{cfg}
}

// Type is that of executor.Worker.
func (*Worker) Type() release.Type { return release.TypeContainer }

// Check is that of executor.Worker.
func (w *Worker) Check(step *executor.Step) error {
	switch {
	case step.Config.Container == nil:
		return release.Invalid("container", "the step has no configuration of a container")
	case step.Action == release.StepUninstall:
		return nil
	}
	_, err := build(step.Config.Container, identify(step), nil)
	return err
}

// Work is that of executor.Worker.
func (w *Worker) Work(ctx context.Context, run *executor.Run) error {
	if run.Config.Container == nil {
		return release.Invalid("container", "the step has no configuration of a container")
	}
	e, err := w.connect(ctx, w.cfg.Patience)
	if err != nil {
		return err
	}
	defer e.close()
	d := &deployment{Run: run, engine: e, spec: run.Config.Container, id: identify(run.Step)}
	if run.Action == release.StepUninstall {
		return d.uninstall(ctx)
	}
	return d.replace(ctx)
}

// Probe is that of executor.Worker.
func (w *Worker) Probe(ctx context.Context) (executor.Capability, error) {
	e, err := w.connect(ctx, 0)
	if err != nil {
		return executor.Capability{}, err
	}
	defer e.close()
	info, err := e.info(ctx)
	if err != nil {
		return executor.Capability{}, err
	}
	return executor.Capability{
		Type: release.TypeContainer, Version: info.ServerVersion,
		Details: map[string]string{
			"api_version": e.api.ClientVersion(), "storage_driver": info.Driver, "cgroup_version": info.CgroupVersion,
			"platform": info.OSType + "/" + info.Architecture,
		},
	}, nil
}

// Logs is that of executor.Worker.
func (w *Worker) Logs(ctx context.Context, what executor.Deployed, options executor.LogOptions, out io.Writer) error {
	e, err := w.connect(ctx, 0)
	if err != nil {
		return err
	}
	defer e.close()
	all, err := e.containersOf(ctx, what.Project, what.Host.ClientID)
	if err != nil {
		return err
	}
	c := current(all)
	if c == nil {
		return release.NotFound("container of project", what.Project)
	}
	if err := e.logs(ctx, c, options, out, out); err != nil && ctx.Err() == nil {
		return fmt.Errorf("logs of container %s: %w", c.name(), err)
	}
	return nil
}

// Describe is that of executor.Worker.
func (w *Worker) Describe(ctx context.Context, what executor.Deployed) (executor.Running, error) {
	e, err := w.connect(ctx, 0)
	if err != nil {
		return executor.Running{}, err
	}
	defer e.close()
	return e.describe(ctx, what)
}
