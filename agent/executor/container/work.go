package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/release"
)

// What a step keeps.
const (
	keptPlan      = "container.plan"      // plan: what to do, decided once
	keptStarted   = "container.started"   // string, id: the new container was started
	keptCommitted = "container.committed" // string, id: the new container is in place; no way back
	keptBack      = "container.back"      // executor.Failure: the step has failed; no way forward
)

const (
	maxConflicts = 20 // attempts to make a container whose name is taken by an earlier run's

	backTime = 2 * time.Minute // for the way back, beside the time that containers take to stop
	tailLost = 50              // lines of a failed container's output that go into the log
)

// plan is what a step that replaces a container does. It is decided once: after that the host looks different.
type plan struct {
	Temporary   string  `json:"temporary"`         // name of the new container until it takes over
	Beside      bool    `json:"beside"`            // the new container starts while the old one runs
	Old         *former `json:"old,omitempty"`     // nil: there is none
	Restore     string  `json:"restore,omitempty"` // id of a kept container that is started instead of a new one
	RestoreName string  `json:"restore_name,omitempty"`
}

// former is the container that is replaced, as it was.
type former struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Running bool   `json:"running"`
}

// deployment is one run of one step.
type deployment struct {
	*executor.Run
	engine *engine
	spec   *release.ContainerSpec
	id     identity
	wanted *wanted
	plan   plan
}

// replace installs, updates or rolls back: it goes forward until the new container has taken over, and then tidies up, or it goes
// back. Each stage first looks at what is there, so that all of it may be done again.
func (d *deployment) replace(ctx context.Context) (err error) {
	d.wanted, err = build(d.spec, d.id, d.Tools.Environment(false))
	if err != nil {
		return err
	}
	for _, n := range d.wanted.needs {
		if !d.engine.has(n.version) {
			return fmt.Errorf("%s: the Docker engine of this host cannot do it: its API is %s, and this needs %s",
				n.field, d.engine.api.ClientVersion(), n.version)
		}
	}
	planned, err := d.Tools.Kept(keptPlan, &d.plan)
	if err != nil {
		return err
	}
	if !planned {
		if d.plan, err = d.decide(ctx); err != nil {
			return err
		}
		if err := d.Tools.Keep(keptPlan, d.plan); err != nil {
			return err
		}
	}
	failpoint.Here("container.planned")

	var back executor.Failure
	if begun, err := d.Tools.Kept(keptBack, &back); err != nil {
		return err
	} else if begun {
		return d.goBack(ctx, back.Err())
	}
	var id string
	committed, err := d.Tools.Kept(keptCommitted, &id)
	if err != nil {
		return err
	}
	if !committed {
		if id, err = d.advance(ctx); err == nil {
			err = d.Tools.Keep(keptCommitted, id)
		}
		if ctx.Err() != nil && err != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return d.goBack(ctx, err)
		}
	}
	failpoint.Here("container.committed")
	return d.finish(ctx, id)
}

// decide looks at the host and says how the step is to go.
func (d *deployment) decide(ctx context.Context) (plan, error) {
	p := plan{Temporary: temporaryName(d.wanted.name, d.ID)}
	all, err := d.engine.containersOf(ctx, d.Project, d.Host.ClientID)
	if err != nil {
		return p, err
	}
	old := current(all)
	if old != nil {
		p.Old = &former{ID: old.ID, Name: old.name(), Version: old.label(labelVersion), Running: old.State.Running}
	}
	next := claims(d.wanted.host, d.wanted.networks)
	if d.Action == release.StepRollbackTo {
		for _, c := range all {
			if c.kept() && !c.State.Running && c.label(labelVersion) == d.Version && c.label(labelConfig) == d.ConfigID &&
				c.label(labelName) == d.wanted.name {
				p.Restore, p.RestoreName = c.ID, c.name()
				next = claimsOf(c)
				break
			}
		}
	}
	switch {
	case old == nil || !old.State.Running:
		p.Beside = true
	case d.spec.Update == "beside":
		p.Beside = true
		if both := next.clash(claimsOf(old)); both != "" {
			return p, fmt.Errorf("the new container cannot start beside the old one: both want %s; set update to after", both)
		}
	case d.spec.Update == "after":
		d.Tools.Printf("container %s (version %s) stops before the new one starts, as the project wants", old.name(), p.Old.Version)
	default:
		both := next.clash(claimsOf(old))
		p.Beside = both == ""
		if p.Beside {
			d.Tools.Printf("container %s (version %s) runs until the new one is healthy", old.name(), p.Old.Version)
		} else {
			d.Tools.Printf("container %s (version %s) stops before the new one starts: both want %s", old.name(), p.Old.Version, both)
		}
	}
	return p, nil
}

