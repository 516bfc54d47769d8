package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// NewBatch is a command for many hosts.
type NewBatch struct {
	Command       string   `json:"command,omitempty" doc:"A line for the shell; with a payload, the type of the command" example:"uptime"`
	Type          string   `json:"command_type,omitempty" doc:"In place of command" example:"system.info"`
	Payload       Payload  `json:"payload,omitempty"`
	TargetClients []string `json:"target_clients,omitempty" doc:"Client ids; each must be known"`
	Selector      string   `json:"selector,omitempty" doc:"Such as env=prod,os=linux; * is every known agent. Given both, a host must be listed and match"`
	AllowMissing  bool     `json:"allow_missing,omitempty" doc:"Leave out listed clients that are not known, instead of running it nowhere"`
	WaitForResult bool     `json:"wait_for_result,omitempty" doc:"Answer when the job has ended. Who leaves before cancels nothing"`
	job.Options
	// These two stand before those of Options, as they tell a time of 0 from none.
	TaskTimeout *release.Duration `json:"task_timeout,omitempty" doc:"For one host; it counts from the start there. Defaults to batch.task_timeout"`
	JobTimeout  *release.Duration `json:"job_timeout,omitempty" doc:"For all hosts together; what has not started by then does not start, what runs is stopped. Defaults to batch.job_timeout, or what one host may take where that is more"`
}

// BatchAnswer says that a job was taken, or how it ended.
type BatchAnswer struct {
	Success bool     `json:"success" doc:"It is stored and runs by itself; with wait_for_result: every host did it"`
	Missing []string `json:"missing,omitempty" doc:"Listed clients that are not known, where allow_missing said to go on"`
	BatchJob
}

// BatchJobList is a page of jobs, the newest first.
type BatchJobList struct {
	Jobs  []BatchJob `json:"jobs"`
	Total int        `json:"total" doc:"How many match, on all pages"`
}

// JobTarget is one host of a job.
type JobTarget struct {
	ClientID    string     `json:"client_id"`
	CommandID   string     `json:"command_id" doc:"For GET /api/command/{command_id}"`
	State       job.State  `json:"state" enum:"pending,running,succeeded,failed,timeout,refused,unknown,offline,cancelled,skipped"`
	Status      string     `json:"status" enum:"pending,executing,completed,failed,timeout,cancelled" doc:"The state in the words of commands"`
	Attempt     int        `json:"attempt" doc:"1 at first; each new try that was decided on raises it"`
	ExitCode    *int       `json:"exit_code,omitempty"`
	Error       string     `json:"error,omitempty" doc:"One line: why it did not succeed"`
	Stdout      string     `json:"stdout,omitempty" doc:"The end, at most 4 KiB"`
	Stderr      string     `json:"stderr,omitempty"`
	StdoutBytes int64      `json:"stdout_bytes" doc:"In all"`
	StderrBytes int64      `json:"stderr_bytes"`
	StartedAt   *time.Time `json:"started_at,omitempty"`
	FinishedAt  *time.Time `json:"finished_at,omitempty"`
}

// JobTargetList is a page of a job's hosts, by client id.
type JobTargetList struct {
	Targets []JobTarget `json:"targets"`
	Total   int         `json:"total" doc:"How many match, on all pages"`
}

type jobQuery struct {
	Status string `query:"status" enum:"starting,running,paused,cancelling,completed,partial,failed,cancelled,timeout"`
	Kind   string `query:"kind" enum:"batch,multi,stream,command" doc:"Through which route they came; all but single commands without it"`
	Page
}

type jobTargetQuery struct {
	JobPath
	State string `query:"state" enum:"pending,running,succeeded,failed,timeout,refused,unknown,offline,cancelled,skipped"`
	Page
}

