package hub

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

var streamOf = map[quicflowv1.Stream]release.Stream{
	quicflowv1.Stream_STREAM_STDOUT: release.StreamStdout,
	quicflowv1.Stream_STREAM_STDERR: release.StreamStderr,
	quicflowv1.Stream_STREAM_SYSTEM: release.StreamSystem,
}

// readLogs takes in the log streams that a session has credit for: one after the other, in the order in which the agent
// opened them. An agent ends one before it opens the next, so what it wrote later is stored later.
func (s *session) readLogs() {
	for {
		credit, ok := s.hub.credits.next(s)
		if !ok {
			return
		}
		rest, err := s.readLogStream(credit)
		if err != nil {
			s.close(err)
		}
		s.hub.credits.ended(s, rest)
	}
}

// readLogStream takes in one log stream and tells what it left of its credit. It answers an error only if that has to end
// the session.
func (s *session) readLogStream(credit int64) (rest int64, _ *endError) {
	stream, err := s.acceptLogs()
	if stream == nil {
		return credit, err
	}
	in := &meter{Reader: s.hub.metrics.reader(stream)}
	r := wire.NewReader(in, wire.MaxLogFrame)
	for {
		low := credit < wire.MaxLogFrame+wire.HeaderSize
		if low {
			r.Limit(int(max(0, credit-wire.HeaderSize)))
		}
		_ = stream.SetReadDeadline(time.Now().Add(s.hub.cfg.LogIdleTimeout)) // an error shows in Read, too
		in.bytes = 0
		chunk := new(quicflowv1.LogChunk)
		if err := r.Read(chunk); err != nil {
			switch {
			case s.conn.Context().Err() != nil:
				return credit, nil // all is over
			case errors.Is(err, io.EOF), errors.As(err, new(*quic.StreamError)):
				return credit, nil // ended, or given up by the agent
			case errors.Is(err, os.ErrDeadlineExceeded):
				return credit, s.unusedCredit()
			case low && errors.Is(err, wire.ErrFrameTooLarge):
				return credit, violation("log frame beyond the credit, of which %d bytes are left: %w", credit, err)
			}
			return credit, s.readError("log stream", err)
		}
		s.seen()
		if in.bytes > credit {
			return credit, violation("log frame of %d bytes beyond the credit, of which %d bytes are left", in.bytes, credit)
		}
		record, err := s.record(chunk)
		if err != nil {
			return credit, err
		}
		credit -= in.bytes
		s.hub.credits.use(in.bytes)
		s.hub.logs.put(s, record, in.bytes)
	}
}

// acceptLogs waits for the next log stream. There is none if the session is over, or has to end for the error.
func (s *session) acceptLogs() (*quic.ReceiveStream, *endError) {
	ctx, cancel := context.WithTimeout(s.conn.Context(), s.hub.cfg.LogIdleTimeout)
	defer cancel()
	stream, err := s.conn.AcceptUniStream(ctx)
	switch {
	case err == nil:
		return stream, nil
	case s.conn.Context().Err() == nil && ctx.Err() != nil:
		return nil, s.unusedCredit()
	}
	return nil, nil
}

// unusedCredit ends a session that keeps from others what it does not use.
func (s *session) unusedCredit() *endError {
	return violation("credit for logs was neither used nor given back for %s", s.hub.cfg.LogIdleTimeout)
}

// meter counts what is read.
type meter struct {
	io.Reader
	bytes int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.bytes += int64(n)
	return n, err
}

func (s *session) record(chunk *quicflowv1.LogChunk) (release.LogRecord, *endError) {
	taskID, err := s.ownStep(chunk.StepId)
	if err != nil {
		return release.LogRecord{}, err
	}
	stream, ok := streamOf[chunk.Stream]
	if !ok {
		return release.LogRecord{}, violation("log of step %s: stream %d is not known", chunk.StepId, chunk.Stream)
	}
	if chunk.Next <= chunk.Position {
		return release.LogRecord{}, violation("log of step %s: a record at %d cannot end at %d", chunk.StepId, chunk.Position, chunk.Next)
	}
	return release.LogRecord{
		TaskID:   taskID,
		StepID:   chunk.StepId,
		ClientID: s.id,
		Position: chunk.Position,
		Next:     chunk.Next,
		Stream:   stream,
		Offset:   chunk.Offset,
		Time:     time.Unix(0, chunk.TimeUnixNano).UTC(),
		Data:     chunk.Data,
	}, nil
}

// storeLogs is how the intake stores logs.
func (h *Hub) storeLogs(ctx context.Context, batch []received[release.LogRecord]) error {
	acks, err := h.cfg.Sink.AppendLogs(ctx, items(batch))
	if err != nil {
		return err
	}
	failpoint.Here("hub.logs.stored")
	tasks := make(map[string]struct{})
	senders := make(map[string]*session)
	bytes := 0
	for _, r := range batch {
		tasks[r.item.TaskID] = struct{}{}
		senders[r.item.StepID] = r.from // the latest, if a step moved to a new session meanwhile
		bytes += len(r.item.Data)
	}
	h.metrics.logRecords.Add(float64(len(batch)))
	h.metrics.logBytes.Add(float64(bytes))
	for _, ack := range acks {
		if s := senders[ack.StepID]; s != nil {
			s.acknowledge(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_LogAck{
				LogAck: &quicflowv1.LogAck{StepId: ack.StepID, Position: ack.Position}}})
		}
	}
	h.publish(tasks)
	return nil
}
