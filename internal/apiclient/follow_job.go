package apiclient

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"time"

	"github.com/tmaxmax/go-sse"
)

// JobEvent is one event of a job's results; exactly one field is set.
type JobEvent struct {
	Start    *JobStartEvent
	Result   *JobResultEvent
	Progress *JobProgressEvent
	Complete *JobCompleteEvent
}

// JobFollower follows the results of a job over lost connections and restarts of the server: it asks again from the last
// result that it has, so none is missed or given twice.
type JobFollower struct {
	API   *API
	JobID string

	// NoResults leaves out the results of hosts. Defaults to false: progress and results.
	NoResults bool
	// Patience is how long to go on without reaching the server. Defaults to 10 minutes.
	Patience time.Duration
	// Lost is called when the connection is lost, and Resumed when there is one again. They default to nothing.
	Lost    func(err error)
	Resumed func()
}

// Events gives the events up to the end of the job, then stops. Errors are as those of Follower.Events.
func (f *JobFollower) Events(ctx context.Context) iter.Seq2[JobEvent, error] {
	return func(yield func(JobEvent, error) bool) {
		after := ""
		err := persistence{patience: f.Patience, lost: f.Lost, resumed: f.Resumed}.follow(ctx, func(connected func()) (done bool, err error) {
			err = readStream(ctx, func(ctx context.Context) (*http.Response, error) {
				return f.API.JobStream(ctx, f.JobID, &JobStreamParams{
					Progress: new(true), NoResults: Optional(f.NoResults), LastEventID: Optional(after),
				})
			}, connected, func(raw sse.Event) (more bool, err error) {
				event, err := parseJobEvent(raw)
				if err != nil || event == (JobEvent{}) {
					return true, err
				}
				if event.Result != nil {
					after = raw.LastEventID
				}
				done = !yield(event, nil) || event.Complete != nil
				return !done, nil
			})
			return done, err
		})
		if err != nil {
			yield(JobEvent{}, err)
		}
	}
}

// parseJobEvent gives an event, or the zero one for a type that a newer server may send.
func parseJobEvent(raw sse.Event) (e JobEvent, err error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal([]byte(raw.Data), &head); err != nil {
		return e, fmt.Errorf("read event: %w", err)
	}
	var into any
	switch head.Type {
	case "job":
		e.Start = &JobStartEvent{}
		into = e.Start
	case "result":
		e.Result = &JobResultEvent{}
		into = e.Result
	case "progress":
		e.Progress = &JobProgressEvent{}
		into = e.Progress
	case "complete":
		e.Complete = &JobCompleteEvent{}
		into = e.Complete
	default:
		return JobEvent{}, nil
	}
	if err := json.Unmarshal([]byte(raw.Data), into); err != nil {
		return JobEvent{}, fmt.Errorf("read event %q: %w", head.Type, err)
	}
	return e, nil
}
