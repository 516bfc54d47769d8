package release

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

// Built-in variables. A server knows some when it makes a task; the others are each host's.
const (
	VarRelease     = "QUICFLOW_RELEASE"     // id of the task
	VarProject     = "QUICFLOW_PROJECT"     //
	VarVersion     = "QUICFLOW_VERSION"     //
	VarEnvironment = "QUICFLOW_ENVIRONMENT" // empty without one

	VarTarget   = "QUICFLOW_TARGET"           // id of the host's agent
	VarPrevious = "QUICFLOW_PREVIOUS_VERSION" // empty if nothing ran there
	VarLabel    = "QUICFLOW_LABEL_"           // and the name of a label in upper case, all else than letters and digits an underscore
)

var ownVariables = []string{VarRelease, VarProject, VarVersion, VarEnvironment, VarTarget, VarPrevious}

// IsHostVariable says whether only a host knows the variable's value.
func IsHostVariable(name string) bool {
	return name == VarTarget || name == VarPrevious || strings.HasPrefix(name, VarLabel)
}

// Value is what a variable stands for.
type Value struct {
	Text  string
	Later bool // it is put in later: ${NAME} stays
}

// Lookup gives a variable's value, and false where there is none of that name.
type Lookup func(name string) (Value, bool)

// $${ is an escaped ${; the third is one that is not closed, or holds no name.
var reference = lazyregexp.New(`\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{`)

// ExpandText replaces each ${NAME} in a text. $${ stands for ${ itself: final turns it into that; before, it stays, so that a text may
// be expanded several times, finally once. What is put in is never expanded again. An unknown name is an error.
func ExpandText(text string, lookup Lookup, final bool) (string, error) {
	var expanded strings.Builder
	put := func(piece string) {
		// A $ at the end of what was put in and a { after it would be a reference the next time.
		if !final && strings.HasPrefix(piece, "{") && strings.HasSuffix(expanded.String(), "$") {
			expanded.WriteByte('$')
		}
		expanded.WriteString(piece)
	}
	rest := 0
	for _, found := range reference.FindAllStringSubmatchIndex(text, -1) {
		put(text[rest:found[0]])
		rest = found[1]
		switch piece := text[found[0]:found[1]]; {
		case piece == "$${" && final:
			put("${")
			continue
		case piece == "$${":
			put(piece)
			continue
		case found[2] < 0:
			return text, fmt.Errorf("${ is not followed by a name and }; write $${ for ${ itself")
		}
		name := text[found[2]:found[3]]
		value, ok := lookup(name)
		switch {
		case !ok:
			return text, unknownVariable(name)
		case value.Later && strings.HasSuffix(expanded.String(), "$"):
			return text, fmt.Errorf("the variable before ${%s} ends with $: together they would read as an escaped ${", name)
		case value.Later:
			put("${" + name + "}")
		case final:
			put(value.Text)
		default:
			put(strings.ReplaceAll(value.Text, "${", "$${"))
		}
	}
	put(text[rest:])
	return expanded.String(), nil
}

func unknownVariable(name string) error {
	if strings.HasPrefix(name, reservedEnvPrefix) {
		return fmt.Errorf("there is no variable %s; QuicFlow's own are %s and %sNAME; write $${%s} for ${%s} itself", name,
			strings.Join(ownVariables, ", "), VarLabel, name, name)
	}
	return fmt.Errorf("there is no variable %s; write $${%s} for ${%s} itself", name, name, name)
}

// Expand replaces the variables in all texts of a merged configuration but those whose rule says no, and gives a copy. Keys of maps
// are not expanded. See ExpandText.
func (c Merged) Expand(lookup Lookup, final bool) (Merged, error) {
	spec := c.of(c.Type, false)
	if spec == nil {
		return c, nil
	}
	e := expander{lookup: lookup, final: final}
	expanded, err := e.value(string(c.Type), reflect.ValueOf(spec), true)
	if err != nil {
		return c, err
	}
	switch spec := expanded.Interface().(type) {
	case *ScriptSpec:
		c.Script = spec
	case *ContainerSpec:
		c.Container = spec
	case *GitSpec:
		c.Git = spec
	case *KubernetesSpec:
		c.Kubernetes = spec
	}
	return c, nil
}

type expander struct {
	lookup Lookup
	final  bool
}

// value gives a copy with its texts expanded. A struct at the top has rules, those below have none.
func (e expander) value(path string, v reflect.Value, top bool) (reflect.Value, error) {
	switch v.Kind() {
	case reflect.String:
		text, err := ExpandText(v.String(), e.lookup, e.final)
		if err != nil {
			return v, Invalid(path, "%s", err.Error())
		}
		return reflect.ValueOf(text).Convert(v.Type()), nil
	case reflect.Pointer:
		if v.IsNil() {
			return v, nil
		}
		inner, err := e.value(path, v.Elem(), top)
		if err != nil {
			return v, err
		}
		p := reflect.New(v.Type().Elem())
		p.Elem().Set(inner)
		return p, nil
	case reflect.Struct:
		c := reflect.New(v.Type()).Elem()
		c.Set(v)
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if top && f.Tag.Get("expand") == "no" {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			field, err := e.value(path+"."+name, v.Field(i), false)
			if err != nil {
				return v, err
			}
			c.Field(i).Set(field)
		}
		return c, nil
	case reflect.Slice:
		if v.IsNil() {
			return v, nil
		}
		c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			element, err := e.value(fmt.Sprintf("%s[%d]", path, i), v.Index(i), false)
			if err != nil {
				return v, err
			}
			c.Index(i).Set(element)
		}
		return c, nil
	case reflect.Map:
		if v.IsNil() {
			return v, nil
		}
		c := reflect.MakeMapWithSize(v.Type(), v.Len())
		for it := v.MapRange(); it.Next(); {
			element, err := e.value(path+"."+it.Key().String(), it.Value(), false)
			if err != nil {
				return v, err
			}
			c.SetMapIndex(it.Key(), element)
		}
		return c, nil
	}
	return v, nil
}
