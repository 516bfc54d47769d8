package release

// GitSpec is the configuration of a git project: a checkout for each commit in PATH/releases, and a symlink PATH/current to the one
// in use.
type GitSpec struct {
	Repository   string            `json:"repository,omitempty" layer:"p" group:"source" doc:"https, http, ssh or file URL, or user@host:path" example:"git@example.com:team/site.git"`
	Auth         *GitAuth          `json:"auth,omitempty" layer:"p"`
	Ref          string            `json:"ref,omitempty" layer:"pvt" doc:"Branch, tag or commit. A version must have one, unless its project has" example:"v2.4.0"`
	Depth        *int              `json:"depth,omitempty" minimum:"0" layer:"pv" doc:"Commits of history to fetch; 0 is all. Defaults to 1"`
	Submodules   bool              `json:"submodules,omitempty" layer:"p" doc:"Fetch submodules too"`
	LFS          bool              `json:"lfs,omitempty" layer:"p" doc:"Fetch what Git LFS holds; git-lfs must be installed"`
	Path         string            `json:"path,omitempty" layer:"p" group:"files" doc:"Absolute path of the releases. Defaults to a directory of the project's own below the agent's data directory" example:"/srv/site"`
	KeepReleases int               `json:"keep_releases,omitempty" minimum:"0" maximum:"100" layer:"pv" doc:"Release directories to keep, that of the current one included. Defaults to 3"`
	Shared       []string          `json:"shared,omitempty" layer:"p" doc:"Paths within a release that lead to PATH/shared, so that releases have them in common" example:"[\"storage\",\".env\"]"`
	User         string            `json:"user,omitempty" layer:"pv" group:"process" doc:"User, or user:group, that git and the scripts run as; the agent must be root. Defaults to the agent's own"`
	Env          map[string]string `json:"env,omitempty" layer:"pvt" merge:"keys" doc:"Environment of the scripts"`
	Interpreter  string            `json:"interpreter,omitempty" layer:"pv" doc:"Program that runs the scripts. Defaults to /bin/sh"`
	Timeout      Duration          `json:"timeout,omitempty" layer:"pvt" doc:"For the whole step. Defaults to 10m"`
	PreScript    string            `json:"pre_script,omitempty" layer:"pv" group:"scripts" expand:"no" doc:"Runs in the new release directory before current leads to it. A version's replaces the project's" format:"script"`
	PostScript   string            `json:"post_script,omitempty" layer:"pv" expand:"no" doc:"Runs in the new release directory after current leads to it; if it fails, current leads back. A version's replaces the project's" format:"script"`
	Uninstall    string            `json:"uninstall,omitempty" layer:"pv" expand:"no" doc:"Runs in the current release before an uninstall removes the releases" format:"script"`
	Health       *Health           `json:"health,omitempty" layer:"pv" expand:"no" doc:"Check by the agent after the switch; if it fails, current leads back. A version's replaces the project's as a whole"`
}

// GitAuth is how to log in to a repository's host. Give secrets as ${NAME} of a secret variable.
type GitAuth struct {
	Username   string `json:"username,omitempty" doc:"For http and https. Defaults to git with a token"`
	Password   string `json:"password,omitempty" doc:"Password or token for http and https" example:"${GIT_TOKEN}"`
	SSHKey     string `json:"ssh_key,omitempty" doc:"Private key for ssh, without a passphrase" example:"${DEPLOY_KEY}" format:"text"`
	KnownHosts string `json:"known_hosts,omitempty" doc:"Lines of a known_hosts file. Without them the host must be known to the agent's user" format:"text"`
	CACert     string `json:"ca_cert,omitempty" doc:"PEM, of an https host with a CA of its own" format:"text"`
}

func (s *GitSpec) fillDefaults(filled func(path string), _ Version) {
	d := defaulter{filled}
	byDefault(d, "interpreter", &s.Interpreter, DefaultInterpreter)
	byDefault(d, "timeout", &s.Timeout, Duration(DefaultStepTimeout))
	byDefault(d, "keep_releases", &s.KeepReleases, DefaultKeepReleases)
	if s.Depth == nil {
		one := 1
		s.Depth = &one
		filled("depth")
	}
	s.Health = s.Health.filled()
}

// GitRef is a branch or a tag of a repository.
type GitRef struct {
	Name   string `json:"name" example:"v2.4.0"`
	Kind   string `json:"kind" enum:"branch,tag"`
	Commit string `json:"commit" doc:"That it leads to"`
	// Default says that it is the branch which the repository's HEAD names.
	Default bool `json:"default,omitempty"`
}
