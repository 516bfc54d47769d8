package release

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// look is what factAt does, by the book.
func look(object map[string]json.RawMessage, path string) json.RawMessage {
	if value, set := object[path]; set {
		return value
	}
	var found json.RawMessage
	for i := range len(path) {
		if path[i] != '.' {
			continue
		}
		var inner map[string]json.RawMessage
		if json.Unmarshal(object[path[:i]], &inner) == nil {
			if value := look(inner, path[i+1:]); value != nil {
				found = value
			}
		}
	}
	return found
}

func TestFactsAreFoundByPath(t *testing.T) {
	key := rapid.SampledFrom([]string{"a", "b", "a.b", "", `"`, `\`, "é", "]"})
	var object func(depth int) *rapid.Generator[any]
	object = func(depth int) *rapid.Generator[any] {
		leaf := rapid.SampledFrom([]any{nil, true, 12.5, -1e9, "x", `q"\`, "{", "}],:", ""})
		if depth == 0 {
			return leaf
		}
		return rapid.OneOf(leaf, rapid.Map(rapid.MapOfN(key, object(depth-1), 0, 3), func(m map[string]any) any { return m }),
			rapid.Map(rapid.SliceOfN(object(depth-1), 0, 3), func(s []any) any { return s }))
	}
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		text, err := json.Marshal(rapid.MapOfN(key, object(3), 0, 4).Draw(t, "object"))
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "indented") {
			var b bytes.Buffer
			if err := json.Indent(&b, text, "\t", " \n"); err != nil {
				t.Fatal(err)
			}
			text = append([]byte(" \n"), b.Bytes()...)
		}
		path := key.Draw(t, "key")
		for range rapid.IntRange(0, 3).Draw(t, "depth") {
			path += "." + key.Draw(t, "key")
		}
		var parsed map[string]json.RawMessage
		if err := json.Unmarshal(text, &parsed); err != nil {
			t.Fatal(err)
		}
		want, got := look(parsed, path), factAt(text, path)
		if (want == nil) != (got == nil) {
			t.Fatalf("%s at %q: %q, not %q", text, path, got, want)
		}
		if got == nil {
			return
		}
		found++
		var a, b any
		if json.Unmarshal(want, &a) != nil || json.Unmarshal(got, &b) != nil || fmt.Sprint(a) != fmt.Sprint(b) {
			// Several ways may lead to a value where keys have dots; any will do, but it must be a value.
			if json.Unmarshal(got, &b) != nil || !bytes.Contains([]byte(path), []byte("a.b")) {
				t.Fatalf("%s at %q: %q, not %q", text, path, got, want)
			}
		}
	})
	require.Positive(t, found)
}

func FuzzFacts(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		value := factAt(text, path)
		if value != nil && json.Valid(text) && !json.Valid(value) {
			t.Fatalf("%q at %q gives %q", text, path, value)
		}
		if value != nil {
			for _, op := range []selectorOp{opSet, opIn, opMore} {
				holdsFor(value, &selectorTerm{op: op, values: []glob{{text: "x"}}})
			}
		}
	})
}
