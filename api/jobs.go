package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// maxListed is how many listed clients are kept as they were asked for; the targets of a job say all of them anyway.
const maxListed = 100

// Payload is a JSON object for a command.
type Payload json.RawMessage

// Schema implements huma.SchemaProvider.
func (Payload) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeObject, AdditionalProperties: true,
		Description: "What is in it depends on the type, such as {\"command\": \"ls -la\"} for exec_shell. At most 256 KiB",
		Extensions:  map[string]any{"x-go-type": "json.RawMessage"},
	}
}

// MarshalJSON implements json.Marshaler.
func (p Payload) MarshalJSON() ([]byte, error) { return json.RawMessage(p).MarshalJSON() }

// UnmarshalJSON implements json.Unmarshaler.
func (p *Payload) UnmarshalJSON(text []byte) error { return (*json.RawMessage)(p).UnmarshalJSON(text) }

// AnyJSON is any JSON value.
type AnyJSON json.RawMessage

// Schema implements huma.SchemaProvider.
func (AnyJSON) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Extensions: map[string]any{"x-go-type": "json.RawMessage"}}
}

// MarshalJSON implements json.Marshaler.
func (v AnyJSON) MarshalJSON() ([]byte, error) { return json.RawMessage(v).MarshalJSON() }

// UnmarshalJSON implements json.Unmarshaler.
func (v *AnyJSON) UnmarshalJSON(text []byte) error { return (*json.RawMessage)(v).UnmarshalJSON(text) }

// Seconds is a duration of requests that give a number.
type Seconds float64

// Schema implements huma.SchemaProvider.
func (Seconds) Schema(huma.Registry) *huma.Schema {
	least, most := 0.0, job.MaxTaskTimeout.Seconds()
	return &huma.Schema{
		Type: huma.TypeNumber, Format: "double", ExclusiveMinimum: &least, Maximum: &most,
		Description: "For each host, in seconds from the start there. Defaults to batch.task_timeout",
	}
}

func (s Seconds) duration() release.Duration {
	return release.Duration(float64(s) * float64(time.Second))
}

// Keyed is a request that makes a job, and may have to be made again.
type Keyed struct {
	Key string `header:"Idempotency-Key" maxLength:"200" doc:"Of the caller's own choice, such as a UUID: of one caller, one key makes one job. With another request it answers 409"`
}

// keyed is what the descriptions of such requests say.
const keyed = " Who sends the same request with the same Idempotency-Key again gets what became of the first one."

// jobKeys is the namespace of the ids of jobs that were made with an idempotency key.
var jobKeys = uuid.MustParse("0b3e51f2-58a4-4a39-8a4e-3c4c2a2f0d91")

// order is a job that is to be made.
type order struct {
	key          string // of idempotency; may be empty
	kind         job.Kind
	command      job.Command
	targets      release.Targets
	options      job.Options
	allowMissing bool
	fields       map[string]string // what the request calls its fields, by the domain's names
}

// createJob stores a job and makes it begin, unless its key has made it before. Errors name the fields of the request.
func (s *server) createJob(ctx context.Context, o order) (j job.Job, missing []string, err error) {
	id := keyID(jobKeys, principal(ctx), o.key)
	j, before, err := madeOnce(id, func(id string) (job.Job, error) { return s.Store.Job(ctx, id) }, func() (j job.Job, err error) {
		var clients []string
		if clients, missing, err = s.checkOrder(ctx, o); err != nil {
			return j, renamed(err, o.fields)
		}
		j = job.Job{ID: id, Kind: o.kind, Command: o.command, Targets: o.targets, Options: o.options.WithDefaults(s.Limits), CreatedBy: principal(ctx)}
		if len(j.Targets.Clients) > maxListed {
			j.Targets.Clients = nil
		}
		err = s.Store.CreateJob(ctx, &j, clients)
		return j, renamed(err, o.fields)
	})
	switch {
	case err != nil:
		return job.Job{}, nil, err
	case before:
		missing, err = s.sameJob(ctx, j, o)
		return j, missing, err
	}
	failpoint.Here("api.job.committed")
	s.Bus.Notify(bus.Jobs)
	// From here on the job exists and will run: neither a client that left nor a Temporal that is away changes that.
	if err := s.Jobs.StartJob(context.WithoutCancel(ctx), j); err != nil {
		s.Logger.WarnContext(ctx, "job not started yet; the reconciler will", "job", j.ID, "error", err)
	}
	return j, missing, nil
}

