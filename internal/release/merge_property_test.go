package release

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// numbers gives values that are found once.
type numbers struct{ last int64 }

func (n *numbers) next() int64 {
	n.last++
	return n.last
}

// fill sets every value below v to one that is found nowhere else. Each map has a key of this layer alone, and one of all.
func fill(t require.TestingT, v reflect.Value, layer Layer, n *numbers) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("%s-%d", layer, n.next()))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(n.next())
	case reflect.Float64:
		v.SetFloat(float64(n.next()))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), layer, n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), layer, n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), layer, n)
		fill(t, v.Index(1), layer, n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for _, key := range []string{"all", string(layer)} {
			value := reflect.New(v.Type().Elem()).Elem()
			fill(t, value, layer, n)
			v.SetMapIndex(reflect.ValueOf(key), value)
		}
	default:
		t.Errorf("a field of the kind %s: the merge may not know it either", v.Kind())
		t.FailNow()
	}
}

// specs are the three layers of a type, by reflection.
type specs map[Layer]typeSpec

func newSpecs(of Type) specs {
	all := specs{}
	for _, layer := range []Layer{LayerProject, LayerVersion, LayerTask} {
		all[layer] = (&Spec{}).of(of, true)
	}
	return all
}

func (s specs) value(layer Layer) reflect.Value { return reflect.ValueOf(s[layer]).Elem() }

func specOf(of Type, part typeSpec) Spec {
	var s Spec
	switch part := part.(type) {
	case *ScriptSpec:
		s.Script = part
	case *ContainerSpec:
		s.Container = part
	case *GitSpec:
		s.Git = part
	case *KubernetesSpec:
		s.Kubernetes = part
	}
	if s.of(of, false) == nil {
		panic(of)
	}
	return s
}

func (s specs) merge(of Type) Merged {
	return Merge(Project{Type: of, Spec: specOf(of, s[LayerProject])}, Version{Spec: specOf(of, s[LayerVersion])}, Override{Spec: specOf(of, s[LayerTask])})
}

// tree is a spec as JSON knows it: what the rules are applied to without the code under test.
func tree(t require.TestingT, part any) map[string]any {
	text, err := json.Marshal(part)
	require.NoError(t, err)
	var all map[string]any
	require.NoError(t, json.Unmarshal(text, &all))
	return all
}

// byRules merges trees by the rules, and tells where each value came from.
func byRules(of Type, layers map[Layer]map[string]any) (map[string]any, map[string]Layer) {
	merged, from := map[string]any{}, map[string]Layer{}
	for _, rule := range Rules(of) {
		into := merged
		parents := strings.Split(rule.Path, ".")
		name := parents[len(parents)-1]
		for _, layer := range []Layer{LayerProject, LayerVersion, LayerTask} {
			value := any(layers[layer])
			for _, part := range parents {
				below, _ := value.(map[string]any)
				value = below[part]
			}
			if value == nil || !slices.Contains(rule.Layers, layer) {
				continue
			}
			for _, part := range parents[:len(parents)-1] {
				into = into[part].(map[string]any)
			}
			switch rule.Merge {
			case "fields": // its fields have rules of their own
				if into[name] == nil {
					into[name] = map[string]any{}
				}
			case "keys":
				if into[name] == nil {
					into[name] = map[string]any{}
				}
				for key, value := range value.(map[string]any) {
					into[name].(map[string]any)[key] = value
					from[rule.Path+"."+key] = layer
				}
			default:
				into[name] = value
				from[rule.Path] = layer
			}
			into = merged
		}
	}
	return merged, from
}

// requireByRules checks a merge against the rules, but for defaults.
func requireByRules(t require.TestingT, of Type, all specs, merged Merged) {
	trees := map[Layer]map[string]any{}
	for layer, part := range all {
		trees[layer] = tree(t, part)
	}
	want, from := byRules(of, trees)
	got := tree(t, merged.of(of, false))
	for path, layer := range merged.Provenance {
		if layer == LayerDefault {
			require.NotContains(t, path, ".", "a default of a part")
			require.NotContains(t, want, path, "a default in place of what a layer set")
			delete(got, path)
		}
	}
	for _, checked := range []map[string]any{want, got} { // its own defaults are filled
		if health, ok := checked["health"].(map[string]any); ok {
			for _, name := range []string{"interval", "timeout", "retries"} {
				delete(health, name)
			}
		}
	}
	require.Equal(t, want, got)
	real := maps.Clone(merged.Provenance)
	maps.DeleteFunc(real, func(_ string, layer Layer) bool { return layer == LayerDefault })
	require.Equal(t, from, real)
}

