package kubernetes

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

// build makes the objects of a step from its configuration alone, in the order in which they are applied. Objects without a namespace
// are of the configuration's, or of the cluster; only the cluster knows.
func build(step *executor.Step) ([]*object, error) {
	spec := step.Config.Kubernetes
	if spec == nil {
		return nil, release.Invalid("kubernetes", "the step has no configuration of this type")
	}
	var objects []*object
	var err error
	if spec.Manifest != "" {
		if err := aloneWithManifest(spec); err != nil {
			return nil, err
		}
		objects, err = parseManifest(spec.Manifest)
	} else {
		objects, err = generate(step, spec)
	}
	if err != nil {
		return nil, err
	}
	if spec.Registry != nil {
		secret, err := pullSecret(spec, nameOf(step, spec))
		if err != nil {
			return nil, err
		}
		objects = append(objects, secret)
	}
	if err := patch(objects, spec.Patches, spec.Kind); err != nil {
		return nil, err
	}
	for i, o := range objects {
		for _, other := range objects[:i] {
			if refOf(o).same(refOf(other)) {
				return nil, release.Invalid("kubernetes.manifest", "%s is there twice", refOf(o))
			}
		}
		if o.GetKind() == "Secret" && o.GetName() == inventoryName(step.Project) {
			return nil, release.Invalid("kubernetes.manifest", "%s is QuicFlow's own", refOf(o))
		}
		ownDefaults(o)
		stamp(o, step)
	}
	inOrder(objects)
	return objects, nil
}

// nameOf gives the name of what is generated.
func nameOf(step *executor.Step, spec *release.KubernetesSpec) string {
	if spec.Name != "" {
		return spec.Name
	}
	return step.Project
}

// aloneWithManifest refuses fields that a manifest leaves without an effect.
func aloneWithManifest(s *release.KubernetesSpec) error {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"kind", s.Kind != ""}, {"image", s.Image != "" && s.Registry == nil}, {"image_tag", s.ImageTag != ""}, {"pull_policy", s.PullPolicy != ""},
		{"pull_secret", s.PullSecret != ""}, {"replicas", s.Replicas != nil}, {"command", s.Command != nil}, {"args", s.Args != nil},
		{"env_from", s.EnvFrom != nil}, {"ports", s.Ports != nil}, {"service", s.Service != nil}, {"volumes", s.Volumes != nil},
		{"resources", s.Resources != nil}, {"labels", s.Labels != nil}, {"annotations", s.Annotations != nil}, {"pod_annotations", s.PodAnnotations != nil},
		{"service_account", s.ServiceAccount != ""}, {"node_selector", s.NodeSelector != nil}, {"tolerations", s.Tolerations != nil},
		{"host_network", s.HostNetwork}, {"security", s.Security != nil}, {"liveness", s.Liveness != nil}, {"readiness", s.Readiness != nil},
		{"startup", s.Startup != nil}, {"max_surge", s.MaxSurge != ""}, {"max_unavailable", s.MaxUnavailable != ""}, {"recreate", s.Recreate},
		{"min_ready", s.MinReady != 0}, {"grace_period", s.GracePeriod != 0}, {"service_name", s.ServiceName != ""}, {"claims", s.Claims != nil},
		{"name", s.Name != "" && s.Registry == nil},
	} {
		if f.set {
			return release.Invalid("kubernetes."+f.name, "it has no effect beside a manifest; write it there, or into a patch")
		}
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	return release.Invalid("kubernetes."+field, "%s", fmt.Sprintf(format, args...))
}

// ownDefaults sets what the cluster would set from a field, and would keep when that field is left out one day: it is removed with it
// only if it is ours.
func ownDefaults(o *object) {
	strategy, _, _ := unstructured.NestedString(o.Object, "spec", "strategy", "type")
	if o.GroupVersionKind().GroupKind() == (schema.GroupKind{Group: "apps", Kind: "Deployment"}) && (strategy == "" || strategy == "RollingUpdate") {
		_ = unstructured.SetNestedField(o.Object, "RollingUpdate", "spec", "strategy", "type")
		for _, name := range []string{"maxSurge", "maxUnavailable"} {
			if _, there, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "strategy", "rollingUpdate", name); !there {
				_ = unstructured.SetNestedField(o.Object, "25%", "spec", "strategy", "rollingUpdate", name)
			}
		}
	}
	for _, path := range [][]string{{"spec", "template", "spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}} {
		name, found, _ := unstructured.NestedString(o.Object, append(path, "serviceAccountName")...)
		if _, there, _ := unstructured.NestedFieldNoCopy(o.Object, append(path, "serviceAccount")...); found && !there {
			_ = unstructured.SetNestedField(o.Object, name, append(path, "serviceAccount")...)
		}
	}
}
