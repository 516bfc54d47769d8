package apitest

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// AddJob makes a job for some clients, and dispatches it to all of them.
func (s *Server) AddJob(options job.Options, clients ...string) job.Job {
	s.t.Helper()
	j := job.Job{
		Kind: job.KindBatch, Command: job.Command{Type: job.ExecShell, Payload: json.RawMessage(`{"command":"true"}`)},
		Targets: release.Targets{Clients: clients}, Options: options.WithDefaults(Limits), CreatedBy: Admin,
	}
	require.NoError(s.t, s.Store.CreateJob(s.t.Context(), &j, clients))
	s.DispatchJob(j.ID, clients...)
	return j
}

// Limits are those of the jobs that AddJob makes.
var Limits = job.Limits{
	MaxConcurrency: 5000, TaskTimeout: release.Duration(time.Minute), JobTimeout: release.Duration(10 * time.Minute),
	RetryInterval: release.Duration(time.Second), Retries: 2,
}

// DispatchJob does to some targets of a job what its workflow does before it sends them.
func (s *Server) DispatchJob(jobID string, clients ...string) {
	s.t.Helper()
	s.SetJob(jobID, job.StatusRunning, "")
	ctx := context.WithoutCancel(s.t.Context()) // that of a Jobs may outlive the test's own part
	plans, err := s.Store.PlanJobChunks(ctx, jobID, len(clients), "node")
	require.NoError(s.t, err)
	for _, plan := range plans {
		_, _, err := s.Store.MarkJobChunk(ctx, jobID, plan.Chunk, clients)
		require.NoError(s.t, err)
	}
}

// SetJob puts a job into a status.
func (s *Server) SetJob(jobID string, status job.Status, reason string) {
	s.t.Helper()
	require.NoError(s.t, s.Store.SetJobProgress(context.WithoutCancel(s.t.Context()), jobID, store.JobProgress{Status: status, Reason: reason, At: time.Now()}))
	s.Bus.Notify(bus.Task(jobID))
}

// maxRecord is about what agents put into a record of a log.
const maxRecord = 30 << 10

// Print stores what the command of a job writes on a client, to stdout or stderr.
func (s *Server) Print(jobID, client string, stream release.Stream, data string) {
	s.t.Helper()
	step := release.StepID(jobID, job.StepCommand, client, 0)
	var records []release.LogRecord
	s.mu.Lock()
	for piece := range slices.Chunk([]byte(data), maxRecord) {
		n := uint64(len(piece))
		from, offset := s.position[step], s.position[step+string(stream)]
		s.position[step] += n
		s.position[step+string(stream)] += n
		records = append(records, release.LogRecord{
			StepID: step, ClientID: client, Position: from, Next: from + n, Stream: stream, Offset: offset, Time: time.Now(), Data: piece,
		})
	}
	s.mu.Unlock()
	_, err := s.Store.AppendLogs(s.t.Context(), records)
	require.NoError(s.t, err)
	s.Bus.Notify(bus.Task(jobID))
}

// End stores the result of a job on a client. What is left out of it says that it succeeded and printed nothing.
func (s *Server) End(jobID, client string, r release.StepResult) {
	s.t.Helper()
	r.StepID, r.ClientID = release.StepID(jobID, job.StepCommand, client, 0), client
	if r.State == "" {
		r.State = release.StepSucceeded
	}
	if r.StdoutBytes == 0 {
		r.StdoutBytes = uint64(len(r.StdoutTail))
	}
	if r.StderrBytes == 0 {
		r.StderrBytes = uint64(len(r.StderrTail))
	}
	if r.FinishedAt.IsZero() {
		r.FinishedAt = time.Now()
	}
	if r.StartedAt.IsZero() && r.State != release.StepRefused && !r.NotStarted {
		r.StartedAt = r.FinishedAt
	}
	s.mu.Lock()
	r.LogEnd = max(r.LogEnd, s.position[r.StepID])
	s.mu.Unlock()
	_, err := s.Store.RecordResults(s.t.Context(), []release.StepResult{r})
	require.NoError(s.t, err)
	s.Bus.Notify(bus.Task(jobID))
}

// Conclude stores what the server concludes about a job on a client.
func (s *Server) Conclude(jobID, client string, state job.State, why string) {
	s.t.Helper()
	target, err := s.Store.JobTarget(s.t.Context(), jobID, client)
	require.NoError(s.t, err)
	require.NoError(s.t, s.Store.ConcludeJobTargets(s.t.Context(), jobID, []store.JobConclusion{{ClientID: client, Epoch: target.Epoch, State: state, Error: why, At: time.Now()}}))
	s.Bus.Notify(bus.Task(jobID))
}

// EndJob ends a job as its workflow would, by its counts.
func (s *Server) EndJob(jobID string) {
	s.t.Helper()
	j, err := s.Store.Job(s.t.Context(), jobID)
	require.NoError(s.t, err)
	status, why := job.Final(j.Counts, j.Options)
	s.SetJob(jobID, status, why)
}

// Jobs records what it is asked for, and answers as a test says. It is safe for concurrent use.
type Jobs struct {
	mu        sync.Mutex
	calls     []string
	answer    error
	started   func(job.Job)
	cancelled func(jobID string)
	running   sync.WaitGroup
}

var _ api.Jobs = (*Jobs)(nil)

// Answer makes all further calls give err.
func (r *Jobs) Answer(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = err
}

// OnStart makes f run, beside the request, for each job that starts.
func (r *Jobs) OnStart(f func(job.Job)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started = f
}

// OnCancel makes f run for each job that is cancelled.
func (r *Jobs) OnCancel(f func(jobID string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancelled = f
}

// Calls gives what was asked for: "start JOB", "pause JOB admin the reason".
func (r *Jobs) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.calls...)
}

func (r *Jobs) call(text string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, text)
	return r.answer
}

// StartJob implements api.Jobs.
func (r *Jobs) StartJob(_ context.Context, j job.Job) error {
	err := r.call("start " + j.ID)
	r.mu.Lock()
	started := r.started
	r.mu.Unlock()
	if err == nil && started != nil {
		r.running.Go(func() { started(j) })
	}
	return err
}

// PauseJob implements api.Jobs.
func (r *Jobs) PauseJob(_ context.Context, id, by, reason string) error {
	return r.call("pause " + id + " " + by + " " + reason)
}

// ResumeJob implements api.Jobs.
func (r *Jobs) ResumeJob(_ context.Context, id, by, reason string) error {
	return r.call("resume " + id + " " + by + " " + reason)
}

// CancelJob implements api.Jobs.
func (r *Jobs) CancelJob(_ context.Context, id, by, reason string) error {
	err := r.call("cancel " + id + " " + by + " " + reason)
	r.mu.Lock()
	cancelled := r.cancelled
	r.mu.Unlock()
	if err == nil && cancelled != nil {
		cancelled(id)
	}
	return err
}
