package container

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/container"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/release"
)

// keptRemoval is that an uninstallation has stopped all that ran: from there it goes on to its end.
const keptRemoval = "container.removal"

// uninstall removes all containers of the project, with the volumes that have no name. If it is cancelled while it stops them,
// those that ran run again.
func (d *deployment) uninstall(ctx context.Context) error {
	stopped, err := d.Tools.Kept(keptRemoval, new(bool))
	if err != nil {
		return err
	}
	if !stopped {
		if err := d.stopAll(ctx); err != nil {
			return err
		}
		if err := d.Tools.Keep(keptRemoval, true); err != nil {
			return err
		}
	}
	failpoint.Here("container.uninstall.stopped")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), backTime)
	defer cancel()
	all, err := d.engine.containersOf(ctx, d.Project, d.Host.ClientID)
	if err != nil {
		return err
	}
	for i, c := range all {
		d.Tools.Printf("removing container %s (version %s)", c.name(), c.label(labelVersion))
		if err := d.engine.remove(ctx, c.ID); err != nil {
			return fmt.Errorf("container %s cannot be removed: %w", c.name(), err)
		}
		if i == 0 {
			failpoint.Here("container.uninstall.removed")
		}
	}
	if len(all) == 0 {
		d.Tools.Printf("no container of project %s is there", d.Project)
	}
	d.Tools.Report(executor.Running{Project: d.Project, Type: release.TypeContainer, State: executor.RunMissing})
	return nil
}

// stopAll stops the project's containers. A policy of always would start them with the engine, so it goes first; whoever ran is
// the one that has a policy again after a Cancelled.
func (d *deployment) stopAll(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	all, err := d.engine.containersOf(ctx, d.Project, d.Host.ClientID)
	if err != nil {
		return err
	}
	ran := map[string]bool{}
	if known, err := d.Tools.Kept(keptPlan, &ran); err != nil {
		return err
	} else if !known {
		for _, c := range all {
			ran[c.ID] = c.State.Running
		}
		if err := d.Tools.Keep(keptPlan, ran); err != nil {
			return err
		}
	}
	for _, c := range all {
		if !c.State.Running {
			continue
		}
		d.Tools.Printf("stopping container %s (version %s)", c.name(), c.label(labelVersion))
		if err = d.engine.setRestart(ctx, c, container.RestartPolicy{Name: container.RestartPolicyDisabled}); err == nil {
			err = d.engine.stop(ctx, c.ID)
		}
		if err != nil {
			break
		}
		failpoint.Here("container.uninstall.stopping")
	}
	if ctx.Err() == nil && err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), backTime)
	defer cancel()
	for _, c := range all {
		if !ran[c.ID] {
			continue
		}
		now, again := d.engine.inspect(back, c.ID)
		if again == nil && now != nil {
			if again = d.engine.setRestart(back, now, restartPolicy(now.label(labelRestart))); again == nil && !now.State.Running {
				again = d.engine.start(back, now.ID)
			}
		}
		if again != nil {
			return fmt.Errorf("%w; container %s does not run again: %w", err, c.name(), again)
		}
	}
	return err
}
