package release

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Layer is where a merged value came from.
type Layer string

// The layers, from the lowest to the highest.
const (
	LayerDefault Layer = "default" // QuicFlow's own
	LayerProject Layer = "project"
	LayerVersion Layer = "version"
	LayerTask    Layer = "task"
)

// How the layers of a field become one value.
const (
	mergeReplace = ""       // the highest layer that sets it has it, as a whole
	mergeKeys    = "keys"   // a map: key by key
	mergeFields  = "fields" // a struct: field by field
)

// Rule says which layers may set a field of a configuration, and how they become one value.
//
// Rules stand beside the fields as tags: layer lists the layers that may set it, by their first letters ("pvt"); merge is "keys"
// or "fields" where the highest layer does not replace the whole; expand:"no" keeps ${NAME} as it is, in scripts that have a
// meaning of their own for it; group names what it and the fields after it are about, for forms. Every field has a rule: one
// without would be lost.
type Rule struct {
	Path   string  `json:"path" example:"resources.memory" doc:"Of the field, within the configuration of its type"`
	Layers []Layer `json:"layers" doc:"Which may set it"`
	Merge  string  `json:"merge" enum:"replace,keys,fields" doc:"Whether a higher layer replaces the whole, or single keys or fields of it"`
	Expand bool    `json:"expand" doc:"Whether ${NAME} is replaced in it"`
	Group  string  `json:"group" doc:"What it is about, for forms that show many fields" example:"network"`
	Doc    string  `json:"doc"`
}

type fieldRule struct {
	name   string // in JSON
	index  int
	layers []Layer
	merge  string
	expand bool
	group  string
	doc    string
}

func (r fieldRule) has(l Layer) bool { return slices.Contains(r.layers, l) }

var layerLetters = []struct {
	letter string
	layer  Layer
}{{"p", LayerProject}, {"v", LayerVersion}, {"t", LayerTask}}

// rulesOf gives the rules of a struct's fields in their order. It panics where a field has none: a test walks all types.
func rulesOf(t reflect.Type) []fieldRule {
	rules := make([]fieldRule, 0, t.NumField())
	group := ""
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		group = cmp.Or(f.Tag.Get("group"), group)
		r := fieldRule{name: name, index: i, merge: f.Tag.Get("merge"), expand: f.Tag.Get("expand") != "no", group: group, doc: f.Tag.Get("doc")}
		for _, l := range layerLetters {
			if strings.Contains(f.Tag.Get("layer"), l.letter) {
				r.layers = append(r.layers, l.layer)
			}
		}
		if name == "" || len(r.layers) == 0 {
			panic(fmt.Sprintf("field %s of %s has no rule", f.Name, t))
		}
		rules = append(rules, r)
	}
	return rules
}

// Rules gives the rules of a type's configuration, in the order of its fields. Fields below one that merges by fields follow it.
func Rules(t Type) []Rule {
	spec := (&Spec{}).of(t, true)
	if spec == nil {
		return nil
	}
	return appendRules(nil, "", reflect.TypeOf(spec).Elem(), fieldRule{})
}

func appendRules(rules []Rule, prefix string, t reflect.Type, above fieldRule) []Rule {
	for _, f := range fieldsOf(t, above.layers) {
		f.group = cmp.Or(f.group, above.group)
		merge := f.merge
		if merge == mergeReplace {
			merge = "replace"
		}
		rules = append(rules, Rule{Path: prefix + f.name, Layers: f.layers, Merge: merge, Expand: f.expand, Group: f.group, Doc: f.doc})
		if f.merge == mergeFields {
			rules = appendRules(rules, prefix+f.name+".", t.Field(f.index).Type.Elem(), f)
		}
	}
	return rules
}

// fieldsOf is rulesOf; the fields below one that merges by fields have its layers.
func fieldsOf(t reflect.Type, layers []Layer) []fieldRule {
	if layers == nil {
		return rulesOf(t)
	}
	fields := make([]fieldRule, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields = append(fields, fieldRule{name: name, index: i, layers: layers, merge: f.Tag.Get("merge"), expand: true, doc: f.Tag.Get("doc")})
	}
	return fields
}

