package release

import (
	"slices"
	"strings"
	"time"
)

// Limits of variables.
const (
	MaxVariableBytes = 64 << 10 // of a value
	MaxVariables     = 500      // of a project, or of one of its environments
	MaxSecretBytes   = 64 << 10 // all values together that one configuration refers to
)

// Variable is a value that ${NAME} in a configuration stands for. An environment's goes before its project's.
type Variable struct {
	Project     string    `json:"project" doc:"The project's name"`
	Environment string    `json:"environment,omitempty" doc:"Empty: it counts in all environments that have none of this name"`
	Name        string    `json:"name" example:"DB_PASSWORD"`
	Value       string    `json:"value,omitempty" doc:"Never given back of a secret"`
	Secret      bool      `json:"secret" doc:"Kept encrypted, shown to nobody, and given to agents for the time of a step alone"`
	Description string    `json:"description,omitempty"`
	Revision    int64     `json:"revision" doc:"Rises with each change; the ETag is made of it"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

const maxVariableName = 128

// Validate checks a variable as a user gave it.
func (v *Variable) Validate() error {
	switch {
	case !envNameForm.MatchString(v.Name) || len(v.Name) > maxVariableName:
		return Invalid("name", "%s must be 1 to %d letters, digits or underscores, the first no digit", quote(v.Name), maxVariableName)
	case strings.HasPrefix(v.Name, reservedEnvPrefix):
		return Invalid("name", "names beginning with %s are QuicFlow's own", reservedEnvPrefix)
	case len(v.Value) > MaxVariableBytes:
		return Invalid("value", "takes %d bytes; the limit is %d", len(v.Value), MaxVariableBytes)
	case strings.ContainsRune(v.Value, 0):
		return Invalid("value", "has a NUL byte")
	}
	return validateDescription(v.Description)
}

// BuiltIns are what a server knows when it makes a task.
type BuiltIns struct {
	Release, Project, Version, Environment string
}

// Variables gives the Lookup for a task: the built-in variables, then those of the environment, then those of the project.
// Secrets, and what only a host knows, are put in later; so is a built-in that is empty in Release, as nobody knows it yet.
func Variables(b BuiltIns, variables []Variable) Lookup {
	known := make(map[string]Value, len(variables)+4)
	for _, v := range variables {
		if _, ok := known[v.Name]; !ok || v.Environment != "" {
			known[v.Name] = Value{Text: v.Value, Later: v.Secret}
		}
	}
	known[VarRelease] = Value{Text: b.Release, Later: b.Release == ""}
	known[VarProject] = Value{Text: b.Project}
	known[VarVersion] = Value{Text: b.Version}
	known[VarEnvironment] = Value{Text: b.Environment}
	return func(name string) (Value, bool) {
		if IsHostVariable(name) {
			return Value{Later: true}, true
		}
		v, ok := known[name]
		return v, ok
	}
}

// VariableUse is a variable that a value refers to.
type VariableUse struct {
	Name   string     `json:"name"`
	From   VariableOf `json:"from" enum:"environment,project,built_in,host,nowhere" doc:"Whose it is; host: what only a host knows; nowhere: there is none of this name"`
	Secret bool       `json:"secret,omitempty"`
}

// VariableOf says whose a variable is.
type VariableOf string

// Whose a variable may be.
const (
	OfEnvironment VariableOf = "environment"
	OfProject     VariableOf = "project"
	OfQuicFlow    VariableOf = "built_in"
	OfHost        VariableOf = "host"
	OfNobody      VariableOf = "nowhere"
)

// VariableUses gives the variables that the values of a configuration that is not expanded refer to, each once in the order of the text,
// by the paths of Flat. variables are those of the project and the environment.
func (c *Merged) VariableUses(variables []Variable) map[string][]VariableUse {
	builtIn := Variables(BuiltIns{}, nil)
	owner := func(name string) VariableUse {
		if _, ok := builtIn(name); ok {
			if IsHostVariable(name) {
				return VariableUse{Name: name, From: OfHost}
			}
			return VariableUse{Name: name, From: OfQuicFlow}
		}
		use := VariableUse{Name: name, From: OfNobody}
		for _, v := range variables {
			if v.Name == name && v.Environment != "" {
				return VariableUse{Name: name, From: OfEnvironment, Secret: v.Secret}
			}
			if v.Name == name {
				use = VariableUse{Name: name, From: OfProject, Secret: v.Secret}
			}
		}
		return use
	}
	verbatim := map[string]bool{}
	for _, rule := range Rules(c.Type) {
		verbatim[rule.Path] = !rule.Expand
	}
	uses := map[string][]VariableUse{}
	for path, text := range c.Flat() {
		top := path
		if cut := strings.IndexAny(path, ".["); cut >= 0 {
			top = path[:cut]
		}
		if verbatim[top] {
			continue
		}
		for _, found := range reference.FindAllStringSubmatch(text, -1) {
			if name := found[1]; name != "" && !slices.ContainsFunc(uses[path], func(u VariableUse) bool { return u.Name == name }) {
				uses[path] = append(uses[path], owner(name))
			}
		}
	}
	return uses
}

// References gives the names of the variables that a configuration refers to, each once, in no order.
func (c Merged) References() []string {
	seen := map[string]bool{}
	var names []string
	_, _ = c.Expand(func(name string) (Value, bool) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
		return Value{Later: true}, true
	}, false)
	return names
}
