package hub_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// chunkAt is a log record of one byte at a position.
func chunkAt(stepID string, position uint64) *quicflowv1.LogChunk {
	return &quicflowv1.LogChunk{StepId: stepID, Position: position, Next: position + 1, Stream: quicflowv1.Stream_STREAM_STDOUT,
		Offset: position, TimeUnixNano: 1, Data: []byte{'a' + byte(position%26)}}
}

func TestResultIsStoredThenAcknowledged(t *testing.T) {
	stored := make(chan string, 10)
	b := start(t, func(c *hub.Config) { c.OnStored = func(taskID string) { stored <- taskID } })
	a := b.connect(b.join("web-1"))
	id := step("web-1")
	gate, entered := make(chan struct{}), make(chan struct{}, 1)
	b.sink.setScript(func(string) error {
		entered <- struct{}{}
		<-gate
		return nil
	})
	sent := resultOf(id)
	sent.GetResult().Outcome = quicflowv1.Outcome_OUTCOME_FAILED
	sent.GetResult().ExitCode = 3
	sent.GetResult().Error = "no\x00 luck\nat all"
	sent.GetResult().StdoutTail = []byte(strings.Repeat("x", 5<<10) + "end")
	sent.GetResult().LogEnd = 77
	a.send(sent)
	signal(t, "the sink is called", entered)
	a.alive() // the next frame after the result is the heartbeat's: nothing is acknowledged yet
	close(gate)
	require.Equal(t, id, a.receive().GetResultAck().GetStepId())
	got, ok := b.sink.result(id)
	require.True(t, ok)
	require.Equal(t, release.StepFailed, got.State)
	require.Equal(t, "web-1", got.ClientID)
	require.Equal(t, 3, got.ExitCode)
	require.Equal(t, "no luck", got.Error)
	require.Len(t, got.StdoutTail, 4<<10)
	require.True(t, strings.HasSuffix(string(got.StdoutTail), "end"))
	require.EqualValues(t, 77, got.LogEnd)
	require.True(t, got.StartedAt.IsZero())
	require.WithinDuration(t, time.Now(), got.FinishedAt, time.Minute)
	task, _, _ := strings.Cut(id, "/")
	require.Equal(t, task, <-stored)

	a.send(resultOf(id)) // sent again: acknowledged again, changes nothing
	<-entered
	require.Equal(t, id, a.receive().GetResultAck().GetStepId())
	again, _ := b.sink.result(id)
	require.Equal(t, got, again)
}

// A command whose result is not kept has not succeeded; a deployment has.
func TestResultThatIsTooLong(t *testing.T) {
	b := start(t)
	a := b.connect(b.join("web-1"))
	for _, c := range []struct {
		name  release.StepName
		size  int
		state release.StepState
		exit  int
		why   string
	}{
		{job.StepCommand, 8 << 10, release.StepSucceeded, 0, ""},
		{job.StepCommand, 8<<10 + 1, release.StepFailed, -1, "its result takes 8193 bytes, at most 8192 are allowed"},
		{release.StepDeploy, 8<<10 + 1, release.StepSucceeded, 0, ""},
	} {
		id := release.StepID(uuid.Must(uuid.NewV7()).String(), c.name, "web-1", 0)
		sent := resultOf(id)
		sent.GetResult().Result = []byte(`"` + strings.Repeat("x", c.size-2) + `"`)
		a.send(sent)
		require.Equal(t, id, a.receive().GetResultAck().GetStepId())
		got, _ := b.sink.result(id)
		require.Equal(t, c.state, got.State)
		require.Equal(t, c.exit, got.ExitCode)
		require.Equal(t, c.why, got.Error)
		require.Equal(t, c.size <= 8<<10, got.Result != nil)
	}
}

// A journal may answer a request with a result it has; that counts like one that was sent.
func TestResultWithinAResponse(t *testing.T) {
	b := start(t)
	a := b.connect(b.join("web-1"))
	done := b.ask(t.Context(), "web-1")
	request, id := a.receive().GetRequest(), step("web-1")
	a.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Response{Response: &quicflowv1.Response{Id: request.Id,
		Body: &quicflowv1.Response_Step{Step: &quicflowv1.StepStatus{StepId: id, State: quicflowv1.StepState_STEP_STATE_FINISHED,
			Result: resultOf(id).GetResult()}}}}})
	require.NoError(t, outcomeOf(t, done))
	require.Equal(t, id, a.receive().GetResultAck().GetStepId())
	_, ok := b.sink.result(id)
	require.True(t, ok)
}

func TestSinkThatRecovers(t *testing.T) {
	b := start(t)
	a := b.connect(b.join("web-1"))
	var calls atomic.Int32
	b.sink.setScript(func(string) error {
		if calls.Add(1) <= 2 {
			return errors.New("database is locked")
		}
		return nil
	})
	id := step("web-1")
	a.send(resultOf(id))
	require.Equal(t, id, a.receive().GetResultAck().GetStepId())
	require.EqualValues(t, 3, calls.Load())
}

