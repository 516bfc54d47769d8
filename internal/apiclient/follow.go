package apiclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/tmaxmax/go-sse"
)

const (
	maxEvent      = 16 << 20
	streamSilence = 45 * time.Second // three of the server's keep-alives
	firstBackoff  = 250 * time.Millisecond
	lastBackoff   = 5 * time.Second
)

// Event is one event of a task's stream; exactly one field is set.
type Event struct {
	Log  *LogLine
	Task *Task
	Gap  *LogGap
	End  *LogEnd
}

// Follower follows the stream of a task over lost connections and restarts of the server: it asks again from the last
// line that it has, so none is missed or given twice.
type Follower struct {
	API    *API
	TaskID string

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

// Events gives the events up to the end of the task, then stops. An error is the last thing it gives: an answer that
// asking again will not change, the end of ctx, or of the patience.
func (f *Follower) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		patience := f.Patience
		if patience == 0 {
			patience = 10 * time.Minute
		}
		after, backoff, lost := f.After, firstBackoff, time.Time{}
		for {
			done, stopped := false, false
			err := f.connection(ctx, after, func() {
				if !lost.IsZero() && f.Resumed != nil {
					f.Resumed(after)
				}
				lost, backoff = time.Time{}, firstBackoff
			}, func(e Event) bool {
				if e.Log != nil {
					after = e.Log.Seq
				}
				done = e.End != nil
				stopped = !yield(e, nil)
				return !done && !stopped
			})
			if done || stopped {
				return
			}
			if err == nil {
				err = io.ErrUnexpectedEOF // the server has stopped, or is about to
			}
			if ctx.Err() != nil {
				yield(Event{}, context.Cause(ctx))
				return
			}
			if status := StatusOf(err); status >= 400 && status < 500 && status != http.StatusTooManyRequests {
				yield(Event{}, err)
				return
			}
			if lost.IsZero() {
				lost = time.Now()
				if f.Lost != nil {
					f.Lost(err)
				}
			}
			if time.Since(lost) > patience {
				yield(Event{}, fmt.Errorf("server not reached for %s: %w", patience, err))
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(backoff):
				backoff = min(2*backoff, lastBackoff)
			}
		}
	}
}

var errSilent = errors.New("nothing came for too long")

// connection follows over one connection until it ends or handle has enough.
func (f *Follower) connection(ctx context.Context, after int64, connected func(), handle func(Event) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(streamSilence, func() { cancel(errSilent) })
	defer silence.Stop()

	res, err := f.API.TaskLogs(ctx, f.TaskID, &TaskLogsParams{
		Accept: new("text/event-stream"), LastEventID: Optional(after), Client: Optional(f.Client),
	})
	if err := check(res, err); err != nil {
		return err
	}
	defer res.Body.Close()
	connected()
	body := readerFunc(func(p []byte) (int, error) {
		n, err := res.Body.Read(p)
		silence.Reset(streamSilence)
		return n, err
	})
	for raw, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		event, err := parseEvent(raw)
		if err != nil {
			return err
		}
		if event != (Event{}) && !handle(event) {
			return nil
		}
	}
	return context.Cause(ctx)
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

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
