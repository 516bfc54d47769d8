package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	schedulepb "go.temporal.io/api/schedule/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/schedule"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/workflows"
)

// ScheduleStore is what Schedules need of the store.
type ScheduleStore interface {
	Schedule(ctx context.Context, ref string) (release.Schedule, error)
	StoredSchedules(ctx context.Context) ([]store.StoredSchedule, error)
	SetScheduleInEffect(ctx context.Context, id string, revision int64) error
	ForgetSchedule(ctx context.Context, id string) error
	SettleFires(ctx context.Context, scheduleID string) (missed int, err error)
	Fire(ctx context.Context, scheduleID string, due time.Time) (release.Fire, error)
	RequestFire(ctx context.Context, f release.Fire) error
	RequestedFires(ctx context.Context) ([]release.Fire, error)
	RunningFires(ctx context.Context, scheduleID string) ([]release.Fire, error)
	RecordFire(ctx context.Context, f release.Fire) error
}

const (
	// schedulePrefix begins the ids of our schedules in Temporal.
	schedulePrefix = "quicflow-schedule/"
	// describeTimeout bounds how long a reader waits for what Temporal says of a schedule.
	describeTimeout = 3 * time.Second
	// fullComparison is how often every schedule is compared in all its parts; in between it is what the list shows.
	fullComparison = 10 * time.Minute
	// triggerPatience is how long a trigger may be on its way before it is sent again.
	triggerPatience = 10 * time.Second
	// triggerLimit is how long a trigger is tried to be sent.
	triggerLimit = 10 * time.Minute
	// nextShown is how many of the next fires are shown.
	nextShown = 5
)

func temporalID(scheduleID string) string { return schedulePrefix + scheduleID }

// Schedules makes Temporal's schedules follow the stored ones. All methods are safe for concurrent use.
type Schedules struct {
	Config
	compared time.Time // when all were compared the last time; only the reconciler's
}

// NewSchedules checks a Config and fills its defaults.
func NewSchedules(c Config) (*Schedules, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Schedules{Config: c}, nil
}

// Next gives the next fires of a schedule as Temporal has them, jitter included, in the zone of the schedule. While Temporal does
// not have the schedule as it is stored, or does not answer, they are computed, without jitter.
func (s *Schedules) Next(ctx context.Context, stored release.Schedule) ([]time.Time, error) {
	spec, err := schedule.Parse(stored.When)
	if err != nil {
		return nil, err
	}
	if stored.Paused {
		return []time.Time{}, nil
	}
	now := time.Now()
	times := spec.Upcoming(now, nextShown)
	if stored.InEffect {
		ctx, cancel := context.WithTimeout(ctx, describeTimeout)
		defer cancel()
		if there, err := s.Client.ScheduleClient().GetHandle(ctx, temporalID(stored.ID)).Describe(ctx); err == nil {
			// One that is over is what Temporal knew before it looked again, as after a time when nothing ran.
			if next := there.Info.NextActionTimes; len(next) == 0 || next[0].After(now) {
				times = next
			}
		} else if !isNotFound(err) {
			s.Logger.WarnContext(ctx, "cannot ask Temporal for the next fires of a schedule", "schedule", stored.Name, "error", err)
		}
	}
	return schedule.InZone(stored.When, times[:min(len(times), nextShown)]), nil
}

// Apply makes Temporal follow a schedule as it is stored now: creates, changes or deletes. After an error the reconciler does it.
func (s *Schedules) Apply(ctx context.Context, id string) error {
	stored, err := s.Store.Schedule(ctx, id)
	if errors.Is(err, release.ErrNotFound) {
		return s.remove(ctx, id)
	}
	if err != nil {
		return err
	}
	return s.apply(ctx, stored, false)
}

func (s *Schedules) remove(ctx context.Context, id string) error {
	if err := s.Client.ScheduleClient().GetHandle(ctx, temporalID(id)).Delete(ctx); err != nil && !isNotFound(err) {
		return fmt.Errorf("delete schedule %s: %w", id, err)
	}
	return s.Store.ForgetSchedule(ctx, id)
}

