package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Artifacts is where the hub reads the artifacts that agents fetch. It is safe for concurrent use.
type Artifacts interface {
	// OpenArtifact gives a content from an offset on, and its whole size. Errors: release.ErrNotFound, release.ErrInvalid for an
	// offset beyond the end or what is no SHA-256. ctx is in force until the content is closed.
	OpenArtifact(ctx context.Context, sha256 string, offset int64) (content io.ReadCloser, size int64, err error)
}

const (
	// maxFetches is how many artifacts a session may have asked for at a time. An agent of ours asks for one; another one may be
	// about to end.
	maxFetches = 2
	// artifactChunk is read and sent at a time, in bytes.
	artifactChunk = 128 << 10
	// transferBytes is what a transfer may take in the hub: a chunk, and what QUIC keeps until it is acknowledged.
	transferBytes = wire.ArtifactWindow + artifactChunk
	// While others wait, a transfer gives its place away after so many bytes, or if its agent takes nothing for so long.
	artifactTurn     = 16 << 20
	artifactPatience = 2 * time.Second
	// artifactStall is how long, of its turns, a transfer may stand still before it is given up.
	artifactStall = time.Minute
	// openTimeout bounds the wait for an agent to allow a stream.
	openTimeout = 10 * time.Second
)

// artifactsFailed is the code of streams that the hub could not finish. Its agent asks again.
const artifactsFailed quic.StreamErrorCode = 1

var errStalled = errors.New("the agent takes nothing")

// couriers send artifacts to agents. A courier is a slot: its goroutine lives as long as there is something to send. Whoever finds
// all of them taken waits; those who wait are served in turns, so that a few large artifacts on slow lines do not hold up the rest.
type couriers struct {
	hub   *Hub
	slots int
	bytes int64 // of a turn

	mu    sync.Mutex
	queue []*transfer // the one that waits longest first
	busy  int
}

// transfer is an artifact on its way to an agent.
type transfer struct {
	to       *session
	id       uint64 // of the request
	sum      string
	offset   int64 // of what is sent next
	size     int64
	stream   *quic.SendStream // nil before the first turn
	standing time.Duration    // since it has moved, of its turns
}

var chunks = sync.Pool{New: func() any { return new([artifactChunk]byte) }}

func newCouriers(h *Hub) *couriers {
	return &couriers{hub: h, bytes: artifactTurn, slots: max(1, min(h.cfg.MaxTransfers, int(h.cfg.ArtifactBuffer/transferBytes)))}
}

// fetch takes a request of an agent. It never waits.
func (c *couriers) fetch(s *session, id uint64, want *quicflowv1.FetchArtifact) *endError {
	if id == 0 {
		return violation("artifact asked for without a request id")
	}
	t := &transfer{to: s, id: id, sum: want.GetSha256(), offset: int64(want.GetOffset())}
	switch {
	case c.hub.cfg.Artifacts == nil:
		return t.refuse(quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, "this hub has no artifacts")
	case want.GetOffset() > math.MaxInt64:
		return t.refuse(quicflowv1.FailureCode_FAILURE_CODE_INVALID, "the offset is beyond the end of the artifact")
	case !c.take(t):
		return t.refuse(quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, fmt.Sprintf("the session has asked for %d artifacts already", maxFetches))
	}
	return nil
}

// take begins a transfer or queues it. It reports false if the session has asked for too many.
func (c *couriers) take(t *transfer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.to.fetches >= maxFetches {
		return false
	}
	t.to.fetches++
	if c.busy >= c.slots {
		c.queue = append(c.queue, t)
		return true
	}
	c.busy++
	c.hub.conns.Go(func() { c.run(t) }) // the goroutine that reads the session is still among them
	return true
}

// run is a courier: it carries transfers until none is left.
func (c *couriers) run(t *transfer) {
	chunk := chunks.Get().(*[artifactChunk]byte)
	defer chunks.Put(chunk)
	for t != nil {
		again := c.turn(t, chunk[:])
		t = c.next(t, again)
	}
}

// next gives the transfer whose turn comes after that of t, which may be t again; nil if there is none, and then the courier ends.
func (c *couriers) next(t *transfer, again bool) *transfer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if again {
		c.queue = append(c.queue, t)
	} else {
		t.to.fetches--
	}
	if len(c.queue) == 0 {
		c.queue = nil
		c.busy--
		return nil
	}
	t = c.queue[0]
	c.queue[0] = nil
	c.queue = c.queue[1:]
	return t
}

// load gives how many transfers wait, and how many are at work.
func (c *couriers) load() (waiting, busy int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue), c.busy
}

// crowded says whether somebody waits for a courier.
func (c *couriers) crowded() bool {
	waiting, _ := c.load()
	return waiting > 0
}

