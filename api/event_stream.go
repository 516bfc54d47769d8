package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	eventStream       = "text/event-stream"
	streamBatch       = 500
	streamReread      = 2 * time.Second // in case a notification was lost, or made by another server
	streamKeepAlive   = 15 * time.Second
	streamWriteLimit  = 30 * time.Second // a reader that takes nothing for so long is cut off; it may resume
	maxStreamFailures = 5                // reads of the store in a row
)

// eventWriter writes Server-Sent Events to one reader.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func newEventWriter(w http.ResponseWriter) *eventWriter {
	w.Header().Set("Content-Type", eventStream)
	w.Header().Set("X-Accel-Buffering", "no") // proxies, do not collect
	return &eventWriter{w: w, control: http.NewResponseController(w)}
}

// streamEnd is why a stream is over.
type streamEnd int

const (
	streamComplete streamEnd = iota
	streamLeft               // the reader has gone, or takes nothing, or the server stops
	streamBroken             // the store could not be read; the reader may come back
)

// follow calls catchUp at first, and whenever a topic may have changed, until it has ended or nobody reads any more. what
// names the stream in the log.
func (s *server) follow(ctx context.Context, topic string, out *eventWriter, what string, catchUp func(context.Context) (ended bool, err error)) streamEnd {
	changed, cancel := s.Bus.Subscribe(topic)
	defer cancel()
	again, alive := time.NewTicker(streamReread), time.NewTicker(streamKeepAlive)
	defer again.Stop()
	defer alive.Stop()
	failures := 0
	for {
		ended, err := catchUp(ctx)
		if err == nil {
			err = out.flush()
		}
		switch {
		case ended && err == nil:
			return streamComplete
		case ctx.Err() != nil:
			return streamLeft
		case isWriteError(err):
			s.Logger.WarnContext(ctx, "reader of a stream is cut off", "stream", what, "topic", topic, "error", err)
			return streamLeft
		case err != nil:
			// The reader comes back by itself and resumes, with luck after the trouble is over.
			if failures++; failures >= maxStreamFailures {
				s.Logger.WarnContext(ctx, "stream given up", "stream", what, "topic", topic, "error", err)
				return streamBroken
			}
		default:
			failures = 0
		}
		if !out.wait(ctx, changed, again.C, alive.C) {
			return streamLeft
		}
	}
}

// wait returns when there may be something new. It is false when the reader has gone.
func (e *eventWriter) wait(ctx context.Context, changed <-chan struct{}, again, alive <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-changed:
			return true
		case <-again:
			return true
		case <-alive:
			if e.write(": alive\n\n") != nil || e.flush() != nil {
				return false
			}
		}
	}
}

// event writes one event; JSON has no line breaks, so one data line holds it. Name and id are left out where they are empty.
func (e *eventWriter) event(name, id string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	head := ""
	if name != "" {
		head = "event: " + name + "\n"
	}
	if id != "" {
		head += "id: " + id + "\n"
	}
	return e.write("%sdata: %s\n\n", head, text)
}

// writeError is a failure of the connection, as opposed to one of the store.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

func isWriteError(err error) bool {
	_, is := err.(writeError) //nolint:errorlint // made and looked at in this file only
	return is
}

func (e *eventWriter) write(format string, args ...any) error {
	_ = e.control.SetWriteDeadline(time.Now().Add(streamWriteLimit)) // not every writer has one
	if _, err := fmt.Fprintf(e.w, format, args...); err != nil {
		return writeError{err}
	}
	return nil
}

func (e *eventWriter) flush() error {
	if err := e.control.Flush(); err != nil {
		return writeError{err}
	}
	return nil
}
