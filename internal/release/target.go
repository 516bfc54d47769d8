package release

import "time"

// Target is one host of a task.
type Target struct {
	TaskID          string      `json:"-"`
	ClientID        string      `json:"client_id"`
	Wave            int         `json:"wave"`
	State           TargetState `json:"state" enum:"pending,running,succeeded,failed,unknown,offline,cancelled,skipped,rolled_back,rollback_failed"`
	PreviousVersion string      `json:"previous_version,omitempty" doc:"What ran before the task; empty if nothing did"`
	Error           string      `json:"error,omitempty" doc:"One line: why it did not succeed"`
	ExitCode        *int        `json:"exit_code,omitempty"`
	StartedAt       *time.Time  `json:"started_at,omitempty"`
	FinishedAt      *time.Time  `json:"finished_at,omitempty"`
}

// Installation is what version of a project a host runs, as its agent last reported.
type Installation struct {
	ProjectID string            `json:"-"`
	Project   string            `json:"project"`
	ClientID  string            `json:"client_id"`
	VersionID string            `json:"-"`
	Version   string            `json:"version" doc:"Empty if nothing was ever installed"`
	State     InstallationState `json:"state" enum:"installed,failed,unknown"`
	Attempted string            `json:"attempted,omitempty" doc:"The version that failed, or whose outcome is unknown"`
	TaskID    string            `json:"task_id"`
	ConfigID  string            `json:"config_id,omitempty" doc:"Of the configuration that runs; see get-config"`
	UpdatedAt time.Time         `json:"updated_at"`

	InstalledAt *time.Time `json:"installed_at,omitempty" doc:"Since when the version runs"`
	InstalledBy string     `json:"installed_by,omitempty" doc:"The task that installed it"`
	Running     *Running   `json:"running,omitempty" doc:"What its agent reported last: then, or when a drift check asked it"`
}

// InstallationState says how far an Installation can be believed.
type InstallationState string

// The states of an installation.
const (
	InstallationInstalled InstallationState = "installed" // Version runs
	InstallationFailed    InstallationState = "failed"    // Version ran; changing to Attempted failed part way
	InstallationUnknown   InstallationState = "unknown"   // Version ran; whether Attempted runs now is not known
)
