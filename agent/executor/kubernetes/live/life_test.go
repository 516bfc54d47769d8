package live

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

const short = release.Duration(4 * time.Second)

// A project from its first version to its end, with each kind of workload.
func TestLife(t *testing.T) {
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			pods := 2
			spec := func(tag string) release.KubernetesSpec {
				return w.spec(tag, func(s *release.KubernetesSpec) {
					s.Kind = kind
					s.Ports = []release.KubePort{{Name: "http", Port: 8080}}
					s.Service = &release.KubeService{}
					if kind == "DaemonSet" {
						s.Replicas, pods = nil, 1 // there is one node
					}
				})
			}
			first := w.deploy(release.StepInstall, "v1", spec("v1"))
			require.Equal(t, executor.RunOK, first.reported.State, first.reported.Reason)
			require.Equal(t, "v1", first.reported.Version)
			require.Equal(t, map[string]int{"v1": pods}, w.images())

			second := w.deploy(release.StepUpdate, "v2", spec("v2"))
			require.Equal(t, "v2", second.reported.Version)
			require.Equal(t, "config-v2", second.reported.ConfigID)
			require.Equal(t, "2", second.reported.Details["revision"])
			require.Equal(t, map[string]int{"v2": pods}, w.images())

			stuck := spec("v3-unready")
			stuck.Deadline = short
			why := w.fail(release.StepUpdate, "v3", stuck)
			require.Contains(t, why, "is not ready")
			require.Contains(t, why, "Readiness probe failed: HTTP probe failed with statuscode: 503")
			require.Contains(t, why, "v2 serves as before")
			w.soon(map[string]int{"v2": pods})
			is := w.describe(spec("v2"))
			require.Equal(t, executor.RunOK, is.State, is.Reason)
			require.Equal(t, "v2", is.Version)
			require.Equal(t, "2", is.Details["revision"])

			back := w.deploy(release.StepRollbackTo, "v1", spec("v1"))
			require.Contains(t, back.log, "going back to revision 1, v1")
			require.Equal(t, "v1", back.reported.Version)
			require.Equal(t, map[string]int{"v1": pods}, w.images())
			if kind == "Deployment" { // the cluster's own revision of v1 is taken up again, not a third one
				sets, err := client.AppsV1().ReplicaSets(w.namespace).List(t.Context(), metav1.ListOptions{})
				require.NoError(t, err)
				require.Len(t, sets.Items, 3) // v1, v2, v3
			}

			gone := w.uninstall(spec("v1"))
			require.Equal(t, executor.RunMissing, gone.reported.State)
			w.empty()
			require.Equal(t, executor.RunMissing, w.describe(spec("v1")).State)
			w.uninstall(spec("v1")) // nothing is there: no error
		})
	}
}

// A repetition of the same version restarts no pod.
func TestAgainTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	names := func() (names []string) {
		pods, err := client.CoreV1().Pods(w.namespace).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		for _, pod := range pods.Items {
			names = append(names, pod.Name)
		}
		return names
	}
	w.deploy(release.StepInstall, "v1", w.spec("v1"))
	before := names()
	w.deploy(release.StepUpdate, "v1", w.spec("v1"))
	require.Equal(t, before, names())
}
