package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

const streamDescription = "Server-Sent Events without names, each with a type in its data: `job` at first, `result` (JobResultEvent, with an id) as each " +
	"host finishes, first finished first, `progress` (JobProgressEvent, where progress=true asks for it), and at last `complete` (JobCompleteEvent; nothing follows). " +
	"A host that may be tried again is told of when its last try has ended, or the job. One of which nothing could be known comes again if its agent reports later. " +
	"Comments keep the connection alive."

var streamResponse = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
	eventStream: {Schema: &huma.Schema{Type: huma.TypeString}},
}}}

// JobStartEvent is the first event of a job's stream.
type JobStartEvent struct {
	Type    string     `json:"type" enum:"job"`
	JobID   string     `json:"job_id"`
	Status  job.Status `json:"status"`
	Total   int        `json:"total"`
	Missing []string   `json:"missing,omitempty" doc:"Listed clients that are not known, where allow_missing said to go on"`
}

// JobResultEvent tells of a host that has finished.
type JobResultEvent struct {
	Type  string `json:"type" enum:"result"`
	JobID string `json:"job_id"`
	HostResult
}

// JobProgressEvent tells where a job stands.
type JobProgressEvent struct {
	Type   string     `json:"type" enum:"progress"`
	JobID  string     `json:"job_id"`
	Status job.Status `json:"status"`
	Counts JobCounts  `json:"counts"`
}

// JobCompleteEvent is the last event of a job's stream.
type JobCompleteEvent struct {
	Type    string     `json:"type" enum:"complete"`
	JobID   string     `json:"job_id"`
	Status  job.Status `json:"status" enum:"completed,partial,failed,cancelled,timeout"`
	Reason  string     `json:"reason,omitempty"`
	Summary JobSummary `json:"summary"`
}

// JobSummary says in numbers how a job ended.
type JobSummary struct {
	Total        int   `json:"total"`
	SuccessCount int   `json:"success_count"`
	FailedCount  int   `json:"failed_count" doc:"All others"`
	DurationMS   int64 `json:"duration_ms"`
}

var jobEvents = map[string]reflect.Type{
	"JobStartEvent": typeOf[JobStartEvent](), "JobResultEvent": typeOf[JobResultEvent](),
	"JobProgressEvent": typeOf[JobProgressEvent](), "JobCompleteEvent": typeOf[JobCompleteEvent](),
}

// StreamQuery is what is wanted of a job's stream.
type StreamQuery struct {
	Progress  bool `query:"progress" doc:"Events of type progress, too"`
	NoResults bool `query:"no_results" doc:"No events of type result"`
}

func (s *server) registerJobStream(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "job-stream", Method: http.MethodGet, Path: "/api/batch/jobs/{job_id}/stream", Tags: []string{"batch"},
		Summary:     "The results of a job as they come, and those that have come already",
		Description: streamDescription + " Last-Event-ID gives the rest. Closing the connection cancels nothing.",
		Responses:   streamResponse,
	}, func(ctx context.Context, in *struct {
		JobPath
		StreamQuery
		After       string `query:"after" maxLength:"300" doc:"Go on after the event with this id"`
		LastEventID string `header:"Last-Event-ID" maxLength:"300" doc:"The same; goes before after"`
	}) (*streamOutput, error) {
		if _, err := s.Store.Job(ctx, in.ID); err != nil {
			return nil, err
		}
		stream := s.newJobStream(in.ID, in.StreamQuery, nil)
		after := in.LastEventID
		if after == "" {
			after = in.After
		}
		if err := stream.resume(after); err != nil {
			return nil, err
		}
		return &streamOutput{Body: func(ctx huma.Context) {
			r, w := humachi.Unwrap(ctx)
			stream.out = newEventWriter(w)
			stream.serve(r.Context())
		}}, nil
	})
}

// jobStream tells one reader the results of a job. It reads the store; the bus only says when to look again.
//
// Results come in the order in which they were stored. Those of hosts that may be tried again come when no more tries are
// possible, at the job's end, by client id: so the place of each in the stream follows from what is stored, and a reader can
// go on anywhere.
type jobStream struct {
	server  *server
	id      string
	query   StreamQuery
	out     *eventWriter
	missing []string

	greeted  bool
	progress []byte             // as told last
	read     store.TargetCursor // up to where results were read
	held     []heldResult       // results that were read and wait for their output
	finished bool               // all results have been read but those of the end
	lastID   string             // of those of the end, the client id of the one that was told already
	last     bool               // those of the end have been read, too
}

type heldResult struct {
	target job.Target
	id     string
	since  time.Time
}

// atEnd begins the ids of results that are told at the job's end.
const atEnd = "end."

func (s *server) newJobStream(id string, q StreamQuery, out *eventWriter) *jobStream {
	return &jobStream{server: s, id: id, query: q, out: out}
}

// resume goes on after an event.
func (l *jobStream) resume(after string) error {
	if client, ok := strings.CutPrefix(after, atEnd); ok {
		l.finished, l.lastID = true, client
		return nil
	}
	if after == "" {
		return nil
	}
	place, err := strconv.ParseUint(after, 10, 63)
	if err != nil {
		return release.Invalid("after", "%q is no id of an event of this stream", after)
	}
	l.read = store.TargetCursor(place)
	return nil
}

