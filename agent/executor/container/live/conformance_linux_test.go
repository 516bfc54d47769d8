package live

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	worker "github.com/quicflow/quicflow/agent/executor/container"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/release"
)

func effectsOf(step *executor.Step) string {
	return filepath.Join(step.Host.DataDir, "effects-"+strings.ReplaceAll(step.ID, "/", "-"))
}

// The executor of containers is like every other one. Its wrappers find the engine by $DOCKER_HOST, as an agent's do.
func TestConformance(t *testing.T) {
	t.Setenv("DOCKER_HOST", lab.Host)
	executortest.Conformance(t, executortest.Factory{
		New: func(t testing.TB) executor.Executor {
			return executortest.NewExecutor(t, wrapper.Config{Worker: worker.New(worker.Config{})})
		},
		Config: func(_ testing.TB, behaviour executortest.Behaviour, step *executor.Step) release.Merged {
			s := &release.ContainerSpec{
				Image: image, ImageTag: "v1", PullPolicy: "missing", Name: step.Project, StopSignal: "SIGKILL",
				Settle: release.Duration(50 * time.Millisecond), Volumes: []release.Volume{{Source: step.Host.DataDir, Target: "/effects"}},
			}
			end := "exec busybox httpd -f -p 8080 -h /www"
			switch behaviour {
			case executortest.TakesASec:
				s.Settle = release.Duration(time.Second)
			case executortest.Fails:
				s.Restart, end = &release.RestartPolicy{Name: "no"}, "echo no database >&2; exit 3"
			case executortest.Blocks:
				s.HealthCheck = never
			case executortest.Wrong:
				s.Name = "a; b"
			case executortest.UsesASecret:
				s.Env, s.PostScript = map[string]string{"SECRET": "${TOKEN}"}, `[ -n "$SECRET" ]`
			}
			s.Command = []string{"sh", "-c", "echo >> /effects/" + filepath.Base(effectsOf(step)) + "; " + end}
			return release.Merge(release.Project{Type: release.TypeContainer, Spec: release.Spec{Container: s}}, release.Version{}, release.Override{})
		},
		Effects: func(_ testing.TB, step *executor.Step) int {
			text, _ := os.ReadFile(effectsOf(step))
			return strings.Count(string(text), "\n")
		},
		CleanUp: func(t testing.TB, _ executor.Host, project string) {
			api, err := client.New(client.WithHost(lab.Host))
			require.NoError(t, err)
			defer api.Close()
			list, err := api.ContainerList(context.Background(), client.ContainerListOptions{
				All: true, Filters: client.Filters{}.Add("label", "quicflow.project="+project),
			})
			require.NoError(t, err)
			for _, c := range list.Items {
				_, err := api.ContainerRemove(context.Background(), c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
				require.NoError(t, err)
			}
		},
		Timeout: 4 * time.Second, SurvivesKill: true, HasLogs: true, Alone: true,
	})
}
