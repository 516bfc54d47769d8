package live

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/kubernetes"
	"github.com/quicflow/quicflow/internal/release"
)

// again carries on with a step whose wrapper was killed.
func (w *world) again(step *executor.Step) outcome {
	w.t.Helper()
	tools := &tools{step: step, spec: step.Config.Kubernetes, log: w.t.Output()}
	err := kubernetes.New().Work(w.t.Context(), &executor.Run{Step: step, Again: true, Tools: tools})
	return outcome{"", tools.reported, err}
}

// revisions gives how many revisions the cluster keeps of the deployment: each stands for one change of the pods.
func (w *world) revisions() int {
	sets, err := client.AppsV1().ReplicaSets(w.namespace).List(w.t.Context(), metav1.ListOptions{})
	require.NoError(w.t, err)
	return len(sets.Items)
}

// A deployment that is killed at any line goes on to its end.
func TestKilledUpdate(t *testing.T) {
	for _, at := range []string{"checked", "recorded", "applying", "applied", "waiting", "ready", "pruned", "done"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			withService := func(s *release.KubernetesSpec) {
				s.Ports, s.Service = []release.KubePort{{Port: 80}}, &release.KubeService{}
			}
			w.deploy(release.StepInstall, "v1", w.spec("v1", withService))
			update := w.step(release.StepUpdate, "v2", w.spec("v2", func(s *release.KubernetesSpec) { s.PodAnnotations = map[string]string{"lab/ready-after": "1s"} }))
			require.True(t, w.kill(update, "kubernetes."+at), "it did not die there; is the build tag failpoint set?")
			o := w.again(update)
			require.NoError(t, o.err)
			require.Equal(t, "v2", o.reported.Version)
			require.Equal(t, "2", o.reported.Details["revision"])
			require.Equal(t, executor.RunOK, o.reported.State, o.reported.Reason)
			w.soon(map[string]int{"v2": 2})
			require.Equal(t, 2, w.revisions())
			w.uninstall(w.spec("v2"))
			w.empty() // the Service of v1 among them
		})
	}
}

// A failed update that is killed goes on back.
func TestKilledBack(t *testing.T) {
	for _, at := range []string{"waiting", "failed", "back", "deleting"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.deploy(release.StepInstall, "v1", w.spec("v1"))
			update := w.step(release.StepUpdate, "v2", w.spec("v2-crash", func(s *release.KubernetesSpec) {
				s.Deadline, s.Ports, s.Service = short, []release.KubePort{{Port: 80}}, &release.KubeService{} // a Service that v1 has not
			}))
			require.True(t, w.kill(update, "kubernetes."+at))
			o := w.again(update)
			require.ErrorContains(t, o.err, "container shop crashes: exit code 3")
			require.ErrorContains(t, o.err, "v1 serves as before")
			w.soon(map[string]int{"v1": 2})
			is := w.describe(w.spec("v1"))
			require.Equal(t, executor.RunOK, is.State, is.Reason)
			require.Equal(t, "1", is.Details["revision"])
			services, err := client.CoreV1().Services(w.namespace).List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			require.Empty(t, services.Items)
			o = w.again(update) // once more after its end: the same
			require.ErrorContains(t, o.err, "v1 serves as before")
		})
	}
}

// A failed first deployment that is killed leaves nothing.
func TestKilledFirst(t *testing.T) {
	for _, at := range []string{"failed", "deleting"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			install := w.step(release.StepInstall, "v1", w.spec("v1-missing", func(s *release.KubernetesSpec) {
				s.Deadline, s.Ports, s.Service = short, []release.KubePort{{Port: 80}}, &release.KubeService{}
			}))
			require.True(t, w.kill(install, "kubernetes."+at))
			o := w.again(install)
			require.ErrorContains(t, o.err, "cannot be pulled")
			require.ErrorContains(t, o.err, "what it had made is removed")
			w.empty()
			o = w.again(install)
			require.ErrorContains(t, o.err, "cannot be pulled")
			w.empty()
		})
	}
}

func TestKilledUninstall(t *testing.T) {
	for _, at := range []string{"deleting", "deleted"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			spec := w.spec("v1", func(s *release.KubernetesSpec) {
				s.Ports, s.Service = []release.KubePort{{Port: 80}}, &release.KubeService{}
			})
			w.deploy(release.StepInstall, "v1", spec)
			uninstall := w.step(release.StepUninstall, "", spec)
			require.True(t, w.kill(uninstall, "kubernetes."+at))
			require.NoError(t, w.again(uninstall).err)
			w.empty()
		})
	}
}

// A step that never ended, with its host, does not stand in the way of the next.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy(release.StepInstall, "v1", w.spec("v1"))
	update := w.step(release.StepUpdate, "v2", w.spec("v2-crash", func(s *release.KubernetesSpec) {
		s.Ports, s.Service = []release.KubePort{{Port: 80}}, &release.KubeService{}
	}))
	require.True(t, w.kill(update, "kubernetes.waiting"))
	is := w.describe(w.spec("v1"))
	require.Equal(t, "v1", is.Version)
	require.Equal(t, executor.RunChanged, is.State)
	w.deploy(release.StepUpdate, "v3", w.spec("v3"))
	w.soon(map[string]int{"v3": 2})
	services, err := client.CoreV1().Services(w.namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Empty(t, services.Items, "what only the abandoned step applied is gone")
}

// A step that is cancelled, or whose time is over, goes back at once.
func TestCancelled(t *testing.T) {
	for name, cause := range map[string]error{"cancelled": &executor.Cancelled{Reason: "wrong button"}, "timeout": &executor.TimedOut{After: time.Minute}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.deploy(release.StepInstall, "v1", w.spec("v1"))
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			seen := make(chan struct{})
			go func() {
				defer close(seen)
				for ctx.Err() == nil {
					pods, err := client.CoreV1().Pods(w.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/version=v2"})
					if err == nil && len(pods.Items) > 0 && pods.Items[0].Status.Phase == corev1.PodRunning {
						cancel(cause)
					}
				}
			}()
			o := w.do(ctx, w.step(release.StepUpdate, "v2", w.spec("v2-unready")))
			<-seen
			require.ErrorContains(t, o.err, cause.Error()+"; v1 serves as before")
			require.True(t, errors.Is(o.err, cause) || errors.As(o.err, new(*executor.Cancelled)) || errors.As(o.err, new(*executor.TimedOut)))
			w.soon(map[string]int{"v1": 2})
		})
	}
}
