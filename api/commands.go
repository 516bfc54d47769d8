package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// NewCommand is a command for one host.
type NewCommand struct {
	ClientID string  `json:"client_id"`
	Type     string  `json:"command_type" example:"exec_shell" doc:"Whether there is such a command is for the agent to say"`
	Payload  Payload `json:"payload,omitempty"`
	Timeout  Seconds `json:"timeout,omitempty"`
}

// CommandAnswer says that a command was taken.
type CommandAnswer struct {
	Success bool   `json:"success" doc:"It is stored, and runs by itself"`
	ID      string `json:"command_id"`
	Message string `json:"message"`
}

// CommandInfo is what became of a command on a host.
type CommandInfo struct {
	ID         string     `json:"command_id"`
	JobID      string     `json:"job_id"`
	ClientID   string     `json:"client_id"`
	Type       string     `json:"command_type"`
	Payload    *Payload   `json:"payload,omitempty" doc:"Not in lists"`
	Status     string     `json:"status" enum:"pending,executing,completed,failed,timeout,cancelled"`
	Outcome    job.State  `json:"outcome" enum:"pending,running,succeeded,failed,timeout,refused,unknown,offline,cancelled,skipped" doc:"The status, exactly"`
	Result     AnyJSON    `json:"result,omitempty" doc:"Of exec_shell an Output; of other commands what they give. Not in lists"`
	Error      string     `json:"error,omitempty" doc:"One line: why it did not succeed"`
	ExitCode   *int       `json:"exit_code,omitempty"`
	Stdout     string     `json:"stdout,omitempty" doc:"As in Output, at most 1 MiB. Not in lists"`
	Stderr     string     `json:"stderr,omitempty"`
	StdoutCut  bool       `json:"stdout_truncated,omitempty"`
	StderrCut  bool       `json:"stderr_truncated,omitempty"`
	Attempt    int        `json:"attempt" doc:"1 at first; each new try that was decided on raises it"`
	Timeout    Seconds    `json:"timeout"`
	CreatedBy  string     `json:"created_by"`
	CreatedAt  time.Time  `json:"created_at"`
	StartedAt  *time.Time `json:"started_at,omitempty"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
}

// CommandList is a page of commands, the newest first.
type CommandList struct {
	Commands []CommandInfo `json:"commands"`
	Total    int           `json:"total" doc:"How many match, on all pages"`
}

// CommandPath names a command.
type CommandPath struct {
	ID string `path:"command_id"`
}

type commandQuery struct {
	ClientID string `query:"client_id"`
	Type     string `query:"command_type"`
	Status   string `query:"status" enum:"pending,executing,completed,failed,timeout,cancelled"`
	Page
}

func (s *server) registerCommands(api huma.API) {
	tags := []string{"commands"}
	register(s, api, huma.Operation{
		OperationID: "create-command", Method: http.MethodPost, Path: "/api/command", Tags: tags, Summary: "Run a command on a host",
		Description: "Answers as soon as the command is stored; ask for its result with GET /api/command/{command_id}." + keyed,
	}, func(ctx context.Context, in *struct {
		Keyed
		Body NewCommand
	}) (*reply[CommandAnswer], error) {
		j, _, err := s.createJob(ctx, order{
			key: in.Key, kind: job.KindCommand, command: job.Command{Type: in.Body.Type, Payload: json.RawMessage(in.Body.Payload)},
			targets: release.Targets{Clients: []string{in.Body.ClientID}}, options: job.Options{TaskTimeout: in.Body.Timeout.duration()},
			fields: map[string]string{"targets": "client_id", "targets.clients": "client_id", "task_timeout": "timeout"},
		})
		if err != nil {
			return nil, err
		}
		id := job.CommandID(j.ID, in.Body.ClientID)
		return replyWith(CommandAnswer{Success: true, ID: id, Message: "stored; GET /api/command/" + id + " tells its result"}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-commands", Method: http.MethodGet, Path: "/api/commands", Tags: tags,
		Summary: "List commands, those of batch jobs too, the newest first",
	}, func(ctx context.Context, in *commandQuery) (*reply[CommandList], error) {
		found, total, err := s.Store.Commands(ctx, store.CommandFilter{
			ClientID: in.ClientID, CommandType: in.Type, Status: in.Status, Limit: in.Limit, Offset: in.Offset,
		})
		if err != nil {
			return nil, err
		}
		commands := make([]CommandInfo, len(found))
		for i := range found {
			commands[i] = commandInfo(&found[i].Job, &found[i].Target)
		}
		return replyWith(CommandList{Commands: commands, Total: total}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-command", Method: http.MethodGet, Path: "/api/command/{command_id}", Tags: tags, Summary: "Get a command and its result",
	}, func(ctx context.Context, in *CommandPath) (*reply[CommandInfo], error) {
		info, err := s.command(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return replyWith(info), nil
	})
	register(s, api, huma.Operation{
		OperationID: "cancel-command", Method: http.MethodPost, Path: "/api/command/{command_id}/cancel", Tags: tags,
		Summary:     "Stop a command",
		Description: "It does not start any more, or is stopped where it runs. Answers 409 if it has ended or is being stopped, and where it is one of several of a job.",
	}, func(ctx context.Context, in *struct {
		CommandPath
		Body *Intervention
	}) (*reply[CommandInfo], error) {
		j, _, err := s.findCommand(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		if j.Counts.Total > 1 {
			return nil, release.Conflict("%s is one of the %d commands of a job, which is stopped as a whole: POST /api/batch/jobs/%s/cancel", in.ID, j.Counts.Total, j.ID)
		}
		if err := s.cancelJob(ctx, j, in.Body.reason()); err != nil {
			return nil, err
		}
		info, err := s.command(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return replyWith(info), nil
	})
}

func (s *server) findCommand(ctx context.Context, id string) (j job.Job, t job.Target, err error) {
	jobID, clientID, err := job.ParseCommandID(id)
	if err == nil {
		j, err = s.Store.Job(ctx, jobID)
	}
	if err == nil {
		t, err = s.Store.JobTarget(ctx, jobID, clientID)
	}
	if errors.Is(err, release.ErrNotFound) {
		err = release.NotFound("command", id)
	}
	return j, t, err
}

func (s *server) command(ctx context.Context, id string) (CommandInfo, error) {
	j, t, err := s.findCommand(ctx, id)
	if err != nil {
		return CommandInfo{}, err
	}
	o, err := s.outcomeOf(ctx, &t, MaxOutput, MaxResult)
	if err != nil {
		return CommandInfo{}, err
	}
	info := commandInfo(&j, &t)
	info.Payload, info.Result = payloadOf(j.Command), AnyJSON(o.result)
	if info.Error == "" {
		info.Error = o.problem
	}
	if o.output != nil {
		info.Stdout, info.Stderr, info.StdoutCut, info.StderrCut = o.output.Stdout, o.output.Stderr, o.output.StdoutTruncated, o.output.StderrTruncated
	}
	return info, nil
}

// commandInfo tells all of a command but what it printed and gave.
func commandInfo(j *job.Job, t *job.Target) CommandInfo {
	return CommandInfo{
		ID: t.ID(), JobID: j.ID, ClientID: t.ClientID, Type: j.Command.Type, Status: t.State.CommandStatus(), Outcome: t.State,
		Error: oneLine(t), ExitCode: t.ExitCode, Attempt: t.Epoch + 1, Timeout: Seconds(j.Options.TaskTimeout.Std().Seconds()),
		CreatedBy: j.CreatedBy, CreatedAt: j.CreatedAt, StartedAt: t.StartedAt, FinishedAt: t.FinishedAt,
	}
}
