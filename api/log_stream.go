package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

const missingLogsWait = 15 * time.Second // after the end, for logs that are still on their way

// LogGap says that retention has cut a piece of the log.
type LogGap struct {
	From int64 `json:"from" doc:"First sequence number that is gone"`
	To   int64 `json:"to" doc:"Last one"`
}

// LogEnd says that the task or job has ended and nothing follows.
type LogEnd struct {
	Status       string   `json:"status"`
	LogsComplete bool     `json:"logs_complete"`
	Missing      []string `json:"missing" doc:"Agents whose logs have not arrived in full"`
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

var streamEvents = map[string]reflect.Type{"LogGap": typeOf[LogGap](), "LogEnd": typeOf[LogEnd]()}

// logged is what has a log: a task or a job.
type logged struct {
	event      string // name of the event that tells its state
	state      any
	status     string
	terminal   bool
	finishedAt *time.Time
}

// logStream follows the log of one task or job for one reader. It reads the store; the bus only says when to look again.
type logStream struct {
	server *server
	id     string
	read   func(ctx context.Context, id string) (logged, error)
	filter store.LogFilter
	after  int64

	out       *eventWriter
	lastState []byte
}

// catchUp writes what is new. Whether the logs are complete is asked before they are read: what was stored in between
// is read then, so that nothing can come after the end.
func (l *logStream) catchUp(ctx context.Context) (ended bool, err error) {
	now, err := l.read(ctx, l.id)
	if err != nil {
		return false, fmt.Errorf("read its state: %w", err)
	}
	end := LogEnd{Status: now.status, Missing: []string{}}
	if now.terminal {
		complete, missing, err := l.server.Store.LogsComplete(ctx, l.id)
		if err != nil {
			return false, fmt.Errorf("ask for missing logs: %w", err)
		}
		end.LogsComplete, end.Missing = complete, list(missing)
		waited := now.finishedAt != nil && l.server.Now().Sub(*now.finishedAt) >= missingLogsWait
		ended = complete || waited
	}
	if err := l.logs(ctx); err != nil {
		return false, err
	}
	if err := l.state(now); err != nil {
		return false, err
	}
	if !ended {
		return false, nil
	}
	return true, l.out.event("end", "", end)
}

func (l *logStream) logs(ctx context.Context) error {
	head, err := l.server.Store.LogHead(ctx, l.id)
	if err != nil {
		return fmt.Errorf("read log head: %w", err)
	}
	l.after = min(l.after, head) // an id that was never given cannot make a reader wait for it
	for {
		records, err := l.server.Store.Logs(ctx, l.id, l.after, l.filter, streamBatch)
		if err != nil {
			return fmt.Errorf("read logs: %w", err)
		}
		for _, r := range records {
			if err := l.goneBefore(r); err != nil {
				return err
			}
			if err := l.out.event("log", strconv.FormatInt(r.Seq, 10), logLine(r)); err != nil {
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
		if err := l.out.flush(); err != nil {
			return err
		}
	}
}

// goneBefore says what is missing in front of a record. A notice stands for what is gone, of whatever agent that was.
func (l *logStream) goneBefore(r release.LogRecord) error {
	if r.StepID == "" {
		return l.out.event("gap", "", LogGap{From: l.after + 1, To: r.Seq})
	}
	return l.gap(r.Seq - 1)
}

// gap says that nothing is left between what was written last and a sequence number. A filter leaves gaps of its own.
func (l *logStream) gap(upTo int64) error {
	if l.filter != (store.LogFilter{}) || upTo <= l.after {
		return nil
	}
	return l.out.event("gap", "", LogGap{From: l.after + 1, To: upTo})
}

// state writes the task or job if it has changed.
func (l *logStream) state(now logged) error {
	text, err := json.Marshal(now.state)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if bytes.Equal(text, l.lastState) {
		return nil
	}
	l.lastState = text
	return l.out.event(now.event, "", json.RawMessage(text))
}