// sameJob is a conflict unless a job that was made with a key is what o asks for. It gives the listed clients that are not known.
func (s *server) sameJob(ctx context.Context, made job.Job, o order) (missing []string, err error) {
	// A job of the store keeps few of the clients that were listed; its targets tell the others.
	listed := map[string]bool{}
	for _, id := range o.targets.Clients {
		listed[id] = true
	}
	same := made.Kind == o.kind && made.Command.Type == o.command.Type && sameJSON(made.Command.Payload, o.command.Payload) &&
		made.Targets.Selector == o.targets.Selector && equalJSON(o.options.WithDefaults(s.Limits), made.Options)
	if same && len(listed) > 0 {
		targets, err := s.targetsOf(ctx, made.ID, "")
		if err != nil {
			return nil, err
		}
		for i := range targets {
			same = same && listed[targets[i].ClientID]
			delete(listed, targets[i].ClientID)
		}
		missing = slices.Sorted(maps.Keys(listed)) // or they did not match the selector
		same = same && (len(missing) == 0 || o.allowMissing || o.targets.Selector != "")
		if !o.allowMissing || o.targets.Selector != "" {
			missing = nil
		}
	} else if same {
		same = len(made.Targets.Clients) == 0
	}
	if !same {
		return nil, release.Conflict("the Idempotency-Key was used for another request: it made job %s", made.ID)
	}
	return missing, nil
}

// checkOrder gives the hosts that the job is for, and which of the listed ones are not known.
func (s *server) checkOrder(ctx context.Context, o order) (clients, missing []string, err error) {
	if err := o.command.Validate(); err != nil {
		return nil, nil, err
	}
	if err := o.options.Validate(s.Limits); err != nil {
		return nil, nil, err
	}
	switch n := len(o.targets.Clients); {
	case n == 0 && o.targets.Selector == "":
		return nil, nil, release.Invalid("targets", "is empty; list clients, or give a selector where there is one (* is every known agent)")
	case n > job.MaxTargets:
		return nil, nil, release.Invalid("targets.clients", "lists %d clients; the limit is %d", n, job.MaxTargets)
	}
	if o.allowMissing && len(o.targets.Clients) > 0 {
		clients, missing, err = s.resolveKnown(ctx, o.targets)
	} else {
		clients, err = s.Store.ResolveTargets(ctx, o.targets)
	}
	if err == nil && len(clients) > job.MaxTargets {
		err = release.Invalid("targets.selector", "picks %d hosts; the limit is %d", len(clients), job.MaxTargets)
	}
	return clients, missing, err
}

// resolveKnown is ResolveTargets where listed clients need not be known.
func (s *server) resolveKnown(ctx context.Context, targets release.Targets) (clients, missing []string, err error) {
	listed, err := s.Store.PreviewTargets(ctx, release.Targets{Clients: targets.Clients}, 0)
	if err != nil {
		return nil, nil, err
	}
	if listed.Total == 0 {
		return nil, nil, release.Invalid("targets.clients", "none of them is known")
	}
	targets.Clients = slices.DeleteFunc(slices.Clone(targets.Clients), func(id string) bool {
		_, unknown := slices.BinarySearch(listed.Unknown, id)
		return unknown
	})
	clients, err = s.Store.ResolveTargets(ctx, targets)
	return clients, listed.Unknown, err
}

// renamed gives an error about a field in the words of the request.
func renamed(err error, fields map[string]string) error {
	var known *release.Error
	if !errors.As(err, &known) || known.Code != release.CodeInvalid {
		return err
	}
	if name, ok := fields[known.Field]; ok {
		return release.Invalid(name, "%s", known.Message)
	}
	return err
}

// awaitJob gives a job when it has ended. Who waits no longer changes nothing about the job.
func (s *server) awaitJob(ctx context.Context, id string) (job.Job, error) {
	changed, cancel := s.Bus.Subscribe(bus.Task(id))
	defer cancel()
	again := time.NewTicker(streamReread)
	defer again.Stop()
	for failures := 0; ; {
		j, err := s.Store.Job(ctx, id)
		switch {
		case err == nil && j.Status.Terminal():
			return j, nil
		case err == nil:
			failures = 0
		default:
			if failures++; failures >= maxStreamFailures && ctx.Err() == nil {
				return job.Job{}, release.Unavailable(err, "job %s was started, but how it goes cannot be read at the moment; ask for it again", id)
			}
		}
		select {
		case <-ctx.Done():
			return job.Job{}, release.Unavailable(context.Cause(ctx), "nobody waits any more; job %s goes on: see GET /api/batch/jobs/%s", id, id)
		case <-changed:
		case <-again.C:
		}
	}
}