// advance brings the new container up to where it has taken over, and gives its id.
func (d *deployment) advance(ctx context.Context) (string, error) {
	if err := d.script(ctx, "pre_script", d.spec.PreScript, d.Tools.Environment(true)); err != nil {
		return "", err
	}
	failpoint.Here("container.prepared")
	if err := d.clearLeftovers(ctx); err != nil {
		return "", err
	}
	if err := d.checkName(ctx); err != nil {
		return "", err
	}
	if d.plan.Restore == "" {
		if err := d.pull(ctx); err != nil {
			return "", err
		}
		failpoint.Here("container.pulled")
	}
	c, err := d.obtain(ctx)
	if err != nil {
		return "", err
	}
	failpoint.Here("container.created")
	if err := d.checkPorts(ctx, c); err != nil {
		return "", err
	}
	if !d.plan.Beside {
		if err := d.retire(ctx); err != nil {
			return "", err
		}
		failpoint.Here("container.stopped")
	}
	if err := d.start(ctx, c); err != nil {
		return "", err
	}
	failpoint.Here("container.started")
	if c, err = d.awaitHealth(ctx, c.ID); err != nil {
		return "", err
	}
	env := d.Tools.Environment(true)
	maps.Copy(env, d.spec.Env)
	maps.Copy(env, workloadVariables(c))
	if err := d.Tools.Health(ctx, env); err != nil {
		d.logOutput(ctx, c)
		return "", err
	}
	failpoint.Here("container.healthy")
	if err := d.script(ctx, "post_script", d.spec.PostScript, env); err != nil {
		return "", err
	}
	failpoint.Here("container.posted")
	if err := d.takeOver(ctx, c); err != nil {
		return "", err
	}
	return c.ID, nil
}

func (d *deployment) script(ctx context.Context, name, text string, env map[string]string) error {
	maps.Copy(env, d.spec.Env)
	return d.Tools.Script(ctx, executor.Script{Name: name, Text: text, Interpreter: d.spec.Interpreter, Env: env})
}

// clearLeftovers removes containers of steps that never came to an end, such as those whose agent was lost with its data.
func (d *deployment) clearLeftovers(ctx context.Context) error {
	all, err := d.engine.containersOf(ctx, d.Project, d.Host.ClientID)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.inPlace() || c.kept() && !c.State.Running || c.label(labelStep) == d.ID || c.ID == d.plan.Restore || d.plan.Old != nil && c.ID == d.plan.Old.ID {
			continue
		}
		if c.kept() {
			d.Tools.Printf("stopping container %s, which was replaced and still runs", c.name())
			if err := d.engine.setRestart(ctx, c, container.RestartPolicy{Name: container.RestartPolicyDisabled}); err != nil {
				return err
			}
			if err := d.engine.stop(ctx, c.ID); err != nil {
				return err
			}
			continue
		}
		d.Tools.Printf("removing container %s, which step %s left behind", c.name(), c.label(labelStep))
		if err := d.engine.stop(ctx, c.ID); err != nil {
			return err
		}
		if err := d.engine.remove(ctx, c.ID); err != nil {
			return err
		}
	}
	return nil
}

// checkName refuses a name that someone else's container has.
func (d *deployment) checkName(ctx context.Context) error {
	c, err := d.engine.inspect(ctx, d.wanted.name)
	switch {
	case err != nil:
		return err
	case c == nil || c.name() != d.wanted.name:
		return nil // the engine takes the beginning of an id for a name, too
	case c.label(labelManaged) != "true":
		return fmt.Errorf("the name %s is taken by a container that QuicFlow did not make (%s)", d.wanted.name, c.ID[:12])
	case c.label(labelProject) != d.Project:
		return fmt.Errorf("the name %s is taken by a container of project %s", d.wanted.name, c.label(labelProject))
	case c.label(labelTarget) != d.Host.ClientID:
		return fmt.Errorf("the name %s is taken by a container of agent %s, which shares this Docker engine", d.wanted.name, c.label(labelTarget))
	}
	return nil
}

// mine says whether a container is the project's on this agent.
func (d *deployment) mine(c *found) bool {
	return c.label(labelManaged) == "true" && c.label(labelProject) == d.Project && c.label(labelTarget) == d.Host.ClientID
}

