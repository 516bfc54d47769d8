package live

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	worker "github.com/quicflow/quicflow/agent/executor/container"
	"github.com/quicflow/quicflow/internal/release"
)

func (p *project) worker() *worker.Worker { return worker.New(worker.Config{Host: p.host}) }

func deployed(step *executor.Step) executor.Deployed {
	return executor.Deployed{Project: step.Project, Version: step.Version, Config: step.Config, ConfigID: step.ConfigID, Host: step.Host}
}

func (p *project) describe(step *executor.Step) executor.Running {
	p.t.Helper()
	running, err := p.worker().Describe(context.Background(), deployed(step))
	require.NoError(p.t, err)
	return running
}

func TestProbe(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	info, err := p.api.Info(t.Context(), client.InfoOptions{})
	require.NoError(t, err)
	found, err := p.worker().Probe(t.Context())
	require.NoError(t, err)
	require.Equal(t, release.TypeContainer, found.Type)
	require.Equal(t, info.Info.ServerVersion, found.Version)
	require.Equal(t, info.Info.Driver, found.Details["storage_driver"])
	require.NotEmpty(t, found.Details["api_version"])
	require.Equal(t, "linux/x86_64", found.Details["platform"])

	begun := time.Now()
	_, err = worker.New(worker.Config{Host: "unix:///no/such.sock"}).Probe(t.Context())
	require.ErrorContains(t, err, "the Docker engine at unix:///no/such.sock does not answer")
	require.NotContains(t, err.Error(), "\n")
	require.Less(t, time.Since(begun), time.Second)
}

func TestEnvironmentNamesTheEngine(t *testing.T) {
	t.Setenv("DOCKER_HOST", lab.Host)
	_, err := worker.New(worker.Config{}).Probe(t.Context())
	require.NoError(t, err)
	t.Setenv("DOCKER_HOST", "unix:///no/such.sock")
	_, err = worker.New(worker.Config{}).Probe(t.Context())
	require.ErrorContains(t, err, "unix:///no/such.sock")
	_, err = worker.New(worker.Config{Host: lab.Host}).Probe(t.Context())
	require.NoError(t, err, "the configuration counts more")
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	step := p.step(release.StepInstall, "v1")
	require.Equal(t, executor.RunMissing, p.describe(step).State)

	c := p.do(step)
	r := p.describe(step)
	require.Equal(t, executor.RunOK, r.State, r.Reason)
	require.Equal(t, []string{p.name, "container", "v1", step.ConfigID, step.TaskID}, []string{r.Project, string(r.Type), r.Version, r.ConfigID, r.TaskID})
	require.WithinDuration(t, time.Now(), r.Since, patience)
	require.Equal(t, map[string]string{
		"image": image + ":v1", "image_id": c.Image, "container_id": c.ID, "name": p.name, "restarts": "0", "status": "running", "health": "healthy",
		"ports": fmt.Sprintf("0.0.0.0:%d->8080/tcp", p.port),
	}, withoutIPv6(r.Details))

	second := p.step(release.StepUpdate, "v2")
	c = p.do(second)
	r = p.describe(second)
	require.Len(t, r.Objects, 2, "with the one that is kept")
	require.Equal(t, "exited: version v1, kept for a rollback", r.Objects[1].State+": "+r.Objects[1].Reason)

	ctx := t.Context()
	_, err := p.api.ContainerPause(ctx, c.ID, client.ContainerPauseOptions{})
	require.NoError(t, err)
	r = p.describe(second)
	require.Equal(t, "degraded: it is paused", string(r.State)+": "+r.Reason)
	_, err = p.api.ContainerUnpause(ctx, c.ID, client.ContainerUnpauseOptions{})
	require.NoError(t, err)

	_, err = p.api.ContainerUpdate(ctx, c.ID, client.ContainerUpdateOptions{Resources: &container.Resources{Memory: 64 << 20, MemorySwap: 128 << 20}})
	require.NoError(t, err)
	r = p.describe(second)
	require.Equal(t, "changed: someone changed its resources.memory", string(r.State)+": "+r.Reason)

	_, err = p.api.ContainerRename(ctx, c.ID, client.ContainerRenameOptions{NewName: p.name + "-mine"})
	require.NoError(t, err)
	r = p.describe(second)
	require.Equal(t, executor.RunChanged, r.State)
	require.Contains(t, r.Reason, "was renamed to "+p.name+"-mine")

	_, err = p.api.ContainerStop(ctx, c.ID, client.ContainerStopOptions{})
	require.NoError(t, err)
	_, err = p.api.ContainerRename(ctx, c.ID, client.ContainerRenameOptions{NewName: p.name})
	require.NoError(t, err)
	p.deploy("v3")
	third := p.runs("v3")
	_, err = p.api.ContainerKill(ctx, third.ID, client.ContainerKillOptions{Signal: "KILL"})
	require.NoError(t, err)
	r = p.describe(second)
	require.Equal(t, "stopped: it ended with exit code 137", string(r.State)+": "+r.Reason)
	require.Equal(t, "v3", r.Version)

	p.do(p.step(release.StepUninstall, ""))
	foreign := p.foreign(p.name, 0)
	r = p.describe(second)
	require.Equal(t, executor.RunChanged, r.State)
	require.Equal(t, "container "+p.name+" is not one that QuicFlow made for it", r.Reason)
	require.Equal(t, foreign, r.Details["container_id"])
}

