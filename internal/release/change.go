package release

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Change is a value that differs between two configurations.
type Change struct {
	Path   string `json:"path" example:"env.PORT" doc:"Within the type's part of the configuration"`
	Before string `json:"before" doc:"Empty if it was not set"`
	After  string `json:"after" doc:"Empty if it is not set"`
}

// Changes lists what differs between two configurations of one type, in the order of paths.
func Changes(before, after Merged) []Change {
	was, is := before.Flat(), after.Flat()
	paths := maps.Clone(was)
	maps.Copy(paths, is)
	var differ []Change
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if was[path] != is[path] {
			differ = append(differ, Change{Path: path, Before: was[path], After: is[path]})
		}
	}
	return differ
}

// ConfigValue is a value of a merged configuration, and where it came from.
type ConfigValue struct {
	Path  string `json:"path" example:"env.PORT" doc:"Within the type's part of the configuration"`
	Value string `json:"value"`
	Layer Layer  `json:"layer" enum:"default,project,version,task"`
}

// Values gives the values that are set, in the order of their paths.
func (c *Merged) Values() []ConfigValue {
	flat := c.Flat()
	values := make([]ConfigValue, 0, len(flat))
	for _, path := range slices.Sorted(maps.Keys(flat)) {
		values = append(values, ConfigValue{Path: path, Value: flat[path], Layer: c.layerOf(path)})
	}
	return values
}

// layerOf gives the layer of the value at a path, or of the whole that it is part of.
func (c *Merged) layerOf(path string) Layer {
	for whole := path; ; {
		if layer, ok := c.Provenance[whole]; ok {
			return layer
		}
		cut := strings.LastIndexAny(whole, ".[")
		if cut < 0 {
			return LayerDefault
		}
		whole = whole[:cut]
	}
}

// Flat gives the values that are set as texts by their paths: "env.PORT", "ports[0].host", "health.http".
func (c *Merged) Flat() map[string]string {
	values := map[string]string{}
	if spec := c.of(c.Type, false); spec != nil {
		flatten(values, "", reflect.ValueOf(spec).Elem())
	}
	return values
}

func flatten(values map[string]string, path string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			if inner := v.Elem(); inner.Kind() != reflect.Struct {
				values[path] = fmt.Sprint(inner.Interface()) // zero, too, as it was set
			} else {
				flatten(values, path, inner)
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			flatten(values, strings.TrimPrefix(path+"."+name, "."), v.Field(i))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			below := path + "." + it.Key().String()
			if it.Value().Kind() == reflect.String {
				values[below] = it.Value().String() // empty, too, as it was set
			} else {
				flatten(values, below, it.Value())
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			flatten(values, fmt.Sprintf("%s[%d]", path, i), v.Index(i))
		}
	default:
		if !v.IsZero() {
			values[path] = fmt.Sprint(v.Interface())
		}
	}
}
