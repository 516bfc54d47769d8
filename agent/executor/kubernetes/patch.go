package kubernetes

import (
	"errors"
	"fmt"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/quicflow/quicflow/internal/release"
)

// patch applies patches in turn, in place. workload is the kind that one without a kind is for; empty: that of the only workload.
func patch(objects []*object, patches []release.KubePatch, workload string) error {
	for i, p := range patches {
		field := fmt.Sprintf("patches[%d]", i)
		if len(p.Patch) > release.MaxManifestBytes {
			return invalid(field, "it has %d bytes; the limit is %d", len(p.Patch), release.MaxManifestBytes)
		}
		o, err := patched(objects, p, workload)
		if err != nil {
			return invalid(field, "%s", oneLine(err.Error()))
		}
		before := refOf(o)
		if err := patchOne(o, p); err != nil {
			return invalid(field, "it does not apply to %s: %s", before, oneLine(err.Error()))
		}
		if err := complete(o); err != nil {
			return invalid(field, "it leaves %s broken: it %v", before, err)
		}
		if refOf(o) != before {
			return invalid(field, "it makes %s of %s: a patch cannot rename", refOf(o), before)
		}
	}
	return nil
}

// patched finds the object that a patch is for.
func patched(objects []*object, p release.KubePatch, workload string) (*object, error) {
	kind := p.Kind
	if kind == "" {
		kind = workload
	}
	var found *object
	for _, o := range objects {
		if kind != "" && o.GetKind() != kind || kind == "" && !isWorkload(refOf(o)) || p.Name != "" && o.GetName() != p.Name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("it may be for %s or %s: give kind and name", refOf(found), refOf(o))
		}
		found = o
	}
	if found == nil {
		what := kind
		if what == "" {
			what = "workload"
		}
		if p.Name != "" {
			what += " " + p.Name
		}
		return nil, fmt.Errorf("there is no %s to patch", what)
	}
	return found, nil
}

func patchOne(o *object, p release.KubePatch) error {
	change, err := yaml.YAMLToJSONStrict([]byte(p.Patch))
	if err != nil {
		return fmt.Errorf("not YAML: %w", err)
	}
	original, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	var value any
	if err := yaml.Unmarshal(change, &value); err != nil {
		return err
	}
	_, isObject := value.(map[string]any)
	_, isList := value.([]any)
	var result []byte
	switch {
	case p.Type == "json" && !isList:
		return errors.New("a JSON patch is a list of operations")
	case p.Type != "json" && !isObject:
		return errors.New("the patch is not an object")
	case p.Type == "json":
		operations, err := jsonpatch.DecodePatch(change)
		if err != nil {
			return err
		}
		result, err = operations.Apply(original)
		if err != nil {
			return err
		}
	case p.Type == "merge":
		if result, err = jsonpatch.MergePatch(original, change); err != nil {
			return err
		}
	default:
		known, err := scheme.Scheme.New(o.GroupVersionKind())
		if err != nil {
			return fmt.Errorf("a strategic patch is for Kubernetes' own kinds; use merge or json for a %s", o.GetKind())
		}
		if result, err = strategicpatch.StrategicMergePatch(original, change, known); err != nil {
			return err
		}
	}
	changed, err := objectFromJSON(result)
	if err != nil {
		return errors.New("what it leaves is not an object")
	}
	o.Object = changed.Object
	return nil
}