// apply creates or updates. One that is over is not created, unless it must be there.
func (s *Schedules) apply(ctx context.Context, stored release.Schedule, must bool) error {
	want, err := s.wanted(stored)
	if err != nil {
		return err
	}
	handle := s.Client.ScheduleClient().GetHandle(ctx, temporalID(stored.ID))
	there, err := handle.Describe(ctx)
	refire, changed := false, true
	switch {
	case isNotFound(err) && !must && want.over():
		return s.inEffect(ctx, stored)
	case isNotFound(err):
		refire = true
		_, err = s.Client.ScheduleClient().Create(ctx, client.ScheduleOptions{ID: temporalID(stored.ID), Spec: *want.schedule.Spec,
			Action: want.schedule.Action, Overlap: want.schedule.Policy.Overlap, CatchupWindow: want.schedule.Policy.CatchupWindow,
			Paused: want.schedule.State.Paused, Note: want.schedule.State.Note})
		if err != nil && !errors.Is(err, temporal.ErrScheduleAlreadyRunning) { // another server was quicker
			return fmt.Errorf("create schedule %s: %w", stored.Name, err)
		}
	case err != nil:
		return fmt.Errorf("describe schedule %s: %w", stored.Name, err)
	default:
		had := inputOf(there)
		refire = !had.Since.Equal(stored.Since) || !stored.InEffect && stored.Since.Equal(stored.UpdatedAt)
		if changed = !want.equals(there); !changed {
			break
		}
		err = handle.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			return &client.ScheduleUpdate{Schedule: &want.schedule}, nil
		}})
		if err != nil {
			return fmt.Errorf("update schedule %s: %w", stored.Name, err)
		}
	}
	if changed {
		failpoint.Here("schedule.applied")
	}
	if refire && !stored.Paused {
		if err := s.refire(ctx, handle, want); err != nil {
			return err
		}
	}
	return s.inEffect(ctx, stored)
}

func (s *Schedules) inEffect(ctx context.Context, stored release.Schedule) error {
	if stored.InEffect {
		return nil
	}
	return s.Store.SetScheduleInEffect(ctx, stored.ID, stored.Revision)
}

// refire fires what was due after the schedule was stored and before Temporal knew of it. To fire again does nothing.
func (s *Schedules) refire(ctx context.Context, handle client.ScheduleHandle, want wanted) error {
	there, err := handle.Describe(ctx)
	if err != nil {
		return fmt.Errorf("describe schedule %s: %w", want.stored.Name, err)
	}
	knownSince := there.Info.CreatedAt
	if there.Info.LastUpdateAt.After(knownSince) {
		knownSince = there.Info.LastUpdateAt
	}
	var left []client.ScheduleBackfill
	for _, due := range want.spec.Between(want.reaches(), knownSince, release.MaxFires) {
		_, err := s.Store.Fire(ctx, want.stored.ID, due)
		if err == nil {
			continue
		}
		if !errors.Is(err, release.ErrNotFound) {
			return err
		}
		left = append(left, client.ScheduleBackfill{Start: due, End: due, Overlap: want.schedule.Policy.Overlap})
	}
	if len(left) == 0 {
		return nil
	}
	if err := handle.Backfill(ctx, client.ScheduleBackfillOptions{Backfill: left}); err != nil {
		return fmt.Errorf("catch up with schedule %s: %w", want.stored.Name, err)
	}
	return nil
}

// wanted is what Temporal is to have of a schedule.
type wanted struct {
	stored   release.Schedule
	spec     *schedule.Spec
	input    workflows.ScheduledInput
	schedule client.Schedule
}

var overlaps = map[release.Overlap]enumspb.ScheduleOverlapPolicy{
	release.OverlapSkip:      enumspb.SCHEDULE_OVERLAP_POLICY_SKIP,
	release.OverlapBufferOne: enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE,
	release.OverlapAllow:     enumspb.SCHEDULE_OVERLAP_POLICY_ALLOW_ALL,
}

