package release

import (
	"slices"
	"time"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

// Project is the infrastructure layer: where and how something runs, whatever its version.
type Project struct {
	ID          string `json:"id"`
	Name        string `json:"name" doc:"Unique, DNS-like: lower case letters, digits, dots and dashes"`
	Description string `json:"description,omitempty"`
	Type        Type   `json:"type" enum:"script,container,git,kubernetes" doc:"Cannot be changed"`
	Spec
	Revision  int64     `json:"revision" doc:"Rises with each change; the ETag is made of it"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

var nameForm = lazyregexp.New(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// Validate checks a project as a user gave it.
func (p *Project) Validate() error {
	if !nameForm.MatchString(p.Name) {
		return Invalid("name", "%q must be 1 to 63 lower case letters, digits, dots or dashes", p.Name)
	}
	if !slices.Contains(Types, p.Type) {
		return Invalid("type", "%q is not a deployment type; they are script, container, git and kubernetes", p.Type)
	}
	if err := validateDescription(p.Description); err != nil {
		return err
	}
	return p.validateLayer(p.Type, LayerProject, "")
}
