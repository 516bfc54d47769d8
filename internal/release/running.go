package release

import (
	"fmt"
	"time"
)

// Running is what runs of a project on a host, as its agent found it by looking.
type Running struct {
	Project  string            `json:"project"`
	Type     Type              `json:"type" enum:"script,container,git,kubernetes"`
	State    RunState          `json:"state" enum:"ok,degraded,stopped,missing,changed,unknown"`
	Version  string            `json:"version,omitempty" doc:"That was deployed, as the host itself tells"`
	ConfigID string            `json:"config_id,omitempty" doc:"Of what was deployed, as the host itself tells"`
	TaskID   string            `json:"task_id,omitempty" doc:"That deployed it"`
	Since    time.Time         `json:"since,omitzero" doc:"When it began to run"`
	Reason   string            `json:"reason,omitempty" doc:"One line, where the state is not ok"`
	Details  map[string]string `json:"details,omitempty" doc:"By type: image, image_id, container_id, ports; commit, path; revision, ready, namespace"`
	Objects  []RunningObject   `json:"objects,omitempty" doc:"What belongs to it, such as pods; at most 20"`
}

// RunningObject is a part of what runs, such as a pod.
type RunningObject struct {
	Kind    string            `json:"kind"`
	Name    string            `json:"name"`
	State   string            `json:"state"`
	Reason  string            `json:"reason,omitempty"`
	Details map[string]string `json:"details,omitempty" doc:"By kind: of a pod its namespace, node, image, restarts and since when"`
}

// RunState is whether something runs as it was deployed.
type RunState string

// The states of what was deployed.
const (
	RunOK       RunState = "ok"       // it runs, or is in place
	RunDegraded RunState = "degraded" // it runs, but not as it should: unhealthy, restarting, pods missing
	RunStopped  RunState = "stopped"  // it is there and does not run
	RunMissing  RunState = "missing"  // nothing of it is there
	RunChanged  RunState = "changed"  // someone else changed it
	RunUnknown  RunState = "unknown"  // it cannot be found out: Reason says why
)

// Drift is how what runs on a host differs from what was deployed there.
type Drift string

// The kinds of drift.
const (
	DriftNone     Drift = "none"
	DriftVersion  Drift = "version"  // another version, or another configuration of it, runs
	DriftMissing  Drift = "missing"  // nothing runs
	DriftStopped  Drift = "stopped"  // it is there and does not run
	DriftDegraded Drift = "degraded" // it runs, but not as it should
	DriftChanged  Drift = "changed"  // someone else changed it
	DriftUnknown  Drift = "unknown"  // it could not be found out
)

// DriftOf compares what a host should run with what it does run.
func DriftOf(want Installation, found Running) (Drift, string) {
	switch found.State {
	case RunOK:
	case RunDegraded:
		return DriftDegraded, found.Reason
	case RunStopped:
		return DriftStopped, found.Reason
	case RunMissing:
		return DriftMissing, found.Reason
	case RunChanged:
		return DriftChanged, found.Reason
	default:
		return DriftUnknown, found.Reason
	}
	switch {
	case found.Version != "" && found.Version != want.Version:
		return DriftVersion, fmt.Sprintf("%s runs, %s was deployed", found.Version, want.Version)
	case found.ConfigID != "" && want.ConfigID != "" && found.ConfigID != want.ConfigID:
		return DriftVersion, fmt.Sprintf("%s runs with another configuration than was deployed", found.Version)
	case want.State == InstallationUnknown:
		return DriftUnknown, "whether " + want.Attempted + " was deployed is not known; " + found.Version + " runs"
	}
	return DriftNone, ""
}
