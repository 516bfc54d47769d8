package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

const (
	eventStream       = "text/event-stream"
	streamBatch       = 500
	streamReread      = 2 * time.Second // in case a notification was lost, or made by another server
	streamKeepAlive   = 15 * time.Second
	streamWriteLimit  = 30 * time.Second // a reader that takes nothing for so long is cut off; it may resume
	missingLogsWait   = 15 * time.Second // after a task's end, for logs that are still on their way
	maxStreamFailures = 5                // reads of the store in a row
)

// LogGap says that retention has cut a piece of the log.
type LogGap struct {
	From int64 `json:"from" doc:"First sequence number that is gone"`
	To   int64 `json:"to" doc:"Last one"`
}

// LogEnd says that the task has ended and nothing follows.
type LogEnd struct {
	Status       release.Status `json:"status"`
	LogsComplete bool           `json:"logs_complete"`
	Missing      []string       `json:"missing" doc:"Agents whose logs have not arrived in full"`
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

var streamEvents = map[string]reflect.Type{"LogGap": typeOf[LogGap](), "LogEnd": typeOf[LogEnd]()}

// logStream follows one task for one reader. It reads the store; the bus only says when to look again.
type logStream struct {
	server *server
	taskID string
	filter store.LogFilter
	after  int64

	w        http.ResponseWriter
	control  *http.ResponseController
	lastTask []byte
}

// serve writes events until the task has ended, the reader has gone, or the server stops.
func (l *logStream) serve(w http.ResponseWriter, r *http.Request) {
	l.w, l.control = w, http.NewResponseController(w)
	w.Header().Set("Content-Type", eventStream)
	w.Header().Set("X-Accel-Buffering", "no") // proxies, do not collect
	changed, cancel := l.server.Bus.Subscribe(bus.Task(l.taskID))
	defer cancel()
	again, alive := time.NewTicker(streamReread), time.NewTicker(streamKeepAlive)
	defer again.Stop()
	defer alive.Stop()

	ctx := r.Context()
	failures := 0
	for {
		ended, err := l.catchUp(ctx)
		if err == nil {
			err = l.flush()
		}
		switch {
		case ended || ctx.Err() != nil:
			return
		case err != nil:
			// The reader comes back by itself and resumes, with luck after the trouble is over.
			failures++
			if failures >= maxStreamFailures || isWriteError(err) {
				l.server.Logger.WarnContext(ctx, "log stream given up", "task", l.taskID, "error", err)
				return
			}
		default:
			failures = 0
		}
		if !l.wait(ctx, changed, again.C, alive.C) {
			return
		}
	}
}

// wait returns when there may be something new. It is false when the reader has gone.
func (l *logStream) wait(ctx context.Context, changed <-chan struct{}, again, alive <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-changed:
			return true
		case <-again:
			return true
		case <-alive:
			if l.write(": alive\n\n") != nil || l.flush() != nil {
				return false
			}
		}
	}
}

// catchUp writes what is new. Whether the logs are complete is asked before they are read: what was stored in between
// is read then, so that nothing can come after the end.
func (l *logStream) catchUp(ctx context.Context) (ended bool, err error) {
	task, err := l.server.Store.Task(ctx, l.taskID)
	if err != nil {
		return false, fmt.Errorf("read task: %w", err)
	}
	end := LogEnd{Status: task.Status, Missing: []string{}}
	if task.Status.Terminal() {
		complete, missing, err := l.server.Store.LogsComplete(ctx, l.taskID)
		if err != nil {
			return false, fmt.Errorf("ask for missing logs: %w", err)
		}
		end.LogsComplete, end.Missing = complete, list(missing)
		waited := task.FinishedAt != nil && l.server.Now().Sub(*task.FinishedAt) >= missingLogsWait
		ended = complete || waited
	}
	if err := l.logs(ctx); err != nil {
		return false, err
	}
	if err := l.task(task); err != nil {
		return false, err
	}
	if !ended {
		return false, nil
	}
	return true, l.event("end", 0, end)
}

func (l *logStream) logs(ctx context.Context) error {
	head, err := l.server.Store.LogHead(ctx, l.taskID)
	if err != nil {
		return fmt.Errorf("read log head: %w", err)
	}
	l.after = min(l.after, head) // an id that was never given cannot make a reader wait for it
	for {
		records, err := l.server.Store.Logs(ctx, l.taskID, l.after, l.filter, streamBatch)
		if err != nil {
			return fmt.Errorf("read logs: %w", err)
		}
		for _, r := range records {
			if err := l.goneBefore(r); err != nil {
				return err
			}
			if err := l.event("log", r.Seq, logLine(r)); err != nil {
				return err
			}
			l.after = r.Seq
		}
		if len(records) < streamBatch {
			if err := l.gap(head); err != nil {
				return err
			}
			l.after = max(l.after, head) // with a filter, what was passed over need not be read again
			return nil
		}
		if err := l.flush(); err != nil {
			return err
		}
	}
}

// goneBefore says what is missing in front of a record. A notice stands for what is gone, of whatever agent that was.
func (l *logStream) goneBefore(r release.LogRecord) error {
	if r.StepID == "" {
		return l.event("gap", 0, LogGap{From: l.after + 1, To: r.Seq})
	}
	return l.gap(r.Seq - 1)
}

// gap says that nothing is left between what was written last and a sequence number. A filter leaves gaps of its own.
func (l *logStream) gap(upTo int64) error {
	if l.filter != (store.LogFilter{}) || upTo <= l.after {
		return nil
	}
	return l.event("gap", 0, LogGap{From: l.after + 1, To: upTo})
}

// task writes the task if it has changed.
func (l *logStream) task(task release.Task) error {
	text, err := json.Marshal(task)
	if err != nil {
		return fmt.Errorf("write task: %w", err)
	}
	if bytes.Equal(text, l.lastTask) {
		return nil
	}
	l.lastTask = text
	return l.event("task", 0, json.RawMessage(text))
}

// event writes one event; JSON has no line breaks, so one data line holds it.
func (l *logStream) event(name string, id int64, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if id > 0 {
		return l.write("event: %s\nid: %d\ndata: %s\n\n", name, id, text)
	}
	return l.write("event: %s\ndata: %s\n\n", name, text)
}

// writeError is a failure of the connection, as opposed to one of the store.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

func isWriteError(err error) bool {
	_, is := err.(writeError) //nolint:errorlint // made and looked at in this file only
	return is
}

func (l *logStream) write(format string, args ...any) error {
	_ = l.control.SetWriteDeadline(time.Now().Add(streamWriteLimit)) // not every writer has one
	if _, err := fmt.Fprintf(l.w, format, args...); err != nil {
		return writeError{err}
	}
	return nil
}

func (l *logStream) flush() error {
	if err := l.control.Flush(); err != nil {
		return writeError{err}
	}
	return nil
}
