package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// LogPage is a piece of the log of a task or job.
type LogPage struct {
	Logs []LogLine `json:"logs"`
	Head int64     `json:"head" doc:"The last sequence number so far"`
}

// LogLine is a piece of a step's output, as the host wrote it: often a line, sometimes several or a part of one.
type LogLine struct {
	Seq      int64     `json:"seq" doc:"Rises without gaps within the task or job"`
	ClientID string    `json:"client_id"`
	Step     string    `json:"step,omitempty" enum:"deploy,rollback,command" doc:"Left out of a notice by the server that lines are no longer kept"`
	Stream   string    `json:"stream" enum:"stdout,stderr,system" doc:"system: by the agent itself, or by the server"`
	Offset   uint64    `json:"offset" doc:"Of the first byte, within the stream of the step"`
	Time     time.Time `json:"time"`
	Text     string    `json:"text,omitempty"`
	Data     string    `json:"data_base64,omitempty" doc:"In place of text where the output is not UTF-8"`
}

func logLine(r release.LogRecord) LogLine {
	line := LogLine{Seq: r.Seq, ClientID: r.ClientID, Stream: string(r.Stream), Offset: r.Offset, Time: r.Time}
	if _, step, _, _, err := release.ParseStepID(r.StepID); err == nil {
		line.Step = string(step)
	}
	if utf8.Valid(r.Data) {
		line.Text = string(r.Data)
	} else {
		line.Data = base64.StdEncoding.EncodeToString(r.Data)
	}
	return line
}

// LogQuery is what is wanted of a log.
type LogQuery struct {
	After       int64  `query:"after" minimum:"0" doc:"Give what comes after this sequence number"`
	Limit       int    `query:"limit" default:"500" minimum:"1" maximum:"5000" doc:"How many at most; a stream has no end of this kind"`
	Client      string `query:"client" doc:"Only of this agent"`
	Accept      string `header:"Accept" doc:"text/event-stream for a stream"`
	LastEventID int64  `header:"Last-Event-ID" minimum:"0" doc:"Resumes a stream; goes before after"`
}

// streamOutput is an answer that its Body writes.
type streamOutput struct {
	Body func(huma.Context)
}

func (s *server) registerLogs(api huma.API) {
	schemas := api.OpenAPI().Components.Schemas
	page := map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
		"application/json": {Schema: schemas.Schema(typeOf[LogPage](), true, "LogPage")},
		eventStream:        {Schema: &huma.Schema{Type: huma.TypeString}},
	}}}
	const events = "Events of the stream: `log` (id: its sequence number, for Last-Event-ID; data: LogLine), " +
		"`%s` (no id; data: %s, at first and whenever it changed), `gap` (data: LogGap, where retention has cut something; a notice that says why follows as `log`), " +
		"`end` (data: LogEnd; nothing follows). Comments keep the connection alive."
	register(s, api, huma.Operation{
		OperationID: "task-logs", Method: http.MethodGet, Path: "/api/release/tasks/{task_id}/logs", Tags: []string{"tasks"},
		Summary:     "The log of a task: history, or a live stream by Accept: text/event-stream",
		Description: fmt.Sprintf(events, "task", "Task"), Responses: page,
	}, func(ctx context.Context, in *struct {
		TaskPath
		LogQuery
	}) (*streamOutput, error) {
		return s.logs(ctx, in.ID, in.LogQuery, s.loggedTask)
	})
	register(s, api, huma.Operation{
		OperationID: "job-logs", Method: http.MethodGet, Path: "/api/batch/jobs/{job_id}/logs", Tags: []string{"batch"},
		Summary:     "The log of a job: history, or a live stream by Accept: text/event-stream",
		Description: fmt.Sprintf(events, "job", "BatchJob"), Responses: page,
	}, func(ctx context.Context, in *struct {
		JobPath
		LogQuery
	}) (*streamOutput, error) {
		return s.logs(ctx, in.ID, in.LogQuery, s.loggedJob)
	})
	for name, t := range streamEvents {
		schemas.Schema(t, true, name)
	}
}

func (s *server) loggedTask(ctx context.Context, id string) (logged, error) {
	t, err := s.Store.Task(ctx, id)
	return logged{event: "task", state: t, status: string(t.Status), terminal: t.Status.Terminal(), finishedAt: t.FinishedAt}, err
}

func (s *server) loggedJob(ctx context.Context, id string) (logged, error) {
	j, err := s.Store.Job(ctx, id)
	return logged{event: "job", state: batchJob(j, false), status: string(j.Status), terminal: j.Status.Terminal(), finishedAt: j.FinishedAt}, err
}

// logs answers with a page of a log, or a stream of it.
func (s *server) logs(ctx context.Context, id string, q LogQuery, read func(context.Context, string) (logged, error)) (*streamOutput, error) {
	if _, err := read(ctx, id); err != nil {
		return nil, err
	}
	filter := store.LogFilter{ClientID: q.Client}
	if strings.Contains(q.Accept, eventStream) {
		return &streamOutput{Body: func(ctx huma.Context) {
			r, w := humachi.Unwrap(ctx)
			stream := &logStream{server: s, id: id, read: read, filter: filter, after: max(q.After, q.LastEventID), out: newEventWriter(w)}
			s.follow(r.Context(), bus.Task(id), stream.out, "logs", stream.catchUp)
		}}, nil
	}
	page, err := s.logPage(ctx, id, q, filter)
	if err != nil {
		return nil, err
	}
	return &streamOutput{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", "application/json")
		_ = json.NewEncoder(ctx.BodyWriter()).Encode(page)
	}}, nil
}

func (s *server) logPage(ctx context.Context, id string, q LogQuery, filter store.LogFilter) (LogPage, error) {
	records, err := s.Store.Logs(ctx, id, q.After, filter, q.Limit)
	if err != nil {
		return LogPage{}, err
	}
	head, err := s.Store.LogHead(ctx, id)
	if err != nil {
		return LogPage{}, err
	}
	page := LogPage{Logs: make([]LogLine, 0, len(records)), Head: head}
	for _, r := range records {
		page.Logs = append(page.Logs, logLine(r))
	}
	return page, nil
}
