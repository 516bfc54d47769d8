package release

// ScriptSpec is the configuration of a script project.
type ScriptSpec struct {
	Interpreter  string            `json:"interpreter,omitempty" layer:"pv" doc:"Program that runs the scripts. Defaults to /bin/sh"`
	User         string            `json:"user,omitempty" layer:"pv" doc:"User, or user:group, that the scripts run as; the agent must be root. Defaults to the agent's own"`
	WorkDir      string            `json:"work_dir,omitempty" layer:"pv" doc:"Absolute path the scripts run in. Defaults to a directory of the project's own below the agent's data directory"`
	Env          map[string]string `json:"env,omitempty" layer:"pvt" merge:"keys" doc:"Environment of the scripts"`
	Timeout      Duration          `json:"timeout,omitempty" layer:"pvt" doc:"For all scripts of a step together. Defaults to 10m"`
	Limits       *ProcessLimits    `json:"limits,omitempty" layer:"pvt" merge:"fields" doc:"Of what the scripts may use"`
	Artifacts    []Artifact        `json:"artifacts,omitempty" layer:"v" doc:"Delivered to WORK_DIR/releases/VERSION before the scripts, which run there; WORK_DIR/current leads to it afterwards"`
	KeepReleases int               `json:"keep_releases,omitempty" minimum:"0" maximum:"100" layer:"pv" doc:"Release directories to keep, that of the current one included. Defaults to 3"`
	PreScript    string            `json:"pre_script,omitempty" layer:"pv" expand:"no" doc:"Runs before the main script. A version's replaces the project's"`
	Install      string            `json:"install,omitempty" layer:"v" expand:"no" doc:"Runs on a host that has no version of the project yet"`
	Update       string            `json:"update,omitempty" layer:"v" expand:"no" doc:"Runs on a host that has a version. Defaults to install"`
	Rollback     string            `json:"rollback,omitempty" layer:"v" expand:"no" doc:"Runs when a host returns to this version. Defaults to update, then install"`
	Uninstall    string            `json:"uninstall,omitempty" layer:"v" expand:"no" doc:"Removes this version from a host. Without it, a version without artifacts cannot be uninstalled"`
	PostScript   string            `json:"post_script,omitempty" layer:"pv" expand:"no" doc:"Runs after the main script. A version's replaces the project's"`
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

func (s *ScriptSpec) validate(field string, layer Layer) error {
	if layer == LayerVersion && s.Install == "" && len(s.Artifacts) == 0 {
		return Invalid(field+".install", "a version needs a script that installs it, or artifacts")
	}
	return validateScriptCommon(field, s.Interpreter, s.WorkDir, s.Env, s.Timeout, s.Health,
		s.PreScript, s.Install, s.Update, s.Rollback, s.Uninstall, s.PostScript)
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
