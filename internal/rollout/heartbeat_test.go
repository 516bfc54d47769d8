package rollout

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quicflow/quicflow/internal/heartbeat"
	"github.com/quicflow/quicflow/internal/temporalserver"
)

// beatTimeout is the heartbeat timeout of the activities in these tests.
const beatTimeout = 4 * time.Second

// patient is a Temporal whose answers to heartbeats are scripted, and an activity that lives by them.
type patient struct {
	t      *testing.T
	client client.Client
	answer atomic.Pointer[func(context.Context) error] // before the heartbeat gets to Temporal
	beats  atomic.Int32                                // that Temporal took
	begun  chan struct{}
}

// newPatient runs live in an activity of a workflow until it returns.
func newPatient(t *testing.T, live func(ctx context.Context) (string, error)) (*patient, client.WorkflowRun) {
	t.Helper()
	p := &patient{t: t, begun: make(chan struct{}, 1)}
	server, err := temporalserver.Start(t.Context(), temporalserver.Config{DataDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.WithoutCancel(t.Context()))) })
	options := server.ClientOptions()
	options.ConnectionOptions.DialOptions = append(options.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(p.intercept))
	p.client, err = client.Dial(options)
	require.NoError(t, err)
	t.Cleanup(p.client.Close)

	w := worker.New(p.client, "patients", worker.Options{WorkerStopTimeout: time.Second,
		MaxHeartbeatThrottleInterval: heartbeat.SDKThrottle, DefaultHeartbeatThrottleInterval: heartbeat.SDKThrottle})
	w.RegisterActivityWithOptions(func(ctx context.Context) (string, error) {
		p.begun <- struct{}{}
		return live(ctx)
	}, activity.RegisterOptions{Name: "live"})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context) (said string, err error) {
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute, HeartbeatTimeout: beatTimeout,
			WaitForCancellation: true, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1}})
		err = workflow.ExecuteActivity(ctx, "live").Get(ctx, &said)
		return said, err
	}, workflow.RegisterOptions{Name: "care"})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	run, err := p.client.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{TaskQueue: "patients"}, "care")
	require.NoError(t, err)
	<-p.begun
	return p, run
}

func (p *patient) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if method != workflowservice.WorkflowService_RecordActivityTaskHeartbeat_FullMethodName {
		return invoke(ctx, method, req, reply, conn, opts...)
	}
	if do := p.answer.Load(); do != nil {
		if err := (*do)(ctx); err != nil {
			return err
		}
	}
	err := invoke(ctx, method, req, reply, conn, opts...)
	if err == nil {
		p.beats.Add(1)
	}
	return err
}

func (p *patient) answers(do func(context.Context) error) { p.answer.Store(&do) }

// A Temporal that takes longer for a heartbeat than there is between two ends nothing.
func TestSlowHeartbeatsEndNothing(t *testing.T) {
	t.Parallel()
	enough := make(chan struct{})
	p, run := newPatient(t, func(ctx context.Context) (string, error) {
		defer heartbeat.Keep(ctx)()
		select {
		case <-enough:
			return "alive", nil
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	})
	p.answers(func(ctx context.Context) error {
		select {
		case <-time.After(2 * heartbeat.Interval):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	require.Eventually(t, func() bool { return p.beats.Load() >= 3 }, 30*time.Second, 50*time.Millisecond)
	close(enough)
	var said string
	require.NoError(t, run.Get(t.Context(), &said))
	require.Equal(t, "alive", said)
}

// An activity that its workflow cancelled may take longer to stop than the heartbeat timeout.
func TestCancelledActivityIsKnownToLive(t *testing.T) {
	t.Parallel()
	p, run := newPatient(t, func(ctx context.Context) (string, error) {
		pulse := heartbeat.New(ctx)
		for ctx.Err() == nil {
			if err := pulse.Beat(ctx, t.Context()); err != nil {
				return "", err
			}
		}
		if !temporal.IsCanceledError(context.Cause(ctx)) {
			return "", context.Cause(ctx)
		}
		tick := time.NewTicker(heartbeat.Interval)
		defer tick.Stop()
		for began := time.Now(); time.Since(began) < beatTimeout+2*time.Second; <-tick.C {
			if err := pulse.Beat(ctx, t.Context()); err != nil {
				return "", err
			}
		}
		return "stopped in order", nil
	})
	require.NoError(t, p.client.CancelWorkflow(t.Context(), run.GetID(), run.GetRunID()))
	var said string
	require.NoError(t, run.Get(t.Context(), &said))
	require.Equal(t, "stopped in order", said)
}

// When nothing gets through for the whole timeout the activity learns that Temporal takes it for dead, and not before.
func TestSilence(t *testing.T) {
	t.Parallel()
	silent := make(chan error, 1)
	p, run := newPatient(t, func(ctx context.Context) (string, error) {
		pulse := heartbeat.New(ctx)
		for {
			if err := pulse.Beat(ctx, t.Context()); err != nil {
				silent <- err
				return "", err
			}
			select {
			case <-ctx.Done():
				silent <- context.Cause(ctx)
				return "", context.Cause(ctx)
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	require.Eventually(t, func() bool { return p.beats.Load() >= 2 }, 30*time.Second, 10*time.Millisecond)
	began := time.Now()
	p.answers(func(context.Context) error { return status.Error(codes.Unavailable, "scripted") })
	require.ErrorIs(t, <-silent, heartbeat.ErrSilent)
	require.GreaterOrEqual(t, time.Since(began), beatTimeout-time.Second)
	require.Error(t, run.Get(t.Context(), nil))
}

// A run that Temporal does not know any more ends with the reason.
func TestEndOfWorkflowEndsItsActivity(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	p, run := newPatient(t, func(ctx context.Context) (string, error) {
		defer heartbeat.Keep(ctx)()
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return "", ctx.Err()
	})
	require.NoError(t, p.client.TerminateWorkflow(t.Context(), run.GetID(), run.GetRunID(), "scripted"))
	var notFound *serviceerror.NotFound
	require.ErrorAs(t, <-ended, &notFound)
}
