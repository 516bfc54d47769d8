package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/quicflow/quicflow/internal/lab/kube"
	"github.com/quicflow/quicflow/internal/release"
)

// kubernetesKind is a Deployment with a Service in a cluster whose controllers are real, and whose pods only say that they run.
func kubernetesKind(t *testing.T) kind {
	cluster, err := kube.Start(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(cluster.Stop)
	config, err := clientcmd.BuildConfigFromFlags("", cluster.Kubeconfig)
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	ctx := context.Background()
	const namespace = "shop"
	return kind{
		name: "kubernetes", env: []string{"KUBECONFIG=" + cluster.Kubeconfig},
		project: object{
			"namespace": namespace, "create_namespace": true, "image": "registry.example.com/team/app", "replicas": 2,
			"ports": []object{{"port": 8080}}, "service": object{}, "max_surge": "1", "max_unavailable": "0",
		},
		version: func(n string) object { return object{"image_tag": n} },
		broken:  object{"image_tag": "v3-crash", "deadline": "20s"},
		why:     "crash",
		serves: func() string {
			pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
			require.NoError(t, err)
			versions := map[string]bool{}
			for _, pod := range pods.Items {
				ready := false
				for _, c := range pod.Status.Conditions {
					ready = ready || c.Type == "Ready" && c.Status == "True"
				}
				if ready && pod.DeletionTimestamp == nil {
					_, tag, _ := strings.Cut(pod.Spec.Containers[0].Image, ":")
					versions[tag] = true
				}
			}
			var names []string
			for name := range versions {
				names = append(names, name)
			}
			return strings.Join(names, " and ")
		},
		harm: func() {
			require.NoError(t, client.AppsV1().Deployments(namespace).Delete(ctx, "shop", metav1.DeleteOptions{}))
		},
		drift: release.DriftMissing,
		left: func() (names []string) {
			deployments, err := client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
			require.NoError(t, err)
			for _, d := range deployments.Items {
				names = append(names, "deployment "+d.Name)
			}
			services, err := client.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{})
			require.NoError(t, err)
			for _, s := range services.Items {
				names = append(names, "service "+s.Name)
			}
			secrets, err := client.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{})
			require.NoError(t, err)
			for _, s := range secrets.Items { // the inventory is one
				names = append(names, "secret "+s.Name)
			}
			pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
			require.NoError(t, err)
			for _, pod := range pods.Items {
				names = append(names, "pod "+pod.Name)
			}
			return names
		},
		lines: map[string][]string{
			"update": {"kubernetes.checked", "kubernetes.recorded", "kubernetes.applying", "kubernetes.applied", "kubernetes.waiting", "kubernetes.ready",
				"kubernetes.pruned", "kubernetes.done"},
			"broken":    {"kubernetes.failed", "kubernetes.back"},
			"rollback":  {"kubernetes.applied"},
			"uninstall": {"kubernetes.deleting", "kubernetes.deleted"},
		},
	}
}

func TestDeployKubernetes(t *testing.T) {
	t.Parallel()
	testDeploy(t, kubernetesKind(t))
}

func TestDeployKubernetesKilled(t *testing.T) {
	t.Parallel()
	testDeployKilled(t, kubernetesKind(t))
}
