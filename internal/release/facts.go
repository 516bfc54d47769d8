package release

import (
	"bytes"
	"encoding/json"
)

// facts are what an agent says of its host, read when they are asked for.
type facts struct {
	text   json.RawMessage
	object map[string]any
	read   bool
}

// any says whether a term, without its negation, holds for the fact at a path: keys of objects within one another, joined
// by dots. For a list, it has to hold for an element. An object is set, but equals nothing.
func (f *facts) any(path string, t *selectorTerm) bool {
	if !f.read {
		f.read = true
		decoder := json.NewDecoder(bytes.NewReader(f.text))
		decoder.UseNumber()
		if decoder.Decode(&f.object) != nil {
			f.object = nil // the store has no facts, or none that it should have
		}
	}
	value, set := lookUp(f.object, path)
	return set && holdsFor(value, t)
}

// lookUp takes a key with dots before the way through objects.
func lookUp(object map[string]any, path string) (any, bool) {
	if value, set := object[path]; set {
		return value, value != nil
	}
	for i := range len(path) {
		if path[i] != '.' {
			continue
		}
		if inner, is := object[path[:i]].(map[string]any); is {
			if value, set := lookUp(inner, path[i+1:]); set {
				return value, true
			}
		}
	}
	return nil, false
}

func holdsFor(value any, t *selectorTerm) bool {
	switch v := value.(type) {
	case string:
		return t.holds(v)
	case json.Number:
		return t.holds(v.String())
	case bool:
		if v {
			return t.holds("true")
		}
		return t.holds("false")
	case []any:
		if t.op == opSet {
			return true
		}
		for _, element := range v {
			if holdsFor(element, t) {
				return true
			}
		}
		return false
	}
	return t.op == opSet
}

// ErrorAt gives an error of a field as one of another field, where the same input has another place.
func ErrorAt(field string, err error) error {
	if e, ok := err.(*Error); ok && e.Field != "" { //nolint:errorlint // one that is wrapped has a place of its own
		moved := *e
		moved.Field = field
		return &moved
	}
	return err
}
