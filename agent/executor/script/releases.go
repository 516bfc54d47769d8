package script

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

// What a version with artifacts has in its work directory.
const (
	releasesDir = "releases" // a directory for each version
	currentLink = "current"  // leads to the one that is in use
)

// Artifacts are those of the version.
func (Worker) Artifacts(step *executor.Step) []release.Artifact {
	if step.Config.Script == nil || step.Action == release.StepUninstall {
		return nil
	}
	return step.Config.Script.Artifacts
}

func checkArtifacts(step *executor.Step) error {
	for i, a := range step.Config.Script.Artifacts {
		field := fmt.Sprintf("script.artifacts[%d]", i)
		if a.Name == "" || a.Name == "." || !filepath.IsLocal(a.Name) || strings.ContainsAny(a.Name, "\x00\\") || path.Clean(a.Name) != a.Name {
			return release.Invalid(field+".name", "%q is not the name of a file", a.Name)
		}
	}
	return nil
}

func releaseDir(step *executor.Step) string {
	return filepath.Join(workDir(step), releasesDir, step.Version)
}
