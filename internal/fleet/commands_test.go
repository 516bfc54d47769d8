package fleet_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/fleet"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func commandRequest(id uint64, job, kind string) *quicflowv1.ToAgent {
	return &quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_Request{Request: &quicflowv1.Request{Id: id, Body: &quicflowv1.Request_Step{
		Step: &quicflowv1.StepRequest{
			StepId: release.StepID(job, "command", "sim-000", 0), TaskId: job, NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli(),
			Spec: &quicflowv1.StepRequest_Command{Command: &quicflowv1.CommandStep{Type: kind}},
		},
	}}}}
}

// What ends at once is answered once, and told again in the next session if it was not confirmed.
func TestCommandsEndInTheFirstAnswer(t *testing.T) {
	f, listener, p := peered(t, func(*fleet.Config) {})
	id := func(job string) string { return release.StepID(job, "command", "sim-000", 0) }
	for n, job := range []string{"a", "b"} {
		p.send(commandRequest(uint64(n+1), job, "no-op"))
		response := p.next().GetResponse()
		require.EqualValues(t, n+1, response.GetId())
		require.Equal(t, quicflowv1.StepState_STEP_STATE_FINISHED, response.GetStep().GetState())
		require.Equal(t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, response.GetStep().GetResult().GetOutcome())
	}
	p.send(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_ResultAck{ResultAck: &quicflowv1.ResultAck{StepId: id("a")}}})
	p.send(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_Request{Request: &quicflowv1.Request{Id: 3, Body: &quicflowv1.Request_Message{
		Message: &quicflowv1.Message{Type: "ping"}}}}})
	require.Equal(t, "pong", p.next().GetResponse().GetMessage().GetType(), "no result by itself before it")
	_ = p.conn.CloseWithError(wire.CloseInternal, "test")

	p = accept(t, listener)
	require.Equal(t, id("b"), p.next().GetResult().GetStepId())
	p.send(commandRequest(1, "b", "no-op"))
	require.Equal(t, quicflowv1.StepState_STEP_STATE_FINISHED, p.next().GetResponse().GetStep().GetState())
	require.EqualValues(t, 2, f.Snapshot().Steps, "it did not run again")
	_ = p.conn.CloseWithError(wire.CloseNormal, "the test is over")
}

func TestCommandsPrintLines(t *testing.T) {
	const lines = 100
	_, _, p := peered(t, func(c *fleet.Config) { c.LogLines = lines })
	p.send(commandRequest(1, "a", "exec_shell"))
	require.Equal(t, quicflowv1.StepState_STEP_STATE_ACCEPTED, p.next().GetResponse().GetStep().GetState())
	var result *quicflowv1.StepResult
	for offered := false; !offered || result == nil; {
		frame := p.next()
		offered = offered || frame.GetLogOffer() != nil
		if frame.GetResult() != nil {
			result = frame.GetResult()
		}
	}
	require.EqualValues(t, lines*64, result.StdoutBytes)
	require.EqualValues(t, lines*64, result.LogEnd)
	p.send(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_LogCredit{LogCredit: &quicflowv1.LogCredit{Bytes: 1 << 20}}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := p.conn.AcceptUniStream(ctx)
	require.NoError(t, err)
	reader := wire.NewReader(stream, wire.MaxFrame)
	var all []byte
	for n := 0; ; n++ {
		chunk := new(quicflowv1.LogChunk)
		if err := reader.Read(chunk); errors.Is(err, io.EOF) {
			require.Equal(t, lines, n)
			break
		} else {
			require.NoError(t, err)
		}
		require.Len(t, chunk.Data, 64)
		all = append(all, chunk.Data...)
	}
	require.Equal(t, string(all[len(all)-4096:]), string(result.StdoutTail))
	_ = p.conn.CloseWithError(wire.CloseNormal, "the test is over")
}