// Every field of every type, set in every layer to another value: what comes out is what its rule says, with its provenance, and
// nothing else. A field that the merge loses, or that a layer may not set and sets, fails it.
func TestEveryFieldMergesByItsRule(t *testing.T) {
	subsets := [][]Layer{{}, {LayerProject}, {LayerVersion}, {LayerTask}, {LayerProject, LayerVersion}, {LayerProject, LayerTask},
		{LayerVersion, LayerTask}, {LayerProject, LayerVersion, LayerTask}}
	for _, of := range Types {
		for _, subset := range subsets {
			all, n := newSpecs(of), &numbers{}
			for _, layer := range subset {
				fill(t, all.value(layer), layer, n)
			}
			merged := all.merge(of)
			requireByRules(t, of, all, merged)
			if len(subset) < 3 {
				continue
			}
			// All of it arrived: whoever may set a field has its value there.
			got := reflect.ValueOf(merged.of(of, false)).Elem()
			for _, rule := range rulesOf(got.Type()) {
				highest := rule.layers[len(rule.layers)-1]
				value, own := got.Field(rule.index), all.value(highest).Field(rule.index)
				switch rule.merge {
				case mergeReplace:
					require.Equal(t, own.Interface(), value.Interface(), "%s.%s", of, rule.name)
				case mergeKeys:
					require.Equal(t, len(rule.layers)+1, value.Len(), "%s.%s", of, rule.name)
					require.Equal(t, own.MapIndex(reflect.ValueOf("all")).Interface(), value.MapIndex(reflect.ValueOf("all")).Interface())
				}
			}
			// And no value is without a layer.
			for _, value := range merged.Values() {
				require.NotEqual(t, LayerDefault, value.Layer, "%s.%s", of, value.Path)
			}
		}
	}
}

// What a task may set of every type goes below what it sets of its own.
func TestOverrideOfEveryType(t *testing.T) {
	for _, of := range Types {
		all, n := newSpecs(of), &numbers{}
		for layer := range all {
			fill(t, all.value(layer), layer, n)
		}
		common := Override{Env: map[string]string{"all": "common", "common": "common"}, Timeout: 12345}
		merged := Merge(Project{Type: of, Spec: specOf(of, all[LayerProject])}, Version{Spec: specOf(of, all[LayerVersion])}, common)
		env, timeout, _ := merged.Common()
		require.Equal(t, "common", env["all"])
		require.Equal(t, "common", env["common"])
		require.Contains(t, env, "version")
		require.Equal(t, Duration(12345), timeout)
		require.Equal(t, LayerTask, merged.Provenance["env.common"])

		common.Spec = specOf(of, all[LayerTask])
		merged = Merge(Project{Type: of, Spec: specOf(of, all[LayerProject])}, Version{Spec: specOf(of, all[LayerVersion])}, common)
		env, timeout, _ = merged.Common()
		require.Equal(t, all.value(LayerTask).FieldByName("Env").Interface().(map[string]string)["all"], env["all"])
		require.Equal(t, "common", env["common"])
		require.Equal(t, all.value(LayerTask).FieldByName("Timeout").Interface(), timeout)
	}
}

// draw sets some of the values below v.
func draw(t *rapid.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.SampledFrom([]string{"", "a", "b", "${A}", "ü\"\\ \n", "x y"}).Draw(t, "text"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64Range(0, 5).Draw(t, "number"))
	case reflect.Float64:
		v.SetFloat(rapid.Float64Range(0, 100).Draw(t, "fraction"))
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "set") {
			v.Set(reflect.New(v.Type().Elem()))
			draw(t, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if rapid.IntRange(0, 2).Draw(t, v.Type().Field(i).Name) == 0 {
				draw(t, v.Field(i))
			}
		}
	case reflect.Slice:
		if n := rapid.IntRange(0, 2).Draw(t, "length"); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				draw(t, v.Index(i))
			}
		}
	case reflect.Map:
		if keys := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"A", "B", "C"}), 0, 3, rapid.ID[string]).Draw(t, "keys"); len(keys) > 0 {
			v.Set(reflect.MakeMap(v.Type()))
			for _, key := range keys {
				value := reflect.New(v.Type().Elem()).Elem()
				draw(t, value)
				v.SetMapIndex(reflect.ValueOf(key), value)
			}
		}
	}
}

func drawSpecs(t *rapid.T, of Type) specs {
	all := newSpecs(of)
	for _, layer := range []Layer{LayerProject, LayerVersion, LayerTask} {
		draw(t, all.value(layer))
	}
	return all
}

func TestMergeFollowsTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		of := rapid.SampledFrom(Types).Draw(t, "type")
		all := drawSpecs(t, of)
		before := map[Layer]map[string]any{}
		for layer, part := range all {
			before[layer] = tree(t, part)
		}
		merged := all.merge(of)
		requireByRules(t, of, all, merged)
		for layer, part := range all {
			require.Equal(t, before[layer], tree(t, part), "the merge changed its argument")
		}
		for _, other := range Types {
			require.Equal(t, other == of, merged.of(other, false) != nil)
		}

		// What only a project may set is its own, whatever the others say.
		got := reflect.ValueOf(merged.of(of, false)).Elem()
		for _, rule := range rulesOf(got.Type()) {
			own := all.value(LayerProject).Field(rule.index)
			if len(rule.layers) == 1 && rule.has(LayerProject) && merged.Provenance[rule.name] != LayerDefault && !own.IsZero() {
				require.Equal(t, own.Interface(), got.Field(rule.index).Interface(), rule.name)
			}
		}
	})
}

// only leaves of a spec what all of the layers may set.
func only(v reflect.Value, layers ...Layer) {
	for _, rule := range rulesOf(v.Type()) {
		for _, layer := range layers {
			if !rule.has(layer) {
				v.Field(rule.index).SetZero()
			}
		}
	}
}

// together merges two layers into one, without defaults.
func together(of Type, a Layer, below reflect.Value, b Layer, above reflect.Value) typeSpec {
	into := (&Spec{}).of(of, true)
	m := &merger{map[string]Layer{}}
	m.structs("", reflect.ValueOf(into).Elem(), nil, []layered{{a, below.Addr()}, {b, above.Addr()}})
	return into
}

// Of what all layers concerned may set, it does not matter which two are put together first.
func TestMergeIsAssociative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		of := rapid.SampledFrom(Types).Draw(t, "type")
		all := drawSpecs(t, of)
		whole := func(s specs) map[string]any {
			merged := s.merge(of)
			return tree(t, merged.of(of, false))
		}

		only(all.value(LayerVersion), LayerVersion, LayerTask)
		only(all.value(LayerTask), LayerVersion, LayerTask)
		upper := specs{LayerProject: all[LayerProject], LayerVersion: together(of, LayerVersion, all.value(LayerVersion), LayerTask, all.value(LayerTask)),
			LayerTask: (&Spec{}).of(of, true)}
		require.Equal(t, whole(all), whole(upper), "version and task first")

		only(all.value(LayerProject), LayerProject, LayerVersion)
		only(all.value(LayerVersion), LayerProject, LayerVersion)
		lower := specs{LayerProject: together(of, LayerProject, all.value(LayerProject), LayerVersion, all.value(LayerVersion)),
			LayerVersion: (&Spec{}).of(of, true), LayerTask: all[LayerTask]}
		require.Equal(t, whole(all), whole(lower), "project and version first")
	})
}

// What an agent reads is what the server merged.
func TestConfigSurvivesItsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		of := rapid.SampledFrom(Types).Draw(t, "type")
		merged := drawSpecs(t, of).merge(of)
		text, err := merged.JSON()
		require.NoError(t, err)
		read, err := ParseConfig(of, text)
		require.NoError(t, err, "%s", text)
		require.Equal(t, merged.Flat(), read.Flat())
		again, err := read.JSON()
		require.NoError(t, err)
		require.Equal(t, string(text), string(again))
		require.Empty(t, Changes(merged, read))
	})
	for _, of := range Types { // with nothing left out
		all := newSpecs(of)
		fill(t, all.value(LayerProject), LayerProject, &numbers{})
		text, err := json.Marshal(all[LayerProject])
		require.NoError(t, err)
		read, err := ParseConfig(of, text)
		require.NoError(t, err)
		require.Equal(t, all[LayerProject], read.of(of, false))
	}
}

func TestParseConfigIsStrict(t *testing.T) {
	for _, of := range Types {
		for _, text := range []string{
			``, `null`, `[]`, `"x"`, `1`, `{"no_such_field":1}`, `{"timeout":"1s"} {}`, `{"timeout":"1s"}x`, `{"timeout":`, `{"timeout":"never"}`, `{"timeout":-1}`,
			`{"env":[]}`, `{"health":{"no":1}}`,
		} {
			_, err := ParseConfig(of, []byte(text))
			require.ErrorIs(t, err, ErrInvalid, "%s of %s", text, of)
		}
		_, err := ParseConfig(of, []byte(" {\"timeout\":\"1s\"}\n"))
		require.NoError(t, err)
	}
	_, err := ParseConfig("no-type", []byte(`{}`))
	require.ErrorIs(t, err, ErrInvalid)
}

// texts walks the texts of a spec; expanded says whether their rule lets them be.
func texts(v reflect.Value, top, expanded bool, see func(text string, expanded bool)) {
	switch v.Kind() {
	case reflect.String:
		see(v.String(), expanded)
	case reflect.Pointer:
		if !v.IsNil() {
			texts(v.Elem(), top, expanded, see)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			texts(v.Field(i), false, expanded && (!top || v.Type().Field(i).Tag.Get("expand") != "no"), see)
		}
	case reflect.Slice:
		for i := range v.Len() {
			texts(v.Index(i), false, expanded, see)
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			texts(it.Value(), false, expanded, see)
		}
	}
}

