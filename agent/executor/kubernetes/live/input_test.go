package live

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/kubernetes"
	"github.com/quicflow/quicflow/internal/release"
)

// Each of these is a failed step with its reason in one line, and the version before serves on, untouched.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy(release.StepInstall, "v1", w.spec("v1"))
	generation := w.deployment().Generation
	manifest := func(text string) func(*release.KubernetesSpec) {
		return func(s *release.KubernetesSpec) {
			*s = release.KubernetesSpec{Kubeconfig: s.Kubeconfig, Namespace: s.Namespace, Manifest: text}
		}
	}
	patch := func(p release.KubePatch) func(*release.KubernetesSpec) {
		return func(s *release.KubernetesSpec) { s.Patches = []release.KubePatch{p} }
	}
	file := func(text string) func(*release.KubernetesSpec) {
		path := filepath.Join(t.TempDir(), "kubeconfig")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return func(s *release.KubernetesSpec) { s.Kubeconfig = path }
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = silent.Close() }()
	server := func(url, token string) string {
		return `{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: "` + url + `", insecure-skip-tls-verify: true}}],
			users: [{name: u, user: {token: "` + token + `"}}], contexts: [{name: c, context: {cluster: c, user: u}}]}`
	}
	for _, c := range []struct {
		name   string
		change func(*release.KubernetesSpec)
		why    string
	}{
		{"a list", manifest("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n---\n- a\n- b\n"), "document 2 is a list, not an object"},
		{"a text", manifest("hello"), "document 1 is a single value, not an object"},
		{"not YAML", manifest("a: [1\nb: 2"), "document 1 is not YAML: "},
		{"nothing", manifest("---\n# nothing\n---\n"), "it has no object"},
		{"no kind", manifest("apiVersion: v1\nmetadata: {name: a}"), "document 1 has no kind"},
		{"an unknown kind", manifest("{apiVersion: example.org/v1, kind: Unheard, metadata: {name: a}}"), "the cluster knows no kind Unheard of example.org/v1"},
		{"an unknown field", manifest("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, colour: red}"), "colour"},
		{"10 MB", manifest("a: " + strings.Repeat("x", 10<<20)), "it has 10485763 bytes; the limit is 524288"},
		{"a bomb", manifest(bomb()), "document 1 is not YAML: document contains excessive aliasing"},
		{"a name", func(s *release.KubernetesSpec) { s.Name = "a; rm -rf $(HOME)" }, "a lowercase RFC 1123"},
		{"a patch without a target", patch(release.KubePatch{Kind: "Service", Patch: "a: b"}), "there is no Service to patch"},
		{"a patch that does not apply", patch(release.KubePatch{Type: "json", Patch: `[{"op":"remove","path":"/spec/nothing"}]`}),
			"patches[0]: it does not apply to deployment shop: error in remove for path: '/spec/nothing': Unable to remove nonexistent key"},
		{"a test that fails", patch(release.KubePatch{Type: "json", Patch: `[{"op":"test","path":"/spec/replicas","value":9}]`}), "testing value /spec/replicas failed"},
		{"a patch of another type", patch(release.KubePatch{Patch: "[]"}), "the patch is not an object"},
		{"a patch of a wrong type", patch(release.KubePatch{Patch: "spec: {replicas: many}"}), "replicas"},
		{"a patch that renames", patch(release.KubePatch{Patch: "metadata: {name: other}"}), "a patch cannot rename"},
		{"no kubeconfig", func(s *release.KubernetesSpec) { s.Kubeconfig = "/nowhere/kubeconfig" }, "the kubeconfig cannot be read: stat /nowhere/kubeconfig"},
		{"a wrong kubeconfig", file("{{{"), "the kubeconfig is wrong: "},
		{"no such context", func(s *release.KubernetesSpec) { s.Context = "prod" }, `context "prod" does not exist`},
		{"a wrong token", file(server(lab.Server, "nonsense")), "does not accept this login (401)"},
		{"nobody there", file(server("https://127.0.0.1:1", "x")), "https://127.0.0.1:1 does not answer: dial tcp 127.0.0.1:1: connect: connection refused"},
		{"nobody answers", file(server("https://"+silent.Addr().String(), "x")), "does not answer: context deadline exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := w.spec("v2")
			c.change(&spec)
			began := time.Now()
			why := w.fail(release.StepUpdate, "v2", spec)
			require.Contains(t, why, c.why)
			require.Less(t, len(why), 1000)
			require.Less(t, time.Since(began), 15*time.Second)
			require.Equal(t, generation, w.deployment().Generation)
			require.Equal(t, map[string]int{"v1": 2}, w.images())
		})
	}
}

