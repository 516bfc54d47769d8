package release

// NewTask is a rollout to be made, previewed or scheduled.
type NewTask struct {
	Project     string   `json:"project" doc:"Id or name"`
	Version     string   `json:"version,omitempty" doc:"Id or name; left out when the task uninstalls"`
	Action      Action   `json:"action,omitempty" enum:"deploy,uninstall" default:"deploy"`
	Environment string   `json:"environment,omitempty" doc:"Id or name; its variables count, and what targets and strategy leave out comes from it"`
	Targets     Targets  `json:"targets,omitempty" doc:"Never empty for a task, unless its environment has a selector; there is no silent \"all\""`
	Strategy    Strategy `json:"strategy,omitempty"`
	Override    Override `json:"override,omitempty" doc:"The task's own layer of the configuration"`
}

// Task gives the task with its defaults filled, and with names where a planned one has ids too.
func (n NewTask) Task() Task {
	if n.Action == "" {
		n.Action = ActionDeploy
	}
	return Task{
		Project: n.Project, Version: n.Version, Action: n.Action,
		Targets: n.Targets, Strategy: n.Strategy.WithDefaults(), Override: n.Override,
	}
}