// awaitLogs waits a little for what the hosts of an ended job printed. Without it, answers have the ends of outputs only.
func (s *server) awaitLogs(ctx context.Context, id string) {
	changed, cancel := s.Bus.Subscribe(bus.Task(id))
	defer cancel()
	over := time.NewTimer(outputWait)
	defer over.Stop()
	for {
		if complete, _, err := s.Store.LogsComplete(ctx, id); err != nil || complete {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-over.C:
			return
		case <-changed:
		}
	}
}

// targetsOf gives all hosts of a job in a state, or in any.
func (s *server) targetsOf(ctx context.Context, jobID string, state job.State) ([]job.Target, error) {
	var all []job.Target
	for {
		some, _, err := s.Store.JobTargets(ctx, jobID, store.JobTargetFilter{State: state, Limit: targetPage, Offset: len(all)})
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if len(some) < targetPage {
			return all, nil
		}
	}
}

const targetPage = 1000

// JobPath names a job.
type JobPath struct {
	ID string `path:"job_id"`
}

// JobCounts is how many hosts of a job stand where.
type JobCounts job.Counts

// JobOptions say how a job goes over its hosts.
type JobOptions job.Options

// BatchJob is a command for some hosts.
type BatchJob struct {
	ID           string     `json:"job_id"`
	Kind         job.Kind   `json:"kind" enum:"command,multi,stream,batch" doc:"Through which route it came"`
	Status       job.Status `json:"status" enum:"starting,running,paused,cancelling,completed,partial,failed,cancelled,timeout"`
	Reason       string     `json:"reason,omitempty" doc:"One line: why it did not complete"`
	Total        int        `json:"total"`
	SuccessCount int        `json:"success_count"`
	FailedCount  int        `json:"failed_count" doc:"Decided, but not done: total is the sum of these four"`
	PendingCount int        `json:"pending_count"`
	RunningCount int        `json:"running_count"`
	Counts       JobCounts  `json:"counts" doc:"The same by the states of hosts"`
	CommandType  string     `json:"command_type"`
	Payload      *Payload   `json:"payload,omitempty" doc:"Not in lists"`
	Selector     string     `json:"selector,omitempty" doc:"As it was asked for"`
	Options      JobOptions `json:"options"`
	WorkflowID   string     `json:"workflow_id"`
	CreatedBy    string     `json:"created_by"`
	CreatedAt    time.Time  `json:"created_at"`
	UpdatedAt    time.Time  `json:"updated_at"`
	FinishedAt   *time.Time `json:"finished_at,omitempty"`
}

func batchJob(j job.Job, withPayload bool) BatchJob {
	b := BatchJob{
		ID: j.ID, Kind: j.Kind, Status: j.Status, Reason: j.Reason, Total: j.Counts.Total, SuccessCount: j.Counts.Succeeded,
		PendingCount: j.Counts.Pending, RunningCount: j.Counts.Running, Counts: JobCounts(j.Counts),
		CommandType: j.Command.Type, Selector: j.Targets.Selector, Options: JobOptions(j.Options), WorkflowID: j.WorkflowID,
		CreatedBy: j.CreatedBy, CreatedAt: j.CreatedAt, UpdatedAt: j.UpdatedAt, FinishedAt: j.FinishedAt,
	}
	b.FailedCount = failed(j.Counts)
	if withPayload {
		b.Payload = payloadOf(j.Command)
	}
	return b
}

// failed counts the hosts that are decided and did not do it.
func failed(c job.Counts) int { return c.Total - c.Open() - c.Succeeded }

func payloadOf(c job.Command) *Payload {
	if len(c.Payload) == 0 {
		return nil
	}
	p := Payload(c.Payload)
	return &p
}

// oneLine says why a host did not do it, in any case something.
func oneLine(t *job.Target) string {
	if t.State == job.StateSucceeded || !t.State.Decided() {
		return t.Error
	}
	return cmp.Or(strings.TrimSpace(t.Error), string(t.State))
}
