package activities

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
	"github.com/quicflow/quicflow/workflows"
)

func TestDispatchBringsEveryHostThroughItsStepOnce(t *testing.T) {
	w := newWorld(t, 30, release.Strategy{})
	report, err := w.dispatch(func(r *workflows.DispatchRequest) { r.Parallel = 4 })
	require.NoError(t, err)
	require.Equal(t, workflows.DispatchReport{}, report)
	require.Equal(t, release.Counts{Total: 30, Succeeded: 30}, w.counts())
	require.Len(t, w.requests, 30)
	require.LessOrEqual(t, w.most, 4)

	_, err = w.dispatch(nil)
	require.NoError(t, err)
	require.Len(t, w.requests, 30, "a second run has nothing left to send")
}

func TestDispatchSendsTheSameStepAgainAfterALostSession(t *testing.T) {
	w := newWorld(t, 1, release.Strategy{})
	var calls atomic.Int32
	w.agent = func(clientID string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		switch calls.Add(1) {
		case 1: // the session is lost before the agent answers
			w.setPresence(clientID, hub.Presence{Status: release.ClientReconnecting, Until: time.Now().Add(time.Minute)})
			go w.setPresence(clientID, hub.Presence{Status: release.ClientOnline})
			return nil, hub.ErrSessionLost
		case 2: // the agent is busy
			return failure(quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED), nil
		}
		// The agent has done it meanwhile, and answers from its journal.
		return finished(req.GetStepId(), quicflowv1.Outcome_OUTCOME_SUCCEEDED), nil
	}
	_, err := w.dispatch(nil)
	require.NoError(t, err)
	require.Equal(t, release.Counts{Total: 1, Succeeded: 1}, w.counts())
	step := release.StepID(w.task.ID, release.StepDeploy, "host-000", 0)
	require.Equal(t, []string{step, step, step}, w.requests)
}

// A host that was lost a moment ago is waited for, and the others do not wait for its place.
func TestReconnectingHostsHoldNoPlace(t *testing.T) {
	w := newWorld(t, 6, release.Strategy{})
	for _, id := range []string{"host-000", "host-001", "host-002"} {
		w.setPresence(id, hub.Presence{Status: release.ClientReconnecting, Until: time.Now().Add(time.Hour)})
	}
	var done atomic.Int32
	w.agent = func(clientID string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		w.finish(clientID, req.GetStepId(), release.StepSucceeded)
		switch done.Add(1) {
		case 3: // those that are here
			w.setPresence("host-000", hub.Presence{Status: release.ClientOnline})
			w.setPresence("host-001", hub.Presence{Status: release.ClientOnline})
		case 5:
			w.setPresence("host-002", hub.Presence{Status: release.ClientOffline})
		}
		return accepted(req), nil
	}
	stuck := time.AfterFunc(patience/4, func() { close(w.stop) })
	defer stuck.Stop()
	report, err := w.dispatch(func(r *workflows.DispatchRequest) { r.Parallel = 1 })
	require.NoError(t, err)
	require.Equal(t, workflows.DispatchReport{}, report)
	require.Equal(t, release.Counts{Total: 6, Succeeded: 5, Offline: 1}, w.counts())
	require.Equal(t, 1, w.most, "those that came back take a place again")
}

// Where nothing new may start, no one is waited for to whom nothing was sent.
func TestHaltedTaskWaitsForNoReconnectingHost(t *testing.T) {
	w := newWorld(t, 3, release.Strategy{})
	w.setPresence("host-000", hub.Presence{Status: release.ClientReconnecting, Until: time.Now().Add(time.Hour)})
	w.agent = func(clientID string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		require.NoError(t, w.store.SetHalt(t.Context(), w.task.ID, true))
		w.finish(clientID, req.GetStepId(), release.StepSucceeded)
		return accepted(req), nil
	}
	stuck := time.AfterFunc(patience/4, func() { close(w.stop) })
	defer stuck.Stop()
	report, err := w.dispatch(func(r *workflows.DispatchRequest) { r.Parallel = 1 })
	require.NoError(t, err)
	require.Equal(t, workflows.DispatchReport{Undecided: 2}, report)
	require.Equal(t, release.Counts{Total: 3, Succeeded: 1, Pending: 2}, w.counts())
}

