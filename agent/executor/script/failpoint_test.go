//go:build failpoint

package script_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// The wrapper dies at a line between two stages of a release, and the next one goes on: nothing is done twice, nothing is left over.
// The process was started with the line's name; see TestKilledBetweenStages.
func TestKilledAtFailpoint(t *testing.T) {
	once := os.Getenv("QUICFLOW_FAILPOINT_ONCE")
	require.NotEmpty(t, once)
	s := newSite(t)
	require.NoError(t, os.WriteFile(once, nil, 0o600)) // not yet
	s.succeeds(s.deploy(release.StepInstall, "1.0"))
	require.NoError(t, os.Remove(once))
	s.succeeds(s.deploy(release.StepUpdate, "2.0", func(c *release.ScriptSpec) {
		c.PreScript, c.Update, c.PostScript = "echo pre >> $T/runs", "echo main >> $T/runs", "echo post >> $T/runs"
		c.Health = &release.Health{Exec: "true"}
	}))
	require.FileExists(t, once, "it died")
	require.Equal(t, "pre\nmain\npost\n", s.read("runs"))
	require.Equal(t, "releases/2.0", s.current())
	require.Equal(t, []string{"1.0", "2.0"}, s.releases())

	// One that fails after it was killed goes back all the same.
	require.NoError(t, os.Remove(once))
	s.fresh()
	result := s.run(s.deploy(release.StepUpdate, "3.0", func(c *release.ScriptSpec) { c.PostScript = "exit 3" }))
	require.FileExists(t, once, "it died")
	require.Equal(t, "post_script: exit code 3", result.Error)
	require.Equal(t, "releases/2.0", s.current())
	require.Equal(t, []string{"1.0", "2.0"}, s.releases())
	require.Equal(t, 1, strings.Count(s.read("ran"), "3.0 3.0"))
}
