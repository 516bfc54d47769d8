package live

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/quicflow/quicflow/internal/release"
)

// What keeps an update from being ready is in the result, and the version before serves on.
func TestReasons(t *testing.T) {
	for _, c := range []struct {
		name   string
		tag    string
		change func(*release.KubernetesSpec)
		quota  int // pods; 0: none
		why    string
		log    string
	}{
		{name: "missing", tag: "v2-missing", why: "image registry.example.com/team/shop:v2-missing cannot be pulled: failed to resolve reference", log: "Failed to pull image"},
		{name: "crash", tag: "v2-crash", why: "container shop crashes: exit code 3: fatal: the lab lets it crash", log: "panic: the lab lets it crash"},
		{name: "oom", tag: "v2-oom", why: "container shop takes more memory than its limit (OOMKilled)"},
		{name: "unready", tag: "v2-unready", why: "runs, but is not ready: Readiness probe failed"},
		{name: "unschedulable", tag: "v2", why: "cannot be scheduled: 0/1 nodes are available: 1 Insufficient cpu", change: func(s *release.KubernetesSpec) {
			s.Resources = &release.KubeResources{Requests: map[string]string{"cpu": "100"}}
		}},
		{name: "node", tag: "v2", why: "cannot be scheduled: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector", change: func(s *release.KubernetesSpec) {
			s.NodeSelector = map[string]string{"disk": "ssd"}
		}},
		{name: "quota", tag: "v2", why: "exceeded quota: pods, requested: pods=1, used: pods=2, limited: pods=2", quota: 2},
		{name: "account", tag: "v2", why: `serviceaccount "nobody" not found`, change: func(s *release.KubernetesSpec) { s.ServiceAccount = "nobody" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if c.quota > 0 {
				_, err := client.CoreV1().ResourceQuotas(w.namespace).Create(t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "pods"},
					Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(int64(c.quota), resource.DecimalSI)}}}, metav1.CreateOptions{})
				require.NoError(t, err)
			}
			w.deploy(release.StepInstall, "v1", w.spec("v1"))
			spec := w.spec(c.tag)
			spec.Deadline = short
			if c.change != nil {
				c.change(&spec)
			}
			o := w.do(t.Context(), w.step(release.StepUpdate, "v2", spec))
			require.Error(t, o.err)
			require.Contains(t, o.err.Error(), c.why)
			require.Contains(t, o.err.Error(), "; v1 serves as before")
			require.NotContains(t, o.err.Error(), "\n")
			require.Contains(t, o.log, c.log)
			require.Equal(t, map[string]int{"v1": 2}, w.images())
			is := w.describe(spec)
			require.Equal(t, "v1", is.Version)
			require.Equal(t, "ok", string(is.State), is.Reason)
		})
	}
}

// What a first deployment made goes with it, when it fails.
func TestFirstFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := w.spec("v1-crash", func(s *release.KubernetesSpec) {
		s.Deadline, s.Ports, s.Service = short, []release.KubePort{{Port: 80}}, &release.KubeService{}
	})
	why := w.fail(release.StepInstall, "v1", spec)
	require.Contains(t, why, "container shop crashes: exit code 3: fatal: the lab lets it crash; what it had made is removed")
	w.empty()
}

// A manifest's own deadline counts, if it is shorter.
func TestProgressDeadline(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := func(tag string) release.KubernetesSpec {
		return release.KubernetesSpec{Kubeconfig: w.config, Namespace: w.namespace, Manifest: `
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  progressDeadlineSeconds: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: "shop:` + tag + `"}]}`}
	}
	w.deploy(release.StepInstall, "v1", spec("v1"))
	require.Contains(t, w.fail(release.StepUpdate, "v2", spec("v2-crash")),
		"shop: its progress deadline is over: container shop crashes: exit code 3: fatal: the lab lets it crash; v1 serves as before")
	require.Equal(t, map[string]int{"v1": 1}, w.images())
}
