package kubernetes

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/quicflow/quicflow/internal/release"
)

// maxObjects is how many objects a manifest may have.
const maxObjects = 500

// parseManifest gives the objects of a manifest's documents, those of lists one by one.
func parseManifest(text string) ([]*object, error) {
	if len(text) > release.MaxManifestBytes {
		return nil, invalid("manifest", "it has %d bytes; the limit is %d", len(text), release.MaxManifestBytes)
	}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	var objects []*object
	for n := 1; ; n++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, invalid("manifest", "document %d cannot be read: %v", n, err)
		}
		found, err := parseDocument(document)
		if err != nil {
			return nil, invalid("manifest", "document %d %v", n, err)
		}
		if objects = append(objects, found...); len(objects) > maxObjects {
			return nil, invalid("manifest", "it has more than %d objects", maxObjects)
		}
	}
	if len(objects) == 0 {
		return nil, invalid("manifest", "it has no object")
	}
	return objects, nil
}

// parseDocument gives the objects of a document: none if it is empty. Its errors follow "document 2".
func parseDocument(text []byte) ([]*object, error) {
	encoded, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, fmt.Errorf("is not YAML: %s", oneLine(strings.TrimPrefix(err.Error(), "yaml: ")))
	}
	var value any
	if err := yaml.Unmarshal(encoded, &value); err != nil {
		return nil, fmt.Errorf("is not YAML: %s", oneLine(err.Error()))
	}
	switch value.(type) {
	case nil:
		return nil, nil
	case map[string]any:
	case []any:
		return nil, errors.New("is a list, not an object")
	default:
		return nil, fmt.Errorf("is a single value, not an object: %.40q", fmt.Sprint(value))
	}
	o, err := objectFromJSON(encoded)
	if err != nil {
		return nil, fmt.Errorf("is not YAML: %s", oneLine(err.Error()))
	}
	if o.GetAPIVersion() == "v1" && o.GetKind() == "List" {
		items, ok := o.Object["items"].([]any)
		if !ok {
			return nil, errors.New("is a List without items")
		}
		objects := make([]*object, len(items))
		for i, item := range items {
			content, ok := item.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("is a List whose item %d is not an object", i+1)
			}
			objects[i] = &object{Object: content}
			if err := complete(objects[i]); err != nil {
				return nil, fmt.Errorf("is a List whose item %d %w", i+1, err)
			}
		}
		return objects, nil
	}
	return []*object{o}, complete(o)
}

// complete checks that an object has what names it. Its errors follow "document 2".
func complete(o *object) error {
	text := func(path ...string) bool {
		var v any = o.Object
		for _, name := range path {
			m, ok := v.(map[string]any)
			if !ok {
				return false
			}
			v = m[name]
		}
		s, ok := v.(string)
		return ok && s != ""
	}
	switch {
	case !text("apiVersion"):
		return errors.New("has no apiVersion")
	case !text("kind"):
		return errors.New("has no kind")
	case !text("metadata", "name"):
		return fmt.Errorf("(%s) has no metadata.name", o.GetKind())
	}
	for _, name := range []string{"labels", "annotations"} {
		m, _ := o.Object["metadata"].(map[string]any)
		values, ok := m[name].(map[string]any)
		if m[name] != nil && !ok {
			return fmt.Errorf("(%s %s) has %s that are not an object", o.GetKind(), o.GetName(), name)
		}
		for key, v := range values {
			if _, ok := v.(string); !ok {
				return fmt.Errorf("(%s %s) has metadata.%s.%s that is not a text: quote it", o.GetKind(), o.GetName(), name, key)
			}
		}
	}
	// What only the cluster sets makes an apply fail.
	for _, field := range []string{"managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"} {
		delete(o.Object["metadata"].(map[string]any), field)
	}
	delete(o.Object, "status")
	return nil
}
