package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

// JobRetry says which hosts of a job are to be tried again.
type JobRetry struct {
	IncludeUnknown bool `json:"include_unknown,omitempty" doc:"Those too of which it cannot be known whether they ran it: some would run it twice"`
	WaitForResult  bool `json:"wait_for_result,omitempty" doc:"Answer when the new job has ended"`
}

func (s *server) registerJobControl(api huma.API) {
	tags := []string{"batch"}
	for _, control := range []struct {
		name, summary string
		do            func(ctx context.Context, j job.Job, reason string) error
	}{
		{"cancel", "Stop a job: start nothing new, stop what runs", s.cancelJob},
		{"pause", "Start nothing new until the job is resumed; what runs goes on", func(ctx context.Context, j job.Job, reason string) error {
			return s.Jobs.PauseJob(ctx, j.ID, principal(ctx), reason)
		}},
		{"resume", "Go on with a paused job", func(ctx context.Context, j job.Job, reason string) error {
			return s.Jobs.ResumeJob(ctx, j.ID, principal(ctx), reason)
		}},
	} {
		register(s, api, huma.Operation{
			OperationID: control.name + "-batch-job", Method: http.MethodPost, Path: "/api/batch/jobs/{job_id}/" + control.name,
			Tags: tags, Summary: control.summary,
			Description: "Answers 409 if the job is in no state for it, 503 if it could not be asked within 10 s.",
		}, func(ctx context.Context, in *struct {
			JobPath
			Body *Intervention
		}) (*reply[BatchJob], error) {
			j, err := s.Store.Job(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			if err := control.do(ctx, j, in.Body.reason()); err != nil {
				return nil, err
			}
			if j, err = s.Store.Job(ctx, in.ID); err != nil {
				return nil, err
			}
			return replyWith(batchJob(j, true)), nil
		})
	}
	register(s, api, huma.Operation{
		OperationID: "retry-batch-job", Method: http.MethodPost, Path: "/api/batch/jobs/{job_id}/retry", Tags: tags,
		Summary:     "Run the command of an ended job again where it did not succeed",
		Description: "This is a new job, with the same command and options. Answers 409 if the job has not ended, or nothing is left to do.",
	}, func(ctx context.Context, in *struct {
		JobPath
		Body *JobRetry
	}) (*reply[BatchAnswer], error) {
		if in.Body == nil {
			in.Body = &JobRetry{}
		}
		answer, err := s.retryJob(ctx, in.ID, *in.Body)
		if err != nil {
			return nil, err
		}
		return replyWith(answer), nil
	})
}

// cancelJob stops a job, once.
func (s *server) cancelJob(ctx context.Context, j job.Job, reason string) error {
	switch {
	case j.Status.Terminal():
		return release.Conflict("job %s has ended: %s", j.ID, j.Status)
	case j.Status == job.StatusCancelling:
		return release.Conflict("job %s is being stopped already", j.ID)
	}
	return s.Jobs.CancelJob(ctx, j.ID, principal(ctx), reason)
}

func (s *server) retryJob(ctx context.Context, id string, in JobRetry) (BatchAnswer, error) {
	if err := s.batchOffered(); err != nil {
		return BatchAnswer{}, err
	}
	old, err := s.Store.Job(ctx, id)
	if err != nil {
		return BatchAnswer{}, err
	}
	if !old.Status.Terminal() {
		return BatchAnswer{}, release.Conflict("job %s has not ended: it is %s", id, old.Status)
	}
	states := []job.State{job.StateFailed, job.StateTimeout, job.StateRefused, job.StateOffline, job.StateCancelled, job.StateSkipped}
	if in.IncludeUnknown {
		states = append(states, job.StateUnknown)
	}
	var clients []string
	for _, state := range states {
		targets, err := s.targetsOf(ctx, id, state)
		if err != nil {
			return BatchAnswer{}, err
		}
		for _, t := range targets {
			clients = append(clients, t.ClientID)
		}
	}
	switch {
	case len(clients) == 0 && old.Counts.Unknown > 0:
		return BatchAnswer{}, release.Conflict("job %s left nothing to do but %d hosts of which it cannot be known whether they ran it; include_unknown runs it there again", id, old.Counts.Unknown)
	case len(clients) == 0:
		return BatchAnswer{}, release.Conflict("job %s left nothing to do: every host did it", id)
	}
	return s.runBatch(ctx, order{
		kind: job.KindBatch, command: old.Command, targets: release.Targets{Clients: clients}, options: old.Options, allowMissing: true,
	}, in.WaitForResult)
}
