package kubernetes

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fixtures are configurations that together set every field; package live applies them to a real cluster.
func fixtures(t *testing.T) map[string]*release.KubernetesSpec {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	specs := map[string]*release.KubernetesSpec{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		config, err := release.ParseConfig(release.TypeKubernetes, text)
		require.NoError(t, err)
		specs[strings.TrimSuffix(filepath.Base(file), ".json")] = config.Kubernetes
	}
	return specs
}

func step(spec *release.KubernetesSpec) *executor.Step {
	return &executor.Step{ID: "step-1", TaskID: "task-1", Action: release.StepInstall, Project: "my.shop", Version: "2.1+build.7", ConfigID: "abc", Environment: "staging",
		Config: release.Merged{Type: release.TypeKubernetes, Spec: release.Spec{Kubernetes: spec}}, Host: executor.Host{ClientID: "host-1"}}
}

func rendered(t *testing.T, objects []*object) []byte {
	t.Helper()
	var all bytes.Buffer
	for _, o := range objects {
		text, err := yaml.Marshal(o.Object)
		require.NoError(t, err)
		all.WriteString("---\n")
		all.Write(text)
	}
	return all.Bytes()
}

func TestGolden(t *testing.T) {
	for name, spec := range fixtures(t) {
		t.Run(name, func(t *testing.T) {
			objects, err := build(step(spec))
			require.NoError(t, err)
			file := filepath.Join("testdata", name+".golden.yaml")
			if *update {
				require.NoError(t, os.WriteFile(file, rendered(t, objects), 0o600))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), string(rendered(t, objects)))
		})
	}
}

// elsewhere are the fields that do not change what is made; the tests of package live see their effects, but those of the engine's.
var elsewhere = map[string]string{
	"kubeconfig": "TestBadInput", "context": "TestBadInput", "namespace": "TestNamespace", "create_namespace": "TestNamespace",
	"force": "TestConflict", "interpreter": "TestScripts", "pre_script": "TestScripts", "post_script": "TestScripts", "health": "TestScripts",
	"timeout": "the wrapper's",
}

// Each field has an effect: without it something else is made, or nothing at all.
func TestEveryFieldHasAnEffect(t *testing.T) {
	specs := fixtures(t)
	made := map[string][]byte{}
	for name, spec := range specs {
		objects, err := build(step(spec))
		require.NoError(t, err)
		made[name] = rendered(t, objects)
	}
	type found struct{ set, effect bool }
	fields := map[string]found{} // those of a type that is there several times count together
	var walk func(owner string, index []int, typ reflect.Type)
	walk = func(owner string, index []int, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			at := append(append([]int{}, index...), i)
			if _, there := elsewhere[owner+name]; there {
				continue
			}
			is := fields[owner+name]
			for fixture, spec := range specs {
				for without := range each(spec, at) {
					is.set = true
					after, err := build(step(without))
					is.effect = is.effect || err != nil || !bytes.Equal(made[fixture], rendered(t, after))
				}
			}
			fields[owner+name] = is
			inner := f.Type
			for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				walk(inner.Name()+".", at, inner)
			}
		}
	}
	walk("", nil, reflect.TypeFor[release.KubernetesSpec]())
	require.Greater(t, len(fields), 100)
	for name, is := range fields {
		require.True(t, is.set, "no fixture sets %s", name)
		require.True(t, is.effect, "%s has no effect", name)
	}
}

// each gives copies of a configuration without one field, by the indexes of the fields that lead to it: one copy for each element of
// the lists on the way in which it is set.
func each(spec *release.KubernetesSpec, index []int) func(func(*release.KubernetesSpec) bool) {
	return func(yield func(*release.KubernetesSpec) bool) {
		for n := 0; ; n++ {
			text, _ := json.Marshal(spec)
			copied := &release.KubernetesSpec{}
			_ = json.Unmarshal(text, copied)
			seen := 0
			done := false
			var clear func(v reflect.Value, index []int)
			clear = func(v reflect.Value, index []int) {
				switch v.Kind() {
				case reflect.Pointer:
					if !v.IsNil() {
						clear(v.Elem(), index)
					}
				case reflect.Slice:
					for i := range v.Len() {
						clear(v.Index(i), index)
					}
				case reflect.Struct:
					if f := v.Field(index[0]); len(index) > 1 {
						clear(f, index[1:])
					} else if !f.IsZero() {
						if seen == n {
							f.SetZero()
							done = true
						}
						seen++
					}
				}
			}
			clear(reflect.ValueOf(copied), index)
			if !done || !yield(copied) {
				return
			}
		}
	}
}

