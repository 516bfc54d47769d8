package live

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/kubernetes"
	"github.com/quicflow/quicflow/internal/release"
)

func (w *world) deployment() *appsv1.Deployment {
	w.t.Helper()
	d, err := client.AppsV1().Deployments(w.namespace).Get(w.t.Context(), "shop", metav1.GetOptions{})
	require.NoError(w.t, err)
	return d
}

// edit changes the deployment as someone with kubectl does.
func (w *world) edit(who, patch string) {
	w.t.Helper()
	_, err := client.AppsV1().Deployments(w.namespace).Patch(w.t.Context(), "shop", types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: who})
	require.NoError(w.t, err)
}

func TestServiceTypes(t *testing.T) {
	for _, kind := range []string{"", "ClusterIP", "NodePort", "LoadBalancer", "Headless"} {
		t.Run(cmp.Or(kind, "unset"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			of := func(version, kind string) release.KubernetesSpec {
				return w.spec(version, func(s *release.KubernetesSpec) {
					s.Ports, s.Service = []release.KubePort{{Port: 80}}, &release.KubeService{Type: kind}
				})
			}
			w.deploy(release.StepInstall, "v1", of("v1", kind))
			service, err := client.CoreV1().Services(w.namespace).Get(t.Context(), "shop", metav1.GetOptions{})
			require.NoError(t, err)
			require.Len(t, service.Spec.Ports, 1)
			switch kind {
			case "", "ClusterIP":
				require.Equal(t, corev1.ServiceTypeClusterIP, service.Spec.Type)
				require.NotEmpty(t, service.Spec.ClusterIP)
				require.NotEqual(t, corev1.ClusterIPNone, service.Spec.ClusterIP)
				require.Zero(t, service.Spec.Ports[0].NodePort)
			case "Headless":
				require.Equal(t, corev1.ServiceTypeClusterIP, service.Spec.Type)
				require.Equal(t, corev1.ClusterIPNone, service.Spec.ClusterIP)
			default:
				require.Equal(t, corev1.ServiceType(kind), service.Spec.Type)
				require.NotZero(t, service.Spec.Ports[0].NodePort, "the cluster chooses it")
			}
			if kind == "LoadBalancer" { // a Service may become a simpler one
				w.deploy(release.StepUpdate, "v2", of("v2", "ClusterIP"))
				service, err = client.CoreV1().Services(w.namespace).Get(t.Context(), "shop", metav1.GetOptions{})
				require.NoError(t, err)
				require.Equal(t, corev1.ServiceTypeClusterIP, service.Spec.Type)
			}
		})
	}
}

func TestServiceAndPullSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := w.spec("v1", func(s *release.KubernetesSpec) {
		s.Registry = &release.RegistryAuth{Username: "robot", Password: "p4ss"}
		s.PullSecret = "theirs"
		s.Ports = []release.KubePort{{Name: "http", Port: 8080}}
		s.Service = &release.KubeService{Type: "NodePort", Ports: []release.KubeServicePort{{Port: 80, Target: "http"}}, Annotations: map[string]string{"a": "b"}}
	})
	o := w.deploy(release.StepInstall, "v1", spec)
	require.NotContains(t, o.log, "p4ss")
	service, err := client.CoreV1().Services(w.namespace).Get(t.Context(), "shop", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, corev1.ServiceTypeNodePort, service.Spec.Type)
	require.Equal(t, "b", service.Annotations["a"])
	require.Equal(t, "shop", service.Labels["quicflow/project"])
	require.Eventually(t, func() bool { // a controller of the cluster's own follows the pods
		slices, err := client.DiscoveryV1().EndpointSlices(w.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=shop"})
		return err == nil && len(slices.Items) == 1 && len(slices.Items[0].Endpoints) == 2
	}, 30*time.Second, 50*time.Millisecond)

	secret, err := client.CoreV1().Secrets(w.namespace).Get(t.Context(), "shop-registry", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, corev1.SecretTypeDockerConfigJson, secret.Type)
	require.JSONEq(t, `{"auths":{"registry.example.com":{"username":"robot","password":"p4ss","auth":"`+base64.StdEncoding.EncodeToString([]byte("robot:p4ss"))+`"}}}`,
		string(secret.Data[".dockerconfigjson"]))
	d := w.deployment()
	require.Equal(t, []corev1.LocalObjectReference{{Name: "theirs"}, {Name: "shop-registry"}}, d.Spec.Template.Spec.ImagePullSecrets)
	require.Equal(t, "step-1", d.Annotations["quicflow/step"])
	require.Equal(t, "agent-1", d.Annotations["quicflow/target"])

	// Without a Service and a login in its configuration, a version has none of them.
	w.deploy(release.StepUpdate, "v2", w.spec("v2"))
	_, err = client.CoreV1().Services(w.namespace).Get(t.Context(), "shop", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), err)
	_, err = client.CoreV1().Secrets(w.namespace).Get(t.Context(), "shop-registry", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), err)
	// A rollback brings them back, with the login of today.
	spec.Registry.Password = "newer"
	w.deploy(release.StepRollbackTo, "v1", spec)
	secret, err = client.CoreV1().Secrets(w.namespace).Get(t.Context(), "shop-registry", metav1.GetOptions{})
	require.NoError(t, err)
	require.Contains(t, string(secret.Data[".dockerconfigjson"]), "newer")
	w.uninstall(spec)
	w.empty()
}

func TestPatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy(release.StepInstall, "v1", w.spec("v1", func(s *release.KubernetesSpec) {
		s.Ports, s.Service = []release.KubePort{{Port: 80}}, &release.KubeService{}
		s.Patches = []release.KubePatch{
			{Patch: "spec:\n  template:\n    spec:\n      containers:\n      - name: proxy\n        image: proxy:v1\n      - name: shop\n        tty: true\n"},
			{Type: "json", Patch: `[{"op":"replace","path":"/spec/replicas","value":3}]`},
			{Type: "merge", Kind: "Service", Patch: "spec:\n  sessionAffinity: ClientIP\n"},
		}
	}))
	d := w.deployment()
	require.EqualValues(t, 3, d.Status.AvailableReplicas)
	require.Len(t, d.Spec.Template.Spec.Containers, 2)
	names := map[string]corev1.Container{}
	for _, c := range d.Spec.Template.Spec.Containers {
		names[c.Name] = c
	}
	require.Equal(t, "proxy:v1", names["proxy"].Image)
	require.True(t, names["shop"].TTY)
	require.Equal(t, "registry.example.com/team/shop:v1", names["shop"].Image)
	service, err := client.CoreV1().Services(w.namespace).Get(t.Context(), "shop", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, corev1.ServiceAffinityClientIP, service.Spec.SessionAffinity)
}

const manifest = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: %[2]s}
---
# a kind, and an object of it
apiVersion: example.com/v1
kind: Gadget
metadata: {name: one}
spec: {size: 3}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Gadget, plural: gadgets, singular: gadget}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {size: {type: integer}}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: %[1]s-reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: v1
kind: List
items:
- apiVersion: batch/v1
  kind: Job
  metadata: {name: migrate-%[2]s, annotations: {a: b}}
  spec:
    template:
      spec:
        restartPolicy: Never
        containers: [{name: migrate, image: "migrate:%[2]s"}]
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web}
  spec:
    replicas: 1
    selector: {matchLabels: {app: web}}
    template:
      metadata: {labels: {app: web}}
      spec:
        containers: [{name: web, image: "web:%[2]s"}]
