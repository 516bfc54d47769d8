package hub

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// maxTailFrame bounds a frame of output.
const maxTailFrame = 64 << 10

// TailLogs writes the output of what runs on an agent's host to out, until it ends, or ctx does. It reads no faster than out takes it,
// and an unread stream holds up the others of its agent in the end: an out that blocks must give up. Errors: ErrNotConnected,
// ErrDraining, ErrTooManyTails, ErrSessionLost, an *AgentError, that of out, and the cause of ctx.
func (h *Hub) TailLogs(ctx context.Context, clientID string, asked *quicflowv1.TailLogs, out io.Writer) error {
	if err := h.tailLogs(ctx, clientID, asked, out); err != nil {
		return fmt.Errorf("read output on agent %s: %w", clientID, err)
	}
	return nil
}

func (h *Hub) tailLogs(ctx context.Context, clientID string, asked *quicflowv1.TailLogs, out io.Writer) error {
	s, err := h.sessionOf(clientID)
	if err != nil {
		return err
	}
	stream, err := s.conn.OpenStream()
	if err != nil {
		if errors.Is(err, &quic.StreamLimitReachedError{}) {
			return ErrTooManyTails
		}
		return fmt.Errorf("%w: %w", ErrSessionLost, err)
	}
	defer stream.CancelRead(0)
	defer stream.CancelWrite(0)
	defer context.AfterFunc(ctx, func() {
		stream.CancelRead(0)
		stream.CancelWrite(0)
	})()
	lost := func(err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: %w", ErrSessionLost, err)
	}
	if err := wire.WriteFrame(stream, asked); err != nil {
		return lost(err)
	}
	frames := wire.NewReader(stream, maxTailFrame)
	for {
		data := new(quicflowv1.TailData)
		switch err := frames.Read(data); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return lost(err)
		}
		if len(data.Data) > 0 {
			if _, err := out.Write(data.Data); err != nil {
				return fmt.Errorf("pass output on: %w", err)
			}
		}
		if data.Failure != nil {
			return &AgentError{Code: data.Failure.Code, Message: data.Failure.Message}
		}
	}
}