func (s *server) registerBatch(api huma.API) {
	tags := []string{"batch"}
	register(s, api, huma.Operation{
		OperationID: "execute-batch", Method: http.MethodPost, Path: "/api/batch/execute", Tags: tags, MaxBodyBytes: MaxTaskBody,
		Summary: "Run a command on many hosts", Description: "The job is stored before this answers, and then runs by itself." + keyed,
	}, func(ctx context.Context, in *struct {
		Keyed
		Body NewBatch
	}) (*reply[BatchAnswer], error) {
		answer, err := s.executeBatch(ctx, in.Body, in.Key)
		if err != nil {
			return nil, err
		}
		return replyWith(answer), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-batch-jobs", Method: http.MethodGet, Path: "/api/batch/jobs", Tags: tags, Summary: "List jobs, the newest first",
	}, func(ctx context.Context, in *jobQuery) (*reply[BatchJobList], error) {
		kinds := []job.Kind{job.KindBatch, job.KindMulti, job.KindStream}
		if in.Kind != "" {
			kinds = []job.Kind{job.Kind(in.Kind)}
		}
		found, total, err := s.Store.Jobs(ctx, store.JobFilter{Kinds: kinds, Status: job.Status(in.Status), Limit: in.Limit, Offset: in.Offset})
		if err != nil {
			return nil, err
		}
		jobs := make([]BatchJob, len(found))
		for i, j := range found {
			jobs[i] = batchJob(j, false)
		}
		return replyWith(BatchJobList{Jobs: jobs, Total: total}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-batch-job", Method: http.MethodGet, Path: "/api/batch/jobs/{job_id}", Tags: tags, Summary: "Get a job, with its counts as they are now",
	}, func(ctx context.Context, in *JobPath) (*reply[BatchJob], error) {
		j, err := s.Store.Job(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return replyWith(batchJob(j, true)), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-job-targets", Method: http.MethodGet, Path: "/api/batch/jobs/{job_id}/targets", Tags: tags, Summary: "List the hosts of a job",
	}, func(ctx context.Context, in *jobTargetQuery) (*reply[JobTargetList], error) {
		if _, err := s.Store.Job(ctx, in.ID); err != nil {
			return nil, err
		}
		found, total, err := s.Store.JobTargets(ctx, in.ID, store.JobTargetFilter{State: job.State(in.State), Limit: in.Limit, Offset: in.Offset})
		if err != nil {
			return nil, err
		}
		targets := make([]JobTarget, len(found))
		for i := range found {
			targets[i] = jobTarget(&found[i])
		}
		return replyWith(JobTargetList{Targets: targets, Total: total}), nil
	})
	s.registerJobStream(api)
}

func jobTarget(t *job.Target) JobTarget {
	return JobTarget{
		ClientID: t.ClientID, CommandID: t.ID(), State: t.State, Status: t.State.CommandStatus(), Attempt: t.Epoch + 1,
		ExitCode: t.ExitCode, Error: oneLine(t), StartedAt: t.StartedAt, FinishedAt: t.FinishedAt,
		Stdout: text(t.Stdout, t.StdoutBytes > int64(len(t.Stdout))), StdoutBytes: t.StdoutBytes,
		Stderr: text(t.Stderr, t.StderrBytes > int64(len(t.Stderr))), StderrBytes: t.StderrBytes,
	}
}

// jobCommand gives the command of a request, and what it calls the fields of it.
func (b NewBatch) jobCommand() (c job.Command, fields map[string]string, err error) {
	fields = map[string]string{"targets": "target_clients", "targets.clients": "target_clients", "targets.selector": "selector"}
	if b.Selector != "" {
		fields["targets"] = "selector"
	}
	switch {
	case b.Command != "" && b.Type != "":
		return c, nil, release.Invalid("command", "give command or command_type, not both")
	case b.Command == "" && b.Type == "":
		return c, nil, release.Invalid("command", "is empty; give a line for the shell here, or a command_type")
	case b.Type != "":
		return job.Command{Type: b.Type, Payload: json.RawMessage(b.Payload)}, fields, nil
	case len(b.Payload) > 0:
		fields["command_type"] = "command"
		return job.Command{Type: b.Command, Payload: json.RawMessage(b.Payload)}, fields, nil
	case strings.TrimSpace(b.Command) == "":
		return c, nil, release.Invalid("command", "is empty")
	}
	payload, err := json.Marshal(map[string]string{"command": b.Command})
	fields["payload"], fields["payload.command"] = "command", "command"
	return job.Command{Type: job.ExecShell, Payload: payload}, fields, err
}

// options gives how the job goes over its hosts.
func (b NewBatch) options() (job.Options, error) {
	o := b.Options
	for _, d := range []struct {
		field string
		asked *release.Duration
		into  *release.Duration
	}{{"task_timeout", b.TaskTimeout, &o.TaskTimeout}, {"job_timeout", b.JobTimeout, &o.JobTimeout}} {
		if d.asked == nil {
			continue
		}
		if *d.asked <= 0 {
			return o, release.Invalid(d.field, "must be more than 0s")
		}
		*d.into = *d.asked
	}
	return o, nil
}

func (s *server) executeBatch(ctx context.Context, in NewBatch, key string) (BatchAnswer, error) {
	if err := s.batchOffered(); err != nil {
		return BatchAnswer{}, err
	}
	command, fields, err := in.jobCommand()
	if err != nil {
		return BatchAnswer{}, err
	}
	options, err := in.options()
	if err != nil {
		return BatchAnswer{}, err
	}
	return s.runBatch(ctx, order{
		key: key, kind: job.KindBatch, command: command, targets: release.Targets{Clients: in.TargetClients, Selector: in.Selector},
		options: options, allowMissing: in.AllowMissing, fields: fields,
	}, in.WaitForResult)
}

// runBatch makes a job, and waits for its end if that is wanted.
func (s *server) runBatch(ctx context.Context, o order, wait bool) (BatchAnswer, error) {
	j, missing, err := s.createJob(ctx, o)
	if err != nil {
		return BatchAnswer{}, err
	}
	answer := BatchAnswer{Success: true, Missing: missing}
	if wait {
		if j, err = s.awaitJob(ctx, j.ID); err != nil {
			return BatchAnswer{}, err
		}
		answer.Success = j.Status == job.StatusCompleted
	}
	answer.BatchJob = batchJob(j, false)
	return answer, nil
}

func (s *server) batchOffered() error {
	if s.NoBatch {
		return &release.Error{Code: release.CodeForbidden, Message: "batch jobs are switched off here (batch.enabled)"}
	}
	return nil
}
