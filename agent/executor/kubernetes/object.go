package kubernetes

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

type object = unstructured.Unstructured

// ref names an object of the cluster.
type ref struct {
	APIVersion string `json:"api_version"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"` // empty for one of the cluster
	Name       string `json:"name"`
	// Taken: it was there before, and not this project's.
	Taken bool `json:"taken,omitempty"`
}

func refOf(o *object) ref {
	return ref{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// same says whether both name one object: another version of its API is no other object.
func (r ref) same(other ref) bool {
	return r.gvk().Group == other.gvk().Group && r.Kind == other.Kind && r.Namespace == other.Namespace && r.Name == other.Name
}

func (r ref) gvk() schema.GroupVersionKind { return schema.FromAPIVersionAndKind(r.APIVersion, r.Kind) }

func (r ref) String() string {
	if r.Namespace == "" {
		return strings.ToLower(r.Kind) + " " + r.Name
	}
	return strings.ToLower(r.Kind) + " " + r.Namespace + "/" + r.Name
}

func has(refs []ref, r ref) bool { return slices.ContainsFunc(refs, r.same) }

// toObject makes an object of what encodes as one.
func toObject(value any) (*object, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return objectFromJSON(text)
}

// objectFromJSON keeps whole numbers whole.
func objectFromJSON(text []byte) (*object, error) {
	o := &object{}
	if err := utiljson.Unmarshal(text, &o.Object); err != nil {
		return nil, err
	}
	return o, nil
}

// rank orders kinds: what others need comes first. Deletion goes the other way.
func rank(o ref) int {
	for i, kinds := range [][]string{
		{"Namespace"}, {"CustomResourceDefinition"}, {"PriorityClass", "StorageClass", "RuntimeClass"}, {"ResourceQuota", "LimitRange", "NetworkPolicy"},
		{"ServiceAccount"}, {"Secret", "ConfigMap"}, {"PersistentVolume"}, {"PersistentVolumeClaim"},
		{"ClusterRole", "Role"}, {"ClusterRoleBinding", "RoleBinding"}, {"Service"},
		{"DaemonSet", "Deployment", "StatefulSet", "ReplicaSet", "ReplicationController", "Pod"}, {"Job", "CronJob"},
		{"HorizontalPodAutoscaler", "PodDisruptionBudget"}, {"Ingress"},
	} {
		if slices.Contains(kinds, o.Kind) {
			return i
		}
	}
	return 100 // kinds of others, which may be anything
}

func inOrder(objects []*object) {
	slices.SortStableFunc(objects, func(a, b *object) int { return cmp.Compare(rank(refOf(a)), rank(refOf(b))) })
}

// isWorkload says whether an object has pods of its own.
func isWorkload(r ref) bool {
	switch r.gvk().GroupKind() {
	case schema.GroupKind{Group: "apps", Kind: "Deployment"}, schema.GroupKind{Group: "apps", Kind: "StatefulSet"},
		schema.GroupKind{Group: "apps", Kind: "DaemonSet"}, schema.GroupKind{Group: "apps", Kind: "ReplicaSet"},
		schema.GroupKind{Group: "batch", Kind: "Job"}, schema.GroupKind{Kind: "Pod"}, schema.GroupKind{Kind: "ReplicationController"}:
		return true
	}
	return false
}

// oneLine makes one line of a message of the cluster's.
func oneLine(text string) string {
	const most = 600
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
