package release

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The rules for merging, one a line: what each layer says of a field, and what comes of it.
func TestLayersBecomeOneValue(t *testing.T) {
	keep := func(text string) func(*Spec) { return func(s *Spec) { set(s, text) } }
	for _, c := range []struct {
		rule                   string
		of                     Type
		project, version, task func(*Spec)
		path                   string
		value                  string
		layer                  Layer
	}{
		{"image tag: project default", TypeContainer, keep("tag 1"), nil, nil, "image_tag", "1", LayerProject},
		{"image tag: the version's", TypeContainer, keep("tag 1"), keep("tag 2"), nil, "image_tag", "2", LayerVersion},
		{"image tag: a task overrides", TypeContainer, keep("tag 1"), keep("tag 2"), keep("tag 3"), "image_tag", "3", LayerTask},
		{"ports: the project's alone", TypeContainer, keep("port 80"), keep("port 81"), keep("port 82"), "ports[0].container", "80", LayerProject},
		{"volumes: the project's alone", TypeContainer, keep("volume a"), keep("volume b"), keep("volume c"), "volumes[0].source", "a", LayerProject},
		{"networks: the project's alone", TypeContainer, keep("network a"), keep("network b"), keep("network c"), "networks[0].name", "a", LayerProject},
		{"env: a project's key stays", TypeContainer, keep("env A=1"), keep("env B=2"), keep("env C=3"), "env.A", "1", LayerProject},
		{"env: a version adds", TypeContainer, keep("env A=1"), keep("env B=2"), keep("env C=3"), "env.B", "2", LayerVersion},
		{"env: a task appends", TypeContainer, keep("env A=1"), keep("env B=2"), keep("env C=3"), "env.C", "3", LayerTask},
		{"env: a version overrides", TypeContainer, keep("env A=1"), keep("env A=2"), nil, "env.A", "2", LayerVersion},
		{"env: a task overrides", TypeContainer, keep("env A=1"), keep("env A=2"), keep("env A=3"), "env.A", "3", LayerTask},
		{"env: empty is a value", TypeContainer, keep("env A=1"), keep("env A="), nil, "env.A", "", LayerVersion},
		{"resources: field by field, the project's", TypeContainer, keep("memory 1g"), keep("cpus 2"), keep("pids 3"), "resources.memory", "1g", LayerProject},
		{"resources: field by field, the version's", TypeContainer, keep("memory 1g"), keep("cpus 2"), keep("pids 3"), "resources.cpus", "2", LayerVersion},
		{"resources: field by field, the task's", TypeContainer, keep("memory 1g"), keep("cpus 2"), keep("pids 3"), "resources.pids", "3", LayerTask},
		{"resources: the task's goes before", TypeContainer, keep("memory 1g"), keep("memory 2g"), keep("memory 3g"), "resources.memory", "3g", LayerTask},
		{"replicas: project default", TypeKubernetes, keep("replicas 1"), nil, nil, "replicas", "1", LayerProject},
		{"replicas: a version overrides", TypeKubernetes, keep("replicas 1"), keep("replicas 2"), nil, "replicas", "2", LayerVersion},
		{"replicas: a task overrides, to none", TypeKubernetes, keep("replicas 1"), keep("replicas 2"), keep("replicas 0"), "replicas", "0", LayerTask},
		{"health check: the version's as a whole", TypeContainer, keep("check project"), keep("check version"), nil, "health_check.shell", "version", LayerVersion},
		{"health check: nothing of the project's is left", TypeContainer, keep("check project"), keep("check version"), nil, "health_check.retries", "", ""},
		{"health check: the project's where there is no other", TypeContainer, keep("check project"), nil, nil, "health_check.retries", "9", LayerProject},
		{"health check: never a task's", TypeContainer, keep("check project"), nil, keep("check task"), "health_check.shell", "project", LayerProject},
		{"pre_script: the version's", TypeGit, keep("pre project"), keep("pre version"), nil, "pre_script", "version", LayerVersion},
		{"pre_script: empty means the project's", TypeGit, keep("pre project"), keep("pre "), nil, "pre_script", "project", LayerProject},
		{"pre_script: never a task's", TypeGit, keep("pre project"), nil, keep("pre task"), "pre_script", "project", LayerProject},
		{"pre_script: none", TypeGit, nil, nil, nil, "pre_script", "", ""},
		{"timeout: a task overrides", TypeScript, keep("timeout 1m"), keep("timeout 2m"), keep("timeout 3m"), "timeout", "3m0s", LayerTask},
		{"timeout: QuicFlow's own", TypeScript, nil, nil, nil, "timeout", "10m0s", LayerDefault},
	} {
		t.Run(c.rule, func(t *testing.T) {
			p, v, o := Project{Type: c.of}, Version{}, Override{}
			for _, layer := range []struct {
				set  func(*Spec)
				spec *Spec
			}{{c.project, &p.Spec}, {c.version, &v.Spec}, {c.task, &o.Spec}} {
				if layer.set != nil {
					layer.spec.of(c.of, true)
					layer.set(layer.spec)
				}
			}
			merged := Merge(p, v, o)
			value, ok := merged.Flat()[c.path]
			require.Equal(t, c.value, value)
			if c.layer == "" {
				require.False(t, ok)
				return
			}
			require.True(t, ok)
			require.Equal(t, c.layer, merged.layerOf(c.path))
		})
	}
}

