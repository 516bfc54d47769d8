package script_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// limited runs a script within limits.
func limited(t *testing.T, text string, limits release.ProcessLimits) (*host, *quicflowv1.StepResult) {
	t.Helper()
	h := newHost(t)
	return h, h.run(h.step(text, func(s *release.ScriptSpec) { s.Limits = &limits }))
}

// cgroups says whether this machine lets us make cgroups: then all but files is counted by them.
func cgroups(t *testing.T) bool {
	t.Helper()
	_, result := limited(t, "true", release.ProcessLimits{CPUs: 0.5})
	if result.Outcome == quicflowv1.Outcome_OUTCOME_SUCCEEDED {
		return true
	}
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Contains(t, result.Error, "limits.cpus: this host cannot limit CPUs: ", "what cannot be kept is refused")
	return false
}

func TestLimits(t *testing.T) {
	t.Parallel()
	h, result := limited(t, "cat /proc/self/limits; cat /proc/self/cgroup", release.ProcessLimits{
		Memory: 512 << 20, Processes: 4000, OpenFiles: 123, FileSize: 1 << 20,
	})
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
	has := func(line string) { require.Regexp(t, line, h.stdout()) }
	has(`Max open files +123 +123 `)
	has(`Max file size +1048576 +1048576 `)
	if cgroups(t) {
		has(`0::/.*quicflow/step-`)
		h, result := limited(t, `cd /sys/fs/cgroup/$(sed -n 's/^0:://p' /proc/self/cgroup) && echo $(cat cpu.max memory.max pids.max)`,
			release.ProcessLimits{CPUs: 0.5, Memory: 512 << 20, Processes: 4000})
		require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
		require.Equal(t, "50000 100000 536870912 4000\n", h.stdout())
	} else {
		has(`Max address space +536870912 +536870912 `)
		has(`Max processes +4000 +4000 `)
	}
}

// A limit has an effect: what goes beyond it fails.
func TestLimitsHold(t *testing.T) {
	t.Parallel()
	h, result := limited(t, "head -c 2000000 /dev/zero > $T/file", release.ProcessLimits{FileSize: 1 << 20})
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	require.Len(t, h.read("file"), 1<<20)

	_, result = limited(t, `sh -c 'x=$(head -c 200000000 /dev/zero | tr "\0" x); echo ${#x}'`, release.ProcessLimits{Memory: 64 << 20})
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)

	_, result = limited(t, `exec 3</dev/null 4</dev/null 5</dev/null 6</dev/null`, release.ProcessLimits{OpenFiles: 5})
	require.Equal(t, quicflowv1.Outcome_OUTCOME_FAILED, result.Outcome)
	_, result = limited(t, `exec 3</dev/null 4</dev/null 5</dev/null 6</dev/null`, release.ProcessLimits{OpenFiles: 50})
	require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, result.Error)
}

// What a limited script is killed with is as always.
func TestLimitedScriptTimesOut(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	result := h.run(h.step(`echo $$ > $T/pid; sleep 100`, timeout(300e6), func(s *release.ScriptSpec) {
		s.Limits = &release.ProcessLimits{OpenFiles: 50}
	}))
	require.Equal(t, "timed out after 300ms", result.Error)
	gone(t, h.awaitPID("pid"))
}