func TestDispatchStopsAtItsBudget(t *testing.T) {
	w := newWorld(t, 20, release.Strategy{})
	w.agent = func(clientID string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		w.finish(clientID, req.GetStepId(), release.StepFailed)
		return accepted(req), nil
	}
	report, err := w.dispatch(func(r *workflows.DispatchRequest) { r.Parallel, r.Budget = 1, 2 })
	require.NoError(t, err)
	require.Equal(t, workflows.DispatchReport{Charged: 3, Undecided: 17}, report)
	require.Equal(t, release.Counts{Total: 20, Failed: 3, Pending: 17}, w.counts())
}

func TestHaltedTaskStartsNothing(t *testing.T) {
	w := newWorld(t, 10, release.Strategy{})
	w.agent = func(clientID string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		if clientID == "host-002" {
			require.NoError(t, w.store.SetHalt(t.Context(), w.task.ID, true))
		}
		w.finish(clientID, req.GetStepId(), release.StepSucceeded)
		return accepted(req), nil
	}
	report, err := w.dispatch(func(r *workflows.DispatchRequest) { r.Parallel = 1 })
	require.NoError(t, err)
	require.Equal(t, 7, report.Undecided)
	require.Equal(t, release.Counts{Total: 10, Succeeded: 3, Pending: 7}, w.counts())
}

func TestOfflineHosts(t *testing.T) {
	w := newWorld(t, 3, release.Strategy{})
	w.setPresence("host-000", hub.Presence{Status: release.ClientOffline})
	w.agent = func(clientID string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		if clientID == "host-001" { // accepts, and is never seen again
			w.setPresence(clientID, hub.Presence{Status: release.ClientOffline})
			return accepted(req), nil
		}
		return failure(quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED), nil
	}
	report, err := w.dispatch(nil)
	require.NoError(t, err)
	require.Equal(t, 2, report.Charged, "the unknown and the failed one")
	require.Equal(t, release.Counts{Total: 3, Offline: 1, Unknown: 1, Failed: 1}, w.counts())

	targets, _, err := w.store.Targets(t.Context(), w.task.ID, store.TargetFilter{})
	require.NoError(t, err)
	require.Equal(t, "the agent is offline; nothing was started", targets[0].Error)
	require.Contains(t, targets[1].Error, "went offline before it said how the step ended")
	require.Equal(t, "not started: scripted", targets[2].Error)
}

// A host that loses its disk between the mark and the sending has its step decided as unknown by its new session; it must
// not be sent a step that its new journal does not know.
func TestJournalSwappedJustBeforeTheSending(t *testing.T) {
	w := newWorld(t, 1, release.Strategy{})
	session := release.ClientSession{ClientID: "host-000", NodeID: "node", JournalID: "old", Generation: 1, BootID: "b", At: time.Now()}
	_, err := w.store.ConnectClients(t.Context(), []release.ClientSession{session})
	require.NoError(t, err)
	w.setPresence("host-000", hub.Presence{Status: release.ClientOnline, Session: 1})
	w.beforeSend = func(string) {
		session.JournalID = "new"
		_, err := w.store.ConnectClients(t.Context(), []release.ClientSession{session})
		require.NoError(t, err)
		w.setPresence("host-000", hub.Presence{Status: release.ClientOnline, Session: 2})
		w.beforeSend = nil
	}
	_, err = w.dispatch(nil)
	require.NoError(t, err)
	require.Empty(t, w.requests)
	require.Equal(t, release.Counts{Total: 1, Unknown: 1}, w.counts())
}

func TestLateResultReplacesUnknown(t *testing.T) {
	w := newWorld(t, 1, release.Strategy{})
	var step string
	w.agent = func(clientID string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		step = req.GetStepId()
		w.setPresence(clientID, hub.Presence{Status: release.ClientOffline})
		return accepted(req), nil
	}
	_, err := w.dispatch(nil)
	require.NoError(t, err)
	require.Equal(t, 1, w.counts().Unknown)
	w.finish("host-000", step, release.StepSucceeded)
	require.Equal(t, release.Counts{Total: 1, Succeeded: 1}, w.counts())
}

func TestDrainingHubLeavesAgentsAlone(t *testing.T) {
	w := newWorld(t, 2, release.Strategy{})
	running := make(chan struct{}, 2)
	w.agent = func(_ string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		running <- struct{}{}
		return accepted(req), nil
	}
	go func() {
		<-running
		<-running
		close(w.stop)
	}()
	_, err := w.dispatch(nil)
	var application *temporal.ApplicationError
	require.ErrorAs(t, err, &application)
	require.Equal(t, workflows.ErrTypeDraining, application.Type())
	require.Empty(t, w.cancels)
	require.Equal(t, release.Counts{Total: 2, Running: 2}, w.counts())

	// The next run finds what its agents say now, with the same step ids.
	w.stop = make(chan struct{})
	w.agent = func(_ string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		return finished(req.GetStepId(), quicflowv1.Outcome_OUTCOME_SUCCEEDED), nil
	}
	_, err = w.dispatch(nil)
	require.NoError(t, err)
	require.Equal(t, release.Counts{Total: 2, Succeeded: 2}, w.counts())
	require.ElementsMatch(t, w.requests[:2], w.requests[2:])
}

