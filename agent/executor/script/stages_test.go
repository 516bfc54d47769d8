//go:build !failpoint

package script_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A program in which a process can be made to die at a line has to be built for that.
func TestKilledBetweenStages(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	program := filepath.Join(t.TempDir(), "script.test")
	out, err := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "failpoint", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, at := range []string{"script.release.filled", "script.release.built", "script.release.switched"} {
		cmd := exec.CommandContext(ctx, program, "-test.run", "^TestKilledAtFailpoint$", "-test.v")
		cmd.Env = append(os.Environ(), "QUICFLOW_FAILPOINT="+at, "QUICFLOW_FAILPOINT_ONCE="+filepath.Join(t.TempDir(), "once"))
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", at, out)
		require.Contains(t, string(out), "--- PASS: TestKilledAtFailpoint", at)
	}
}