---
`

func TestManifest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.namespace + "-other"
	spec := func(color, more string) release.KubernetesSpec {
		return release.KubernetesSpec{Kubeconfig: w.config, Namespace: w.namespace, Manifest: fmt.Sprintf(manifest, w.namespace, color) + more,
			Deadline: release.Duration(20 * time.Second), Patches: []release.KubePatch{{Kind: "Deployment", Patch: "spec: {replicas: 2}"}}}
	}
	first := w.deploy(release.StepInstall, "v1", spec("red", `{apiVersion: v1, kind: Namespace, metadata: {name: `+other+`}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: elsewhere, namespace: `+other+`}}`))
	require.Equal(t, executor.RunOK, first.reported.State, first.reported.Reason)
	require.Equal(t, "3/3", first.reported.Details["ready"]) // two pods and a job
	gadgets := func(name string) error {
		_, err := client.RESTClient().Get().AbsPath("/apis/example.com/v1/namespaces/" + w.namespace + "/gadgets/" + name).DoRaw(t.Context())
		return err
	}
	require.NoError(t, gadgets("one"))

	// The next version has another job, and nothing in the other namespace.
	w.deploy(release.StepUpdate, "v2", spec("blue", ""))
	_, err := client.CoreV1().ConfigMaps(other).Get(t.Context(), "elsewhere", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), err)
	_, err = client.CoreV1().Namespaces().Get(t.Context(), other, metav1.GetOptions{})
	require.NoError(t, err, "a namespace is never deleted")
	_, err = client.BatchV1().Jobs(w.namespace).Get(t.Context(), "migrate-red", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), err)

	// A job that fails is a version that fails.
	failing := spec("green", "")
	failing.Manifest = strings.Replace(failing.Manifest, "annotations: {a: b}}\n  spec:\n", "}\n  spec:\n    backoffLimit: 0\n", 1)
	failing.Manifest = strings.Replace(failing.Manifest, `"migrate:green"`, `"migrate:green-crash"`, 1)
	why := w.fail(release.StepUpdate, "v3", failing)
	require.Contains(t, why, "job "+w.namespace+"/migrate-green: ")
	require.Contains(t, why, "exit code 3: fatal: the lab lets it crash; v2 serves as before")
	settings, err := client.CoreV1().ConfigMaps(w.namespace).Get(t.Context(), "settings", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "blue", settings.Data["color"])
	_, err = client.BatchV1().Jobs(w.namespace).Get(t.Context(), "migrate-green", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), err)

	w.uninstall(spec("blue", ""))
	w.empty()
	_, err = client.RbacV1().ClusterRoles().Get(t.Context(), w.namespace+"-reader", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), err)
	require.True(t, apierrors.IsNotFound(gadgets("one")))
}

func TestConflict(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy(release.StepInstall, "v1", w.spec("v1"))
	w.edit("kubectl-edit", `{"spec":{"replicas":3}}`)
	is := w.describe(w.spec("v1"))
	require.Equal(t, executor.RunChanged, is.State)
	require.Equal(t, `deployment `+w.namespace+`/shop: spec.replicas was changed by "kubectl-edit"`, is.Reason)

	generation := w.deployment().Generation
	require.Equal(t, `deployment `+w.namespace+`/shop: spec.replicas is managed by "kubectl-edit"; leave it out, or set force to take it over`,
		w.fail(release.StepUpdate, "v2", w.spec("v2")))
	require.Equal(t, generation, w.deployment().Generation, "nothing was changed")

	w.deploy(release.StepUpdate, "v2", w.spec("v2", func(s *release.KubernetesSpec) { s.Force = true }))
	require.EqualValues(t, 2, *w.deployment().Spec.Replicas)
	require.Equal(t, executor.RunOK, w.describe(w.spec("v2")).State)
}

// Replicas that are left out are what they were, and someone else's to set.
func TestReplicasHandedOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	without := func(s *release.KubernetesSpec) { s.Replicas = nil }
	w.deploy(release.StepInstall, "v1", w.spec("v1"))
	w.deploy(release.StepUpdate, "v2", w.spec("v2", without))
	require.EqualValues(t, 2, *w.deployment().Spec.Replicas)
	w.edit("autoscaler", `{"spec":{"replicas":4}}`)
	w.deploy(release.StepUpdate, "v3", w.spec("v3", without))
	require.EqualValues(t, 4, *w.deployment().Spec.Replicas)
	require.Equal(t, executor.RunOK, w.describe(w.spec("v3", without)).State)
	require.Contains(t, w.fail(release.StepUpdate, "v4", w.spec("v4")), `spec.replicas is managed by "autoscaler"`)
}

func TestReplicasTakenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy(release.StepInstall, "v1", w.spec("v1"))
	w.deploy(release.StepUpdate, "v2", w.spec("v2", func(s *release.KubernetesSpec) { s.Replicas = nil }))
	one := 1
	w.deploy(release.StepUpdate, "v3", w.spec("v3", func(s *release.KubernetesSpec) { s.Replicas = &one }))
	require.EqualValues(t, 1, *w.deployment().Spec.Replicas)
}

// What is someone else's is neither changed nor removed, but by force.
func TestForeignObject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := client.CoreV1().ConfigMaps(w.namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}, Data: map[string]string{"a": "b"}},
		metav1.CreateOptions{FieldManager: "kubectl-create"})
	require.NoError(t, err)
	spec := release.KubernetesSpec{Kubeconfig: w.config, Namespace: w.namespace, Manifest: "{apiVersion: v1, kind: ConfigMap, metadata: {name: theirs}, data: {c: d}}"}
	require.Equal(t, "configmap "+w.namespace+"/theirs is there and is not QuicFlow's but of kubectl-create; give it another name, or set force to take it over",
		w.fail(release.StepInstall, "v1", spec))
	w.uninstall(spec)
	_, err = client.CoreV1().ConfigMaps(w.namespace).Get(t.Context(), "theirs", metav1.GetOptions{})
	require.NoError(t, err)

	// Taken over in a deployment that fails, it stays.
	spec.Force = true
	failing := spec
	failing.PostScript, failing.Interpreter = "exit 1", "/bin/sh"
	require.Contains(t, w.fail(release.StepInstall, "v1", failing), "post_script: exit code 1")
	_, err = client.CoreV1().ConfigMaps(w.namespace).Get(t.Context(), "theirs", metav1.GetOptions{})
	require.NoError(t, err)

	w.deploy(release.StepInstall, "v1", spec)
	w.uninstall(spec)
	_, err = client.CoreV1().ConfigMaps(w.namespace).Get(t.Context(), "theirs", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), err)
}

func TestKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := release.KubernetesSpec{Kubeconfig: w.config, Namespace: w.namespace,
		Manifest: `{apiVersion: v1, kind: ConfigMap, metadata: {name: data, annotations: {quicflow/keep: "true"}}}`}
	w.deploy(release.StepInstall, "v1", spec)
	w.uninstall(spec)
	_, err := client.CoreV1().ConfigMaps(w.namespace).Get(t.Context(), "data", metav1.GetOptions{})
	require.NoError(t, err)
}

// Two agents whose cluster and namespace are the same do not get into each other's way.
func TestTwoAgents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy(release.StepInstall, "v1", w.spec("v1"))
	w.agent = "agent-2"
	require.Contains(t, w.fail(release.StepInstall, "v2", w.spec("v2")), "was deployed by agent agent-1; give each target a namespace of its own")
	require.Equal(t, executor.RunMissing, w.describe(w.spec("v1")).State)
	o := w.uninstall(w.spec("v2")) // the rollback of a host that had nothing
	require.Contains(t, o.log, "is of agent agent-1 and stays")
	require.Equal(t, map[string]int{"v1": 2}, w.images())
	w.deploy(release.StepInstall, "v2", w.spec("v2", func(s *release.KubernetesSpec) { s.Force = true }))
	require.Equal(t, map[string]int{"v2": 2}, w.images())
}

func TestForbidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config = filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, lab.KubeconfigOf("limited", w.namespace, w.config))
	require.Contains(t, w.fail(release.StepInstall, "v1", w.spec("v1")), `User "limited" cannot get resource "secrets" in API group "" in the namespace "`+w.namespace+`"`)

	// With a role for all but Services, all else works, and nothing is begun.
	_, err := client.RbacV1().Roles(w.namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "deployer"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets", "pods", "events"}, Verbs: []string{"*"}},
		{APIGroups: []string{"apps"}, Resources: []string{"*"}, Verbs: []string{"*"}}}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = client.RbacV1().RoleBindings(w.namespace).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "deployer"},
		RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "deployer"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "limited"}}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { // the API server learns of roles in a moment
		_, err := kubernetes.New().Describe(t.Context(), w.deployed(w.spec("v1")))
		return err == nil && w.describe(w.spec("v1")).State == executor.RunMissing
	}, 10*time.Second, 100*time.Millisecond)
	require.Contains(t, w.fail(release.StepInstall, "v1", w.spec("v1", func(s *release.KubernetesSpec) {
		s.Ports, s.Service = []release.KubePort{{Port: 80}}, &release.KubeService{}
	})), `cannot get resource "services"`)
	w.empty()
	o := w.deploy(release.StepInstall, "v1", w.spec("v1"))
	require.Equal(t, executor.RunOK, o.reported.State, o.reported.Reason)
	w.uninstall(w.spec("v1"))
	w.empty()
}

func TestNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.namespace += "-new"
	require.Equal(t, "the namespace "+w.namespace+" does not exist; make it, or set create_namespace", w.fail(release.StepInstall, "v1", w.spec("v1")))
	spec := w.spec("v1", func(s *release.KubernetesSpec) { s.CreateNamespace = true })
	w.deploy(release.StepInstall, "v1", spec)
	w.uninstall(spec)
	_, err := client.CoreV1().Namespaces().Get(t.Context(), w.namespace, metav1.GetOptions{})
	require.NoError(t, err)
	// The context's is the default.
	w.config = filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, lab.KubeconfigOf("admin", w.namespace, w.config))
	w.deploy(release.StepInstall, "v1", w.spec("v1", func(s *release.KubernetesSpec) { s.Namespace = "" }))
	require.Equal(t, map[string]int{"v1": 2}, w.images())
}

func TestScripts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "trace")
	spec := func(version string, change func(*release.KubernetesSpec)) release.KubernetesSpec {
		return w.spec(version, func(s *release.KubernetesSpec) {
			s.Interpreter, s.Env = "/bin/sh", map[string]string{"FILE": file}
			s.PreScript, s.PostScript = `echo pre $QUICFLOW_VERSION >>"$FILE"`, `echo post >>"$FILE"`
			s.Health = &release.Health{Exec: `echo health >>"$FILE"`}
			if change != nil {
				change(s)
			}
		})
	}
	w.deploy(release.StepInstall, "v1", spec("v1", nil))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "pre v1\npost\nhealth\n", string(text))

	generation := w.deployment().Generation
	require.Equal(t, "pre_script: exit code 1", w.fail(release.StepUpdate, "v2", spec("v2", func(s *release.KubernetesSpec) { s.PreScript = "exit 1" })))
	require.Equal(t, generation, w.deployment().Generation)
	require.Equal(t, "post_script: exit code 1; v1 serves as before",
		w.fail(release.StepUpdate, "v2", spec("v2", func(s *release.KubernetesSpec) { s.PostScript = "exit 1" })))
	w.soon(map[string]int{"v1": 2})
	require.Contains(t, w.fail(release.StepUpdate, "v2", spec("v2", func(s *release.KubernetesSpec) { s.Health = &release.Health{Exec: "echo sick; exit 1"} })), "sick")
	w.soon(map[string]int{"v1": 2})
}

// A version that cannot be applied to what is there is refused before anything changes: here a field that never changes.
func TestImmutable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy(release.StepInstall, "v1", w.spec("v1", func(s *release.KubernetesSpec) { s.Kind = "StatefulSet" }))
	require.Contains(t, w.fail(release.StepUpdate, "v2", w.spec("v2", func(s *release.KubernetesSpec) { s.Kind, s.ServiceName = "StatefulSet", "other" })),
		"updates to statefulset spec for fields other than")
	require.Equal(t, map[string]int{"v1": 2}, w.images())
	// Another kind takes its place.
	w.deploy(release.StepUpdate, "v2", w.spec("v2"))
	w.soon(map[string]int{"v2": 2})
	sets, err := client.AppsV1().StatefulSets(w.namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Empty(t, sets.Items)
}

// What a version leaves out is gone, also where the cluster made something of its own of it.
func TestSwitches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"robot", "other"} {
		_, err := client.CoreV1().ServiceAccounts(w.namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	ports := []release.KubePort{{Name: "http", Port: 80}}
	full := w.spec("v1", func(s *release.KubernetesSpec) {
		s.Ports, s.Service, s.ServiceAccount = ports, &release.KubeService{Type: "NodePort"}, "robot"
		s.Volumes = []release.KubeVolume{{Name: "a", MountPath: "/a", ConfigMap: "settings"}}
		s.Readiness = &release.KubeProbe{HTTPPath: "/ready"}
		s.Env, s.Labels, s.Annotations = map[string]string{"A": "b"}, map[string]string{"team": "a"}, map[string]string{"note": "a"}
		s.MaxSurge, s.GracePeriod = "50%", release.Duration(time.Second)
		s.Security = &release.KubeSecurity{CapAdd: []string{"NET_ADMIN"}}
	})
	w.deploy(release.StepInstall, "v1", full)
	w.deploy(release.StepUpdate, "v2", w.spec("v2", func(s *release.KubernetesSpec) {
		s.Ports, s.Service, s.Recreate, s.ServiceAccount = ports, &release.KubeService{}, true, "other"
		s.Volumes = []release.KubeVolume{{Name: "a", MountPath: "/a", EmptyDir: true}}
		s.Readiness = &release.KubeProbe{Exec: []string{"true"}}
	}))
	d := w.deployment()
	require.Equal(t, appsv1.RecreateDeploymentStrategyType, d.Spec.Strategy.Type)
	require.Equal(t, "other", d.Spec.Template.Spec.ServiceAccountName)
	require.Nil(t, d.Spec.Template.Spec.Volumes[0].ConfigMap)
	require.Nil(t, d.Spec.Template.Spec.Containers[0].ReadinessProbe.HTTPGet)
	require.NotContains(t, d.Labels, "team")
	require.NotContains(t, d.Annotations, "note")
	require.EqualValues(t, 30, *d.Spec.Template.Spec.TerminationGracePeriodSeconds)
	service, err := client.CoreV1().Services(w.namespace).Get(t.Context(), "shop", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, corev1.ServiceTypeClusterIP, service.Spec.Type)

	w.deploy(release.StepUpdate, "v3", w.spec("v3"))
	d = w.deployment()
	require.Equal(t, appsv1.RollingUpdateDeploymentStrategyType, d.Spec.Strategy.Type)
	require.Equal(t, "25%", d.Spec.Strategy.RollingUpdate.MaxSurge.String())
	require.Empty(t, d.Spec.Template.Spec.ServiceAccountName)
	require.Empty(t, d.Spec.Template.Spec.Volumes)
	require.Nil(t, d.Spec.Template.Spec.Containers[0].ReadinessProbe)
	w.deploy(release.StepUpdate, "v4", w.spec("v4", func(s *release.KubernetesSpec) { s.Recreate = true })) // what is in the way is the cluster's
	require.Equal(t, appsv1.RecreateDeploymentStrategyType, w.deployment().Spec.Strategy.Type)
	w.deploy(release.StepRollbackTo, "v1", full)
	require.Equal(t, "50%", w.deployment().Spec.Strategy.RollingUpdate.MaxSurge.String())
	require.Equal(t, "robot", w.deployment().Spec.Template.Spec.ServiceAccountName)
}

// The configurations of the unit tests, which set every field, are what the API server takes, strictly.
func TestEveryField(t *testing.T) {
	files, err := filepath.Glob("../testdata/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for i := range 12 { // for all claims
		_, err := client.CoreV1().PersistentVolumes().Create(t.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("lab-", i)},
			Spec: corev1.PersistentVolumeSpec{StorageClassName: "lab", Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
				AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadWriteMany},
				PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}}}}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			w := newWorld(t)
			config, err := release.ParseConfig(release.TypeKubernetes, text)
			require.NoError(t, err)
			spec := *config.Kubernetes
			spec.Kubeconfig, spec.Namespace, spec.Deadline = w.config, w.namespace, release.Duration(40*time.Second)
			_, err = client.CoreV1().ServiceAccounts(w.namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{})
			require.NoError(t, err)
			class := "lab"
			_, err = client.CoreV1().PersistentVolumeClaims(w.namespace).Create(t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"},
				Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
					Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}, metav1.CreateOptions{})
			require.NoError(t, err)
			if spec.Ports != nil && spec.Replicas != nil {
				one := 1 // it has a port of its node
				spec.Replicas = &one
			}
			o := w.deploy(release.StepInstall, "v1", spec)
			require.Equal(t, executor.RunOK, o.reported.State, o.reported.Reason)
			w.deploy(release.StepUpdate, "v1", spec)
			w.uninstall(spec)
			w.empty()
		})
	}
}
