package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
)

// Type is a deployment type.
type Type string

// The deployment types.
const (
	TypeScript     Type = "script"     // scripts that run on the host
	TypeContainer  Type = "container"  // a container of the host's Docker engine
	TypeGit        Type = "git"        // a checkout of a git repository
	TypeKubernetes Type = "kubernetes" // a workload of a Kubernetes cluster that the host can reach
)

// Capability is what an agent lists among the capabilities of its facts when its host can do a type.
func Capability(t Type) string { return "deploy." + string(t) }

// Types are all deployment types.
var Types = []Type{TypeScript, TypeContainer, TypeGit, TypeKubernetes}

// Spec is the configuration of a layer, or of all of them merged: the part of its deployment type, and no other.
type Spec struct {
	Script     *ScriptSpec     `json:"script,omitempty" doc:"Of a script project"`
	Container  *ContainerSpec  `json:"container,omitempty" doc:"Of a container project"`
	Git        *GitSpec        `json:"git,omitempty" doc:"Of a git project"`
	Kubernetes *KubernetesSpec `json:"kubernetes,omitempty" doc:"Of a Kubernetes project"`
}

// typeSpec is the part of one deployment type.
type typeSpec interface {
	// fillDefaults fills what no layer has set, and tells the path of each value that it fills.
	fillDefaults(filled func(path string), v Version)
	// validate checks what one layer sets, or all of them merged, without what it may set.
	validate(c *checker, layer Layer)
}

// of gives the part of a type, nil if it is not set; create sets it. It is nil for a type that does not exist.
func (s *Spec) of(t Type, create bool) typeSpec {
	switch t {
	case TypeScript:
		return part(&s.Script, create)
	case TypeContainer:
		return part(&s.Container, create)
	case TypeGit:
		return part(&s.Git, create)
	case TypeKubernetes:
		return part(&s.Kubernetes, create)
	}
	return nil
}

func part[T any, P interface {
	*T
	typeSpec
}](p *P, create bool) typeSpec {
	if *p == nil {
		if !create {
			return nil
		}
		*p = P(new(T))
	}
	return *p
}

// Type gives the type of which there is a part, empty if there is none, or more than one.
func (s *Spec) Type() Type {
	var of Type
	for _, t := range Types {
		if s.of(t, false) == nil {
			continue
		}
		if of != "" {
			return ""
		}
		of = t
	}
	return of
}

// Encode gives the part of a type as JSON: an empty object if it is not set.
func (s *Spec) Encode(t Type) ([]byte, error) {
	own := s.of(t, false)
	if own == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(own)
}

// Decode sets the part of a type from what Encode gave.
func (s *Spec) Decode(t Type, text []byte) error {
	own := s.of(t, true)
	if own == nil {
		return fmt.Errorf("%q is no deployment type", t)
	}
	return json.Unmarshal(text, own)
}

// validateLayer checks the configuration of one layer of a type: that it is of this type, sets only what the layer may set, and that
// its values are right. prefix goes before the fields' paths: "", or "override.".
func (s *Spec) validateLayer(t Type, layer Layer, prefix string) error {
	for _, other := range Types {
		if other != t && s.of(other, false) != nil {
			return Invalid(prefix+string(other), "the project's type is %s", t)
		}
	}
	own := s.of(t, false)
	if own == nil {
		switch layer {
		case LayerTask:
			return nil
		default:
			own = (&Spec{}).of(t, true) // says what is missing
		}
	}
	value := reflect.ValueOf(own).Elem()
	for _, rule := range rulesOf(value.Type()) {
		if !rule.has(layer) && !value.Field(rule.index).IsZero() {
			return Invalid(prefix+string(t)+"."+rule.name, "a %s cannot set it, only a %s", layer, layerNames(rule.layers))
		}
	}
	return validatePart(prefix+string(t)+".", own, layer)
}

func validatePart(prefix string, own typeSpec, layer Layer) error {
	c := &checker{prefix: prefix}
	c.texts("", reflect.ValueOf(own))
	own.validate(c, layer)
	if c.err == nil {
		text, err := json.Marshal(own)
		switch {
		case err != nil:
			c.whole("cannot be written as JSON: %v", err)
		case len(text) > MaxConfigBytes:
			c.whole("takes %d bytes; the limit is %d", len(text), MaxConfigBytes)
		}
	}
	return c.result()
}

// Validate checks what only the layers together tell, and texts whose variables were expanded since their layer was checked.
func (c *Merged) Validate() error {
	own := c.of(c.Type, false)
	if own == nil {
		return Invalid("type", "%q is no deployment type that this program knows", c.Type)
	}
	return validatePart(string(c.Type)+".", own, layerMerged)
}

func layerNames(layers []Layer) string {
	names := make([]string, len(layers))
	for i, l := range layers {
		names[i] = string(l)
	}
	return strings.Join(names, " or a ")
}

// Common gives what every type has.
func (c *Merged) Common() (env map[string]string, timeout Duration, health *Health) {
	switch {
	case c.Script != nil:
		return c.Script.Env, c.Script.Timeout, c.Script.Health
	case c.Container != nil:
		return c.Container.Env, c.Container.Timeout, c.Container.Health
	case c.Git != nil:
		return c.Git.Env, c.Git.Timeout, c.Git.Health
	case c.Kubernetes != nil:
		return c.Kubernetes.Env, c.Kubernetes.Timeout, c.Kubernetes.Health
	}
	return nil, 0, nil
}

// JSON gives the part of its type as JSON: what goes to an agent.
func (c *Merged) JSON() ([]byte, error) {
	text, err := json.Marshal(c.of(c.Type, false))
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return text, nil
}

// ParseConfig reads what JSON gave. A field that this program does not know is an error: left out, it would have no effect.
func ParseConfig(t Type, text []byte) (Merged, error) {
	c := Merged{Type: t}
	spec := c.of(t, true)
	if spec == nil {
		return c, Invalid("type", "%q is no deployment type that this program knows", t)
	}
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return c, Invalid(string(t), "the configuration cannot be read: it is not an object")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(spec); err != nil {
		return c, Invalid(string(t), "the configuration cannot be read: %v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return c, Invalid(string(t), "the configuration cannot be read: something comes after it")
	}
	return c, nil
}

// Longest gives an upper bound of the time that a step may take once started: its timeout, and the health check after it.
func (c *Merged) Longest(action StepAction) time.Duration {
	_, timeout, health := c.Common()
	longest := timeout.Std()
	if health != nil && action != StepUninstall {
		longest += health.Longest()
	}
	return longest
}

// defaulter fills zero values.
type defaulter struct {
	filled func(path string)
}

func byDefault[T comparable](d defaulter, path string, field *T, value T) {
	var zero T
	if *field == zero && value != zero {
		*field = value
		d.filled(path)
	}
}
