//go:build !failpoint

package script_test

import (
	"bytes"
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A program in which a process can be made to die at a line has to be built for that.
func TestAtFailpoints(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "test", "-tags", "failpoint", "-count=1", "-v", "-run", "^TestKilledBetweenStages$", ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, 6, bytes.Count(out, []byte("step wrapper failed")), "each wrapper died once:\n%s", out)
}