// What has no effect is refused.
func TestRefused(t *testing.T) {
	one := 1
	for name, c := range map[string]struct {
		change func(*release.KubernetesSpec)
		why    string
	}{
		"replicas":     {func(s *release.KubernetesSpec) { s.Kind, s.Replicas = "DaemonSet", &one }, "kubernetes.replicas: a DaemonSet has none"},
		"recreate":     {func(s *release.KubernetesSpec) { s.Kind, s.Recreate = "StatefulSet", true }, "kubernetes.recreate: it is for a Deployment"},
		"surge":        {func(s *release.KubernetesSpec) { s.Recreate, s.MaxSurge = true, "1" }, "kubernetes.recreate: max_surge"},
		"set surge":    {func(s *release.KubernetesSpec) { s.Kind, s.MaxSurge = "StatefulSet", "1" }, "kubernetes.max_surge: a StatefulSet has none"},
		"service name": {func(s *release.KubernetesSpec) { s.ServiceName = "x" }, "kubernetes.service_name: it is for a StatefulSet"},
		"claims":       {func(s *release.KubernetesSpec) { s.Claims = []release.KubeClaim{{Name: "x"}} }, "kubernetes.claims: they are for a StatefulSet"},
		"image":        {func(s *release.KubernetesSpec) { s.Image = "" }, "kubernetes.image: it is missing"},
		"tag":          {func(s *release.KubernetesSpec) { s.ImageTag = "" }, "kubernetes.image_tag: it is missing"},
		"kind":         {func(s *release.KubernetesSpec) { s.Kind = "Pod" }, `kubernetes.kind: "Pod" is none of`},
		"manifest":     {func(s *release.KubernetesSpec) { s.Manifest = "a: b" }, "kubernetes.image: it has no effect beside a manifest"},
		"our label":    {func(s *release.KubernetesSpec) { s.Labels = map[string]string{"quicflow/project": "x"} }, "kubernetes.labels.quicflow/project: it is QuicFlow's own"},
		"no port":      {func(s *release.KubernetesSpec) { s.Service = &release.KubeService{} }, "kubernetes.service.ports: neither"},
		"node port": {func(s *release.KubernetesSpec) {
			s.Service = &release.KubeService{Ports: []release.KubeServicePort{{Port: 1, NodePort: 30000}}}
		}, "node_port: it is for"},
		"env from":  {func(s *release.KubernetesSpec) { s.EnvFrom = []release.KubeEnvFrom{{ConfigMap: "a", Secret: "b"}} }, "kubernetes.env_from[0]: wants exactly one"},
		"no source": {func(s *release.KubernetesSpec) { s.Volumes = []release.KubeVolume{{Name: "a"}} }, "kubernetes.volumes[0]: wants exactly one"},
		"size limit": {func(s *release.KubernetesSpec) {
			s.Volumes = []release.KubeVolume{{Name: "a", Secret: "a", SizeLimit: "1Gi"}}
		}, "size_limit: it is for an empty_dir"},
		"two sources": {func(s *release.KubernetesSpec) {
			s.Volumes = []release.KubeVolume{{Name: "a", Secret: "a"}, {Name: "a", Secret: "b"}}
		}, `"a" is there twice`},
		"quantity": {func(s *release.KubernetesSpec) {
			s.Resources = &release.KubeResources{Limits: map[string]string{"cpu": "much"}}
		}, `kubernetes.resources.limits.cpu: "much" is not a quantity`},
		"two probes":   {func(s *release.KubernetesSpec) { s.Liveness = &release.KubeProbe{TCPPort: "1", GRPCPort: 1} }, "kubernetes.liveness: wants exactly one"},
		"probe's port": {func(s *release.KubernetesSpec) { s.Readiness = &release.KubeProbe{HTTPPath: "/"} }, "kubernetes.readiness.http_port: it is missing"},
		"scheme alone": {func(s *release.KubernetesSpec) { s.Startup = &release.KubeProbe{TCPPort: "1", HTTPScheme: "HTTPS"} }, "go with http_path"},
		"patch's kind": {func(s *release.KubernetesSpec) { s.Patches = []release.KubePatch{{Kind: "Ingress", Patch: "a: b"}} }, "patches[0]: there is no Ingress to patch"},
		"our inventory": {func(s *release.KubernetesSpec) {
			*s = release.KubernetesSpec{Manifest: "{apiVersion: v1, kind: Secret, metadata: {name: quicflow-my.shop}}"}
		}, "is QuicFlow's own"},
		"twice": {func(s *release.KubernetesSpec) {
			*s = release.KubernetesSpec{Manifest: "{apiVersion: v1, kind: Secret, metadata: {name: a}}\n---\n{apiVersion: v1, kind: Secret, metadata: {name: a}}"}
		}, "secret a is there twice"},
		"label's type": {func(s *release.KubernetesSpec) {
			*s = release.KubernetesSpec{Manifest: "{apiVersion: v1, kind: Secret, metadata: {name: a, labels: {on: true}}}"}
		}, "is not a text: quote it"},
		"custom kind": {func(s *release.KubernetesSpec) {
			*s = release.KubernetesSpec{Manifest: "{apiVersion: a.b/v1, kind: C, metadata: {name: a}}", Patches: []release.KubePatch{{Kind: "C", Patch: "a: b"}}}
		}, "use merge or json for a C"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := &release.KubernetesSpec{Image: "shop", ImageTag: "v1"}
			c.change(spec)
			err := New().Check(step(spec))
			require.ErrorIs(t, err, release.ErrInvalid)
			require.ErrorContains(t, err, c.why)
		})
	}
}

func TestInventoryDropsOldRevisions(t *testing.T) {
	inv := &inventory{Project: "shop", sets: map[int][]byte{}}
	for range 5 {
		n, err := inv.begin(revision{Version: "v"}, nil)
		require.NoError(t, err)
		inv.sets[n] = make([]byte, 300<<10)
		inv.Revisions[len(inv.Revisions)-1].Ready = true
	}
	data, err := inv.data()
	require.NoError(t, err)
	require.Len(t, inv.Revisions, 3)
	require.Equal(t, 5, inv.ready().Number)
	require.Len(t, data, 4)

	inv.sets[5] = make([]byte, 2<<20)
	_, err = inv.data()
	require.ErrorContains(t, err, "a cluster keeps 1024000 of a deployment")
}
