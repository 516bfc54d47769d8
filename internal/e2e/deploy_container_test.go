//go:build linux

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	dockerlab "github.com/quicflow/quicflow/internal/lab/docker"
	"github.com/quicflow/quicflow/internal/release"
)

// containerKind is a web server on a Docker engine of its own, at a port that every version wants.
func containerKind(t *testing.T) kind {
	const port = 18080
	lab, err := dockerlab.Start(t.Context(), dockerlab.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lab.Close()) })
	docker, err := client.New(client.WithHost(lab.Host))
	require.NoError(t, err)
	t.Cleanup(func() { _ = docker.Close() })
	ctx := context.Background()
	containers := func() (names []string, ids []string) {
		found, err := docker.ContainerList(ctx, client.ContainerListOptions{All: true})
		require.NoError(t, err)
		for _, c := range found.Items {
			names, ids = append(names, c.Names[0]+" "+string(c.State)), append(ids, c.ID)
		}
		return names, ids
	}
	return kind{
		name: "container", env: []string{"DOCKER_HOST=" + lab.Host},
		project: object{
			"image": dockerlab.AuthRegistry + "/" + dockerlab.App, "registry": object{"username": dockerlab.User, "password": dockerlab.Password},
			"ports":        []object{{"container": dockerlab.Port, "host": port}},
			"health_check": object{"test": dockerlab.Healthy, "interval": "300ms", "retries": 2}, "stop_timeout": "1s", "stop_signal": "SIGKILL",
		},
		version: func(n string) object { return object{"image_tag": n} },
		broken:  object{"image_tag": "sick"},
		why:     "unhealthy",
		serves: func() string {
			names, _ := containers()
			running := 0
			for _, name := range names {
				if strings.HasSuffix(name, " running") {
					running++
				}
			}
			require.LessOrEqual(t, running, 1, "never two on one port: %v", names)
			text, err := lab.Get(ctx, port, "/index.html")
			if err != nil {
				return ""
			}
			return strings.TrimSpace(text)
		},
		harm: func() {
			_, ids := containers()
			for _, id := range ids {
				_, err := docker.ContainerStop(ctx, id, client.ContainerStopOptions{})
				require.NoError(t, err)
			}
		},
		drift: release.DriftStopped,
		left: func() []string {
			names, _ := containers()
			return names
		},
		lines: map[string][]string{
			"update":    {"container.pulled", "container.stopped", "container.started", "container.healthy", "container.switched", "container.pruned"},
			"broken":    {"container.back", "container.discarded", "container.reinstated"},
			"rollback":  {"container.started"},
			"uninstall": {"container.uninstall.stopped", "container.uninstall.removed"},
		},
	}
}

func TestDeployContainer(t *testing.T) {
	t.Parallel()
	k := containerKind(t)
	testDeploy(t, k)
}

func TestDeployContainerKilled(t *testing.T) {
	t.Parallel()
	testDeployKilled(t, containerKind(t))
}

// What a container writes is read while it writes.
func TestContainerLogs(t *testing.T) {
	t.Parallel()
	w := deployOn(t, containerKind(t), serverConfig{})
	task := w.rolled("v1")
	w.succeeds(task)
	w.answers("v1")
	eventually(t, 20*time.Second, "the request is in the container's log", func() (bool, any) {
		out, errs, code := w.ctl("task", "container-logs", task.ID, w.agent.id, "--tail", "50")
		require.Zero(t, code, errs)
		return strings.Contains(out, "response:200"), out
	})
}
