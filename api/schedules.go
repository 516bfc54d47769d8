package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/schedule"
	"github.com/quicflow/quicflow/internal/store"
)

// Schedules makes the stored schedules fire. Its methods are safe for concurrent use.
type Schedules interface {
	// Apply makes it so that a schedule fires as it is stored now; one that was deleted fires no more. After an error that happens
	// later, by the reconciler.
	Apply(ctx context.Context, id string) error
	// Next gives the next fires, in the zone of the schedule.
	Next(ctx context.Context, s release.Schedule) ([]time.Time, error)
	// Trigger lets a schedule fire now. It answers release.ErrConflict where the overlap policy forbids it.
	Trigger(ctx context.Context, s release.Schedule, by string) (release.Fire, error)
}

// Numbers of the next fires.
const (
	shownNext  = 5
	maxPreview = 100
)

// NewSchedule is a schedule to be made, or put in the place of another.
type NewSchedule struct {
	Name string `json:"name" doc:"Unique, DNS-like: lower case letters, digits, dots and dashes"`
	release.Plan
	Revision int64 `json:"revision,omitempty" minimum:"0" doc:"Of the schedule that is replaced: if it was changed since, the answer is 409. Left out: whatever it is by now"`
}

// ScheduleChange is what is to be different; what is left out stays.
type ScheduleChange struct {
	Name          *string           `json:"name,omitempty"`
	Task          *release.NewTask  `json:"task,omitempty"`
	At            *time.Time        `json:"at,omitempty" doc:"In place of cron"`
	Cron          *string           `json:"cron,omitempty" maxLength:"200" doc:"In place of at"`
	Timezone      *string           `json:"timezone,omitempty" maxLength:"100"`
	Overlap       *release.Overlap  `json:"overlap,omitempty" enum:"skip,buffer_one,allow"`
	CatchupWindow *release.Duration `json:"catchup_window,omitempty"`
	Jitter        *release.Duration `json:"jitter,omitempty"`
	Paused        *bool             `json:"paused,omitempty"`
	Note          *string           `json:"note,omitempty" maxLength:"500"`
	Revision      int64             `json:"revision,omitempty" minimum:"0" doc:"If it was changed since, the answer is 409"`
}

// ScheduleList is a page of schedules.
type ScheduleList struct {
	Schedules []release.Schedule `json:"schedules"`
	Total     int                `json:"total" doc:"How many match, on all pages"`
}

// FireList is a page of a schedule's fires.
type FireList struct {
	Fires []release.Fire `json:"fires"`
	Total int            `json:"total" doc:"How many match, on all pages"`
}

// ScheduleTimes asks when a schedule would fire.
type ScheduleTimes struct {
	release.When
	After *time.Time `json:"after,omitempty" doc:"Defaults to now"`
}

// SchedulePreview is when a schedule would fire.
type SchedulePreview struct {
	release.When
	Next []time.Time `json:"next" doc:"In the schedule's zone, without jitter: exactly when Temporal would fire"`
}

// ScheduleNote is what a person may say when a schedule is paused or resumed.
type ScheduleNote struct {
	Note string `json:"note,omitempty" maxLength:"500" doc:"Kept with the schedule"`
}

// SchedulePath names a schedule.
type SchedulePath struct {
	Ref string `path:"schedule" doc:"Id or name"`
}

type scheduleQuery struct {
	Project string `query:"project" doc:"Id or name"`
	Page
}

type fireQuery struct {
	SchedulePath
	State string `query:"state" enum:"requested,started,failed,skipped,missed"`
	Page
}

type previewInput struct {
	Count int `query:"count" default:"5" minimum:"1" maximum:"100" doc:"How many fires"`
	Body  ScheduleTimes
}