// obtain gives the step's container: one that an earlier run made, the kept one, or a new one.
func (d *deployment) obtain(ctx context.Context) (*found, error) {
	c, err := d.own(ctx)
	if err != nil {
		return nil, err
	}
	if d.plan.Restore != "" {
		if c == nil {
			return nil, fmt.Errorf("container %s of version %s, kept for a rollback, is gone", d.plan.RestoreName, d.Version)
		}
		d.Tools.Printf("going back to container %s of version %s, which was kept", d.plan.RestoreName, d.Version)
		return c, nil
	}
	started, err := d.Tools.Kept(keptStarted, new(string))
	if err != nil {
		return nil, err
	}
	if c != nil && (started || c.State.Running) {
		return c, nil
	}
	if c != nil { // it may lack a network
		if err := d.engine.remove(ctx, c.ID); err != nil {
			return nil, err
		}
	}
	id, warnings, err := d.create(ctx)
	for _, w := range warnings {
		d.Tools.Printf("the Docker engine warns: %s", w)
	}
	if err != nil {
		d.logFull(err)
		return nil, fmt.Errorf("the container cannot be made: %w", err)
	}
	if c, err = d.engine.inspect(ctx, id); err != nil {
		return nil, err
	}
	if c == nil {
		return nil, errors.New("the new container is gone")
	}
	if fields := lost(d.wanted, c); len(fields) > 0 {
		return nil, refuse(fields, warnings)
	}
	d.Tools.Printf("made container %s (%s)", c.name(), c.ID[:12])
	return c, nil
}

// create makes the step's container. An engine may still be at work for an earlier run of the step that died: its container has
// the name already, and is removed once it can be seen.
func (d *deployment) create(ctx context.Context) (id string, warnings []string, err error) {
	tick := time.NewTicker(engineRetry)
	defer tick.Stop()
	for attempts := 0; ; attempts++ {
		id, warnings, err = d.engine.create(ctx, d.plan.Temporary, d.wanted)
		if !cerrdefs.IsConflict(err) || !d.Again || attempts == maxConflicts {
			return id, warnings, err
		}
		if c, err := d.own(ctx); err != nil {
			return "", nil, err
		} else if c != nil {
			if err := d.engine.remove(ctx, c.ID); err != nil {
				return "", nil, err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", nil, context.Cause(ctx)
		}
	}
}

// own finds the step's container; nil if there is none yet.
func (d *deployment) own(ctx context.Context) (*found, error) {
	if d.plan.Restore != "" {
		return d.engine.inspect(ctx, d.plan.Restore)
	}
	all, err := d.engine.containersOf(ctx, d.Project, d.Host.ClientID)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if c.label(labelStep) == d.ID {
			return c, nil
		}
	}
	return nil, nil
}

// checkPorts refuses ports of the host that other containers have, before anything is stopped.
func (d *deployment) checkPorts(ctx context.Context, c *found) error {
	if c.State.Running {
		return nil
	}
	port, holder, err := d.holder(ctx, claimsOf(c).ports)
	if err == nil && holder != "" {
		err = fmt.Errorf("port %d is taken by container %s", port, holder)
	}
	return err
}

// holder gives the first of some ports that a running container has, but for the one to be replaced, and its name; empty if none has.
func (d *deployment) holder(ctx context.Context, ports []claimedPort) (port uint16, holder string, err error) {
	if len(ports) == 0 {
		return 0, "", nil
	}
	others, err := d.engine.list(ctx, listRunning)
	if err != nil {
		return 0, "", err
	}
	for _, p := range ports {
		for _, o := range others {
			if d.plan.Old != nil && o.ID == d.plan.Old.ID || len(o.Names) == 0 {
				continue
			}
			for _, public := range o.Ports {
				if p.overlaps(claimedPort{public.PublicPort, public.Type, public.IP}) {
					return p.number, strings.TrimPrefix(o.Names[0], "/"), nil
				}
			}
		}
	}
	return 0, "", nil
}

// retire stops the container that is replaced. Its restart policy goes first: a container that is kept must not come back with
// the engine.
func (d *deployment) retire(ctx context.Context) error {
	if d.plan.Old == nil {
		return nil
	}
	old, err := d.engine.inspect(ctx, d.plan.Old.ID)
	if err != nil || old == nil {
		return err
	}
	if err := d.engine.setRestart(ctx, old, container.RestartPolicy{Name: container.RestartPolicyDisabled}); err != nil {
		return err
	}
	failpoint.Here("container.disarmed")
	if !old.State.Running {
		return nil
	}
	d.Tools.Printf("stopping container %s (version %s)", old.name(), d.plan.Old.Version)
	return d.engine.stop(ctx, old.ID)
}