func (l *jobStream) serve(ctx context.Context) streamEnd {
	return l.server.follow(ctx, bus.Task(l.id), l.out, "results", l.catchUp)
}

// catchUp writes what is new. The job is read first: a result that is stored before its job has ended cannot come after the
// end.
func (l *jobStream) catchUp(ctx context.Context) (ended bool, err error) {
	j, err := l.server.Store.Job(ctx, l.id)
	if err != nil {
		return false, fmt.Errorf("read job: %w", err)
	}
	if !l.greeted {
		if err := l.out.event("", "", JobStartEvent{Type: "job", JobID: j.ID, Status: j.Status, Total: j.Counts.Total, Missing: l.missing}); err != nil {
			return false, err
		}
		if err := l.out.flush(); err != nil {
			return false, err
		}
		l.greeted = true
	}
	if err := l.tellProgress(j); err != nil {
		return false, err
	}
	if !l.query.NoResults {
		if all, err := l.results(ctx, j); err != nil || !all {
			return false, err
		}
	}
	if !j.Status.Terminal() {
		return false, nil
	}
	end := JobCompleteEvent{Type: "complete", JobID: j.ID, Status: j.Status, Reason: j.Reason, Summary: JobSummary{
		Total: j.Counts.Total, SuccessCount: j.Counts.Succeeded, FailedCount: j.Counts.Total - j.Counts.Succeeded,
	}}
	if j.FinishedAt != nil {
		end.Summary.DurationMS = j.FinishedAt.Sub(j.CreatedAt).Milliseconds()
	}
	return true, l.out.event("", "", end)
}

func (l *jobStream) tellProgress(j job.Job) error {
	if !l.query.Progress {
		return nil
	}
	text, err := json.Marshal(JobProgressEvent{Type: "progress", JobID: j.ID, Status: j.Status, Counts: JobCounts(j.Counts)})
	if err != nil || bytes.Equal(text, l.progress) {
		return err
	}
	l.progress = text
	return l.out.event("", "", json.RawMessage(text))
}

// results tells the results that are new, and at the job's end those that were left for it. all is whether none waits.
func (l *jobStream) results(ctx context.Context, j job.Job) (all bool, err error) {
	for !l.finished {
		if all, err := l.tellHeld(ctx); err != nil || !all {
			return false, err
		}
		targets, next, err := l.server.Store.FinishedTargets(ctx, l.id, l.read, streamBatch)
		if err != nil {
			return false, fmt.Errorf("read results: %w", err)
		}
		l.read = next
		for _, t := range targets {
			if t.State.Decided() && !mayBeTriedAgain(&t, j.Options) {
				l.hold(t, strconv.FormatInt(t.Decided, 10))
			}
		}
		if len(targets) == 0 {
			if !j.Status.Terminal() {
				return true, nil
			}
			l.finished = true
		}
	}
	if !l.last && j.Status.Terminal() {
		if err := l.readLast(ctx, j); err != nil {
			return false, err
		}
	}
	return l.tellHeld(ctx)
}

// mayBeTriedAgain says whether the result of a host is told only at the end of the job. What it says of a host as it is stored
// stays so until the host is tried again.
func mayBeTriedAgain(t *job.Target, o job.Options) bool {
	if t.State == job.StateOffline && o.WaitOffline > 0 {
		return true
	}
	return job.RetryState(t.State, o) && o.Retries != nil && t.Epoch < *o.Retries && !t.Hopeless
}

// readLast reads the results that are told at the end of the job, by client id.
func (l *jobStream) readLast(ctx context.Context, j job.Job) error {
	var left []job.Target
	for _, state := range job.States() {
		if !job.RetryState(state, j.Options) {
			continue
		}
		targets, err := l.server.targetsOf(ctx, l.id, state)
		if err != nil {
			return fmt.Errorf("read results: %w", err)
		}
		left = append(left, targets...)
	}
	slices.SortFunc(left, func(a, b job.Target) int { return strings.Compare(a.ClientID, b.ClientID) })
	for _, t := range left {
		if mayBeTriedAgain(&t, j.Options) && t.ClientID > l.lastID {
			l.hold(t, atEnd+t.ClientID)
		}
	}
	l.last = true
	return nil
}

func (l *jobStream) hold(t job.Target, id string) {
	l.held = append(l.held, heldResult{target: t, id: id, since: l.server.Now()})
}

// tellHeld tells results in their order, as long as their output is there or was waited for. all is whether none waits.
func (l *jobStream) tellHeld(ctx context.Context) (all bool, err error) {
	for len(l.held) > 0 {
		next := l.held[0]
		o, err := l.server.outcomeOf(ctx, &next.target, MaxResultOutput, MaxResultOutput)
		if err != nil {
			return false, fmt.Errorf("read output: %w", err)
		}
		if o.pending && l.server.Now().Sub(next.since) < outputWait {
			return false, nil
		}
		if err := l.out.event("", next.id, JobResultEvent{Type: "result", JobID: l.id, HostResult: hostResult(&next.target, o)}); err != nil {
			return false, err
		}
		l.held = l.held[1:]
	}
	return true, nil
}
