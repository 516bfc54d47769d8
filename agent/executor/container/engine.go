package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/quicflow/quicflow/agent/executor"
)

const (
	engineRetry   = 500 * time.Millisecond // between two attempts to reach an engine that is away
	engineConnect = 10 * time.Second       // for the first answer of an engine
	engineEffect  = 2 * time.Minute        // for making or starting a container
)

// engine is a connection to an engine. What it does to containers may be repeated: a container that is gone is removed, one that
// runs is started. While the engine is away, it waits.
type engine struct {
	api      *client.Client
	patience time.Duration
}

func (w *Worker) connect(ctx context.Context, patience time.Duration) (*engine, error) {
	options := []client.Opt{client.FromEnv}
	if w.cfg.Host != "" {
		options = append(options, client.WithHost(w.cfg.Host))
	}
	api, err := client.New(options...)
	if err != nil {
		return nil, fmt.Errorf("the address of the Docker engine is wrong: %w", err)
	}
	e := &engine{api, patience}
	err = e.retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, engineConnect)
		defer cancel()
		_, err := api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
		return err
	})
	if err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *engine) close() { _ = e.api.Close() }

// retry calls f until the engine answers. Its errors are short and for people.
func (e *engine) retry(ctx context.Context, f func() error) error {
	until := time.NewTimer(e.patience)
	defer until.Stop()
	again := time.NewTicker(engineRetry)
	defer again.Stop()
	for {
		err := f()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !away(err):
			return plain(err)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-until.C:
			return fmt.Errorf("the Docker engine at %s does not answer: %w", e.api.DaemonHost(), err)
		}
		if e.patience <= 0 {
			return fmt.Errorf("the Docker engine at %s does not answer: %w", e.api.DaemonHost(), err)
		}
	}
}

// away says whether the engine itself could not be reached, or went away in the middle.
func away(err error) bool {
	return client.IsErrConnectionFailed(err) || cerrdefs.IsUnavailable(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "connection reset by peer")
}

// has says whether the engine's API is of this version or a later one.
func (e *engine) has(version string) bool {
	return versions.GreaterThanOrEqualTo(e.api.ClientVersion(), version)
}

func (e *engine) info(ctx context.Context) (info system.Info, err error) {
	err = e.retry(ctx, func() error {
		answer, err := e.api.Info(ctx, client.InfoOptions{})
		info = answer.Info
		return err
	})
	return info, err
}

// inspect gives nil for a container that does not exist.
func (e *engine) inspect(ctx context.Context, id string) (c *found, err error) {
	err = e.retry(ctx, func() error {
		answer, err := e.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if cerrdefs.IsNotFound(err) {
			return nil
		}
		if err == nil {
			c = &found{answer.Container}
		}
		return err
	})
	return c, err
}

// containersOf gives all containers of a project that an agent made, whatever their state.
func (e *engine) containersOf(ctx context.Context, project, target string) ([]*found, error) {
	list, err := e.list(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.
		Add("label", labelManaged+"=true", labelProject+"="+project, labelTarget+"="+target)})
	if err != nil {
		return nil, err
	}
	var all []*found
	for _, s := range list {
		c, err := e.inspect(ctx, s.ID)
		if err != nil {
			return nil, err
		}
		if c != nil && c.State.Status != container.StateRemoving {
			all = append(all, c)
		}
	}
	return all, nil
}

func (e *engine) list(ctx context.Context, options client.ContainerListOptions) (list []container.Summary, err error) {
	err = e.retry(ctx, func() error {
		answer, err := e.api.ContainerList(ctx, options)
		list = answer.Items
		return err
	})
	return list, err
}

