package release

import "time"

// MaxDescription bounds the description of anything, in bytes.
const MaxDescription = 2000

// Environment is a place that versions of a project go to, such as staging: variables of its own, and what its tasks do by default.
type Environment struct {
	ID          string    `json:"id"`
	ProjectID   string    `json:"project_id"`
	Project     string    `json:"project" doc:"The project's name"`
	Name        string    `json:"name" doc:"Unique within its project; lower case letters, digits, dots and dashes"`
	Description string    `json:"description,omitempty"`
	Selector    string    `json:"selector,omitempty" doc:"Hosts of a task in this environment that names none itself"`
	Strategy    Strategy  `json:"strategy,omitempty" doc:"For what a task in this environment leaves out of its own"`
	Revision    int64     `json:"revision" doc:"Rises with each change; the ETag is made of it"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

// Validate checks an environment as a user gave it.
func (e *Environment) Validate() error {
	if !nameForm.MatchString(e.Name) {
		return Invalid("name", "%s must be 1 to 63 lower case letters, digits, dots or dashes", quote(e.Name))
	}
	if err := validateDescription(e.Description); err != nil {
		return err
	}
	if e.Selector != "" {
		if _, err := ParseSelector(e.Selector); err != nil {
			return ErrorAt("selector", err)
		}
	}
	return e.Strategy.Validate()
}

func validateDescription(text string) error {
	if len(text) > MaxDescription {
		return Invalid("description", "takes %d bytes; the limit is %d", len(text), MaxDescription)
	}
	return nil
}

// Or fills what a strategy leaves out from another.
func (s Strategy) Or(other Strategy) Strategy {
	if s.Canary == nil {
		s.Canary = other.Canary
	}
	if s.Waves == nil {
		s.Waves = other.Waves
	}
	if s.MaxParallel == 0 {
		s.MaxParallel = other.MaxParallel
	}
	if s.MaxFailures == (Limit{}) {
		s.MaxFailures = other.MaxFailures
	}
	if s.OnFailure == "" {
		s.OnFailure = other.OnFailure
	}
	if s.Offline == "" {
		s.Offline = other.Offline
	}
	return s
}
