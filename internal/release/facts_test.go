package release

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// look is what anyFact visits, by the book.
func look(value any, path string) (found []any) {
	switch v := value.(type) {
	case []any:
		for _, element := range v {
			found = append(found, look(element, path)...)
		}
	case map[string]any:
		if value, set := v[path]; set {
			found = append(found, value)
		}
		for i := range len(path) {
			if path[i] == '.' {
				found = append(found, look(v[path[:i]], path[i+1:])...)
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
		var parsed any
		if err := json.Unmarshal(text, &parsed); err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for _, value := range look(parsed, path) {
			want = append(want, fmt.Sprintf("%#v", value))
		}
		anyFact(text, path, func(text json.RawMessage) bool {
			var value any
			if err := json.Unmarshal(text, &value); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			got = append(got, fmt.Sprintf("%#v", value))
			return false
		})
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			t.Fatalf("%s at %q: %v, not %v", text, path, got, want)
		}
		found += len(got)
	})
	require.Positive(t, found)
}

func FuzzFacts(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		valid := json.Valid(text)
		anyFact(text, path, func(value json.RawMessage) bool {
			if valid && !json.Valid(value) {
				t.Fatalf("%q at %q gives %q", text, path, value)
			}
			for _, op := range []selectorOp{opSet, opIn, opMore} {
				holdsFor(value, &selectorTerm{op: op, values: []glob{{text: "x"}}})
			}
			return false
		})
	})
}