func (s *server) registerSchedules(api huma.API) {
	const path = "/api/release/schedules"
	tags := []string{"schedules"}
	register(s, api, huma.Operation{
		OperationID: "create-schedule", Method: http.MethodPost, Path: path, Tags: tags, MaxBodyBytes: MaxTaskBody,
		Summary: "Make a schedule: a task once at a time, or by cron", DefaultStatus: http.StatusCreated,
		Description: "The schedule is stored before this answers, and then comes into effect by itself. Its task is checked now, and again at each fire.",
	}, func(ctx context.Context, in *struct{ Body NewSchedule }) (*reply[release.Schedule], error) {
		made := release.Schedule{Name: in.Body.Name, Plan: in.Body.Plan.WithDefaults(), CreatedBy: principal(ctx)}
		if err := s.checkSchedule(ctx, &made, nil); err != nil {
			return nil, err
		}
		if err := s.Store.CreateSchedule(ctx, &made); err != nil {
			return nil, err
		}
		return s.scheduleInEffect(ctx, made.ID)
	})
	register(s, api, huma.Operation{
		OperationID: "preview-schedule", Method: http.MethodPost, Path: path + "/preview", Tags: tags, Summary: "Show when a schedule would fire",
		Description: "Nothing is stored or done.",
	}, func(_ context.Context, in *previewInput) (*reply[SchedulePreview], error) {
		made := release.Schedule{Name: "preview", Plan: release.Plan{When: in.Body.When}.WithDefaults()}
		if err := made.Validate(); err != nil {
			return nil, err
		}
		spec, err := schedule.Parse(made.When)
		if err != nil {
			return nil, err
		}
		after := s.Now()
		if in.Body.After != nil {
			after = *in.Body.After
		}
		return replyWith(SchedulePreview{When: made.When, Next: list(schedule.InZone(made.When, spec.Upcoming(after, min(in.Count, maxPreview))))}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-schedules", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List schedules",
		Description: "The next fires are those of the expressions, without jitter; a single schedule has them as Temporal has.",
	}, func(ctx context.Context, in *scheduleQuery) (*reply[ScheduleList], error) {
		found, total, err := s.Store.Schedules(ctx, store.ScheduleFilter{Project: in.Project, Limit: in.Limit, Offset: in.Offset})
		if err != nil {
			return nil, err
		}
		for i := range found {
			if spec, err := schedule.Parse(found[i].When); err == nil && !found[i].Paused {
				found[i].Next = list(schedule.InZone(found[i].When, spec.Upcoming(s.Now(), shownNext)))
			}
		}
		return replyWith(ScheduleList{Schedules: list(found), Total: total}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-schedule", Method: http.MethodGet, Path: path + "/{schedule}", Tags: tags, Summary: "Get a schedule, with its next and latest fires",
	}, func(ctx context.Context, in *SchedulePath) (*reply[release.Schedule], error) {
		return s.schedule(ctx, in.Ref)
	})
	register(s, api, huma.Operation{
		OperationID: "replace-schedule", Method: http.MethodPut, Path: path + "/{schedule}", Tags: tags, MaxBodyBytes: MaxTaskBody,
		Summary: "Put a schedule in the place of another", Description: "It keeps its id and its fires.",
	}, func(ctx context.Context, in *struct {
		SchedulePath
		Body NewSchedule
	}) (*reply[release.Schedule], error) {
		return s.changeSchedule(ctx, in.Ref, in.Body.Revision, func(stored *release.Schedule) {
			stored.Name, stored.Plan = in.Body.Name, in.Body.Plan.WithDefaults()
		})
	})
	register(s, api, huma.Operation{
		OperationID: "change-schedule", Method: http.MethodPatch, Path: path + "/{schedule}", Tags: tags, MaxBodyBytes: MaxTaskBody,
		Summary: "Change parts of a schedule",
	}, func(ctx context.Context, in *struct {
		SchedulePath
		Body ScheduleChange
	}) (*reply[release.Schedule], error) {
		if in.Body.At != nil && in.Body.Cron != nil {
			return nil, release.Invalid("at", "give at or cron, not both")
		}
		return s.changeSchedule(ctx, in.Ref, in.Body.Revision, in.Body.apply)
	})
	register(s, api, huma.Operation{
		OperationID: "delete-schedule", Method: http.MethodDelete, Path: path + "/{schedule}", Tags: tags, Summary: "Delete a schedule",
		Description: "What it started goes on; its tasks stay.", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *SchedulePath) (*struct{}, error) {
		stored, err := s.Store.Schedule(ctx, in.Ref)
		if err != nil {
			return nil, err
		}
		if err := s.Store.DeleteSchedule(ctx, stored.ID); err != nil {
			return nil, err
		}
		s.Bus.Notify(bus.Schedules)
		s.applySchedule(ctx, stored.ID)
		return nil, nil
	})
	for _, control := range []struct {
		name, summary string
		paused        bool
	}{
		{"pause", "Let a schedule fire only when it is triggered", true},
		{"resume", "Let a paused schedule fire again; what was due meanwhile is left out", false},
	} {
		register(s, api, huma.Operation{
			OperationID: control.name + "-schedule", Method: http.MethodPost, Path: path + "/{schedule}/" + control.name, Tags: tags, Summary: control.summary,
		}, func(ctx context.Context, in *struct {
			SchedulePath
			Body *ScheduleNote
		}) (*reply[release.Schedule], error) {
			return s.changeSchedule(ctx, in.Ref, 0, func(stored *release.Schedule) {
				stored.Paused, stored.Note = control.paused, ""
				if in.Body != nil {
					stored.Note = in.Body.Note
				}
			})
		})
	}
	register(s, api, huma.Operation{
		OperationID: "trigger-schedule", Method: http.MethodPost, Path: path + "/{schedule}/trigger", Tags: tags,
		Summary: "Let a schedule fire now, paused or not", DefaultStatus: http.StatusAccepted,
		Description: "The fire is stored before this answers, and comes about by itself. Answers 409 while an earlier rollout is at work, where the overlap policy is skip.",
	}, func(ctx context.Context, in *SchedulePath) (*reply[release.Fire], error) {
		stored, err := s.Store.Schedule(ctx, in.Ref)
		if err != nil {
			return nil, err
		}
		fire, err := s.Schedules.Trigger(ctx, stored, principal(ctx))
		if err != nil {
			return nil, err
		}
		s.Bus.Notify(bus.Schedules)
		return replyWith(fire), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-fires", Method: http.MethodGet, Path: path + "/{schedule}/fires", Tags: tags,
		Summary: "List the fires of a schedule, the latest first", Description: "The latest 1,000 are kept.",
	}, func(ctx context.Context, in *fireQuery) (*reply[FireList], error) {
		stored, err := s.Store.Schedule(ctx, in.Ref)
		if err != nil {
			return nil, err
		}
		fires, total, err := s.Store.Fires(ctx, stored.ID, store.FireFilter{State: release.FireState(in.State), Limit: in.Limit, Offset: in.Offset})
		if err != nil {
			return nil, err
		}
		return replyWith(FireList{Fires: list(fires), Total: total}), nil
	})
}

func (s *server) schedule(ctx context.Context, ref string) (*reply[release.Schedule], error) {
	stored, err := s.Store.Schedule(ctx, ref)
	if err != nil {
		return nil, err
	}
	if stored.Next, err = s.Schedules.Next(ctx, stored); err != nil {
		return nil, err
	}
	stored.Next = list(stored.Next)
	return replyWith(stored), nil
}

// changeSchedule stores a change and lets it come into effect.
func (s *server) changeSchedule(ctx context.Context, ref string, revision int64, change func(*release.Schedule)) (*reply[release.Schedule], error) {
	before, err := s.Store.Schedule(ctx, ref)
	if err != nil {
		return nil, err
	}
	after := before
	change(&after)
	if err := s.checkSchedule(ctx, &after, &before); err != nil {
		return nil, err
	}
	if revision == 0 {
		revision = before.Revision // what was checked is what is stored
	}
	if err := s.Store.UpdateSchedule(ctx, &after, revision); err != nil {
		return nil, err
	}
	return s.scheduleInEffect(ctx, after.ID)
}

// checkSchedule validates a schedule that is to be stored. What a change leaves as it is need not be possible any more.
func (s *server) checkSchedule(ctx context.Context, made, before *release.Schedule) error {
	if err := made.Validate(); err != nil {
		return err
	}
	if _, err := schedule.Parse(made.When); err != nil {
		return err
	}
	if made.At != nil && (before == nil || before.At == nil || !before.At.Equal(*made.At)) && !made.At.After(s.Now()) {
		return release.Invalid("at", "%s is over", made.At.Format(time.RFC3339))
	}
	if before != nil && reflect.DeepEqual(before.Task, made.Task) {
		return nil
	}
	task, err := s.planner().Plan(ctx, made.Task)
	if err == nil && len(task.Targets.Clients) > 0 { // what a selector picks may change until then
		_, err = s.Store.ResolveTargets(ctx, task.Targets)
	}
	if err != nil {
		return release.Under("task", err)
	}
	made.ProjectID = task.ProjectID
	return nil
}

// scheduleInEffect lets a stored schedule come into effect, and gives it.
func (s *server) scheduleInEffect(ctx context.Context, id string) (*reply[release.Schedule], error) {
	failpoint.Here("api.schedule.committed")
	s.Bus.Notify(bus.Schedules)
	s.applySchedule(ctx, id)
	return s.schedule(ctx, id)
}

// applySchedule goes on without a client that left and a Temporal that is away: what is stored will come about.
func (s *server) applySchedule(ctx context.Context, id string) {
	if err := s.Schedules.Apply(context.WithoutCancel(ctx), id); err != nil && !errors.Is(err, release.ErrNotFound) {
		s.Logger.WarnContext(ctx, "schedule not in effect yet; the reconciler will see to it", "schedule", id, "error", err)
	}
}

func (c ScheduleChange) apply(stored *release.Schedule) {
	if c.Name != nil {
		stored.Name = *c.Name
	}
	if c.Task != nil {
		stored.Task = *c.Task
	}
	if c.At != nil {
		stored.At, stored.Cron = c.At, ""
	}
	if c.Cron != nil {
		stored.At, stored.Cron = nil, *c.Cron
	}
	if c.Timezone != nil {
		stored.Timezone = *c.Timezone
	}
	if c.Overlap != nil {
		stored.Overlap = *c.Overlap
	}
	if c.CatchupWindow != nil {
		stored.CatchupWindow = *c.CatchupWindow
	}
	if c.Jitter != nil {
		stored.Jitter = *c.Jitter
	}
	if c.Paused != nil {
		stored.Paused = *c.Paused
	}
	if c.Note != nil {
		stored.Note = *c.Note
	}
	stored.Plan = stored.Plan.WithDefaults()
}