func TestCancellingDispatchStopsWhatWasStartedAndNothingElse(t *testing.T) {
	w := newWorld(t, 4, release.Strategy{})
	_, _, err := w.store.MarkDispatched(t.Context(), w.task.ID, release.StepDeploy, nil)
	require.NoError(t, err)
	_, err = w.acts.PlanChunks(t.Context(), workflows.ChunksRequest{TaskID: w.task.ID, Step: release.StepDeploy, Wave: 1, Size: 500})
	require.NoError(t, err)
	marked, _, err := w.store.MarkDispatched(t.Context(), w.task.ID, release.StepDeploy, []string{"host-001", "host-003"})
	require.NoError(t, err)
	require.Len(t, marked, 2)
	w.setPresence("host-003", hub.Presence{Status: release.ClientOffline})

	report, err := w.dispatch(func(r *workflows.DispatchRequest) { r.Cancel = true })
	require.NoError(t, err)
	require.Equal(t, 2, report.Undecided)
	require.Empty(t, w.requests)
	require.Equal(t, []string{release.StepID(w.task.ID, release.StepDeploy, "host-001", 0)}, w.cancels)
	require.Equal(t, release.Counts{Total: 4, Pending: 2, Cancelled: 1, Unknown: 1}, w.counts())
}

// An agent that comes back with an empty journal would take a step that it was sent before for a new one.
func TestStepIsNotSentAgainToAReplacedJournal(t *testing.T) {
	w := newWorld(t, 1, release.Strategy{})
	connect := func(journal string) {
		_, err := w.store.ConnectClients(t.Context(), []release.ClientSession{{ClientID: "host-000", NodeID: "node", JournalID: journal, Generation: 1}})
		require.NoError(t, err)
	}
	connect("first")
	w.agent = func(clientID string, _ *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		connect("second")
		w.setPresence(clientID, hub.Presence{Status: release.ClientOnline})
		return nil, hub.ErrSessionLost
	}
	report, err := w.dispatch(nil)
	require.NoError(t, err)
	require.Len(t, w.requests, 1)
	require.Equal(t, release.Counts{Total: 1, Unknown: 1}, w.counts())
	require.Equal(t, workflows.DispatchReport{Charged: 1}, report)
}

// A host that is at work when its task is paused is seen through, over a lost session too.
func TestHaltedTaskSeesThroughWhatItStarted(t *testing.T) {
	w := newWorld(t, 1, release.Strategy{})
	var calls atomic.Int32
	w.agent = func(clientID string, req *quicflowv1.StepRequest) (*quicflowv1.Response, error) {
		if calls.Add(1) == 1 {
			require.NoError(t, w.store.SetHalt(t.Context(), w.task.ID, true))
			w.setPresence(clientID, hub.Presence{Status: release.ClientOnline})
			return nil, hub.ErrSessionLost
		}
		return finished(req.GetStepId(), quicflowv1.Outcome_OUTCOME_SUCCEEDED), nil
	}
	_, err := w.dispatch(nil)
	require.NoError(t, err)
	require.Equal(t, release.Counts{Total: 1, Succeeded: 1}, w.counts())
}

func TestStoppedDispatchAsksAnAgentOnceToStop(t *testing.T) {
	w := newWorld(t, 1, release.Strategy{})
	w.onCancel = func(stepID string) (*quicflowv1.Response, error) {
		return accepted(&quicflowv1.StepRequest{StepId: stepID}), nil // it takes its time
	}
	d := w.acts.newDispatch(order{task: w.task.ID}, nil, newSlots(1))
	close(d.stopped)
	id := release.StepID(w.task.ID, release.StepDeploy, "host-000", 0)
	step := &dispatchStep{Step: release.Step{ID: id, ClientID: "host-000"}, dispatch: d, decided: make(chan struct{})}
	require.NoError(t, d.cancel(t.Context(), step))
	require.Equal(t, []string{id}, w.cancels)
}
