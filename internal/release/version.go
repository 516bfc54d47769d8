package release

import (
	"regexp"
	"time"
)

// VersionStatus says whether a version may be deployed.
type VersionStatus string

// The statuses of a version.
const (
	VersionDraft      VersionStatus = "draft"      // being written; cannot be deployed
	VersionActive     VersionStatus = "active"     // may be deployed
	VersionDeprecated VersionStatus = "deprecated" // may be returned to by a rollback, not deployed anew
)

// Version is the layer of what runs.
type Version struct {
	ID        string        `json:"id"`
	ProjectID string        `json:"project_id"`
	Project   string        `json:"project" doc:"The project's name"`
	Name      string        `json:"version" doc:"Unique within its project"`
	Status    VersionStatus `json:"status" enum:"draft,active,deprecated"`
	Script    ScriptVersion `json:"script"`
	CreatedAt time.Time     `json:"created_at"`
	UpdatedAt time.Time     `json:"updated_at"`
}

// ScriptVersion is what a version of a script project runs.
type ScriptVersion struct {
	Interpreter string            `json:"interpreter,omitempty" doc:"Overrides the project's"`
	WorkDir     string            `json:"work_dir,omitempty" doc:"Overrides the project's"`
	Env         map[string]string `json:"env,omitempty" doc:"Adds to the project's, or overrides it, key by key"`
	Timeout     Duration          `json:"timeout,omitempty" doc:"Overrides the project's"`
	PreScript   string            `json:"pre_script,omitempty" doc:"If set, runs instead of the project's"`
	Install     string            `json:"install" doc:"Runs on a host that has no version of the project yet"`
	Update      string            `json:"update,omitempty" doc:"Runs on a host that has a version. Defaults to install"`
	Rollback    string            `json:"rollback,omitempty" doc:"Runs when a host returns to this version. Defaults to update, then install"`
	Uninstall   string            `json:"uninstall,omitempty" doc:"Removes this version from a host. Without it, this version cannot be uninstalled"`
	PostScript  string            `json:"post_script,omitempty" doc:"If set, runs instead of the project's"`
	Health      *Health           `json:"health,omitempty" doc:"If set, replaces the project's as a whole"`
}

var versionForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`)

// Validate checks a version as a user gave it.
func (v *Version) Validate() error {
	if !versionForm.MatchString(v.Name) {
		return Invalid("version", "%q must be 1 to 128 letters, digits, dots, dashes, underscores or plus signs", v.Name)
	}
	switch v.Status {
	case VersionDraft, VersionActive, VersionDeprecated:
	default:
		return Invalid("status", "%q is none of draft, active, deprecated", v.Status)
	}
	s := v.Script
	if s.Install == "" {
		return Invalid("script.install", "a version needs a script that installs it")
	}
	return validateScriptCommon("script", s.Interpreter, s.WorkDir, s.Env, s.Timeout, s.Health,
		s.PreScript, s.Install, s.Update, s.Rollback, s.Uninstall, s.PostScript)
}

// Deployable says whether a new task may deploy this version.
func (v *Version) Deployable() error {
	switch v.Status {
	case VersionActive:
		return nil
	case VersionDraft:
		return Invalid("version", "version %s of %s is a draft; set its status to active first", v.Name, v.Project)
	default:
		return Invalid("version", "version %s of %s is %s; only active versions are deployed", v.Name, v.Project, v.Status)
	}
}
