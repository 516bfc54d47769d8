//go:build !linux

package wrapper

import (
	"os/exec"

	"github.com/quicflow/quicflow/internal/release"
)

// LimitsBy says how this host bounds what a step's processes use.
func LimitsBy() string { return "none" }

type cgroup struct{}

func (*cgroup) remove() {}

// checkLimits refuses what cannot be kept.
func (p *process) checkLimits(*wrapper) error {
	if p.limits == nil || *p.limits == (release.ProcessLimits{}) {
		return nil
	}
	return release.Invalid("limits", "the agent can limit processes on Linux alone")
}

func (w *wrapper) startLimited(cmd *exec.Cmd, _ *release.ProcessLimits) error { return cmd.Start() }
