package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/agent/artifacts"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	// headerTimeout bounds the wait for the header of an artifact's stream, which comes with the stream.
	headerTimeout = 10 * time.Second
	// unwanted is the code of streams that nobody waits for.
	unwanted quic.StreamErrorCode = 0
)

// artifactSource gets artifacts from the hub of the session of the moment, one at a time.
type artifactSource struct {
	agent *Agent
	turn  chan struct{} // a token for the one transfer
}

var _ artifacts.Source = (*artifactSource)(nil)

func newArtifactSource(a *Agent) *artifactSource {
	return &artifactSource{agent: a, turn: make(chan struct{}, 1)}
}

// Fetch asks for an artifact and waits until its turn has come, here and at the hub.
func (f *artifactSource) Fetch(ctx context.Context, sha256 string, offset int64) (io.ReadCloser, int64, error) {
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, 0, context.Cause(ctx)
	}
	s := f.agent.currentSession()
	if s == nil {
		<-f.turn
		return nil, 0, fmt.Errorf("%w: %w", artifacts.ErrOffline, ErrNotConnected)
	}
	content, size, err := s.fetchArtifact(ctx, sha256, offset)
	if err != nil {
		<-f.turn
		return nil, 0, err
	}
	content.closed = func() { <-f.turn }
	return content, size, nil
}

// artifactContent is the content of an artifact as it comes.
type artifactContent struct {
	io.Reader
	stream *quic.ReceiveStream
	closed func()
	once   sync.Once
}

// Close ends the transfer, whether or not all has come.
func (c *artifactContent) Close() error {
	c.once.Do(func() {
		c.stream.CancelRead(unwanted)
		c.closed()
	})
	return nil
}

// fetchArtifact asks this session's hub. The content ends with the session.
func (s *session) fetchArtifact(ctx context.Context, sha256 string, offset int64) (*artifactContent, int64, error) {
	id, answer := s.calls.begin()
	defer s.calls.end(id)
	arrived, forget := s.arrivals.expect(id)
	defer forget()
	request := &quicflowv1.Request{Id: id, Body: &quicflowv1.Request_FetchArtifact{
		FetchArtifact: &quicflowv1.FetchArtifact{Sha256: sha256, Offset: uint64(offset)}}}
	if err := s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Request{Request: request}}); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", artifacts.ErrOffline, err)
	}
	for {
		select {
		case response := <-answer:
			if response.GetArtifact() == nil {
				return nil, 0, fetchError(response.GetFailure())
			}
		case a := <-arrived:
			if a.stream == nil {
				return nil, 0, errors.New("the hub gave up before it began to send")
			}
			if at := int64(a.header.GetOffset()); at != offset {
				a.stream.CancelRead(unwanted)
				return nil, 0, fmt.Errorf("the hub sends from offset %d, not %d", at, offset)
			}
			return &artifactContent{Reader: a.rest, stream: a.stream}, int64(a.header.GetSize()), nil
		case <-s.calls.lost:
			return nil, 0, fmt.Errorf("%w: %w", artifacts.ErrOffline, s.calls.why())
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
	}
}

func fetchError(f *quicflowv1.Failure) error {
	switch f.GetCode() {
	case quicflowv1.FailureCode_FAILURE_CODE_NOT_FOUND:
		return artifacts.ErrMissing
	case quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED:
		return fmt.Errorf("%w: %s", artifacts.ErrMissing, f.GetMessage())
	case quicflowv1.FailureCode_FAILURE_CODE_INVALID:
		return fmt.Errorf("%w: %s", artifacts.ErrOffset, f.GetMessage())
	}
	return errors.New(f.GetMessage())
}

// arrivals are the artifacts that a session waits for.
type arrivals struct {
	mu      sync.Mutex
	waiting map[uint64]chan arrival // by request
}

// fail tells all who wait that nothing comes.
func (a *arrivals) fail() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.waiting {
		c <- arrival{}
	}
	clear(a.waiting)
}

// arrival is a stream that has come; without one, it was given up.
type arrival struct {
	header *quicflowv1.ArtifactHeader
	stream *quic.ReceiveStream
	rest   io.Reader
}

// expect gives where the stream of a request will come. A stream that has come and was not taken by forget is ended.
func (a *arrivals) expect(id uint64) (arrived <-chan arrival, forget func()) {
	c := make(chan arrival, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == nil {
		a.waiting = make(map[uint64]chan arrival)
	}
	a.waiting[id] = c
	return c, func() {
		a.mu.Lock()
		delete(a.waiting, id)
		a.mu.Unlock()
		select {
		case late := <-c:
			if late.stream != nil {
				late.stream.CancelRead(unwanted)
			}
		default:
		}
	}
}

// deliver reports false if nobody waits.
func (a *arrivals) deliver(what arrival) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.waiting[what.header.GetRequestId()]
	if c == nil {
		return false
	}
	delete(a.waiting, what.header.GetRequestId())
	c <- what
	return true
}

// takeArtifacts gives the streams that the hub opens to who waits for them, until the session ends.
func (s *session) takeArtifacts(ctx context.Context) {
	for {
		stream, err := s.conn.AcceptUniStream(ctx)
		if err != nil {
			return
		}
		_ = stream.SetReadDeadline(time.Now().Add(headerTimeout))
		header, reader := new(quicflowv1.ArtifactHeader), wire.NewReader(stream, wire.MaxHelloFrame)
		if err := reader.Read(header); err != nil {
			// A hub that gives up at once takes the header back with the rest. Whose stream it was is not known: all ask again.
			s.agent.cfg.Logger.Debug("a stream of the hub began with no header", "error", err)
			stream.CancelRead(unwanted)
			s.arrivals.fail()
			continue
		}
		_ = stream.SetReadDeadline(time.Time{}) // the hub has others to serve, too; whether it lives heartbeats tell
		if !s.arrivals.deliver(arrival{header, stream, reader.Rest()}) {
			stream.CancelRead(unwanted)
		}
	}
}
