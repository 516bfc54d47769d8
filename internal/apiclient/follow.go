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

// Event is one event of the log of a task or job; exactly one field is set.
type Event struct {
	Log  *LogLine
	Task *Task
	Job  *BatchJob
	Gap  *LogGap
	End  *LogEnd
}

// Follower follows the log of a task or job over lost connections and restarts of the server: it asks again from the last
// line that it has, so none is missed or given twice.
type Follower struct {
	API    *API
	TaskID string
	JobID  string // in place of TaskID

	// Client is the only agent whose log lines are wanted. Defaults to all.
	Client string
	// After is the sequence number to begin after. Defaults to the beginning.
	After int64
	// Patience is how long to go on without reaching the server. Defaults to 10 minutes.
	Patience time.Duration
	// Lost is called when the connection is lost, and Resumed when there is one again. They default to nothing.
	Lost    func(err error)
	Resumed func(after int64)
}

// Events gives the events up to the end of the task or job, then stops. An error is the last thing it gives: an answer that
// asking again will not change, the end of ctx, or of the patience.
func (f *Follower) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		after := f.After
		p := persistence{patience: f.Patience, lost: f.Lost, resumed: func() {
			if f.Resumed != nil {
				f.Resumed(after)
			}
		}}
		err := p.follow(ctx, func(connected func()) (done bool, err error) {
			err = readStream(ctx, func(ctx context.Context) (*http.Response, error) { return f.open(ctx, after) }, connected,
				func(raw sse.Event) (more bool, err error) {
					event, err := parseEvent(raw)
					if err != nil || event == (Event{}) {
						return true, err
					}
					if event.Log != nil {
						after = event.Log.Seq
					}
					done = !yield(event, nil) || event.End != nil
					return !done, nil
				})
			return done, err
		})
		if err != nil {
			yield(Event{}, err)
		}
	}
}

func (f *Follower) open(ctx context.Context, after int64) (*http.Response, error) {
	if f.JobID != "" {
		return f.API.JobLogs(ctx, f.JobID, &JobLogsParams{
			Accept: new("text/event-stream"), LastEventID: Optional(after), Client: Optional(f.Client),
		})
	}
	return f.API.TaskLogs(ctx, f.TaskID, &TaskLogsParams{
		Accept: new("text/event-stream"), LastEventID: Optional(after), Client: Optional(f.Client),
	})
}

// parseEvent gives an event, or the zero one for a kind that a newer server may send.
func parseEvent(raw sse.Event) (e Event, err error) {
	var into any
	switch raw.Type {
	case "log":
		e.Log = &LogLine{}
		into = e.Log
	case "task":
		e.Task = &Task{}
		into = e.Task
	case "job":
		e.Job = &BatchJob{}
		into = e.Job
	case "gap":
		e.Gap = &LogGap{}
		into = e.Gap
	case "end":
		e.End = &LogEnd{}
		into = e.End
	default:
		return Event{}, nil
	}
	if err := json.Unmarshal([]byte(raw.Data), into); err != nil {
		return Event{}, fmt.Errorf("read event %q: %w", raw.Type, err)
	}
	return e, nil
}