// Every text of every field is expanded, but for those whose rule says no, which stay as they are.
func TestExpandReachesEveryField(t *testing.T) {
	for _, of := range Types {
		part := (&Spec{}).of(of, true)
		fill(t, reflect.ValueOf(part).Elem(), LayerProject, &numbers{})
		mark(reflect.ValueOf(part).Elem())
		before := tree(t, part)
		merged := Merged{Type: of, Spec: specOf(of, part)}
		expanded, err := merged.Expand(func(name string) (Value, bool) { return Value{Text: "value"}, name == "NAME" }, true)
		require.NoError(t, err)
		count := map[bool]int{}
		texts(reflect.ValueOf(expanded.of(of, false)), true, true, func(text string, is bool) {
			count[is]++
			if is {
				require.Equal(t, "value${NAME}", text)
			} else {
				require.Equal(t, "${NAME}$${NAME}", text)
			}
		})
		require.Greater(t, count[true], 5, of)
		require.Greater(t, count[false], 3, of)
		require.Equal(t, before, tree(t, part), "it changed its argument")

		_, err = merged.Expand(func(string) (Value, bool) { return Value{}, false }, true)
		require.ErrorIs(t, err, ErrInvalid)
	}
}

// mark sets every text below v.
func mark(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("${NAME}$${NAME}")
	case reflect.Pointer:
		if !v.IsNil() {
			mark(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			mark(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			mark(v.Index(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			value := reflect.New(v.Type().Elem()).Elem()
			value.Set(v.MapIndex(key))
			mark(value)
			v.SetMapIndex(key, value)
		}
	}
}

// A text is pieces, of which each stands for something: what comes out, in one stage or in two, is what they stand for.
func TestExpandTextByItsPieces(t *testing.T) {
	values := map[string]string{
		"EMPTY": "", "PLAIN": "plain", "DOLLAR": "$", "DOLLARS": "a$$", "BRACE": "{X}", "REFERENCE": "${PLAIN}", "ESCAPED": "$${PLAIN}", "OPEN": "${", "NONE": "${NOT_THERE}",
		"SECRET": "s3cr3t${PLAIN}",
	}
	later := map[string]bool{"SECRET": true}
	now := func(stage int) Lookup {
		return func(name string) (Value, bool) {
			text, ok := values[name]
			return Value{Text: text, Later: stage == 1 && later[name]}, ok
		}
	}
	names := slices.Sorted(maps.Keys(values))
	rapid.Check(t, func(t *rapid.T) {
		var text, want strings.Builder
		dollar := false // what is put in so far ends with $, and something that stays follows
		refused := false
		for range rapid.IntRange(0, 8).Draw(t, "pieces") {
			switch piece := rapid.IntRange(0, 4).Draw(t, "piece"); piece {
			case 0:
				text.WriteString("$${")
				want.WriteString("${")
			case 1:
				literal := rapid.SampledFrom([]string{"x", "{", "{X}", "}", "é", " "}).Draw(t, "literal")
				text.WriteString(literal)
				want.WriteString(literal)
			default:
				name := rapid.SampledFrom(names).Draw(t, "name")
				text.WriteString("${" + name + "}")
				dollar = strings.HasSuffix(want.String(), "$")
				refused = refused || dollar && later[name]
				want.WriteString(values[name])
			}
		}
		if _, whole := strings.CutSuffix(text.String(), "$"); whole {
			return
		}
		once, err := ExpandText(text.String(), now(2), true)
		require.NoError(t, err)
		require.Equal(t, want.String(), once, "%q in one stage", text.String())

		first, err := ExpandText(text.String(), now(1), false)
		if refused {
			require.Error(t, err, "%q", text.String())
			return
		}
		require.NoError(t, err)
		again, err := ExpandText(first, now(1), false)
		require.NoError(t, err)
		require.Equal(t, first, again, "a text that was expanded stays the same")
		second, err := ExpandText(first, now(2), true)
		require.NoError(t, err)
		require.Equal(t, want.String(), second, "%q in two stages, by %q", text.String(), first)
	})
}

// A full configuration of three layers: merged, and expanded for one host.
func BenchmarkMergeAndExpand(b *testing.B) {
	for _, of := range Types {
		b.Run(string(of), func(b *testing.B) {
			all, n := newSpecs(of), &numbers{}
			for layer := range all {
				fill(b, all.value(layer), layer, n)
			}
			lookup := func(name string) (Value, bool) { return Value{Text: name}, true }
			b.ReportAllocs()
			for b.Loop() {
				if _, err := all.merge(of).Expand(lookup, true); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
