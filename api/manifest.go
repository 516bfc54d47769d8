package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/quicflow/quicflow/internal/release"
)

// placeholder stands for a variable while YAML is looked at.
var placeholder = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

// checkYAML looks at the YAML that a Kubernetes project or version holds: a mistake is told when it is made, not when it is deployed. Whether a
// cluster takes it is the cluster's to say.
func checkYAML(s *release.KubernetesSpec) error {
	if s == nil {
		return nil
	}
	if s.Manifest != "" {
		n, err := eachDocument(s.Manifest, checkObject)
		if err != nil {
			return release.Invalid("kubernetes.manifest", "%s", err.Error())
		}
		if n == 0 {
			return release.Invalid("kubernetes.manifest", "holds no object")
		}
	}
	for i, p := range s.Patches {
		check := checkPatch
		if p.Type == "json" {
			check = checkOperations
		}
		n, err := eachDocument(p.Patch, check)
		if err == nil && n != 1 {
			err = fmt.Errorf("holds %d documents, not one", n)
		}
		if err != nil {
			return release.Invalid(fmt.Sprintf("kubernetes.patches[%d].patch", i), "%s", err.Error())
		}
	}
	return nil
}

// eachDocument calls check for each document that is not empty, and counts them.
func eachDocument(text string, check func(*yaml.Node) error) (n int, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(placeholder.ReplaceAll([]byte(text), []byte("x"))))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, errors.New(strings.ReplaceAll(err.Error(), "\n", " "))
		}
		if len(doc.Content) == 0 || doc.Content[0].ShortTag() == "!!null" {
			continue
		}
		var whole any // finds keys that are there twice, and aliases that grow beyond measure
		if err := doc.Decode(&whole); err != nil {
			return n, errors.New(strings.ReplaceAll(err.Error(), "\n", " "))
		}
		n++
		if err := check(doc.Content[0]); err != nil {
			return n, fmt.Errorf("line %d: %w", max(doc.Content[0].Line, 1), err)
		}
	}
}

func checkObject(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return errors.New("is not an object with apiVersion, kind and metadata")
	}
	var object struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
		Metadata   struct {
			Name string `yaml:"name"`
		} `yaml:"metadata"`
	}
	if err := node.Decode(&object); err != nil {
		return errors.New("apiVersion, kind and metadata.name have to be texts")
	}
	switch {
	case object.APIVersion == "":
		return errors.New("apiVersion is missing")
	case object.Kind == "":
		return errors.New("kind is missing")
	case object.Metadata.Name == "" && object.Kind != "List":
		return errors.New("metadata.name is missing")
	}
	return nil
}

func checkPatch(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return errors.New("is not an object, as a patch of this type has to be")
	}
	return nil
}

func checkOperations(node *yaml.Node) error {
	if node.Kind != yaml.SequenceNode || len(node.Content) == 0 {
		return errors.New("is not a list of operations, as a JSON patch has to be")
	}
	for i, item := range node.Content {
		var operation struct {
			Op   string `yaml:"op"`
			Path string `yaml:"path"`
		}
		if err := item.Decode(&operation); err != nil || operation.Op == "" || item.Kind != yaml.MappingNode {
			return fmt.Errorf("operation %d wants op and path", i+1)
		}
		switch operation.Op {
		case "add", "remove", "replace", "move", "copy", "test":
		default:
			return fmt.Errorf("operation %d: %q is none of add, remove, replace, move, copy, test", i+1, operation.Op)
		}
	}
	return nil
}
