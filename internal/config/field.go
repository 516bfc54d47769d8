package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// field is one key, or one section of keys.
type field struct {
	path  string // "session.heartbeat_interval"
	doc   string
	value reflect.Value // addressable, in a Config
}

func (f field) name() string   { return f.path[strings.LastIndexByte(f.path, '.')+1:] }
func (f field) section() bool  { return f.value.Kind() == reflect.Struct }
func (f field) env() string    { return envPrefix + strings.ToUpper(strings.ReplaceAll(f.path, ".", "_")) }
func (f field) depth() int     { return strings.Count(f.path, ".") }
func (f field) target() any    { return f.value.Addr().Interface() }
func (f field) String() string { return f.path }

// fields gives all keys and sections of a configuration in their order, each section before its keys.
func (c *Config) fields() []field {
	return collect("", reflect.ValueOf(c).Elem())
}

func collect(prefix string, v reflect.Value) []field {
	var fs []field
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		f := field{path: prefix + tag.Get("key"), doc: tag.Get("doc"), value: v.Field(i)}
		fs = append(fs, f)
		if f.section() {
			fs = append(fs, collect(f.path+".", f.value)...)
		}
	}
	return fs
}

// fromText sets a key from an environment variable.
func (f field) fromText(text string) (err error) {
	switch p := f.target().(type) {
	case *string:
		*p = text
	case *bool:
		if *p, err = strconv.ParseBool(text); err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
	case *int:
		if *p, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
	case *Duration:
		*p, err = parseDuration(text)
	default:
		panic(fmt.Sprintf("config: %s has a type that cannot be read", f.path))
	}
	return err
}

// fromNode sets a key from YAML. Text in quotes is text, whatever it looks like.
func (f field) fromNode(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("wants %s, not %s", f.kind(), kindOf(n))
	}
	tag := n.ShortTag()
	wants := map[string]bool{}
	switch f.target().(type) {
	case *string:
		wants["!!str"] = true
	case *bool:
		wants["!!bool"] = true
	case *int:
		wants["!!int"] = true
	case *Duration:
		wants["!!int"], wants["!!float"], wants["!!str"] = true, true, true
	}
	switch {
	case tag == "!!null":
		return fmt.Errorf("has no value; give it %s or remove the key", f.kind())
	case !wants[tag]:
		return fmt.Errorf("wants %s, not %s", f.kind(), n.Value)
	}
	if _, whole := f.target().(*int); whole {
		if err := n.Decode(f.target()); err != nil { // 0x10 and 1_000 are numbers in YAML
			return fmt.Errorf("%s is out of range", n.Value)
		}
		return nil
	}
	return f.fromText(n.Value)
}

func (f field) kind() string {
	switch f.target().(type) {
	case *string:
		return "text (in quotes if it looks like something else)"
	case *bool:
		return "true or false"
	case *int:
		return "a whole number"
	case *Duration:
		return "a number of seconds or a duration such as 15s"
	}
	return "keys of its own"
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys of its own"
	case yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(n.Value)
}
