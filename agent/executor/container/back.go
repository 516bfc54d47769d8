package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/failpoint"
)

// goBack removes the step's container and sees that the one before runs again. It gives why, and what went wrong on the way.
func (d *deployment) goBack(ctx context.Context, why error) error {
	ctx, cancel := d.lastly(ctx)
	defer cancel()
	if err := d.Tools.Keep(keptBack, executor.FailureOf(why)); err != nil {
		return fmt.Errorf("%w; the way back cannot be kept: %w", why, err)
	}
	failpoint.Here("container.back")
	if err := d.discard(ctx); err != nil {
		return fmt.Errorf("%w; the new container cannot be removed: %w", why, err)
	}
	failpoint.Here("container.discarded")
	if err := d.reinstate(ctx); err != nil {
		return fmt.Errorf("%w; container %s of version %s does not run again: %w", why, d.plan.Old.Name, d.plan.Old.Version, err)
	}
	failpoint.Here("container.reinstated")
	return why
}

// discard removes the step's container; a kept one is put back to where it was.
func (d *deployment) discard(ctx context.Context) error {
	c, err := d.own(ctx)
	if err != nil || c == nil {
		return err
	}
	if d.plan.Restore == "" {
		d.Tools.Printf("removing the new container %s", c.name())
		if c.State.Running {
			if err := d.engine.stop(ctx, c.ID); err != nil {
				return err
			}
		}
		return d.engine.remove(ctx, c.ID)
	}
	d.Tools.Printf("stopping container %s again", c.name())
	if err := d.engine.setRestart(ctx, c, container.RestartPolicy{Name: container.RestartPolicyDisabled}); err != nil {
		return err
	}
	if err := d.engine.stop(ctx, c.ID); err != nil {
		return err
	}
	return d.engine.rename(ctx, c, d.plan.RestoreName)
}

// reinstate makes the container before what it was.
func (d *deployment) reinstate(ctx context.Context) error {
	if d.plan.Old == nil {
		return nil
	}
	old, err := d.engine.inspect(ctx, d.plan.Old.ID)
	if err != nil {
		return err
	}
	if old == nil {
		return errors.New("someone removed it")
	}
	if err := d.engine.rename(ctx, old, d.plan.Old.Name); err != nil {
		return err
	}
	if !d.plan.Old.Running {
		return nil
	}
	if err := d.engine.setRestart(ctx, old, restartPolicy(old.label(labelRestart))); err != nil {
		return err
	}
	if !old.State.Running {
		if err := d.restart(ctx, old.ID); err != nil {
			return err
		}
		d.Tools.Printf("container %s (version %s) runs again", old.name(), d.plan.Old.Version)
	}
	return nil
}

// restart starts a container that has run before. An engine that is about to stop fails in ways of its own: so it is tried again,
// unless the port has gone to someone else.
func (d *deployment) restart(ctx context.Context, id string) error {
	until := time.NewTimer(d.engine.patience)
	defer until.Stop()
	tick := time.NewTicker(engineRetry)
	defer tick.Stop()
	for told := false; ; {
		err := d.engine.start(ctx, id)
		if err == nil {
			return nil
		}
		if !told {
			d.logFull(err)
			told = true
		}
		if port, taken := portTaken(err); taken {
			return fmt.Errorf("port %s is taken", port)
		}
		select {
		case <-tick.C:
		case <-until.C:
			return err
		case <-ctx.Done():
			return err
		}
	}
}