// bomb is YAML that grows to much when it is read.
func bomb() string {
	text := "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 12; i++ {
		n, m := string(rune('a'+i)), string(rune('a'+i-1))
		text += n + "0: &" + n + "0 [" + strings.TrimSuffix(strings.Repeat("*"+m+"0,", 9), ",") + "]\n"
	}
	return text
}

func TestProbe(t *testing.T) {
	capability, err := kubernetes.New().Probe(t.Context())
	require.NoError(t, err)
	require.Equal(t, release.TypeKubernetes, capability.Type)
	require.Regexp(t, `^v1\.\d+\.\d+`, capability.Version)
	require.Equal(t, lab.Server, capability.Details["server"])

	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	_, err = kubernetes.New().Probe(t.Context())
	require.ErrorContains(t, err, "there is no kubeconfig (KUBECONFIG, ~/.kube/config), and this is no pod of a cluster")
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := w.spec("v1", func(s *release.KubernetesSpec) {
		s.Ports, s.Service = []release.KubePort{{Port: 80}}, &release.KubeService{}
	})
	require.Equal(t, executor.RunMissing, w.describe(spec).State)
	w.deploy(release.StepInstall, "v1", spec)
	is := w.describe(spec)
	require.Equal(t, executor.RunOK, is.State, is.Reason)
	require.Equal(t, "v1", is.Version)
	require.Equal(t, "config-v1", is.ConfigID)
	require.Equal(t, "task-1", is.TaskID)
	require.WithinDuration(t, time.Now(), is.Since, time.Minute)
	require.Equal(t, "2/2", is.Details["ready"])
	require.Equal(t, "registry.example.com/team/shop:v1", is.Details["image"])
	require.Len(t, is.Objects, 2)
	require.Equal(t, "ready", is.Objects[0].State)

	// Someone else's image: changed, and by whom.
	w.edit("kubectl-set", `{"metadata":{"labels":{"quicflow/project":"shop"}},"spec":{"template":{"spec":{"containers":[{"name":"shop","image":"evil:v1"}]}}}}`)
	is = w.describe(spec)
	require.Equal(t, executor.RunChanged, is.State)
	require.Contains(t, is.Reason, `was changed by "kubectl-set"`)
	w.deploy(release.StepUpdate, "v1", func() release.KubernetesSpec { forced := spec; forced.Force = true; return forced }())

	// Without its Service it is changed, without its Deployment nothing runs.
	require.NoError(t, client.CoreV1().Services(w.namespace).Delete(t.Context(), "shop", metav1.DeleteOptions{}))
	is = w.describe(spec)
	require.Equal(t, executor.RunChanged, is.State)
	require.Equal(t, "service "+w.namespace+"/shop is not there", is.Reason)
	w.deploy(release.StepUpdate, "v1", spec)
	require.NoError(t, client.AppsV1().Deployments(w.namespace).Delete(t.Context(), "shop", metav1.DeleteOptions{}))
	is = w.describe(spec)
	require.Equal(t, executor.RunMissing, is.State)
	require.Equal(t, "deployment "+w.namespace+"/shop is not there", is.Reason)
	require.NoError(t, client.CoreV1().Services(w.namespace).Delete(t.Context(), "shop", metav1.DeleteOptions{}))
	require.Equal(t, executor.RunMissing, w.describe(spec).State)

	// It cannot be told without the cluster.
	unreachable := spec
	unreachable.Kubeconfig = "/nowhere"
	require.Equal(t, executor.RunUnknown, w.describe(unreachable).State)
}

