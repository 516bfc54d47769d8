package container

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

const maxObjects = 20 // of what runs, as executor.Running says

// describe says what runs of a project. Without a configuration in what, changes of settings are not looked for.
func (e *engine) describe(ctx context.Context, what executor.Deployed) (executor.Running, error) {
	r := executor.Running{Project: what.Project, Type: release.TypeContainer}
	all, err := e.containersOf(ctx, what.Project, what.Host.ClientID)
	if err != nil {
		return r, err
	}
	c := current(all)
	if c == nil {
		r.State, r.Reason = executor.RunMissing, "no container of it is there"
		if name := nameOf(what); name != "" {
			if other, err := e.inspect(ctx, name); err != nil {
				return r, err
			} else if other != nil && other.name() == name {
				r.State, r.Reason = executor.RunChanged, fmt.Sprintf("container %s is not one that QuicFlow made for it", name)
				r.Details = details(other)
			}
		}
		return r, nil
	}
	r.Version, r.ConfigID, r.TaskID, r.Details = c.label(labelVersion), c.label(labelConfig), c.label(labelTask), details(c)
	r.State, r.Reason = state(c)
	if c.State.Running {
		r.Since, _ = time.Parse(time.RFC3339Nano, c.State.StartedAt)
	}
	if changes := changed(c, what); changes != "" {
		r.State, r.Reason = executor.RunChanged, changes
	}
	for _, o := range all {
		if len(r.Objects) == maxObjects {
			break
		}
		role := "kept for a rollback"
		if o == c {
			role = "in use"
		}
		r.Objects = append(r.Objects, release.RunningObject{
			Kind: "container", Name: o.name(), State: string(o.State.Status), Reason: fmt.Sprintf("version %s, %s", o.label(labelVersion), role),
		})
	}
	return r, nil
}

// nameOf is the name of a project's container, "" where it cannot be told.
func nameOf(what executor.Deployed) string {
	if what.Config.Container == nil || strings.Contains(what.Config.Container.Name, "${") {
		return ""
	}
	return what.Config.Container.Name
}

func state(c *found) (executor.RunState, string) {
	s := c.State
	switch {
	case s.Restarting:
		return executor.RunDegraded, fmt.Sprintf("it restarts again and again, at last after %s", ending(s))
	case s.Paused:
		return executor.RunDegraded, "it is paused"
	case !s.Running:
		if s.Status == container.StateCreated {
			return executor.RunStopped, "it was never started"
		}
		return executor.RunStopped, "it ended with " + ending(s)
	case s.Health != nil && s.Health.Status == container.Unhealthy:
		reason := "it is unhealthy"
		if n := len(s.Health.Log); n > 0 {
			if line := lastLine(s.Health.Log[n-1].Output); line != "" {
				reason += ": " + line
			}
		}
		return executor.RunDegraded, reason
	}
	return executor.RunOK, ""
}

func details(c *found) map[string]string {
	d := map[string]string{
		"image": c.Config.Image, "image_id": c.Image, "container_id": c.ID, "name": c.name(), "restarts": strconv.Itoa(c.RestartCount),
		"status": string(c.State.Status),
	}
	if c.State.Health != nil {
		d["health"] = string(c.State.Health.Status)
	}
	ports := portTexts(c)
	slices.Sort(ports)
	if len(ports) > 0 {
		d["ports"] = strings.Join(ports, ", ")
	}
	return d
}

// changed says what someone did to a container since it was deployed, "" if nothing that can be seen.
func changed(c *found, what executor.Deployed) string {
	if !c.inPlace() {
		return fmt.Sprintf("container %s was renamed to %s", c.label(labelName), c.name())
	}
	if c.label(labelRestart) != restartText(c.HostConfig.RestartPolicy) {
		return fmt.Sprintf("its restart policy was changed to %s", restartText(c.HostConfig.RestartPolicy))
	}
	// Only with the configuration that the container was made from can its settings be compared, and variables that only
	// a step knows the values of are compared with nothing.
	spec := what.Config.Container
	if spec == nil || what.ConfigID != c.label(labelConfig) {
		return ""
	}
	plain := *spec
	plain.Image, plain.ImageTag, plain.Registry, plain.Platform, plain.Name, plain.Labels = "any", "any", nil, "", c.name(), nil
	plain.DNS, plain.ExtraHosts, plain.Volumes, plain.Devices, plain.GPUs, plain.HealthCheck = nil, nil, nil, nil, "", nil
	if text, err := json.Marshal(plain.Networks); err != nil || strings.Contains(string(text), "${") {
		plain.Networks = nil
	}
	if text, err := json.Marshal([]any{plain.Sysctls, plain.Annotations}); err != nil || strings.Contains(string(text), "${") {
		plain.Sysctls, plain.Annotations = nil, nil
	}
	if r := plain.Resources; r != nil && strings.Contains(r.MemorySwap+r.Cpuset, "${") {
		without := *r
		without.MemorySwap, without.Cpuset = "", ""
		plain.Resources = &without
	}
	w, err := build(&plain, identity{}, nil)
	if err != nil {
		return ""
	}
	if fields := differences(w, c, true); len(fields) > 0 {
		return "someone changed its " + strings.Join(fields, ", ")
	}
	return ""
}
