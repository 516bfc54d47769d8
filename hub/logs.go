package hub

import (
	"context"
	"errors"
	"io"
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

// acceptLogs takes in the log streams of a session until it ends: one after the other, in the order in which the agent opened
// them. An agent ends one before it opens the next, so nothing waits for long, and what it wrote later is stored later.
func (s *session) acceptLogs() {
	for {
		stream, err := s.conn.AcceptUniStream(s.conn.Context())
		if err != nil {
			return
		}
		if err := s.readLogs(stream); err != nil {
			s.close(err)
			return
		}
	}
}

// readLogs takes in one log stream. It answers an error only if that has to end the session.
func (s *session) readLogs(stream *quic.ReceiveStream) *endError {
	r := wire.NewReader(s.hub.metrics.reader(stream), wire.MaxFrame)
	for {
		chunk := new(quicflowv1.LogChunk)
		if err := r.Read(chunk); err != nil {
			if errors.Is(err, io.EOF) || errors.As(err, new(*quic.StreamError)) || s.conn.Context().Err() != nil {
				return nil // ended, or given up by the agent, or all is over
			}
			return s.readError("log stream", err)
		}
		s.seen()
		record, err := s.record(chunk)
		if err != nil {
			return err
		}
		if s.hub.logs.put(s, record, len(record.Data)) != nil {
			return nil
		}
	}
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
