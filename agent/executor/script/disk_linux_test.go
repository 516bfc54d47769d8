package script_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// A release that the disk has no room for leaves the one before as it was, and nothing of itself.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	s := newSite(t)
	require.NoError(t, os.Mkdir(s.dir, 0o755))
	require.NoError(t, unix.Mount("tmpfs", s.dir, "tmpfs", 0, "size=1m"), "mount a small disk, as root")
	t.Cleanup(func() { _ = unix.Unmount(s.dir, unix.MNT_DETACH) })
	s.succeeds(s.deploy(release.StepInstall, "1.0"))
	s.fresh()
	result := s.run(s.deploy(release.StepUpdate, "2.0", func(c *release.ScriptSpec) {
		c.Artifacts[1].SHA256 = s.artifact([]byte(strings.Repeat("large ", 1<<20)))
	}))
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Contains(t, result.Error, "artifact etc/conf: ")
	require.Contains(t, result.Error, "no space left on device")
	require.NotContains(t, result.Error, "\n")
	require.Contains(t, s.output(quicflowv1.Stream_STREAM_SYSTEM), "no space left on device")
	require.Equal(t, "releases/1.0", s.current())
	require.Equal(t, []string{"1.0"}, s.releases())
	s.succeeds(s.deploy(release.StepUpdate, "2.0"))
}
