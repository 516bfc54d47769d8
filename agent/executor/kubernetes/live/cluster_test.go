package live

import (
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/quicflow/quicflow/internal/lab/kube"
	"github.com/quicflow/quicflow/internal/release"
)

// An agent in a pod uses the pod's account: the files of one, in a mount namespace of the child's own.
func TestInCluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := client.RbacV1().RoleBindings(w.namespace).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		RoleRef:  rbacv1.RoleRef{Kind: "ClusterRole", Name: "admin"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "default", Namespace: w.namespace}}}, metav1.CreateOptions{})
	require.NoError(t, err)
	token, err := client.CoreV1().ServiceAccounts(w.namespace).CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(t, err)
	certificate, err := os.ReadFile(lab.Certificate())
	require.NoError(t, err)
	files := t.TempDir()
	for name, text := range map[string]string{"token": token.Status.Token, "namespace": w.namespace, "ca.crt": string(certificate)} {
		require.NoError(t, os.WriteFile(filepath.Join(files, name), []byte(text), 0o600))
	}
	server, err := url.Parse(lab.Server)
	require.NoError(t, err)
	host, port, err := net.SplitHostPort(server.Host)
	require.NoError(t, err)

	spec := w.spec("v1", func(s *release.KubernetesSpec) { s.Kubeconfig, s.Namespace = "", "" })
	file := w.childFile(w.step(release.StepInstall, "v1", spec))
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", `
		mount -t tmpfs none /run
		mkdir -p /var/run/secrets/kubernetes.io/serviceaccount
		cp "$1"/* /var/run/secrets/kubernetes.io/serviceaccount
		exec "$2"`, "sh", files, program)
	cmd.Env = append(os.Environ(), childVariable+"="+file, "KUBECONFIG=", "HOME=/nowhere", "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "ended: <nil>")
	require.Equal(t, map[string]int{"v1": 2}, w.images())
}

// An API server that is away for a while during a rollout does not make it fail.
func TestServerAway(t *testing.T) {
	own, err := kube.Start(t.Context(), t.TempDir())
	require.NoError(t, err)
	defer own.Stop()
	shared, sharedClient := lab, client
	defer func() { lab, client = shared, sharedClient }()
	lab = own
	config, err := clientcmd.BuildConfigFromFlags("", own.Kubeconfig)
	require.NoError(t, err)
	client, err = kubernetes.NewForConfig(config)
	require.NoError(t, err)

	w := newWorld(t)
	w.deploy(release.StepInstall, "v1", w.spec("v1"))
	ended := make(chan outcome, 1)
	step := w.step(release.StepUpdate, "v2", w.spec("v2", func(s *release.KubernetesSpec) { s.PodAnnotations = map[string]string{"lab/ready-after": "3s"} }))
	go func() { ended <- w.do(t.Context(), step) }()
	require.Eventually(t, func() bool {
		pods, err := client.CoreV1().Pods(w.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/version=v2"})
		return err == nil && len(pods.Items) > 0 && pods.Items[0].Status.Phase == corev1.PodRunning
	}, 20*time.Second, 20*time.Millisecond)
	again := own.Kill("kube-apiserver")
	select {
	case o := <-ended:
		t.Fatalf("it ended: %v", o.err)
	case <-time.After(3 * time.Second): // the outage itself
	}
	require.NoError(t, again())
	o := <-ended
	require.NoError(t, o.err)
	require.Equal(t, map[string]int{"v2": 2}, w.images())
}

// A job that the cluster deletes when it has ended is not missing.
func TestJobThatGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := release.KubernetesSpec{Kubeconfig: w.config, Namespace: w.namespace, Deadline: release.Duration(20 * time.Second), Manifest: `
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  ttlSecondsAfterFinished: 0
  template: {spec: {restartPolicy: Never, containers: [{name: once, image: "once:v1"}]}}
`}
	w.deploy(release.StepInstall, "v1", spec)
	require.Eventually(t, func() bool {
		jobs, err := client.BatchV1().Jobs(w.namespace).List(t.Context(), metav1.ListOptions{})
		return err == nil && len(jobs.Items) == 0
	}, 20*time.Second, 50*time.Millisecond)
	is := w.describe(spec)
	require.Equal(t, "ok", string(is.State), is.Reason)
	w.uninstall(spec)
	w.empty()
}
