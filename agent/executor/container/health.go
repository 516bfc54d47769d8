package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/quicflow/quicflow/agent/executor"
)

const (
	// Between two looks at a container: a twentieth of the time that it has taken so far, within these bounds.
	minHealthPoll = 20 * time.Millisecond
	maxHealthPoll = 500 * time.Millisecond

	maxRestarts = 3 // of a new container, by the engine, until it counts as failed
)

var listRunning = client.ContainerListOptions{}

// awaitHealth waits until a container is healthy by the engine's check, or, without one, has run for the time to settle.
func (d *deployment) awaitHealth(ctx context.Context, id string) (*found, error) {
	begun, told := time.Now(), false
	var started string // as the engine says, whose clock may be another
	var since time.Time
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		c, err := d.engine.inspect(ctx, id)
		if err != nil {
			return nil, err
		}
		if c == nil {
			return nil, errors.New("the new container is gone: someone removed it")
		}
		if c.State.StartedAt != started {
			started, since = c.State.StartedAt, time.Now()
		}
		done, err := d.judge(c, time.Since(since))
		if err != nil {
			d.logOutput(ctx, c)
			return nil, d.withOutput(ctx, c, err)
		}
		if done {
			if c.State.Health != nil {
				d.Tools.Printf("container %s is healthy", c.name())
			}
			return c, nil
		}
		if !told && c.State.Health != nil {
			told = true
			d.Tools.Printf("waiting for the health check of container %s", c.name())
		}
		next.Reset(min(max(time.Since(begun)/20, minHealthPoll), maxHealthPoll))
		select {
		case <-next.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// judge says whether a container that has run for some time counts as started; the error says why it never will.
func (d *deployment) judge(c *found, ran time.Duration) (bool, error) {
	s := c.State
	switch {
	case c.RestartCount >= maxRestarts:
		return false, fmt.Errorf("the container ended %d times, at last with %s", c.RestartCount, ending(s))
	case s.Restarting:
		return false, nil
	case !s.Running:
		return false, fmt.Errorf("the container ended with %s", ending(s))
	case s.Paused:
		return false, nil
	case s.Health != nil && s.Health.Status != container.NoHealthcheck:
		if s.Health.Status == container.Unhealthy {
			why := ""
			if n := len(s.Health.Log); n > 0 {
				why = lastLine(s.Health.Log[n-1].Output)
				if why == "" {
					why = fmt.Sprintf("exit code %d", s.Health.Log[n-1].ExitCode)
				}
				why = ": " + why
			}
			return false, fmt.Errorf("the container is unhealthy%s", why)
		}
		return s.Health.Status == container.Healthy, nil
	}
	return ran >= d.spec.Settle.Std(), nil
}

// ending says how a container ended.
func ending(s *container.State) string {
	text := fmt.Sprintf("exit code %d", s.ExitCode)
	switch {
	case s.OOMKilled:
		text += ", out of memory"
	case s.Error != "":
		text += ": " + firstLine(s.Error)
	}
	return text
}

// withOutput puts the last line that a container printed behind the reason, where it ended by itself.
func (d *deployment) withOutput(ctx context.Context, c *found, err error) error {
	if c.State.Running && !c.State.Restarting && c.RestartCount < maxRestarts {
		return err
	}
	var tail strings.Builder
	if d.engine.logs(ctx, c, executor.LogOptions{Tail: 1}, &tail, &tail) == nil {
		if line := lastLine(tail.String()); line != "" {
			return fmt.Errorf("%w: %s", err, line)
		}
	}
	return err
}

// logOutput writes what a container printed last, and what its health check did, into the step's log.
func (d *deployment) logOutput(ctx context.Context, c *found) {
	if h := c.State.Health; h != nil {
		for _, check := range h.Log {
			d.Tools.Printf("health check, exit code %d: %s", check.ExitCode, strings.TrimSpace(check.Output))
		}
	}
	d.Tools.Printf("container %s printed at last:", c.name())
	if err := d.engine.logs(ctx, c, executor.LogOptions{Tail: tailLost}, d.Tools.Stdout(), d.Tools.Stderr()); err != nil {
		d.Tools.Printf("its output cannot be read: %v", err)
	}
}

// workloadVariables tell checks and scripts where the new container is.
func workloadVariables(c *found) map[string]string {
	env := map[string]string{"QUICFLOW_CONTAINER_ID": c.ID, "QUICFLOW_CONTAINER_NAME": c.name()}
	for port, bindings := range c.NetworkSettings.Ports {
		for _, b := range bindings {
			name := "QUICFLOW_PORT_" + port.Port()
			if port.Proto() != "tcp" {
				name += "_" + strings.ToUpper(string(port.Proto()))
			}
			env[name] = b.HostPort
		}
	}
	return env
}

// portTexts lists what is published: 0.0.0.0:8080->80/tcp.
func portTexts(c *found) (texts []string) {
	for port, bindings := range c.NetworkSettings.Ports {
		for _, b := range bindings {
			host := ""
			if b.HostIP.IsValid() {
				host = b.HostIP.String()
			}
			number, _ := strconv.Atoi(b.HostPort)
			texts = append(texts, net.JoinHostPort(host, strconv.Itoa(number))+"->"+port.String())
		}
	}
	return texts
}
