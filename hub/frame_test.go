package hub_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func length(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func frame(t *testing.T, m wire.Message) []byte {
	t.Helper()
	b, err := wire.AppendFrame(nil, m)
	require.NoError(t, err)
	return b
}

// A bad frame closes the session it came in, with the reason, and no other.
func TestBadFrames(t *testing.T) {
	var said journalOf
	b := start(t, func(c *hub.Config) {
		c.Hooks.OnError = func(e hub.Event, err error) {
			if errors.Is(err, hub.ErrProtocol) {
				said.add("%s broke the protocol", e.ClientID)
			}
		}
	})
	bystander := b.connect(b.join("bystander"))
	control := func(data []byte, fin bool) func(*testing.T, *agent) {
		return func(t *testing.T, a *agent) {
			_, err := a.stream.Write(data)
			require.NoError(t, err)
			if fin {
				require.NoError(t, a.stream.Close())
			}
		}
	}
	logs := func(data []byte) func(*testing.T, *agent) {
		return func(t *testing.T, a *agent) {
			s := a.logs()
			_, err := s.Write(data)
			require.NoError(t, err)
			require.NoError(t, s.Close())
		}
	}
	chunk := func(change func(*quicflowv1.LogChunk)) func(*testing.T, *agent) {
		return func(t *testing.T, a *agent) {
			c := &quicflowv1.LogChunk{StepId: step(a.id), Next: 10, Stream: quicflowv1.Stream_STREAM_STDOUT, Data: []byte("x")}
			change(c)
			logs(frame(t, c))(t, a)
		}
	}
	result := func(change func(*quicflowv1.StepResult)) func(*testing.T, *agent) {
		return func(t *testing.T, a *agent) {
			f := resultOf(step(a.id))
			change(f.GetResult())
			a.send(f)
		}
	}
	for name, c := range map[string]struct {
		do     func(*testing.T, *agent)
		code   quic.ApplicationErrorCode
		reason string
	}{
		"too large":            {control(length(wire.MaxFrame+1), false), wire.CloseFrameTooLarge, "1048577 bytes, at most 1048576"},
		"absurd length":        {control([]byte("GET / HTTP/1.1\r\n"), false), wire.CloseFrameTooLarge, "frame too large"},
		"garbage":              {control(append(length(4), 0xff, 0xff, 0xff, 0xff), false), wire.CloseProtocol, "malformed frame"},
		"truncated length":     {control([]byte{0, 0}, true), wire.CloseProtocol, "control stream: read frame length: unexpected EOF"},
		"truncated payload":    {control(append(length(4), 1), true), wire.CloseProtocol, "control stream: read frame of 4 bytes: unexpected EOF"},
		"empty frame":          {control(length(0), false), wire.CloseProtocol, "without a known body"},
		"second hello":         {control(frame(t, helloOf("j", "b")), false), wire.CloseProtocol, "second hello"},
		"foreign result":       {result(func(r *quicflowv1.StepResult) { r.StepId = step("bystander") }), wire.CloseProtocol, "is not one of client"},
		"result of no step":    {result(func(r *quicflowv1.StepResult) { r.StepId = "nonsense" }), wire.CloseProtocol, "does not have four parts"},
		"unknown outcome":      {result(func(r *quicflowv1.StepResult) { r.Outcome = 99 }), wire.CloseProtocol, "outcome 99"},
		"log frame too large":  {logs(length(wire.MaxLogFrame + 1)), wire.CloseFrameTooLarge, "log stream"},
		"log garbage":          {logs(append(length(4), 0xff, 0xff, 0xff, 0xff)), wire.CloseProtocol, "log stream: malformed frame"},
		"log truncated":        {logs([]byte{0}), wire.CloseProtocol, "log stream"},
		"foreign log":          {chunk(func(c *quicflowv1.LogChunk) { c.StepId = step("bystander") }), wire.CloseProtocol, "is not one of client"},
		"log of no step":       {chunk(func(c *quicflowv1.LogChunk) { c.StepId = "" }), wire.CloseProtocol, "does not have four parts"},
		"log of no stream":     {chunk(func(c *quicflowv1.LogChunk) { c.Stream = 0 }), wire.CloseProtocol, "stream 0"},
		"log that ends before": {chunk(func(c *quicflowv1.LogChunk) { c.Position, c.Next = 10, 5 }), wire.CloseProtocol, "cannot end at 5"},
	} {
		t.Run(name, func(t *testing.T) {
			a := b.connect(b.join("culprit"))
			c.do(t, a)
			a.closedWith(c.code, c.reason)
			bystander.alive()
			eventually(t, "the hook tells", func() bool { return said.has("culprit broke the protocol") })
		})
	}
	results, records := b.sink.stored()
	require.Zero(t, results)
	require.Empty(t, records)
}

func TestBadFirstFrame(t *testing.T) {
	b := start(t)
	for name, c := range map[string]struct {
		data []byte
		code quic.ApplicationErrorCode
	}{
		"too large for a hello": {length(wire.MaxHelloFrame + 1), wire.CloseFrameTooLarge},
		"garbage":               {append(length(2), 0xff, 0xff), wire.CloseProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			a := b.open(b.join("web-1"))
			_, err := a.stream.Write(c.data)
			require.NoError(t, err)
			a.closedWith(c.code, "frame")
		})
	}
	require.Zero(t, b.Connected())
}

// An agent that ends or gives up a log stream does no wrong.
func TestLogStreamMayBeReset(t *testing.T) {
	b := start(t)
	a := b.connect(b.join("web-1"))
	s := a.logs()
	_, err := s.Write([]byte{0, 0})
	require.NoError(t, err)
	s.CancelWrite(1)
	a.alive()
	eventually(t, "its credit is given back", func() bool { return !hub.Reading(b.Hub, "web-1") })
	unused, buffered := hub.Held(b.Hub)
	require.Zero(t, unused+buffered)
}

func TestControlStreamThatEnds(t *testing.T) {
	b := start(t)
	a := b.connect(b.join("web-1"))
	require.NoError(t, a.stream.Close())
	a.closedWith(wire.CloseNormal, "closed the control stream")
	eventually(t, "no goodbye", func() bool { return b.Presence("web-1").Status == "reconnecting" })
}
