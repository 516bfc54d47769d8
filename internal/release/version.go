package release

import (
	"time"

	"github.com/quicflow/quicflow/internal/lazyregexp"
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
	Spec
	Revision  int64     `json:"revision" doc:"Rises with each change; the ETag is made of it"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

var versionForm = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`)

// Validate checks a version as a user gave it, but for its configuration.
func (v *Version) Validate() error {
	if !versionForm.MatchString(v.Name) {
		return Invalid("version", "%q must be 1 to 128 letters, digits, dots, dashes, underscores or plus signs", v.Name)
	}
	switch v.Status {
	case VersionDraft, VersionActive, VersionDeprecated:
	default:
		return Invalid("status", "%q is none of draft, active, deprecated", v.Status)
	}
	return nil
}

// ValidateFor is Validate for a version of a project of this type.
func (v *Version) ValidateFor(t Type) error {
	if err := v.Validate(); err != nil {
		return err
	}
	return v.validateLayer(t, LayerVersion, "")
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
