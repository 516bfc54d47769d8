package release

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMergeScript(t *testing.T) {
	project := ScriptProject{
		Interpreter: "/bin/bash", WorkDir: "/srv", Timeout: Duration(time.Minute),
		Env:       map[string]string{"A": "project", "B": "project", "C": "project"},
		PreScript: "project pre", PostScript: "project post",
		Health: &Health{HTTP: "http://localhost/", Retries: 9},
	}
	version := ScriptVersion{
		Timeout: Duration(2 * time.Minute), Env: map[string]string{"B": "version", "C": "version"},
		Install: "install", PreScript: "version pre", Health: &Health{TCP: "localhost:80"},
	}
	task := Override{Timeout: Duration(3 * time.Minute), Env: map[string]string{"C": "task"}}

	c := MergeScript(project, version, task)
	require.Equal(t, "/bin/bash", c.Interpreter)
	require.Equal(t, "/srv", c.WorkDir)
	require.Equal(t, 3*time.Minute, c.Timeout.Std())
	require.Equal(t, map[string]string{"A": "project", "B": "version", "C": "task"}, c.Env)
	require.Equal(t, "version pre", c.PreScript)
	require.Equal(t, "project post", c.PostScript)
	require.Equal(t, []string{"install", "install", "install"}, []string{c.Install, c.Update, c.Rollback})
	require.Empty(t, c.Health.HTTP, "the version's health check replaces the project's as a whole")
	require.Equal(t, 3, c.Health.Retries)
	require.Equal(t, map[string]Layer{
		"interpreter": LayerProject, "work_dir": LayerProject, "timeout": LayerTask,
		"env.A": LayerProject, "env.B": LayerVersion, "env.C": LayerTask,
		"pre_script": LayerVersion, "post_script": LayerProject, "install": LayerVersion,
		"update": LayerDefault, "rollback": LayerDefault, "health": LayerVersion,
	}, c.Provenance)

	_, err := c.Script(StepUninstall)
	requireInvalid(t, "script.uninstall", err)
}

func TestMergeScriptDefaults(t *testing.T) {
	c := MergeScript(ScriptProject{}, ScriptVersion{Install: "i", Update: "u"}, Override{})
	require.Equal(t, DefaultInterpreter, c.Interpreter)
	require.Equal(t, DefaultStepTimeout, c.Timeout.Std())
	require.Equal(t, "u", c.Rollback)
	require.Equal(t, LayerDefault, c.Provenance["interpreter"])
	require.Nil(t, c.Health)
}

// TestMergeScriptLosesNoField sets one field of one layer at a time and wants to find it in the result.
func TestMergeScriptLosesNoField(t *testing.T) {
	health := &Health{Exec: "true"}
	values := map[reflect.Type]reflect.Value{
		reflect.TypeFor[string]():            reflect.ValueOf("marked"),
		reflect.TypeFor[Duration]():          reflect.ValueOf(Duration(time.Hour)),
		reflect.TypeFor[map[string]string](): reflect.ValueOf(map[string]string{"MARKED": "1"}),
		reflect.TypeFor[*Health]():           reflect.ValueOf(health),
	}
	check := func(layer any, merge func() ScriptConfig) {
		v := reflect.ValueOf(layer).Elem()
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			v.SetZero()
			v.Field(i).Set(values[v.Field(i).Type()])
			merged := merge()
			got := reflect.ValueOf(merged).FieldByName(name)
			require.True(t, got.IsValid(), "%s.%s has no place in ScriptConfig", v.Type().Name(), name)
			require.False(t, got.IsZero(), "%s.%s is lost", v.Type().Name(), name)
			path := strings.Split(v.Type().Field(i).Tag.Get("json"), ",")[0]
			if path == "env" {
				path = "env.MARKED"
			}
			require.NotEmpty(t, merged.Provenance[path], "%s has no provenance", path)
		}
	}
	var p ScriptProject
	check(&p, func() ScriptConfig { return MergeScript(p, ScriptVersion{}, Override{}) })
	var v ScriptVersion
	check(&v, func() ScriptConfig { return MergeScript(ScriptProject{}, v, Override{}) })
	var o Override
	check(&o, func() ScriptConfig { return MergeScript(ScriptProject{}, ScriptVersion{}, o) })
}
