package release

import (
	"regexp"
	"time"
)

// Type is a deployment type.
type Type string

// TypeScript deploys by scripts that run on the host.
const TypeScript Type = "script"

// Project is the infrastructure layer: where and how something runs, whatever its version.
type Project struct {
	ID          string        `json:"id"`
	Name        string        `json:"name" doc:"Unique, DNS-like: lower case letters, digits, dots and dashes"`
	Description string        `json:"description,omitempty"`
	Type        Type          `json:"type" enum:"script"`
	Script      ScriptProject `json:"script" doc:"Defaults for every version of a script project"`
	CreatedAt   time.Time     `json:"created_at"`
	UpdatedAt   time.Time     `json:"updated_at"`
}

// ScriptProject holds what every version of a script project starts from.
type ScriptProject struct {
	Interpreter string            `json:"interpreter,omitempty" doc:"Program that runs the scripts. Defaults to /bin/sh"`
	WorkDir     string            `json:"work_dir,omitempty" doc:"Absolute path the scripts run in. Defaults to a directory of the project's own below the agent's data directory"`
	Env         map[string]string `json:"env,omitempty"`
	Timeout     Duration          `json:"timeout,omitempty" doc:"For all scripts of a step together. Defaults to 10m"`
	PreScript   string            `json:"pre_script,omitempty"`
	PostScript  string            `json:"post_script,omitempty"`
	Health      *Health           `json:"health,omitempty"`
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// Validate checks a project as a user gave it.
func (p *Project) Validate() error {
	if !nameForm.MatchString(p.Name) {
		return Invalid("name", "%q must be 1 to 63 lower case letters, digits, dots or dashes", p.Name)
	}
	if p.Type != TypeScript {
		return Invalid("type", "%q is not a deployment type; this server knows: script", p.Type)
	}
	s := p.Script
	return validateScriptCommon("script", s.Interpreter, s.WorkDir, s.Env, s.Timeout, s.Health, s.PreScript, s.PostScript)
}
