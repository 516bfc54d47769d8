package release

import "time"

// TaskTotal is how many tasks have a status, and for how long those that have ended went on, together.
type TaskTotal struct {
	Tasks int
	Took  time.Duration
}

// Counts is how many targets stand where.
type Counts struct {
	Total          int `json:"total"`
	Pending        int `json:"pending"`
	Running        int `json:"running"`
	Succeeded      int `json:"succeeded"`
	Failed         int `json:"failed"`
	Unknown        int `json:"unknown"`
	Offline        int `json:"offline"`
	Cancelled      int `json:"cancelled"`
	Skipped        int `json:"skipped"`
	RolledBack     int `json:"rolled_back"`
	RollbackFailed int `json:"rollback_failed"`
}

// Add counts n more targets in a state.
func (c *Counts) Add(state TargetState, n int) {
	c.Total += n
	switch state {
	case TargetPending:
		c.Pending += n
	case TargetRunning:
		c.Running += n
	case TargetSucceeded:
		c.Succeeded += n
	case TargetFailed:
		c.Failed += n
	case TargetUnknown:
		c.Unknown += n
	case TargetOffline:
		c.Offline += n
	case TargetCancelled:
		c.Cancelled += n
	case TargetSkipped:
		c.Skipped += n
	case TargetRolledBack:
		c.RolledBack += n
	case TargetRollbackFailed:
		c.RollbackFailed += n
	}
}

// Charged is what counts against a failure budget.
func (c Counts) Charged(offline Offline) int {
	n := c.Failed + c.Unknown
	if offline == OfflineFail {
		n += c.Offline
	}
	return n
}

// Plus adds two counts.
func (c Counts) Plus(o Counts) Counts {
	return Counts{
		Total: c.Total + o.Total, Pending: c.Pending + o.Pending, Running: c.Running + o.Running,
		Succeeded: c.Succeeded + o.Succeeded, Failed: c.Failed + o.Failed, Unknown: c.Unknown + o.Unknown,
		Offline: c.Offline + o.Offline, Cancelled: c.Cancelled + o.Cancelled, Skipped: c.Skipped + o.Skipped,
		RolledBack: c.RolledBack + o.RolledBack, RollbackFailed: c.RollbackFailed + o.RollbackFailed,
	}
}