func TestDescribeDegraded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := release.KubernetesSpec{Kubeconfig: w.config, Namespace: w.namespace, Deadline: short, Manifest: `
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: "shop:v1"}]}`}
	w.deploy(release.StepInstall, "v1", spec)
	pods, err := client.CoreV1().Pods(w.namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	_, err = client.CoreV1().Pods(w.namespace).Patch(t.Context(), pods.Items[0].Name, "application/merge-patch+json",
		[]byte(`{"metadata":{"annotations":{"lab/behaviour":"crash"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	var is executor.Running
	require.Eventually(t, func() bool { is = w.describe(spec); return is.State == executor.RunDegraded }, 10*time.Second, 50*time.Millisecond)
	require.Equal(t, "deployment "+w.namespace+"/shop: container shop crashes: exit code 3: fatal: the lab lets it crash", is.Reason)
	require.Equal(t, "0/1", is.Details["ready"])

	// The manifest says nothing of replicas: another number is no change of what was deployed.
	w.edit("kubectl-scale", `{"spec":{"replicas":0}}`)
	require.Eventually(t, func() bool { is = w.describe(spec); return is.State == executor.RunStopped }, 10*time.Second, 50*time.Millisecond, is.Reason)
}

func TestLogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := w.spec("v1", func(s *release.KubernetesSpec) { s.PodAnnotations = map[string]string{"lab/log-every": "100ms"} })
	w.deploy(release.StepInstall, "v1", spec)
	read := func(ctx context.Context, options executor.LogOptions) string {
		var out bytes.Buffer
		require.NoError(t, kubernetes.New().Logs(ctx, w.deployed(spec), options, &out))
		return out.String()
	}
	all := read(t.Context(), executor.LogOptions{})
	require.Equal(t, 2, strings.Count(all, "] listening\n"))
	require.Regexp(t, `(?m)^\[shop-\w+-\w+\] starting shop$`, all)
	require.Equal(t, 6, strings.Count(read(t.Context(), executor.LogOptions{Tail: 3}), "\n")) // of two pods
	require.Regexp(t, `(?m)^\[shop-\S+\] 20\d\d-\d\d-\d\dT\S+Z starting shop$`, read(t.Context(), executor.LogOptions{Timestamps: true}))
	require.Eventually(t, func() bool {
		return !strings.Contains(read(t.Context(), executor.LogOptions{Since: time.Now().Add(-time.Second)}), "starting")
	},
		10*time.Second, 100*time.Millisecond)

	// Those of pods that come later are followed, too.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out lockedBuffer
	ended := make(chan error, 1)
	go func() {
		ended <- kubernetes.New().Logs(ctx, w.deployed(spec), executor.LogOptions{Tail: 1, Follow: true}, &out)
	}()
	require.Eventually(t, func() bool { return strings.Count(out.String(), "\n") > 10 }, 10*time.Second, 50*time.Millisecond)
	w.deploy(release.StepUpdate, "v2", func() release.KubernetesSpec { s := spec; s.ImageTag = "v2"; return s }())
	pods, err := client.CoreV1().Pods(w.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/version=v2"})
	require.NoError(t, err)
	require.NotEmpty(t, pods.Items)
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "["+pods.Items[0].Name+"] line ") }, 10*time.Second, 50*time.Millisecond)
	stop()
	require.NoError(t, <-ended)

	w.uninstall(spec)
	require.ErrorContains(t, kubernetes.New().Logs(t.Context(), w.deployed(spec), executor.LogOptions{}, &out), "nothing of shop is in namespace")
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
