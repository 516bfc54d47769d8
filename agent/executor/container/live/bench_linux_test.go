package live

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	dockerlab "github.com/quicflow/quicflow/internal/lab/docker"
	"github.com/quicflow/quicflow/internal/release"
)

const (
	benchInterval = "200ms"               // of the health check
	benchPoll     = 20 * time.Millisecond // of whoever waits for it without QuicFlow
)

// BenchmarkInstall measures what the work of a container step takes beside `docker run -d` and waiting until the container is
// healthy, in turn and in the same round, with the image there. Its figures are medians; bare-ms and quicflow-ms contain the wait
// for the engine's first health check, and added-ms is the median of the differences.
func BenchmarkInstall(b *testing.B) {
	api, err := client.New(client.WithHost(lab.Host))
	require.NoError(b, err)
	defer api.Close()
	pulled, err := api.ImagePull(b.Context(), image+":v1", client.ImagePullOptions{})
	require.NoError(b, err)
	require.NoError(b, pulled.Wait(b.Context()))

	var bare, ours, added []float64
	round := func(i int) {
		name := fmt.Sprintf("bench%d", i)
		ways := []func() float64{func() float64 { return runBare(b, api, name) }, func() float64 { return runOurs(b, api, name) }}
		var took [2]float64
		for _, way := range [][]int{{0, 1}, {1, 0}}[i%2] { // whoever comes second finds the machine warmer
			took[way] = ways[way]()
		}
		if i == 0 {
			return
		}
		bare, ours, added = append(bare, took[0]), append(ours, took[1]), append(added, took[1]-took[0])
	}
	round(0)
	n := 0
	for b.Loop() {
		n++
		round(n)
	}
	b.ReportMetric(median(bare), "bare-ms")
	b.ReportMetric(median(ours), "quicflow-ms")
	b.ReportMetric(median(added), "added-ms")
	b.ReportMetric(0, "ns/op")
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func runBare(b *testing.B, api *client.Client, name string) float64 {
	begun := time.Now()
	out, err := exec.Command("docker", "--host", lab.Host, "run", "-d", "--name", name+"-bare", "--restart", "unless-stopped", "-p", "8080",
		"--health-cmd", "/bin/busybox wget -q -O - http://127.0.0.1:8080/index.html", "--health-interval", benchInterval, image+":v1").CombinedOutput()
	require.NoError(b, err, "%s", out)
	defer remove(b, api, name+"-bare")
	tick := time.NewTicker(benchPoll)
	defer tick.Stop()
	for ; ; <-tick.C {
		c, err := api.ContainerInspect(b.Context(), name+"-bare", client.ContainerInspectOptions{})
		require.NoError(b, err)
		if c.Container.State.Health.Status == container.Healthy {
			return float64(time.Since(begun).Microseconds()) / 1000
		}
	}
}

func runOurs(b *testing.B, api *client.Client, name string) float64 {
	interval, err := time.ParseDuration(benchInterval)
	require.NoError(b, err)
	spec := release.ContainerSpec{
		Image: image, PullPolicy: "missing", Ports: []release.Port{{Container: dockerlab.Port}},
		HealthCheck: &release.ContainerHealth{Shell: "/bin/busybox wget -q -O - http://127.0.0.1:8080/index.html", Interval: release.Duration(interval)},
	}
	merged := release.Merge(release.Project{Name: name, Type: release.TypeContainer, Spec: release.Spec{Container: &spec}},
		release.Version{Name: "v1", Spec: release.Spec{Container: &release.ContainerSpec{ImageTag: "v1"}}}, release.Override{})
	merged.Container.Name = name
	step := &executor.Step{
		ID: name, TaskID: name, Action: release.StepInstall, Project: name, Version: "v1", Config: merged, ConfigID: "1",
		Host: executor.Host{ClientID: "host-1"}, Dir: b.TempDir(),
	}
	begun := time.Now()
	err = work(context.Background(), lab.Host, step, false, &tools{step: step})
	took := float64(time.Since(begun).Microseconds()) / 1000
	require.NoError(b, err)
	remove(b, api, name)
	return took
}

func remove(b *testing.B, api *client.Client, name string) {
	_, err := api.ContainerRemove(b.Context(), name, client.ContainerRemoveOptions{Force: true})
	require.NoError(b, err)
}