// set puts a value, said in words, into whichever part there is.
func set(s *Spec, words string) {
	name, value, _ := strings.Cut(words, " ")
	number := 0
	_, _ = fmt.Sscan(value, &number)
	var size Bytes
	_ = size.UnmarshalText([]byte(value))
	switch {
	case s.Git != nil:
		s.Git.PreScript = value
	case s.Kubernetes != nil:
		s.Kubernetes.Replicas = &number
	case s.Script != nil:
		d, _ := time.ParseDuration(value)
		s.Script.Timeout = Duration(d)
	case name == "tag":
		s.Container.ImageTag = value
	case name == "port":
		s.Container.Ports = []Port{{Container: number}}
	case name == "volume":
		s.Container.Volumes = []Volume{{Source: value, Target: "/x"}}
	case name == "network":
		s.Container.Networks = []ContainerNetwork{{Name: value}}
	case name == "env":
		key, text, _ := strings.Cut(value, "=")
		s.Container.Env = map[string]string{key: text}
	case name == "memory":
		s.Container.Resources = &ContainerResources{Memory: size}
	case name == "cpus":
		s.Container.Resources = &ContainerResources{CPUs: float64(number)}
	case name == "pids":
		s.Container.Resources = &ContainerResources{Pids: int64(number)}
	case name == "check":
		s.Container.HealthCheck = &ContainerHealth{Shell: value}
		if value == "project" {
			s.Container.HealthCheck.Retries = 9
		}
	}
}

// A layer may not set what is not its own, and is told whose it is.
func TestLayersKeepToTheirFields(t *testing.T) {
	p := func(spec Spec, layer Layer, of Type, prefix string) string {
		err := spec.validateLayer(of, layer, prefix)
		require.Error(t, err)
		return err.Error()
	}
	ports := Spec{Container: &ContainerSpec{ImageTag: "1", Ports: []Port{{Container: 80}}}}
	require.Equal(t, "container.ports: a version cannot set it, only a project", p(ports, LayerVersion, TypeContainer, ""))
	require.Equal(t, "override.container.ports: a task cannot set it, only a project", p(ports, LayerTask, TypeContainer, "override."))
	scripts := Spec{Git: &GitSpec{PreScript: "x"}}
	require.Equal(t, "override.git.pre_script: a task cannot set it, only a project or a version", p(scripts, LayerTask, TypeGit, "override."))
	install := Spec{Script: &ScriptSpec{Install: "x"}}
	require.Equal(t, "script.install: a project cannot set it, only a version", p(install, LayerProject, TypeScript, ""))
	require.Equal(t, "git: the project's type is container", p(scripts, LayerProject, TypeContainer, ""))
}

// A form has a group for each field; those below an object are in its group.
func TestEachFieldIsInAGroup(t *testing.T) {
	groups := map[string]string{}
	for _, of := range Types {
		for _, r := range Rules(of) {
			require.NotEmpty(t, r.Group, "%s: %s", of, r.Path)
			groups[string(of)+" "+r.Path] = r.Group
		}
	}
	require.Equal(t, "resources", groups["container resources.memory"])
	require.Equal(t, "network", groups["container ports"])
	require.Equal(t, "scripts", groups["script uninstall"])
	require.Equal(t, "network", groups["kubernetes service_name"])
}
