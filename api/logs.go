package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// LogPage is a piece of a task's log.
type LogPage struct {
	Logs []LogLine `json:"logs"`
	Head int64     `json:"head" doc:"The last sequence number of the task so far"`
}

// LogLine is a piece of a step's output, as the host wrote it: often a line, sometimes several or a part of one.
type LogLine struct {
	Seq      int64     `json:"seq" doc:"Rises without gaps within the task"`
	ClientID string    `json:"client_id"`
	Step     string    `json:"step,omitempty" enum:"deploy,rollback" doc:"Left out of a notice by the server that lines are no longer kept"`
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

type logInput struct {
	TaskPath
	After       int64  `query:"after" minimum:"0" doc:"Give what comes after this sequence number"`
	Limit       int    `query:"limit" default:"500" minimum:"1" maximum:"5000" doc:"How many at most; a stream has no end of this kind"`
	Client      string `query:"client" doc:"Only of this agent"`
	Accept      string `header:"Accept" doc:"text/event-stream for a stream"`
	LastEventID int64  `header:"Last-Event-ID" minimum:"0" doc:"Resumes a stream; goes before after"`
}

// logOutput is a page or a stream: its Body writes either.
type logOutput struct {
	Body func(huma.Context)
}

func (s *server) registerLogs(api huma.API) {
	schemas := api.OpenAPI().Components.Schemas
	register(s, api, huma.Operation{
		OperationID: "task-logs", Method: http.MethodGet, Path: "/api/release/tasks/{task_id}/logs", Tags: []string{"tasks"},
		Summary: "The log of a task: history, or a live stream by Accept: text/event-stream",
		Description: "Events of the stream: `log` (id: its sequence number, for Last-Event-ID; data: LogLine), " +
			"`task` (no id; data: Task, at first and whenever it changed), `gap` (data: LogGap, where retention has cut something; a notice that says why follows as `log`), " +
			"`end` (data: LogEnd; nothing follows). Comments keep the connection alive.",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"application/json":  {Schema: schemas.Schema(typeOf[LogPage](), true, "LogPage")},
			"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}},
		}}},
	}, func(ctx context.Context, in *logInput) (*logOutput, error) {
		if _, err := s.Store.Task(ctx, in.ID); err != nil {
			return nil, err
		}
		filter := store.LogFilter{ClientID: in.Client}
		if strings.Contains(in.Accept, eventStream) {
			stream := &logStream{server: s, taskID: in.ID, filter: filter, after: max(in.After, in.LastEventID)}
			return &logOutput{Body: func(ctx huma.Context) {
				r, w := humachi.Unwrap(ctx)
				stream.serve(w, r)
			}}, nil
		}
		page, err := s.logPage(ctx, in, filter)
		if err != nil {
			return nil, err
		}
		return &logOutput{Body: func(ctx huma.Context) {
			ctx.SetHeader("Content-Type", "application/json")
			_ = json.NewEncoder(ctx.BodyWriter()).Encode(page)
		}}, nil
	})
	for name, t := range streamEvents {
		schemas.Schema(t, true, name)
	}
}

func (s *server) logPage(ctx context.Context, in *logInput, filter store.LogFilter) (LogPage, error) {
	records, err := s.Store.Logs(ctx, in.ID, in.After, filter, in.Limit)
	if err != nil {
		return LogPage{}, err
	}
	head, err := s.Store.LogHead(ctx, in.ID)
	if err != nil {
		return LogPage{}, err
	}
	page := LogPage{Logs: make([]LogLine, 0, len(records)), Head: head}
	for _, r := range records {
		page.Logs = append(page.Logs, logLine(r))
	}
	return page, nil
}
