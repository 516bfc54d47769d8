package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/release"
)

// YAML that no cluster would take is refused when it is written, with the line.
func TestYAMLOfKubernetesIsLookedAt(t *testing.T) {
	s := apitest.Start(t)
	want(t, s, 201, "POST", "/api/release/projects", `{"name":"shop","kubernetes":{}}`)
	version := func(k release.KubernetesSpec) (int, string) {
		body, err := json.Marshal(api.NewVersion{Name: "1", Status: release.VersionDraft, Spec: release.Spec{Kubernetes: &k}})
		require.NoError(t, err)
		return do(t, s, "POST", "/api/release/projects/shop/versions", string(body))
	}
	const object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"a-${QUICFLOW_ENVIRONMENT}\"}\ndata: {a: ${A}}\n"
	for text, say := range map[string]string{
		"just text":                              "line 1: is not an object with apiVersion, kind and metadata",
		object + "---\n- a\n":                    "line 6: is not an object",
		"kind: ConfigMap\nmetadata: {name: a}\n": "apiVersion is missing",
		"apiVersion: v1\nmetadata: {name: a}\n":  "kind is missing",
		"apiVersion: v1\nkind: ConfigMap\n":      "metadata.name is missing",
		"apiVersion: v1\nkind: [a]\n":            "have to be texts",
		"a: b\n c: d\n":                          "yaml: line 2",
		"a: b\na: c\n":                           `already defined`,
		"# nothing\n---\n":                       "holds no object",
		"a: {b: ${}}":                            "did not find expected",
		// Not much longer than may be: of what is far too long the server leaves so much unread that its answer may be lost.
		object + strings.Repeat("# x\n", 220_000): "",
	} {
		status, answer := version(release.KubernetesSpec{Manifest: text})
		p := read[problem](t, answer)
		if say == "" {
			require.Equal(t, 413, status, p.Detail)
			continue
		}
		require.Equal(t, 422, status, text)
		require.Equal(t, "body.kubernetes.manifest", p.Errors[0].Location)
		require.Contains(t, p.Detail, say, text)
		require.NotContains(t, p.Detail, "\n")
	}
	for patch, say := range map[release.KubePatch]string{
		{Patch: "- a"}: "is not an object",
		{Type: "merge", Patch: "a: b\n---\na: b\n"}:    "holds 2 documents",
		{Type: "json", Patch: "a: b"}:                  "is not a list of operations",
		{Type: "json", Patch: "- {op: put, path: /a}"}: `operation 1: "put" is none of`,
		{Type: "json", Patch: "- x"}:                   "operation 1 wants op and path",
	} {
		status, answer := version(release.KubernetesSpec{Manifest: object, Patches: []release.KubePatch{patch}})
		require.Equal(t, 422, status, answer)
		require.Equal(t, "body.kubernetes.patches[0].patch", read[problem](t, answer).Errors[0].Location)
		require.Contains(t, answer, strings.Trim(mustJSON(t, say), `"`))
	}
	status, answer := version(release.KubernetesSpec{Manifest: object + "---\n" + object, Patches: []release.KubePatch{
		{Patch: `{"spec":{"replicas":2}}`}, {Type: "json", Patch: "- {op: remove, path: /spec/replicas}"}}})
	require.Equal(t, 201, status, answer)
}

func mustJSON(t *testing.T, text string) string {
	t.Helper()
	out, err := json.Marshal(text)
	require.NoError(t, err)
	return string(out)
}
