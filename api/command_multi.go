package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

// MaxMulti bounds the hosts of POST /api/command/multi, whose answer holds all results.
const MaxMulti = 1000

// MultiCommand is a command for several hosts.
type MultiCommand struct {
	ClientIDs    []string `json:"client_ids" doc:"Each must be known; one that is given twice counts once"`
	Type         string   `json:"command_type" example:"exec_shell"`
	Payload      Payload  `json:"payload,omitempty"`
	Timeout      Seconds  `json:"timeout,omitempty"`
	AllowMissing bool     `json:"allow_missing,omitempty" doc:"Leave out listed clients that are not known, instead of running it nowhere"`
}

func (m MultiCommand) order(kind job.Kind, key string) order {
	return order{
		key: key, kind: kind, command: job.Command{Type: m.Type, Payload: json.RawMessage(m.Payload)},
		targets: release.Targets{Clients: m.ClientIDs}, options: job.Options{TaskTimeout: m.Timeout.duration()}, allowMissing: m.AllowMissing,
		fields: map[string]string{"targets": "client_ids", "targets.clients": "client_ids", "task_timeout": "timeout"},
	}
}

// HostResult is what became of a command on one host among others.
type HostResult struct {
	ClientID  string    `json:"client_id"`
	CommandID string    `json:"command_id"`
	Status    string    `json:"status" enum:"pending,executing,completed,failed,timeout,cancelled"`
	Outcome   job.State `json:"outcome" enum:"pending,running,succeeded,failed,timeout,refused,unknown,offline,cancelled,skipped"`
	Result    AnyJSON   `json:"result,omitempty" doc:"Of exec_shell an Output, of which at most 64 KiB of each stream are here"`
	Output    *Output   `json:"output,omitempty" doc:"What it printed besides a result of another kind, such as container.logs"`
	Error     string    `json:"error,omitempty" doc:"One line: why it did not succeed"`
}

// MultiAnswer is what became of a command on all of its hosts.
type MultiAnswer struct {
	Success      bool         `json:"success" doc:"Every host did it"`
	JobID        string       `json:"job_id"`
	Status       job.Status   `json:"status" enum:"completed,partial,failed,cancelled,timeout"`
	Total        int          `json:"total"`
	SuccessCount int          `json:"success_count"`
	FailedCount  int          `json:"failed_count" doc:"All others"`
	Missing      []string     `json:"missing,omitempty" doc:"Listed clients that are not known, where allow_missing said to go on"`
	Results      []HostResult `json:"results" doc:"By client id"`
}

func (s *server) registerMulti(api huma.API) {
	tags := []string{"commands"}
	register(s, api, huma.Operation{
		OperationID: "create-command-multi", Method: http.MethodPost, Path: "/api/command/multi", Tags: tags,
		Summary: "Run a command on several hosts and wait for all of them",
		Description: "Who leaves before the answer comes cancels nothing: the job goes on, and is found in GET /api/batch/jobs. " +
			"At most 1000 hosts; for more there are /api/command/stream and /api/batch/execute." + keyed,
	}, func(ctx context.Context, in *struct {
		Keyed
		Body MultiCommand
	}) (*reply[MultiAnswer], error) {
		answer, err := s.multi(ctx, in.Body, in.Key)
		if err != nil {
			return nil, err
		}
		return replyWith(answer), nil
	})
	register(s, api, huma.Operation{
		OperationID: "create-command-stream", Method: http.MethodPost, Path: "/api/command/stream", Tags: tags, MaxBodyBytes: MaxTaskBody,
		Summary: "Run a command on several hosts, with the results as they come",
		Description: streamDescription + " The first event (type job) tells the job_id. A reader that is cut off goes on with GET /api/batch/jobs/{job_id}/stream. " +
			"Closing the connection cancels nothing, unless cancel_on_disconnect asks for that." + keyed,
		Responses: streamResponse,
	}, func(ctx context.Context, in *streamInput) (*streamOutput, error) {
		j, missing, err := s.createJob(ctx, in.Body.order(job.KindStream, in.Key))
		if err != nil {
			return nil, err
		}
		return &streamOutput{Body: func(ctx huma.Context) {
			r, w := humachi.Unwrap(ctx)
			stream := s.newJobStream(j.ID, in.StreamQuery, newEventWriter(w))
			stream.missing = missing
			if end := stream.serve(r.Context()); end == streamLeft && in.CancelOnDisconnect {
				s.cancelAbandoned(r.Context(), j.ID)
			}
		}}, nil
	})
	for name, t := range jobEvents {
		api.OpenAPI().Components.Schemas.Schema(t, true, name)
	}
}

type streamInput struct {
	CancelOnDisconnect bool `query:"cancel_on_disconnect" doc:"Cancel the job when this connection is closed before its end. The server's own end cancels nothing"`
	StreamQuery
	Keyed
	Body MultiCommand
}

func (s *server) multi(ctx context.Context, in MultiCommand, key string) (MultiAnswer, error) {
	if n := len(in.ClientIDs); n > MaxMulti {
		return MultiAnswer{}, release.Invalid("client_ids", "lists %d clients; at most %d can be waited for: use /api/command/stream or /api/batch/execute", n, MaxMulti)
	}
	j, missing, err := s.createJob(ctx, in.order(job.KindMulti, key))
	if err != nil {
		return MultiAnswer{}, err
	}
	if j, err = s.awaitJob(ctx, j.ID); err != nil {
		return MultiAnswer{}, err
	}
	s.awaitLogs(ctx, j.ID)
	targets, err := s.targetsOf(ctx, j.ID, "")
	if err != nil {
		return MultiAnswer{}, err
	}
	answer := MultiAnswer{
		Success: j.Counts.Succeeded == j.Counts.Total, JobID: j.ID, Status: j.Status, Total: j.Counts.Total, SuccessCount: j.Counts.Succeeded,
		FailedCount: j.Counts.Total - j.Counts.Succeeded, Missing: missing, Results: make([]HostResult, 0, len(targets)),
	}
	limit := min(MaxResultOutput, maxMultiOutput/(2*len(targets)))
	for i := range targets {
		o, err := s.outcomeOf(ctx, &targets[i], limit, limit)
		if err != nil {
			return MultiAnswer{}, err
		}
		answer.Results = append(answer.Results, hostResult(&targets[i], o))
	}
	return answer, nil
}

func hostResult(t *job.Target, o outcome) HostResult {
	r := HostResult{ClientID: t.ClientID, CommandID: t.ID(), Status: t.State.CommandStatus(), Outcome: t.State, Result: AnyJSON(o.result), Error: oneLine(t)}
	if r.Error == "" {
		r.Error = o.problem
	}
	if o.typed && !t.ResultInLog && o.output.StdoutBytes+o.output.StderrBytes > 0 {
		r.Output = o.output
	}
	return r
}

// cancelAbandoned cancels the job of a reader who has gone and wanted that, unless the server itself has ended the request.
func (s *server) cancelAbandoned(request context.Context, jobID string) {
	if cause := context.Cause(request); cause != nil && cause != context.Canceled { //nolint:errorlint // what net/http gives for a closed connection, and only that
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(request), 10*time.Second)
	defer cancel()
	if err := s.Jobs.CancelJob(ctx, jobID, principal(request), "the reader of its stream has gone"); err != nil && !errors.Is(err, release.ErrConflict) {
		s.Logger.WarnContext(ctx, "job of an abandoned stream not cancelled", "job", jobID, "error", err)
	}
}
