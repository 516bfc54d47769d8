package live

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/stretchr/testify/require"

	dockerlab "github.com/quicflow/quicflow/internal/lab/docker"
	"github.com/quicflow/quicflow/internal/release"
)

// A wrapper dies at each stage of a step, and another one goes on.
func TestKilled(t *testing.T) {
	t.Parallel()
	all := []string{
		"planned", "prepared", "pulled", "created", "disarmed", "stopped", "started", "healthy", "posted", "renamed", "switched", "committed", "retired", "pruned",
	}
	back := []string{"back", "discarded", "reinstated"}
	scenarios := map[string]struct {
		points []string
		beside bool
		action release.StepAction
		to     string
	}{
		"update after":    {points: all, action: release.StepUpdate, to: "v2"},
		"update beside":   {points: []string{"created", "started", "renamed", "switched", "committed", "disarmed"}, beside: true, action: release.StepUpdate, to: "v2"},
		"install":         {points: []string{"created", "started", "switched"}, action: release.StepInstall, to: "v2"},
		"rollback":        {points: []string{"stopped", "started", "renamed", "switched"}, action: release.StepRollbackTo, to: "v2"},
		"sick after":      {points: append([]string{"stopped"}, back...), action: release.StepUpdate, to: "sick"},
		"sick beside":     {points: back[:2], beside: true, action: release.StepUpdate, to: "sick"},
		"sick rollback":   {points: back, action: release.StepRollbackTo, to: "v2"},
		"sick at install": {points: back[:2], action: release.StepInstall, to: "sick"},
		"script fails":    {points: back[:1], action: release.StepUpdate, to: "v3"},
		"uninstall":       {points: []string{"uninstall.stopping", "uninstall.stopped", "uninstall.removed"}, action: release.StepUninstall},
	}
	for name, s := range scenarios {
		for _, point := range s.points {
			t.Run(name+"/"+point, func(t *testing.T) {
				t.Parallel()
				p := newProject(t)
				if s.beside {
					p.beside()
				}
				runs := filepath.Join(t.TempDir(), "runs")
				script := func(spec *release.ContainerSpec) {
					spec.PreScript, spec.PostScript = "echo pre >> "+runs, "echo post >> "+runs
				}
				var kept, first container.InspectResponse
				if s.action == release.StepRollbackTo {
					kept = p.deploy("v2")
				}
				if s.action != release.StepInstall {
					first = p.deploy("v1")
				}
				step := p.step(s.action, s.to, script)
				if s.action == release.StepRollbackTo { // what was kept has another configuration than this step's scripts
					step.ConfigID = kept.Config.Labels["quicflow.config"]
				}
				failing := s.to == "sick" || name == "script fails" || name == "sick rollback"
				if failing && s.to != "sick" {
					step.Config.Container.PostScript += "; exit 9"
				}

				require.Equal(t, errKilled, p.inChild(step, false, "container."+point))
				p.oneOnThePort()
				err := p.inChild(step, true, "")
				t.Log(logOf(step))

				text, _ := os.ReadFile(runs)
				ran := strings.Fields(string(text))
				switch {
				case s.action == release.StepUninstall:
					require.NoError(t, err)
					require.Empty(t, p.containers())
					return
				case !failing:
					require.NoError(t, err)
					c := p.runs(s.to)
					require.Equal(t, []string{"pre", "post"}, ran, "each script once")
					if kept.ID != "" {
						require.Equal(t, kept.ID, c.ID)
					}
				case s.to == "sick":
					require.ErrorContains(t, err, "unhealthy")
					require.Equal(t, []string{"pre"}, ran)
				default:
					require.EqualError(t, err, "post_script: exit code 9")
					require.Equal(t, []string{"pre", "post"}, ran)
				}
				want := 1
				if first.ID == "" {
					want = 0
				}
				if failing && first.ID != "" {
					require.Equal(t, first.ID, p.runs("v1").ID, "the same container")
				}
				if kept.ID != "" || !failing {
					want++
				}
				require.Len(t, p.containers(), want)
			})
		}
	}
}

// oneOnThePort says that whatever there is at this moment, no two containers run that want the same port.
func (p *project) oneOnThePort() {
	p.t.Helper()
	if p.spec.Ports[0].Host == 0 {
		return
	}
	running := 0
	for _, c := range p.containers() {
		if c.State.Running {
			running++
		}
	}
	require.LessOrEqual(p.t, running, 1)
}

// The test's own binary must have failpoints, or nothing dies.
func TestFailpoints(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	require.Equal(t, errKilled, p.inChild(p.step(release.StepInstall, "v1"), false, "container.planned"), "run with -tags failpoint")
	require.Len(t, dockerlab.Tags, 5)
}
