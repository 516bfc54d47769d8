package release

import (
	"fmt"
	"strings"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

// ScriptSpec is the configuration of a script project.
type ScriptSpec struct {
	Interpreter  string            `json:"interpreter,omitempty" layer:"pv" group:"process" doc:"Program that runs the scripts. Defaults to /bin/sh"`
	User         string            `json:"user,omitempty" layer:"pv" doc:"User, or user:group, that the scripts run as; the agent must be root. Defaults to the agent's own"`
	WorkDir      string            `json:"work_dir,omitempty" layer:"pv" doc:"Absolute path the scripts run in. Defaults to a directory of the project's own below the agent's data directory"`
	Env          map[string]string `json:"env,omitempty" layer:"pvt" merge:"keys" doc:"Environment of the scripts"`
	Timeout      Duration          `json:"timeout,omitempty" layer:"pvt" doc:"For all scripts of a step together. Defaults to 10m"`
	Limits       *ProcessLimits    `json:"limits,omitempty" layer:"pvt" merge:"fields" doc:"Of what the scripts may use"`
	Artifacts    []Artifact        `json:"artifacts,omitempty" layer:"v" group:"files" doc:"Delivered to WORK_DIR/releases/VERSION before the scripts, which run there; WORK_DIR/current leads to it afterwards"`
	KeepReleases int               `json:"keep_releases,omitempty" minimum:"0" maximum:"100" layer:"pv" doc:"Release directories to keep, that of the current one included. Defaults to 3"`
	PreScript    string            `json:"pre_script,omitempty" layer:"pv" group:"scripts" expand:"no" doc:"Runs before the main script. A version's replaces the project's" format:"script"`
	Install      string            `json:"install,omitempty" layer:"v" expand:"no" doc:"Runs on a host that has no version of the project yet" format:"script"`
	Update       string            `json:"update,omitempty" layer:"v" expand:"no" doc:"Runs on a host that has a version. Defaults to install" format:"script"`
	Rollback     string            `json:"rollback,omitempty" layer:"v" expand:"no" doc:"Runs when a host returns to this version. Defaults to update, then install" format:"script"`
	Uninstall    string            `json:"uninstall,omitempty" layer:"v" expand:"no" doc:"Removes this version from a host. Without it, a version without artifacts cannot be uninstalled" format:"script"`
	PostScript   string            `json:"post_script,omitempty" layer:"pv" expand:"no" doc:"Runs after the main script. A version's replaces the project's" format:"script"`
	Health       *Health           `json:"health,omitempty" layer:"pv" expand:"no" doc:"Check by the agent after the scripts. A version's replaces the project's as a whole"`
}

// ProcessLimits bound what the processes of a step's scripts may use. Memory, CPUs and Processes count for all of them together where
// the host's cgroups (v2) can be used, and otherwise, but for CPUs, for each (ulimit).
type ProcessLimits struct {
	Memory    Bytes   `json:"memory,omitempty" doc:"Such as 512m"`
	CPUs      float64 `json:"cpus,omitempty" minimum:"0" doc:"Such as 0.5"`
	Processes int     `json:"processes,omitempty" minimum:"0"`
	OpenFiles int     `json:"open_files,omitempty" minimum:"0"`
	FileSize  Bytes   `json:"file_size,omitempty" doc:"Of any file that is written"`
}

func (s *ScriptSpec) fillDefaults(filled func(path string), v Version) {
	d := defaulter{filled}
	byDefault(d, "interpreter", &s.Interpreter, DefaultInterpreter)
	byDefault(d, "timeout", &s.Timeout, Duration(DefaultStepTimeout))
	byDefault(d, "update", &s.Update, s.Install)
	byDefault(d, "rollback", &s.Rollback, s.Update)
	if len(s.Artifacts) > 0 {
		byDefault(d, "keep_releases", &s.KeepReleases, DefaultKeepReleases)
	}
	s.Health = s.Health.filled()
}

// Limits of scripts.
const (
	maxArtifacts    = 100
	maxArtifactPath = 255
)

var (
	sha256Form = lazyregexp.New(`^[0-9a-f]{64}$`)
	modeForm   = lazyregexp.New(`^0?[0-7]{3}$`)
)

func (s *ScriptSpec) validate(c *checker, layer Layer) {
	if (layer == LayerVersion || layer == layerMerged) && s.Install == "" && len(s.Artifacts) == 0 {
		c.fail("install", "a version needs a script that installs it, or artifacts")
	}
	c.form("user", s.User, userForm, "a user, or user:group")
	c.absolute("work_dir", s.WorkDir)
	if s.WorkDir == "/" && len(s.Artifacts) > 0 {
		c.fail("work_dir", "the root of the host cannot hold releases")
	}
	c.between("keep_releases", int64(s.KeepReleases), 0, maxKeepReleases)
	if l := s.Limits; l != nil {
		if l.CPUs < 0 || l.CPUs > 10000 {
			c.fail("limits.cpus", "%v is not between 0 and 10000", l.CPUs)
		}
		c.between("limits.processes", int64(l.Processes), 0, 1<<22)
		c.between("limits.open_files", int64(l.OpenFiles), 0, 1<<30)
	}
	if len(s.Artifacts) > maxArtifacts {
		c.fail("artifacts", "has %d artifacts; the limit is %d", len(s.Artifacts), maxArtifacts)
	}
	for i, a := range s.Artifacts {
		c.artifact(fmt.Sprintf("artifacts[%d].", i), a)
	}
	c.distinct(len(s.Artifacts), func(i int) (at, key string) { return fmt.Sprintf("artifacts[%d].name", i), s.Artifacts[i].Name })
	c.common(s.Env, s.Timeout, s.Interpreter, s.Health, s.PreScript, s.Install, s.Update, s.Rollback, s.Uninstall, s.PostScript)
}

func (c *checker) artifact(at string, a Artifact) {
	if len(a.Name) > maxArtifactPath || strings.ContainsAny(a.Name, "\n\r") {
		c.fail(at+"name", "is longer than %d characters, or has a line break", maxArtifactPath)
	}
	c.relative(at+"name", a.Name)
	if a.SHA256 == "" {
		c.fail(at+"sha256", "is missing: the SHA-256 of the content")
	}
	c.form(at+"sha256", a.SHA256, sha256Form, "64 hexadecimal digits in lower case")
	c.webURL(at+"url", a.URL)
	c.oneOf(at+"unpack", a.Unpack, "tar", "tar.gz", "tar.zst", "zip")
	c.between(at+"strip", int64(a.Strip), 0, 10)
	if a.Strip > 0 && a.Unpack == "" {
		c.fail(at+"strip", "is for archives that are unpacked")
	}
	c.form(at+"mode", a.Mode, modeForm, "an octal mode such as 0755")
	if a.Mode != "" && a.Unpack != "" {
		c.fail(at+"mode", "is for a file that is not unpacked")
	}
}

// Script gives the script that carries out an action; it may be empty where there are artifacts. It fails where the version cannot
// do it.
func (s *ScriptSpec) Script(action StepAction) (string, error) {
	switch action {
	case StepInstall:
		return s.Install, nil
	case StepUpdate:
		return s.Update, nil
	case StepRollbackTo:
		return s.Rollback, nil
	case StepUninstall:
		if s.Uninstall == "" && len(s.Artifacts) == 0 {
			return "", Invalid("script.uninstall", "the version that runs has no uninstall script")
		}
		return s.Uninstall, nil
	}
	return "", Invalid("action", "%q is not an action", action)
}