func (s *Schedules) wanted(stored release.Schedule) (wanted, error) {
	spec, err := schedule.Parse(stored.When)
	if err != nil {
		return wanted{}, fmt.Errorf("read the times of schedule %s: %w", stored.Name, err)
	}
	w := wanted{stored: stored, spec: spec, input: workflows.ScheduledInput{ScheduleID: stored.ID, Since: stored.Since, SearchAttributes: s.SearchAttributes}}
	w.schedule = client.Schedule{
		Spec: &client.ScheduleSpec{Calendars: calendars(spec), TimeZoneName: spec.Zone.String(), Jitter: stored.Jitter.Std()},
		Action: &client.ScheduleWorkflowAction{ID: "schedule/" + stored.Name + "/" + stored.ID, Workflow: workflows.ScheduledReleaseWorkflowName,
			Args: []any{w.input}, TaskQueue: workflows.TaskQueue},
		Policy: &client.SchedulePolicies{Overlap: overlaps[stored.Overlap], CatchupWindow: stored.CatchupWindow.Std()},
		State:  &client.ScheduleState{Paused: stored.Paused, Note: stored.Note},
	}
	if spec.Every > 0 {
		w.schedule.Spec.Intervals = []client.ScheduleIntervalSpec{{Every: spec.Every}}
	}
	return w, nil
}

func calendars(spec *schedule.Spec) (list []client.ScheduleCalendarSpec) {
	ranges := func(from []schedule.Range) (to []client.ScheduleRange) {
		for _, r := range from {
			to = append(to, client.ScheduleRange{Start: r.Start, End: r.End, Step: 1})
		}
		return to
	}
	for _, c := range spec.Calendars() {
		to := client.ScheduleCalendarSpec{Second: ranges(c.Second), Minute: ranges(c.Minute), Hour: ranges(c.Hour),
			DayOfMonth: ranges(c.DayOfMonth), Month: ranges(c.Month), DayOfWeek: ranges(c.DayOfWeek)}
		if c.Year != 0 {
			to.Year = ranges([]schedule.Range{{Start: c.Year, End: c.Year}})
		}
		list = append(list, to)
	}
	return list
}

// reaches is how far back a fire may still be made up for.
func (w wanted) reaches() time.Time {
	from := time.Now().Add(-w.stored.CatchupWindow.Std())
	if from.Before(w.stored.Since) {
		return w.stored.Since
	}
	return from
}

// over says whether it does not fire any more.
func (w wanted) over() bool {
	return w.spec.Next(w.reaches().Add(-w.stored.Jitter.Std())).IsZero()
}

func (w wanted) equals(there *client.ScheduleDescription) bool {
	action, ok := there.Schedule.Action.(*client.ScheduleWorkflowAction)
	mine := w.schedule.Action.(*client.ScheduleWorkflowAction)
	spec, policy, state := there.Schedule.Spec, there.Schedule.Policy, there.Schedule.State
	if !ok || spec == nil || policy == nil || state == nil {
		return false
	}
	input := inputOf(there)
	input.Since, w.input.Since = input.Since.UTC(), w.input.Since.UTC()
	return input == w.input && action.ID == mine.ID && action.Workflow == mine.Workflow && action.TaskQueue == mine.TaskQueue &&
		policy.Overlap == w.schedule.Policy.Overlap && policy.CatchupWindow == w.schedule.Policy.CatchupWindow && !policy.PauseOnFailure &&
		state.Paused == w.schedule.State.Paused && state.Note == w.schedule.State.Note && !state.LimitedActions &&
		sameSpec(*spec, *w.schedule.Spec)
}

