package release

import (
	"slices"
	"time"
)

// Overlap says what happens to a fire of a schedule while the rollout of an earlier one is at work.
type Overlap string

// The overlap policies.
const (
	OverlapSkip      Overlap = "skip"       // the fire is left out
	OverlapBufferOne Overlap = "buffer_one" // the first such fire waits for the end of the rollout; others are left out
	OverlapAllow     Overlap = "allow"      // the fire starts a rollout beside it
)

// Overlaps are all overlap policies.
var Overlaps = []Overlap{OverlapSkip, OverlapBufferOne, OverlapAllow}

// Limits of schedules.
const (
	DefaultCatchupWindow = 10 * time.Minute
	MinCatchupWindow     = 10 * time.Second // Temporal knows no shorter one
	MaxCatchupWindow     = 365 * 24 * time.Hour
	MaxJitter            = 24 * time.Hour
	// MaxFires is how many fires of a schedule are kept, the latest.
	MaxFires = 1000
	// MaxNote is the longest note, in bytes.
	MaxNote = 500
)

// When says when a schedule fires: once, or again and again.
type When struct {
	At       *time.Time `json:"at,omitempty" doc:"Once, at this time; whole seconds"`
	Cron     string     `json:"cron,omitempty" maxLength:"200" doc:"Five fields (minute, hour, day of month, month, day of week) or @hourly, @daily, @weekly, @monthly, @yearly or @every 90m. With day of month and day of week both restricted, either is enough"`
	Timezone string     `json:"timezone,omitempty" maxLength:"100" doc:"IANA name of the zone whose clock cron reads, such as Europe/Berlin. Defaults to UTC"`
}

// Plan is what a user decides about a schedule, but for its name.
type Plan struct {
	Task NewTask `json:"task" doc:"What is rolled out; checked again at each fire"`
	When
	Overlap       Overlap  `json:"overlap,omitempty" enum:"skip,buffer_one,allow" default:"skip" doc:"What happens to a fire while the rollout of an earlier one is at work"`
	CatchupWindow Duration `json:"catchup_window,omitempty" doc:"How late a fire may still start, after the server was down; 10m by default, 10s at least"`
	Jitter        Duration `json:"jitter,omitempty" doc:"Each fire comes up to that much later, by chance"`
	Paused        bool     `json:"paused,omitempty" doc:"Whether it fires only when triggered"`
	Note          string   `json:"note,omitempty" maxLength:"500" doc:"For people: why it is paused, say"`
}

// Schedule makes tasks at their time.
type Schedule struct {
	ID        string `json:"id"`
	Name      string `json:"name" doc:"Unique, DNS-like: lower case letters, digits, dots and dashes"`
	ProjectID string `json:"project_id"`
	Project   string `json:"project"`
	Plan
	Next      []time.Time `json:"next" doc:"The next five fires, in the schedule's zone; none while it is paused or when it is over"`
	Last      []Fire      `json:"last" doc:"The latest ten fires, the latest first"`
	Missed    []Fire      `json:"missed" doc:"The latest ten fires that did not come about, because nothing ran at their time or within the catch-up window"`
	InEffect  bool        `json:"in_effect" doc:"Whether Temporal has it as it is here; if not, it will within seconds"`
	Revision  int64       `json:"revision" doc:"Rises with each change"`
	Since     time.Time   `json:"since" doc:"When its times last changed: nothing before is caught up with"`
	CreatedBy string      `json:"created_by"`
	CreatedAt time.Time   `json:"created_at"`
	UpdatedAt time.Time   `json:"updated_at"`
}

// WithDefaults fills what was left open.
func (p Plan) WithDefaults() Plan {
	if p.Timezone == "" {
		p.Timezone = "UTC"
	}
	if p.Overlap == "" {
		p.Overlap = OverlapSkip
	}
	p.CatchupWindow = p.CatchupWindow.or(DefaultCatchupWindow)
	return p
}

// SameTimes says whether two plans fire at the same times.
func (p Plan) SameTimes(other Plan) bool {
	sameAt := p.At == nil && other.At == nil || p.At != nil && other.At != nil && p.At.Equal(*other.At)
	return sameAt && p.Cron == other.Cron && p.Timezone == other.Timezone && p.Paused == other.Paused
}

// Validate checks a schedule with its defaults filled. Whether cron and timezone can be read is internal/schedule's to say,
// whether the task can be made is planning's.
func (s *Schedule) Validate() error {
	if !nameForm.MatchString(s.Name) {
		return Invalid("name", "%q must be 1 to 63 lower case letters, digits, dots or dashes", s.Name)
	}
	switch {
	case s.At == nil && s.Cron == "":
		return Invalid("cron", "say when: give cron, or at for once")
	case s.At != nil && s.Cron != "":
		return Invalid("at", "give at or cron, not both")
	case !slices.Contains(Overlaps, s.Overlap):
		return Invalid("overlap", "%q is not skip, buffer_one or allow", s.Overlap)
	case s.CatchupWindow.Std() < MinCatchupWindow || s.CatchupWindow.Std() > MaxCatchupWindow:
		return Invalid("catchup_window", "%s is not between %s and %s", s.CatchupWindow, MinCatchupWindow, MaxCatchupWindow)
	case s.Jitter.Std() > MaxJitter:
		return Invalid("jitter", "%s is longer than the limit of %s", s.Jitter, MaxJitter)
	case len(s.Note) > MaxNote:
		return Invalid("note", "is longer than the limit of %d bytes", MaxNote)
	}
	return nil
}

// FireState says what became of a fire.
type FireState string

// The states of a fire.
const (
	FireRequested FireState = "requested" // a person wants it; it is on its way
	FireStarted   FireState = "started"   // its task exists
	FireFailed    FireState = "failed"    // no task could be made; the reason says why
	FireSkipped   FireState = "skipped"   // left out on purpose, by the overlap policy or because the schedule had been paused or changed
	FireMissed    FireState = "missed"    // nothing ran at its time, nor within the catch-up window
)

// Final says whether a fire stays in this state, whatever comes late.
func (s FireState) Final() bool { return s == FireStarted || s == FireFailed }

// Fire is one time at which a schedule was to make a task. A schedule has at most one for a second.
type Fire struct {
	ScheduleID string    `json:"schedule_id"`
	Due        time.Time `json:"due" doc:"When it was due, without jitter; whole seconds"`
	State      FireState `json:"state" enum:"requested,started,failed,skipped,missed"`
	Reason     string    `json:"reason,omitempty" doc:"Why no task was made"`
	By         string    `json:"by,omitempty" doc:"Who triggered it; empty if it was due by itself"`
	TaskID     string    `json:"task_id,omitempty"`
	TaskStatus Status    `json:"task_status,omitempty" doc:"As it is now; empty if the task was deleted"`
	At         time.Time `json:"at" doc:"When that was recorded"`

	Ended *time.Time `json:"task_finished_at,omitempty"`
}

// Running says whether the fire's rollout is at work.
func (f Fire) Running() bool {
	return f.State == FireStarted && f.TaskStatus != "" && !f.TaskStatus.Terminal()
}
