package release

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func scriptLayers(p, v ScriptSpec, o Override) Merged {
	return Merge(Project{Type: TypeScript, Spec: Spec{Script: &p}}, Version{Spec: Spec{Script: &v}}, o)
}

func TestMergeScript(t *testing.T) {
	project := ScriptSpec{
		Interpreter: "/bin/bash", WorkDir: "/srv", Timeout: Duration(time.Minute),
		Env:       map[string]string{"A": "project", "B": "project", "C": "project"},
		PreScript: "project pre", PostScript: "project post",
		Health: &Health{HTTP: "http://localhost/", Retries: 9},
	}
	version := ScriptSpec{
		Timeout: Duration(2 * time.Minute), Env: map[string]string{"B": "version", "C": "version"},
		Install: "install", PreScript: "version pre", Health: &Health{TCP: "localhost:80"},
	}
	task := Override{Timeout: Duration(3 * time.Minute), Env: map[string]string{"C": "task"}}

	merged := scriptLayers(project, version, task)
	c := merged.Script
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
	}, merged.Provenance)

	_, err := c.Script(StepUninstall)
	requireInvalid(t, "script.uninstall", err)
}

func TestMergeFieldByField(t *testing.T) {
	three, five := 3, 5
	c := Merge(
		Project{Type: TypeKubernetes, Spec: Spec{Kubernetes: &KubernetesSpec{Replicas: &three, Resources: &KubeResources{
			Requests: map[string]string{"cpu": "1", "memory": "1Gi"}}}}},
		Version{Spec: Spec{Kubernetes: &KubernetesSpec{Resources: &KubeResources{
			Requests: map[string]string{"cpu": "2"}, Limits: map[string]string{"memory": "2Gi"}}}}},
		Override{Spec: Spec{Kubernetes: &KubernetesSpec{Replicas: &five}}})
	require.Equal(t, 5, *c.Kubernetes.Replicas)
	require.Equal(t, map[string]string{"cpu": "2", "memory": "1Gi"}, c.Kubernetes.Resources.Requests)
	require.Equal(t, LayerTask, c.Provenance["replicas"])
	require.Equal(t, LayerVersion, c.Provenance["resources.requests.cpu"])
	require.Equal(t, LayerProject, c.Provenance["resources.requests.memory"])
	require.Equal(t, LayerVersion, c.Provenance["resources.limits.memory"])
}

// A field without a rule would be lost.
func TestEveryFieldHasARule(t *testing.T) {
	for _, of := range Types {
		require.NotPanics(t, func() { require.NotEmpty(t, Rules(of)) }, of)
	}
}