// layered is one layer of a configuration: a pointer to the spec of its type, nil if it says nothing.
type layered struct {
	layer Layer
	spec  reflect.Value
}

// merger puts layers together and notes where each value came from.
type merger struct {
	provenance map[string]Layer
}

// structs merges layers, the lowest first, into a zero struct.
func (m *merger) structs(prefix string, into reflect.Value, inherited []Layer, from []layered) {
	for _, rule := range fieldsOf(into.Type(), inherited) {
		target := into.Field(rule.index)
		path := prefix + rule.name
		var below []layered
		for _, l := range from {
			if !rule.has(l.layer) {
				continue
			}
			value := l.spec.Elem().Field(rule.index)
			if value.IsZero() {
				continue
			}
			switch rule.merge {
			case mergeKeys:
				m.keys(path, target, value, l.layer)
			case mergeFields:
				below = append(below, layered{l.layer, value})
			default:
				target.Set(value)
				m.provenance[path] = l.layer
			}
		}
		if len(below) > 0 {
			target.Set(reflect.New(target.Type().Elem()))
			m.structs(path+".", target.Elem(), rule.layers, below)
		}
	}
}

func (m *merger) keys(path string, into, from reflect.Value, layer Layer) {
	if into.IsNil() {
		into.Set(reflect.MakeMap(into.Type()))
	}
	for it := from.MapRange(); it.Next(); {
		into.SetMapIndex(it.Key(), it.Value())
		m.provenance[path+"."+it.Key().String()] = layer
	}
}

// Merged is the merged configuration of a step.
type Merged struct {
	Type Type `json:"type" enum:"script,container,git,kubernetes"`
	Spec
	// Provenance gives the layer of each value by its path within the type's part: "timeout", "env.PORT", "health".
	Provenance map[string]Layer `json:"provenance" doc:"The layer of each value, by its path within the type's part"`
}

// Merge merges project < version < task by the rules of the project's type (see Rule), and fills defaults. It changes none of
// its arguments, but shares maps, slices and pointers with them.
//
// The task's env and timeout count for every type.
func Merge(p Project, v Version, o Override) Merged {
	c := Merged{Type: p.Type, Provenance: map[string]Layer{}}
	spec := c.of(p.Type, true)
	if spec == nil {
		return c
	}
	task := Spec{}
	into := reflect.ValueOf(task.of(p.Type, true)).Elem()
	if own := o.of(p.Type, false); own != nil {
		into.Set(reflect.ValueOf(own).Elem())
	}
	overrideCommon(into, o)

	var layers []layered
	for _, l := range []struct {
		layer Layer
		spec  *Spec
	}{{LayerProject, &p.Spec}, {LayerVersion, &v.Spec}, {LayerTask, &task}} {
		if own := l.spec.of(p.Type, false); own != nil {
			layers = append(layers, layered{l.layer, reflect.ValueOf(own)})
		}
	}
	m := &merger{c.Provenance}
	m.structs("", reflect.ValueOf(spec).Elem(), nil, layers)
	spec.fillDefaults(func(path string) { c.Provenance[path] = LayerDefault }, v)
	return c
}

// overrideCommon sets what a task may override of every type, unless its own part does.
func overrideCommon(spec reflect.Value, o Override) {
	if env := spec.FieldByName("Env"); len(o.Env) > 0 {
		merged := maps.Clone(o.Env)
		for it := env.MapRange(); it.Next(); {
			merged[it.Key().String()] = it.Value().String()
		}
		env.Set(reflect.ValueOf(merged))
	}
	if timeout := spec.FieldByName("Timeout"); o.Timeout != 0 && timeout.IsZero() {
		timeout.Set(reflect.ValueOf(o.Timeout))
	}
}