// start starts the step's container, once.
func (d *deployment) start(ctx context.Context, c *found) error {
	started, err := d.Tools.Kept(keptStarted, new(string))
	if err != nil || started || c.State.Running {
		return err
	}
	if err := d.engine.setRestart(ctx, c, restartPolicy(c.label(labelRestart))); err != nil {
		return err
	}
	if err := d.engine.start(ctx, c.ID); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		d.logFull(err)
		port, taken := portTaken(err)
		if !taken {
			return startError(err)
		}
		number, _ := strconv.ParseUint(port, 10, 16)
		of := slices.DeleteFunc(claimsOf(c).ports, func(p claimedPort) bool { return p.number != uint16(number) })
		if _, holder, err := d.holder(ctx, of); err == nil && holder != "" {
			return fmt.Errorf("port %s is taken by container %s", port, holder)
		}
		return fmt.Errorf("port %s is taken by a program of this host", port)
	}
	d.Tools.Printf("started container %s", c.name())
	return d.Tools.Keep(keptStarted, c.ID)
}

// takeOver gives the new container its name, and the old one that of a kept one.
func (d *deployment) takeOver(ctx context.Context, c *found) error {
	if d.plan.Old != nil {
		old, err := d.engine.inspect(ctx, d.plan.Old.ID)
		if err != nil {
			return err
		}
		if old != nil {
			if err := d.engine.rename(ctx, old, keptName(old)); err != nil {
				return err
			}
		}
	}
	failpoint.Here("container.renamed")
	// One that does not run may still have the name, where a step before this one was lost.
	if other, err := d.engine.inspect(ctx, d.wanted.name); err != nil {
		return err
	} else if other != nil && other.ID != c.ID && d.mine(other) && !other.State.Running {
		if err := d.engine.rename(ctx, other, keptName(other)); err != nil {
			return err
		}
	}
	if err := d.engine.rename(ctx, c, d.wanted.name); err != nil {
		if taken := d.checkName(ctx); taken != nil {
			return taken
		}
		return err
	}
	failpoint.Here("container.switched")
	return nil
}

// finish does what is left once the new container is in place. Nothing stops it: a Cancelled comes too late.
func (d *deployment) finish(ctx context.Context, id string) error {
	ctx, cancel := d.lastly(ctx)
	defer cancel()
	if err := d.retire(ctx); err != nil {
		return fmt.Errorf("version %s runs, but the container of version %s cannot be stopped: %w", d.Version, d.plan.Old.Version, err)
	}
	failpoint.Here("container.retired")
	if err := d.prune(ctx, id); err != nil {
		d.Tools.Printf("old containers cannot be removed, the next step will try again: %v", err)
	}
	failpoint.Here("container.pruned")
	running, err := d.engine.describe(ctx, executor.Deployed{Project: d.Project, Host: d.Host})
	if err != nil {
		return err
	}
	running.TaskID = d.TaskID // of a container that was kept, the label tells of an earlier one
	d.Tools.Report(running)
	d.Tools.Printf("container %s runs version %s", d.wanted.name, d.Version)
	return nil
}

// lastly gives a context for what has to be done whatever happened, with the time that the project's containers may take to stop.
func (d *deployment) lastly(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx = context.WithoutCancel(ctx)
	longest := d.spec.StopTimeout.Std()
	if all, err := d.engine.containersOf(ctx, d.Project, d.Host.ClientID); err == nil {
		for _, c := range all {
			if c.Config.StopTimeout != nil {
				longest = max(longest, time.Duration(*c.Config.StopTimeout)*time.Second)
			}
		}
	}
	return context.WithTimeout(ctx, backTime+longest)
}

// prune removes containers of earlier versions beyond those that are kept, the oldest first.
func (d *deployment) prune(ctx context.Context, id string) error {
	all, err := d.engine.containersOf(ctx, d.Project, d.Host.ClientID)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(c *found) bool { return c.ID == id || !c.kept() })
	slices.SortFunc(all, func(a, b *found) int { return strings.Compare(b.State.FinishedAt, a.State.FinishedAt) })
	keep := 1
	if d.spec.KeepOld != nil {
		keep = *d.spec.KeepOld
	}
	for _, c := range all[min(keep, len(all)):] {
		d.Tools.Printf("removing container %s (version %s)", c.name(), c.label(labelVersion))
		if err := d.engine.remove(ctx, c.ID); err != nil {
			return err
		}
	}
	return nil
}