// withoutIPv6 leaves out ports that a dual-stack engine publishes a second time.
func withoutIPv6(details map[string]string) map[string]string {
	details["ports"], _, _ = strings.Cut(details["ports"], ", ")
	return details
}

func TestDescribeUnhealthy(t *testing.T) {
	t.Parallel()
	p := newProject(t).with(func(s *release.ContainerSpec) {
		s.Tmpfs = map[string]string{"/state": ""}
		s.HealthCheck = &release.ContainerHealth{
			Shell: "test ! -e /state/sick || { echo very sick; exit 1; }", Interval: release.Duration(300 * time.Millisecond), Retries: 1,
		}
	})
	step := p.step(release.StepInstall, "v1")
	c := p.do(step)
	made, err := p.api.ExecCreate(t.Context(), c.ID, client.ExecCreateOptions{Cmd: []string{"/bin/busybox", "touch", "/state/sick"}})
	require.NoError(t, err)
	_, err = p.api.ExecStart(t.Context(), made.ID, client.ExecStartOptions{Detach: true})
	require.NoError(t, err)
	p.await(func() error {
		if r := p.describe(step); r.State != executor.RunDegraded || r.Reason != "it is unhealthy: very sick" {
			return fmt.Errorf("%s: %s", r.State, r.Reason)
		}
		return nil
	})
}

// buffer is written and read at the same time.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestLogs(t *testing.T) {
	t.Parallel()
	p := newProject(t).with(func(s *release.ContainerSpec) {
		s.HealthCheck, s.Settle = nil, release.Duration(300*time.Millisecond)
		// Requests are not in its output, as they get there after their answer: only /cgi-bin/say is.
		s.Command = []string{"sh", "-c", `
			for i in 1 2 3; do echo out $i; echo err $i >&2; busybox sleep 0.05; done
			busybox mkdir -p /www/cgi-bin
			busybox printf '#!/bin/sh\necho said >&2\necho\n' > /www/cgi-bin/say
			busybox chmod +x /www/cgi-bin/say
			exec busybox httpd -f -p 8080 -h /www`}
	})
	step := p.step(release.StepInstall, "v1")
	p.do(step)
	logs := func(o executor.LogOptions) string {
		var out buffer
		require.NoError(t, p.worker().Logs(t.Context(), deployed(step), o, &out))
		return out.String()
	}
	require.ElementsMatch(t, []string{"out 1", "err 1", "out 2", "err 2", "out 3", "err 3", ""}, strings.Split(logs(executor.LogOptions{}), "\n"))

	stamped := logs(executor.LogOptions{Timestamps: true, Tail: 1})
	require.Equal(t, 1, strings.Count(stamped, "\n"))
	text, line, _ := strings.Cut(stamped, " ")
	at, err := time.Parse(time.RFC3339Nano, text)
	require.NoError(t, err)
	require.Equal(t, logs(executor.LogOptions{Tail: 1}), line)
	require.Empty(t, logs(executor.LogOptions{Since: at.Add(time.Nanosecond)}))
	require.Equal(t, line, logs(executor.LogOptions{Since: at}))

	ctx, cancel := context.WithCancel(t.Context())
	var out buffer
	ended := make(chan error, 1)
	go func() {
		ended <- p.worker().Logs(ctx, deployed(step), executor.LogOptions{Follow: true, Tail: 1}, &out)
	}()
	p.await(func() error {
		if _, err := lab.Get(t.Context(), p.port, "/cgi-bin/say"); err != nil {
			return err
		}
		if !strings.Contains(out.String(), "said\n") {
			return fmt.Errorf("what it said is not in it yet")
		}
		return nil
	})
	select {
	case err := <-ended:
		t.Fatalf("it ended: %v", err)
	default:
	}
	cancel()
	require.NoError(t, <-ended)

	// When the container is replaced, its output ends.
	go func() {
		ended <- p.worker().Logs(t.Context(), deployed(step), executor.LogOptions{Follow: true}, io.Discard)
	}()
	p.deploy("v2")
	require.NoError(t, <-ended)

	p.do(p.step(release.StepUninstall, ""))
	require.EqualError(t, p.worker().Logs(t.Context(), deployed(step), executor.LogOptions{}, io.Discard), fmt.Sprintf("container of project %q does not exist", p.name))
}

func TestLogsOfADriverThatKeepsNone(t *testing.T) {
	t.Parallel()
	p := newProject(t).with(func(s *release.ContainerSpec) { s.Log = &release.ContainerLog{Driver: "none"} })
	step := p.step(release.StepInstall, "v1")
	p.do(step)
	require.ErrorContains(t, p.worker().Logs(t.Context(), deployed(step), executor.LogOptions{}, io.Discard), "does not support reading")
}
