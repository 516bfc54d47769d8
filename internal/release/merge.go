package release

import (
	"maps"
	"slices"
)

// Layer is where a merged value came from.
type Layer string

// The layers, from the lowest to the highest.
const (
	LayerDefault Layer = "default" // QuicFlow's own
	LayerProject Layer = "project"
	LayerVersion Layer = "version"
	LayerTask    Layer = "task"
)

// ScriptConfig is the merged configuration of a script step.
type ScriptConfig struct {
	Interpreter string            `json:"interpreter"`
	WorkDir     string            `json:"work_dir,omitempty"`
	Env         map[string]string `json:"env"`
	Timeout     Duration          `json:"timeout"`
	PreScript   string            `json:"pre_script,omitempty"`
	Install     string            `json:"install"`
	Update      string            `json:"update"`
	Rollback    string            `json:"rollback"`
	Uninstall   string            `json:"uninstall,omitempty"`
	PostScript  string            `json:"post_script,omitempty"`
	Health      *Health           `json:"health,omitempty"`
	// Provenance gives the layer of each value by its path: "timeout", "env.PORT", "health".
	Provenance map[string]Layer `json:"provenance"`
}

// MergeScript merges project < version < task.
//
// Single values: the highest layer that sets one wins. Environment: key by key. Health: the version's replaces the
// project's as a whole. Pre- and post-script: a non-empty one of the version replaces the project's; never the task's.
// Update falls back to install, rollback to update.
func MergeScript(p ScriptProject, v ScriptVersion, o Override) ScriptConfig {
	c := ScriptConfig{Env: map[string]string{}, Provenance: map[string]Layer{}}

	c.Interpreter = pick(&c, "interpreter", layered[string]{DefaultInterpreter, p.Interpreter, v.Interpreter, ""})
	c.WorkDir = pick(&c, "work_dir", layered[string]{"", p.WorkDir, v.WorkDir, ""})
	c.Timeout = pick(&c, "timeout", layered[Duration]{Duration(DefaultStepTimeout), p.Timeout, v.Timeout, o.Timeout})
	c.PreScript = pick(&c, "pre_script", layered[string]{"", p.PreScript, v.PreScript, ""})
	c.PostScript = pick(&c, "post_script", layered[string]{"", p.PostScript, v.PostScript, ""})
	c.Install = pick(&c, "install", layered[string]{"", "", v.Install, ""})
	c.Update = pick(&c, "update", layered[string]{v.Install, "", v.Update, ""})
	c.Rollback = pick(&c, "rollback", layered[string]{c.Update, "", v.Rollback, ""})
	c.Uninstall = pick(&c, "uninstall", layered[string]{"", "", v.Uninstall, ""})

	for _, layer := range []struct {
		layer Layer
		env   map[string]string
	}{{LayerProject, p.Env}, {LayerVersion, v.Env}, {LayerTask, o.Env}} {
		for _, name := range slices.Sorted(maps.Keys(layer.env)) {
			c.Env[name] = layer.env[name]
			c.Provenance["env."+name] = layer.layer
		}
	}

	health, from := p.Health, LayerProject
	if v.Health != nil {
		health, from = v.Health, LayerVersion
	}
	if health != nil {
		h := health.WithDefaults()
		c.Health = &h
		c.Provenance["health"] = from
	}
	return c
}

// Script gives the script that carries out an action, and an error where the version has none for it.
func (c ScriptConfig) Script(action StepAction) (string, error) {
	switch action {
	case StepInstall:
		return c.Install, nil
	case StepUpdate:
		return c.Update, nil
	case StepRollbackTo:
		return c.Rollback, nil
	case StepUninstall:
		if c.Uninstall == "" {
			return "", Invalid("script.uninstall", "the version that runs has no uninstall script")
		}
		return c.Uninstall, nil
	}
	return "", Invalid("action", "%q is not an action", action)
}

type layered[T comparable] struct{ byDefault, project, version, task T }

// pick gives the value of the highest layer that is not zero, and notes that layer.
func pick[T comparable](c *ScriptConfig, path string, l layered[T]) T {
	var zero T
	for _, candidate := range []struct {
		layer Layer
		value T
	}{{LayerTask, l.task}, {LayerVersion, l.version}, {LayerProject, l.project}, {LayerDefault, l.byDefault}} {
		if candidate.value != zero {
			c.Provenance[path] = candidate.layer
			return candidate.value
		}
	}
	return zero
}