// What cannot be stored is not acknowledged; its session is closed, and the agent sends it again in the next one.
func TestSinkThatFailsForGood(t *testing.T) {
	var down atomic.Bool
	down.Store(true)
	for name, send := range map[string]func(*agent, string){
		"results": func(a *agent, id string) { a.send(resultOf(id)) },
		"logs": func(a *agent, id string) {
			require.NoError(t, wire.WriteFrame(a.logs(), chunkAt(id, 0)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			b.sink.setScript(func(string) error {
				if down.Load() {
					return errors.New("disk is full")
				}
				return nil
			})
			who := b.join("web-1")
			a := b.connect(who)
			bystander := b.connect(b.join("bystander"))
			id := step("web-1")
			down.Store(true)
			send(a, id)
			a.closedWith(wire.CloseInternal, "connect and send again")
			bystander.alive()

			b.sink.setScript(nil)
			a = b.connect(who)
			send(a, id)
			frame := a.receive()
			require.Equal(t, id, frame.GetResultAck().GetStepId()+frame.GetLogAck().GetStepId())
		})
	}
}

// One agent's data that no database takes must not cost the others.
func TestPoisonedResult(t *testing.T) {
	b := start(t)
	bad, good := b.connect(b.join("bad")), b.connect(b.join("good"))
	gate, entered := make(chan struct{}), make(chan struct{}, 100)
	b.sink.setScript(func(string) error {
		entered <- struct{}{}
		<-gate
		return nil
	})
	first := step("good")
	good.send(resultOf(first))
	signal(t, "the sink is busy", entered)
	poison, second := resultOf(step("bad")), step("good")
	poison.GetResult().Error = "poison"
	bad.send(poison)
	good.send(resultOf(second))
	bad.alive() // both were read
	good.alive()
	close(gate)
	require.Equal(t, first, good.receive().GetResultAck().GetStepId())
	require.Equal(t, second, good.receive().GetResultAck().GetStepId())
	bad.closedWith(wire.CloseInternal, "could not store")
	good.alive()
}

func TestResultsShareACall(t *testing.T) {
	b := start(t)
	gate, entered := make(chan struct{}), make(chan struct{}, 100)
	var calls atomic.Int32
	b.sink.setScript(func(string) error {
		calls.Add(1)
		entered <- struct{}{}
		<-gate
		return nil
	})
	const agents, each = 5, 40
	var all []*agent
	for i := range agents {
		all = append(all, b.connect(b.join(fmt.Sprintf("web-%d", i))))
	}
	all[0].send(resultOf(step(all[0].id)))
	signal(t, "the first call", entered)
	for _, a := range all {
		for range each {
			a.send(resultOf(step(a.id)))
		}
		a.alive()
	}
	close(gate)
	var wg sync.WaitGroup
	for i, a := range all {
		n := each
		if i == 0 {
			n++
		}
		wg.Go(func() {
			for range n {
				if f, err := a.tryReceive(); err != nil || f.GetResultAck() == nil {
					t.Errorf("%s: got %v, %v", a.id, f, err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 2, calls.Load())
	results, _ := b.sink.stored()
	require.Equal(t, agents*each+1, results)
}

func TestLogsAreStoredThenAcknowledged(t *testing.T) {
	b := start(t)
	who := b.join("web-1")
	a := b.connect(who)
	id := step("web-1")
	write := func(a *agent, from, to uint64) {
		s := a.logs()
		for p := from; p < to; p++ {
			require.NoError(t, wire.WriteFrame(s, chunkAt(id, p)))
		}
		require.NoError(t, s.Close())
	}
	acked := func(a *agent, position uint64) {
		t.Helper()
		for {
			ack := a.receive().GetLogAck()
			require.Equal(t, id, ack.GetStepId())
			require.LessOrEqual(t, ack.GetPosition(), position)
			if ack.GetPosition() == position {
				return
			}
		}
	}
	write(a, 0, 10)
	acked(a, 10)
	require.Equal(t, "abcdefghij", b.sink.text(id))
	require.NoError(t, a.conn.CloseWithError(99, ""))

	a = b.connect(who)
	write(a, 5, 15) // it had not read the last acknowledgements
	acked(a, 15)
	require.Equal(t, "abcdefghijklmno", b.sink.text(id))
	write(a, 20, 25) // a gap: the acknowledgement says where the log really ends
	acked(a, 15)
	require.Equal(t, "abcdefghijklmno", b.sink.text(id))

	_, records := b.sink.stored()
	record := records[0]
	require.Equal(t, "web-1", record.ClientID)
	require.Equal(t, release.StreamStdout, record.Stream)
	require.Equal(t, time.Unix(0, 1).UTC(), record.Time)
	task, _, _ := strings.Cut(id, "/")
	require.Equal(t, task, record.TaskID)
}