func sameSpec(a, b client.ScheduleSpec) bool {
	same := func(a, b []client.ScheduleRange) bool {
		return slices.EqualFunc(a, b, func(x, y client.ScheduleRange) bool {
			return x.Start == y.Start && max(x.End, x.Start) == max(y.End, y.Start) && max(x.Step, 1) == max(y.Step, 1)
		})
	}
	return len(a.Skip) == 0 && len(a.CronExpressions) == 0 && a.StartAt.IsZero() && a.EndAt.IsZero() &&
		a.Jitter == b.Jitter && a.TimeZoneName == b.TimeZoneName && slices.Equal(a.Intervals, b.Intervals) &&
		slices.EqualFunc(a.Calendars, b.Calendars, func(x, y client.ScheduleCalendarSpec) bool {
			return same(x.Second, y.Second) && same(x.Minute, y.Minute) && same(x.Hour, y.Hour) && same(x.DayOfMonth, y.DayOfMonth) &&
				same(x.Month, y.Month) && same(x.DayOfWeek, y.DayOfWeek) && same(x.Year, y.Year)
		})
}

// inputOf reads what Temporal gives to the workflows of a schedule.
func inputOf(there *client.ScheduleDescription) (input workflows.ScheduledInput) {
	if action, ok := there.Schedule.Action.(*client.ScheduleWorkflowAction); ok && len(action.Args) == 1 {
		if payload, ok := action.Args[0].(*commonpb.Payload); ok {
			_ = converter.GetDefaultDataConverter().FromPayload(payload, &input) // one that cannot be read is not ours as it should be
		}
	}
	return input
}

func isNotFound(err error) bool {
	var notFound *serviceerror.NotFound
	return errors.As(err, &notFound)
}

// Trigger lets a schedule fire now, paused or not, and gives the fire as soon as it is stored: it will come about. Errors:
// release.ErrConflict where the overlap policy does not let it.
func (s *Schedules) Trigger(ctx context.Context, stored release.Schedule, by string) (release.Fire, error) {
	if stored.Overlap == release.OverlapSkip {
		running, err := s.Store.RunningFires(ctx, stored.ID)
		if err != nil {
			return release.Fire{}, err
		}
		if len(running) > 0 {
			return release.Fire{}, release.Conflict("the rollout of an earlier fire is still at work: task %s", running[0].TaskID)
		}
	}
	spec, err := schedule.Parse(stored.When)
	if err != nil {
		return release.Fire{}, err
	}
	fire := release.Fire{ScheduleID: stored.ID, Due: time.Now().UTC().Truncate(time.Second), State: release.FireRequested, By: by}
	const tries = 100
	for range tries { // the second is the fire's name
		if !spec.Fires(fire.Due) {
			if err = s.Store.RequestFire(ctx, fire); !errors.Is(err, release.ErrConflict) {
				break
			}
		}
		fire.Due = fire.Due.Add(time.Second)
	}
	if err != nil {
		return release.Fire{}, err
	}
	failpoint.Here("schedule.trigger.committed")
	if err := s.send(context.WithoutCancel(ctx), stored, fire); err != nil {
		s.Logger.WarnContext(ctx, "trigger not sent yet; the reconciler will", "schedule", stored.Name, "error", err)
	}
	return s.Store.Fire(ctx, stored.ID, fire.Due)
}

// send tells Temporal of a trigger. To do so again does nothing.
func (s *Schedules) send(ctx context.Context, stored release.Schedule, fire release.Fire) error {
	patch := func() error {
		_, err := s.Client.WorkflowService().PatchSchedule(ctx, &workflowservice.PatchScheduleRequest{
			Namespace: s.Namespace, ScheduleId: temporalID(stored.ID), Identity: fire.By,
			Patch:     &schedulepb.SchedulePatch{TriggerImmediately: &schedulepb.TriggerImmediatelyRequest{ScheduledTime: timestamppb.New(fire.Due)}},
			RequestId: fmt.Sprintf("%s/%d/%d", stored.ID, fire.Due.Unix(), time.Now().Unix()),
		})
		return err
	}
	err := patch()
	if isNotFound(err) {
		if err := s.apply(ctx, stored, true); err != nil {
			return err
		}
		err = patch()
	}
	if err != nil {
		return fmt.Errorf("trigger schedule %s: %w", stored.Name, err)
	}
	return nil
}