// create is not repeated: what became of it says the label of its step. It goes on to its end when ctx ends: what an engine makes
// after nobody waits for it any more would be left behind.
func (e *engine) create(ctx context.Context, name string, w *wanted) (id string, warnings []string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), engineEffect)
	defer cancel()
	options := client.ContainerCreateOptions{Name: name, Config: w.config, HostConfig: w.host, Platform: w.platform}
	if len(w.networks) > 0 {
		first := w.networks[0]
		options.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{first.name: first.endpoint}}
	}
	answer, err := e.api.ContainerCreate(ctx, options)
	if err != nil {
		return "", nil, plain(err)
	}
	// Engines before API 1.44 take one network when a container is created.
	for _, n := range w.networks[min(1, len(w.networks)):] {
		_, err := e.api.NetworkConnect(ctx, n.name, client.NetworkConnectOptions{Container: answer.ID, EndpointConfig: n.endpoint})
		if err != nil {
			return answer.ID, answer.Warnings, fmt.Errorf("join network %s: %w", n.name, plain(err))
		}
	}
	return answer.ID, answer.Warnings, nil
}

// start goes on to its end when ctx ends, as create does.
func (e *engine) start(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), engineEffect)
	defer cancel()
	return e.retry(ctx, func() error {
		_, err := e.api.ContainerStart(ctx, id, client.ContainerStartOptions{})
		return err
	})
}

// stop gives a container its own time to stop, and none beyond that.
func (e *engine) stop(ctx context.Context, id string) error {
	return e.retry(ctx, func() error {
		_, err := e.api.ContainerStop(ctx, id, client.ContainerStopOptions{})
		if cerrdefs.IsNotFound(err) {
			return nil
		}
		return err
	})
}

func (e *engine) remove(ctx context.Context, id string) error {
	return e.retry(ctx, func() error {
		_, err := e.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{RemoveVolumes: true, Force: true})
		if cerrdefs.IsNotFound(err) {
			return nil
		}
		return err
	})
}

func (e *engine) rename(ctx context.Context, c *found, name string) error {
	if c.name() == name {
		return nil
	}
	return e.retry(ctx, func() error {
		_, err := e.api.ContainerRename(ctx, c.ID, client.ContainerRenameOptions{NewName: name})
		if err == nil {
			c.Name = "/" + name
		}
		return err
	})
}

// setRestart changes nothing where the policy is that already.
func (e *engine) setRestart(ctx context.Context, c *found, p container.RestartPolicy) error {
	if c.HostConfig.RestartPolicy.IsSame(&p) || c.HostConfig.RestartPolicy.IsNone() && p.IsNone() {
		return nil
	}
	return e.retry(ctx, func() error {
		_, err := e.api.ContainerUpdate(ctx, c.ID, client.ContainerUpdateOptions{RestartPolicy: &p})
		if err == nil {
			c.HostConfig.RestartPolicy = p
		}
		return err
	})
}

// image gives nil for an image that the engine does not have.
func (e *engine) image(ctx context.Context, reference string) (image *client.ImageInspectResult, err error) {
	err = e.retry(ctx, func() error {
		answer, err := e.api.ImageInspect(ctx, reference)
		if cerrdefs.IsNotFound(err) {
			return nil
		}
		if err == nil {
			image = &answer
		}
		return err
	})
	return image, err
}

// logs writes the output of a container. It ends with ctx.
func (e *engine) logs(ctx context.Context, c *found, o executor.LogOptions, stdout, stderr io.Writer) error {
	options := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: o.Follow, Timestamps: o.Timestamps}
	if o.Tail > 0 {
		options.Tail = strconv.Itoa(o.Tail)
	}
	if !o.Since.IsZero() {
		options.Since = o.Since.UTC().Format(time.RFC3339Nano)
	}
	stream, err := e.api.ContainerLogs(ctx, c.ID, options)
	if err != nil {
		return plain(err)
	}
	defer stream.Close()
	if c.Config.Tty {
		_, err = io.Copy(stdout, stream)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, stream)
	}
	return err
}

// platformOf reads os/architecture[/variant].
func platformOf(text string) (*ocispec.Platform, bool) {
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return nil, false
	}
	p := &ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, true
}
