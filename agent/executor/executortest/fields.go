package executortest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FieldsAreTested holds that for each field of a configuration there is a test in the directory that is to see its effect, and that
// this test, or what it calls there, names the field. tests gives them by the paths of the fields, such as "limits.cpus" or
// "artifacts[].name"; one that is given for a struct stands for all of it. An empty one says that another package has the test.
func FieldsAreTested(t testing.TB, config reflect.Type, tests map[string]string) {
	t.Helper()
	names := reached(Identifiers(t))
	unknown := maps.Clone(tests)
	WalkFields(config, func(path string) bool { _, given := tests[path]; return given }, func(path, field string) {
		test, ok := tests[path]
		require.True(t, ok, "no test sees an effect of %s", path)
		delete(unknown, path)
		if test != "" {
			require.Contains(t, names, test, "the test of %s", path)
			require.True(t, names[test][field], "%s is to check %s, but does not name %s", test, path, field)
		}
	})
	require.Empty(t, slices.Sorted(maps.Keys(unknown)), "there are no such fields")
}

// WalkFields visits the fields of a configuration that have a value of their own: their paths, and what Go calls them. A struct for whose
// path whole is true counts as one.
func WalkFields(config reflect.Type, whole func(path string) bool, visit func(path, field string)) {
	walkFields("", config, whole, visit)
}

func walkFields(prefix string, of reflect.Type, whole func(path string) bool, visit func(path, field string)) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		path, inner, suffix := prefix+name, f.Type, ""
		switch inner.Kind() {
		case reflect.Pointer:
			inner = inner.Elem()
		case reflect.Slice:
			inner, suffix = inner.Elem(), "[]"
		case reflect.Map:
			inner, suffix = inner.Elem(), "{}"
		default:
		}
		if inner.Kind() == reflect.Struct && !whole(path) {
			walkFields(path+suffix+".", inner, whole, visit)
			continue
		}
		visit(path, f.Name)
	}
}

// Identifiers gives those that each function of the directory's tests has in it.
func Identifiers(t testing.TB) map[string]map[string]bool {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	own := map[string]map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			names := own[f.Name.Name]
			if names == nil {
				names = map[string]bool{}
				own[f.Name.Name] = names
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					names[id.Name] = true
				}
				return true
			})
		}
	}
	return own
}

// reached adds to the identifiers of each function those of the functions that it calls.
func reached(own map[string]map[string]bool) map[string]map[string]bool {
	all := map[string]map[string]bool{}
	for test := range own {
		reached := map[string]bool{}
		for next := []string{test}; len(next) > 0; next = next[1:] {
			for name := range own[next[0]] {
				if !reached[name] {
					reached[name] = true
					next = append(next, name)
				}
			}
		}
		all[test] = reached
	}
	return all
}