// Reconcile makes Temporal's schedules follow the stored ones, at once and then at every interval until ctx ends, and settles what
// became of their fires. It makes a schedule safe from the moment that it is stored.
func (s *Schedules) Reconcile(ctx context.Context) { s.reconcile(ctx, "schedules", s.reconcileOnce) }

func (s *Schedules) reconcileOnce(ctx context.Context) error {
	there, err := s.list(ctx) // before what is stored: what Temporal has was stored first
	if err != nil {
		return fmt.Errorf("list Temporal's schedules: %w", err)
	}
	all, err := s.Store.StoredSchedules(ctx)
	if err != nil {
		return fmt.Errorf("read schedules: %w", err)
	}
	full := time.Since(s.compared) > fullComparison
	byID := map[string]release.Schedule{}
	var errs []error
	for _, stored := range all {
		paused, known := there[stored.ID]
		delete(there, stored.ID)
		if stored.Deleted {
			errs = append(errs, s.remove(ctx, stored.ID))
			continue
		}
		byID[stored.ID] = stored.Schedule
		if full || !stored.InEffect || !known || paused != stored.Paused {
			errs = append(errs, s.apply(ctx, stored.Schedule, false))
		}
		errs = append(errs, s.settle(ctx, stored))
	}
	for id := range there {
		s.Logger.Info("deleting a schedule that is not stored", "schedule", id)
		errs = append(errs, s.remove(ctx, id))
	}
	errs = append(errs, s.resend(ctx, byID))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if full {
		s.compared = time.Now()
	}
	return nil
}

// list gives the ids of the schedules that Temporal has of us, and whether they are paused.
func (s *Schedules) list(ctx context.Context) (map[string]bool, error) {
	entries, err := s.Client.ScheduleClient().List(ctx, client.ScheduleListOptions{})
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for entries.HasNext() {
		entry, err := entries.Next()
		if err != nil {
			return nil, err
		}
		if id, ok := strings.CutPrefix(entry.ID, schedulePrefix); ok {
			there[id] = entry.Paused
		}
	}
	return there, nil
}

func (s *Schedules) settle(ctx context.Context, stored store.StoredSchedule) error {
	spec, err := schedule.Parse(stored.When)
	if err != nil {
		return fmt.Errorf("read the times of schedule %s: %w", stored.Name, err)
	}
	if due := spec.Next(stored.AccountedTo); stored.Paused || due.IsZero() || due.After(time.Now()) {
		return nil
	}
	missed, err := s.Store.SettleFires(ctx, stored.ID)
	if missed > 0 {
		s.Logger.Warn("a schedule missed fires", "schedule", stored.Name, "missed", missed)
	}
	return err
}

// resend sends the triggers again that Temporal may not have got.
func (s *Schedules) resend(ctx context.Context, byID map[string]release.Schedule) error {
	requested, err := s.Store.RequestedFires(ctx)
	if err != nil {
		return fmt.Errorf("read requested fires: %w", err)
	}
	var errs []error
	for _, fire := range requested {
		stored, ok := byID[fire.ScheduleID]
		age := time.Since(fire.At)
		if !ok || age < triggerPatience {
			continue
		}
		running, err := s.Store.RunningFires(ctx, stored.ID)
		switch {
		case err != nil:
		case len(running) > 0 && stored.Overlap == release.OverlapSkip:
			fire.State, fire.Reason = release.FireSkipped, "the rollout of an earlier fire was still at work: task "+running[0].TaskID
			err = s.Store.RecordFire(ctx, fire)
		case len(running) > 0 && stored.Overlap == release.OverlapBufferOne: // it waits
		case age > triggerLimit:
			fire.State, fire.Reason = release.FireFailed, fmt.Sprintf("Temporal did not take it within %s", triggerLimit)
			err = s.Store.RecordFire(ctx, fire)
		default:
			err = s.send(ctx, stored, fire)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
