package release

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var updateDocs = flag.Bool("update", false, "write the tables of fields into docs/config-layer-design.md")

// The tables of the documentation are those of the rules.
func TestLayerDocumentHasTheRules(t *testing.T) {
	const file = "../../docs/config-layer-design.md"
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	want := string(text)
	for _, of := range Types {
		begin, end := fmt.Sprintf("<!-- fields of %s, made by go test ./internal/release -run LayerDocument -update -->\n", of), fmt.Sprintf("<!-- end of fields of %s -->", of)
		before, rest, ok := strings.Cut(want, begin)
		require.True(t, ok, "no place for the fields of %s", of)
		_, after, ok := strings.Cut(rest, end)
		require.True(t, ok, "no end of the fields of %s", of)
		want = before + begin + table(of) + end + after
	}
	if *updateDocs {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o600))
		return
	}
	require.Equal(t, want, string(text), "stale: run go test ./internal/release -run LayerDocument -update")
}

func table(of Type) string {
	var b strings.Builder
	b.WriteString("\n| Field | Project | Version | Task | Layers become one | `${NAME}` | |\n|---|---|---|---|---|---|---|\n")
	mark := func(yes bool, text string) string {
		if yes {
			return text
		}
		return "–"
	}
	how := map[string]string{"replace": "the highest has it", "keys": "key by key", "fields": "field by field"}
	for _, r := range Rules(of) {
		cells := []string{"`" + r.Path + "`"}
		for _, l := range []Layer{LayerProject, LayerVersion, LayerTask} {
			cells = append(cells, mark(slices.Contains(r.Layers, l), "yes"))
		}
		cells = append(cells, how[r.Merge], mark(r.Expand, "yes"), strings.ReplaceAll(r.Doc, "|", `\|`))
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	return b.String() + "\n"
}
