package release

import "time"

// Action is what a task does on its targets.
type Action string

// The actions of a task.
const (
	ActionDeploy    Action = "deploy"    // install or update, as what each host runs demands
	ActionUninstall Action = "uninstall" // remove whatever version of the project each host runs
)

// Task rolls one version out to a set of targets.
type Task struct {
	ID            string     `json:"id"`
	ProjectID     string     `json:"project_id"`
	Project       string     `json:"project"`
	VersionID     string     `json:"version_id,omitempty"`
	Version       string     `json:"version,omitempty" doc:"Empty when the task uninstalls"`
	Environment   string     `json:"environment,omitempty" doc:"The environment's name"`
	EnvironmentID string     `json:"-"`
	ConfigID      string     `json:"config_id,omitempty" doc:"Of the configuration that it deploys; see get-config"`
	Action        Action     `json:"action" enum:"deploy,uninstall"`
	Targets       Targets    `json:"targets"`
	Strategy      Strategy   `json:"strategy"`
	Override      Override   `json:"override"`
	Status        Status     `json:"status" enum:"starting,running,paused,aborting,rolling_back,succeeded,partial,failed,aborted,rolled_back"`
	Phase         Phase      `json:"phase" enum:"plan,canary,soak,promotion,wave,rollback,done"`
	Wave          int        `json:"wave" doc:"0 is the canary"`
	Waves         []Wave     `json:"waves" doc:"As planned; empty before the plan"`
	Reason        string     `json:"reason,omitempty" doc:"Why the task is in this status, where there is more to say"`
	Counts        Counts     `json:"counts"`
	SoakUntil     *time.Time `json:"soak_until,omitempty"`
	CreatedBy     string     `json:"created_by"`
	CreatedAt     time.Time  `json:"created_at"`
	UpdatedAt     time.Time  `json:"updated_at"`
	FinishedAt    *time.Time `json:"finished_at,omitempty"`
	WorkflowID    string     `json:"workflow_id"`

	// Snapshot is stored with a new task; tasks that are read have none.
	Snapshot *Snapshot `json:"-"`
}

// Targets says which hosts a task is for. Given both, a host must be listed and match the selector.
type Targets struct {
	Clients  []string `json:"clients,omitempty" doc:"Client ids; each must be known"`
	Selector string   `json:"selector,omitempty" doc:"Such as env=prod,os=linux,!maintenance or id=web-*; * is every known agent"`
}

// Override is the task layer of a configuration.
type Override struct {
	Env     map[string]string `json:"env,omitempty" doc:"Added to the project's and the version's key by key, whatever the type"`
	Timeout Duration          `json:"timeout,omitempty" doc:"Overrides the version's, whatever the type"`
	Spec
}

// MaxTargets bounds the clients listed in one task.
const MaxTargets = 100_000

// Validate checks what a user may set on a new task; whether the names exist is the store's to say.
func (t *Task) Validate() error {
	switch t.Action {
	case ActionDeploy:
		if t.Version == "" {
			return Invalid("version", "name the version to deploy")
		}
	case ActionUninstall:
		if t.Version != "" {
			return Invalid("version", "an uninstall removes whatever version a host runs; leave it out")
		}
	default:
		return Invalid("action", "%q is neither deploy nor uninstall", t.Action)
	}
	if t.Project == "" {
		return Invalid("project", "name the project")
	}
	if len(t.Targets.Clients) == 0 && t.Targets.Selector == "" {
		return Invalid("targets", "is empty; list clients or give a selector (* is every known agent)")
	}
	if len(t.Targets.Clients) > MaxTargets {
		return Invalid("targets.clients", "lists %d clients; the limit is %d", len(t.Targets.Clients), MaxTargets)
	}
	if t.Targets.Selector != "" {
		if _, err := ParseSelector(t.Targets.Selector); err != nil {
			return err
		}
	}
	if t.Override.Timeout.Std() > MaxStepTimeout {
		return Invalid("override.timeout", "%s is longer than the limit of %s", t.Override.Timeout, MaxStepTimeout)
	}
	if err := ValidateEnv("override.env", t.Override.Env); err != nil {
		return err
	}
	return t.Strategy.Validate()
}

// ValidateFor checks what a task overrides of the configuration of a project of this type. Validate checks the rest.
func (t *Task) ValidateFor(of Type) error {
	return t.Override.validateLayer(of, LayerTask, "override.")
}

// WorkflowID names the workflow of a task so that a person finds it in the Temporal UI.
func WorkflowID(project, taskID string) string { return "release/" + project + "/" + taskID }