// turn sends some of an artifact, or all of it. It reports whether more is to follow.
func (c *couriers) turn(t *transfer, chunk []byte) (again bool) {
	ctx, cancel := context.WithCancel(t.to.conn.Context())
	defer cancel()
	if ctx.Err() != nil {
		return false // it may have been in the queue for a while
	}
	// A storage that stands still is left at last.
	watchdog := time.AfterFunc(artifactStall, cancel)
	defer watchdog.Stop()
	again, err := t.send(ctx, chunk, func() { watchdog.Reset(artifactStall) })
	if err == nil {
		return again
	}
	m := c.hub.metrics
	m.transfersFailed.Inc()
	var gone *quic.StreamError
	switch {
	case t.to.conn.Context().Err() != nil, errors.As(err, &gone): // the agent has left, or does not want it any more
		c.hub.log.Debug("artifact is not wanted any more", "client_id", t.to.id, "sha256", t.sum, "offset", t.offset, "cause", err)
	default:
		c.hub.log.Warn("artifact not delivered; its agent asks again", "client_id", t.to.id, "sha256", t.sum, "offset", t.offset, "error", err)
	}
	if t.stream != nil {
		t.stream.CancelWrite(artifactsFailed)
	}
	return false
}

// send is turn with its errors. alive is called when it has got further.
func (t *transfer) send(ctx context.Context, chunk []byte, alive func()) (again bool, err error) {
	h := t.to.hub
	content, size, err := h.cfg.Artifacts.OpenArtifact(ctx, t.sum, t.offset)
	if err != nil {
		if t.stream == nil {
			t.tell(openFailure(err))
		}
		return false, err
	}
	defer func() { _ = content.Close() }()
	if t.stream == nil {
		if err := t.begin(ctx, size); err != nil {
			return false, err
		}
	} else if size != t.size {
		return false, fmt.Errorf("it has %d bytes now, and had %d", size, t.size)
	}
	for end := t.offset + h.couriers.bytes; t.offset < t.size; {
		alive()
		n, err := io.ReadFull(content, chunk[:min(int64(len(chunk)), t.size-t.offset)])
		if err != nil {
			return false, fmt.Errorf("read: %w", err)
		}
		alive()
		again, err := t.write(chunk[:n])
		if err != nil || again || t.offset >= end && t.offset < t.size && h.couriers.crowded() {
			return err == nil, err
		}
	}
	h.metrics.transfers.Inc()
	return false, t.stream.Close()
}

// begin opens the stream and says what comes on it.
func (t *transfer) begin(ctx context.Context, size int64) (err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if t.stream, err = t.to.conn.OpenUniStreamSync(ctx); err != nil {
		t.tell(failure(quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, "the agent allows no stream for the artifact"))
		return fmt.Errorf("open stream: %w", err)
	}
	t.size = size
	_ = t.stream.SetWriteDeadline(time.Now().Add(openTimeout))
	err = wire.WriteFrame(t.stream, &quicflowv1.ArtifactHeader{RequestId: t.id, Offset: uint64(t.offset), Size: uint64(size)})
	if err != nil {
		t.tell(failure(quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, "the artifact could not be sent"))
		return fmt.Errorf("begin: %w", err)
	}
	t.tell(&quicflowv1.Response{Body: &quicflowv1.Response_Artifact{Artifact: &quicflowv1.ArtifactFound{Size: uint64(size)}}})
	return nil
}

// write sends bytes. It reports true if there are others who wait while this agent takes nothing; the rest follows in another turn.
func (t *transfer) write(p []byte) (again bool, err error) {
	for len(p) > 0 {
		_ = t.stream.SetWriteDeadline(time.Now().Add(artifactPatience))
		n, err := t.stream.Write(p)
		t.to.hub.metrics.transferBytes.Add(float64(n))
		t.offset, p = t.offset+int64(n), p[n:]
		switch {
		case err == nil, n > 0 && errors.Is(err, os.ErrDeadlineExceeded):
			t.standing = 0
		case errors.Is(err, os.ErrDeadlineExceeded):
			if t.standing += artifactPatience; t.standing >= artifactStall {
				return false, errStalled
			}
		default:
			return false, fmt.Errorf("send: %w", err)
		}
		if err != nil && t.to.hub.couriers.crowded() {
			return true, nil
		}
	}
	return false, nil
}

func openFailure(err error) *quicflowv1.Response {
	switch {
	case errors.Is(err, release.ErrNotFound):
		return failure(quicflowv1.FailureCode_FAILURE_CODE_NOT_FOUND, "the server does not have it")
	case errors.Is(err, release.ErrInvalid):
		return failure(quicflowv1.FailureCode_FAILURE_CODE_INVALID, err.Error())
	}
	return failure(quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, "the server cannot read it; its log says why")
}

func (t *transfer) refuse(code quicflowv1.FailureCode, message string) *endError {
	return t.answer(failure(code, message))
}

func (t *transfer) answer(response *quicflowv1.Response) *endError {
	response.Id = t.id
	return t.to.reply(&quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_Response{Response: response}})
}

// tell is answer for who cannot end the session by an error.
func (t *transfer) tell(response *quicflowv1.Response) {
	if err := t.answer(response); err != nil {
		t.to.close(err)
	}
}
