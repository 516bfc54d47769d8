package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	// welcomeTimeout bounds the wait for the hub's answer to Hello.
	welcomeTimeout = 15 * time.Second
	// goodbyeTimeout bounds the wait for the hub to have read a Goodbye.
	goodbyeTimeout = time.Second
	// maxRequests is how many requests of a session are worked on at the same time.
	maxRequests = 64
)

// refusedError is a session, or a certificate, that the hub did not give.
type refusedError struct {
	message    string
	retryAfter time.Duration // 0: as the backoff says
}

func (e *refusedError) Error() string { return "refused: " + e.message }

var (
	errSilent  = errors.New("the hub does not answer heartbeats")
	errGoodbye = errors.New("the hub said goodbye")
)

// session is one accepted connection to a hub.
type session struct {
	agent    *Agent
	conn     *quic.Conn
	control  *quic.Stream
	frames   *wire.Reader
	interval time.Duration // between heartbeats

	out      chan *quicflowv1.ToHub
	requests chan struct{} // a token for each request in work

	sequence atomic.Uint64 // of the last heartbeat sent
	acked    atomic.Uint64 // of the last one answered
	heard    atomic.Int64  // when the last frame came, in ns
}

// connect dials a server, introduces the agent and holds the session until it ends. accepted says whether there was a
// session at all; the error is never nil.
func (a *Agent) connect(ctx context.Context, server string) (accepted bool, err error) {
	id := a.currentIdentity()
	conn, err := a.dial(ctx, server, id.tlsConfig(wire.ALPN, server, a.cfg.Insecure))
	if err != nil {
		return false, fmt.Errorf("dial: %w", err)
	}
	defer conn.CloseWithError(wire.CloseNormal, "")
	s := &session{
		agent: a, conn: conn,
		out:      make(chan *quicflowv1.ToHub, maxRequests),
		requests: make(chan struct{}, maxRequests),
	}
	welcome, err := s.introduce(ctx)
	if err != nil {
		return false, err
	}
	a.cfg.Logger.Info("connected", "server", server, "node_id", welcome.NodeId, "session_epoch", welcome.SessionEpoch)
	a.cfg.OnConnect(welcome)
	err = s.run(ctx)
	a.cfg.OnDisconnect(err)
	return true, err
}

func (s *session) introduce(ctx context.Context) (*quicflowv1.Welcome, error) {
	a := s.agent
	ctx, cancel := context.WithTimeoutCause(ctx, welcomeTimeout, errors.New("no welcome in time"))
	defer cancel()
	var err error
	if s.control, err = s.conn.OpenStreamSync(ctx); err != nil {
		return nil, fmt.Errorf("open control stream: %w", err)
	}
	// The stream knows deadlines but not contexts.
	stop := context.AfterFunc(ctx, func() { _ = s.control.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	hostname, _ := os.Hostname()
	hello := &quicflowv1.Hello{
		Protocol: wire.Protocol, AgentVersion: a.cfg.Version,
		JournalId: a.journal.ID(), Generation: a.journal.Generation(), BootId: a.cfg.BootID,
		Labels: a.cfg.Labels, Hostname: hostname, Os: runtime.GOOS, Arch: runtime.GOARCH,
	}
	if err := wire.WriteFrame(s.control, &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Hello{Hello: hello}}); err != nil {
		return nil, fmt.Errorf("send hello: %w", err)
	}
	s.frames = wire.NewReader(s.control, wire.MaxFrame)
	frame := new(quicflowv1.ToAgent)
	if err := s.frames.Read(frame); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("wait for welcome: %w", err)
	}
	switch body := frame.Body.(type) {
	case *quicflowv1.ToAgent_Welcome:
		s.interval = time.Duration(body.Welcome.HeartbeatIntervalMs) * time.Millisecond
		if s.interval <= 0 {
			s.interval = 15 * time.Second
		}
		return body.Welcome, nil
	case *quicflowv1.ToAgent_Refusal:
		return nil, refused(body.Refusal)
	case *quicflowv1.ToAgent_Goodbye:
		s.follow(body.Goodbye)
		return nil, fmt.Errorf("%w: %s", errGoodbye, body.Goodbye.Reason)
	}
	return nil, errors.New("the hub answered with neither welcome nor refusal")
}

func refused(r *quicflowv1.Refusal) error {
	code := strings.ToLower(strings.TrimPrefix(r.Code.String(), "REFUSAL_CODE_"))
	return &refusedError{r.Message + " (" + code + ")", time.Duration(r.RetryAfterMs) * time.Millisecond}
}

// follow goes where a hub sends the agent.
func (s *session) follow(g *quicflowv1.Goodbye) {
	address, err := withPort(g.Alternate)
	if err != nil {
		return
	}
	s.agent.mu.Lock()
	s.agent.alternate = address
	s.agent.mu.Unlock()
}

// run works until the session ends and says why it did.
func (s *session) run(ctx context.Context) error {
	s.heard.Store(time.Now().UnixNano())
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	group, work := errgroup.WithContext(work)
	group.Go(func() error { return s.read(work, group) })
	network := watchNetwork(s.agent)
	group.Go(func() error { network.run(work); return nil })
	group.Go(func() error { return s.write(work, network.moved) })
	group.Go(func() error { return newShipper(s).run(work) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			s.sayGoodbye(work)
			return ErrStopping
		case <-work.Done():
			return nil
		}
	})
	// Reading and writing know no contexts; closing the connection ends them.
	stop := context.AfterFunc(work, func() { _ = s.conn.CloseWithError(wire.CloseNormal, "") })
	defer stop()
	return group.Wait()
}

// sayGoodbye waits until the hub has closed the connection, or a little.
func (s *session) sayGoodbye(ctx context.Context) {
	s.send(ctx, &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Goodbye{Goodbye: &quicflowv1.Goodbye{Reason: "agent is stopping"}}})
	timer := time.NewTimer(goodbyeTimeout)
	defer timer.Stop()
	select {
	case <-s.conn.Context().Done():
	case <-timer.C:
	}
}

// send queues a frame. It gives up when the session ends.
func (s *session) send(ctx context.Context, frame *quicflowv1.ToHub) {
	select {
	case s.out <- frame:
	case <-ctx.Done():
	}
}

// read takes frames until there are no more.
func (s *session) read(ctx context.Context, group *errgroup.Group) error {
	for {
		frame := new(quicflowv1.ToAgent)
		if err := s.frames.Read(frame); err != nil {
			return fmt.Errorf("read control stream: %w", err)
		}
		s.heard.Store(time.Now().UnixNano())
		switch body := frame.Body.(type) {
		case *quicflowv1.ToAgent_HeartbeatAck:
			s.acked.Store(body.HeartbeatAck.Sequence)
		case *quicflowv1.ToAgent_Request:
			s.request(ctx, group, body.Request)
		case *quicflowv1.ToAgent_ResultAck:
			s.agent.steps.resultAcked(body.ResultAck.StepId)
		case *quicflowv1.ToAgent_LogAck:
			s.agent.steps.logAcked(body.LogAck.StepId, body.LogAck.Position)
		case *quicflowv1.ToAgent_Goodbye:
			s.follow(body.Goodbye)
			return fmt.Errorf("%w: %s", errGoodbye, body.Goodbye.Reason)
		case *quicflowv1.ToAgent_Refusal:
			return refused(body.Refusal)
		}
	}
}

// write sends what is queued, results that are ready, and heartbeats: at their time, and when the host has moved.
func (s *session) write(ctx context.Context, moved <-chan struct{}) error {
	buffer := bufio.NewWriterSize(s.control, 4<<10)
	steps := s.agent.steps
	sent := map[string]bool{}
	beat := newHeartbeat(s)
	defer beat.stop()
	if err := s.writeResults(buffer, sent); err != nil {
		return err
	}
	for {
		if err := buffer.Flush(); err != nil {
			return fmt.Errorf("write control stream: %w", err)
		}
		var err error
		select {
		case frame := <-s.out:
			err = wire.WriteFrame(buffer, frame)
			for n := len(s.out); n > 0 && err == nil; n-- {
				err = wire.WriteFrame(buffer, <-s.out)
			}
		case <-steps.resultsReady:
			err = s.writeResults(buffer, sent)
		case <-beat.tick():
			err = beat.write(buffer)
		case <-moved:
			err = beat.send(buffer)
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// writeResults writes each result once a session, until the hub confirms it.
func (s *session) writeResults(buffer *bufio.Writer, sent map[string]bool) error {
	for _, id := range s.agent.steps.unconfirmedResults() {
		if sent[id] {
			continue
		}
		status, err := s.agent.journal.Lookup(id)
		if err != nil {
			return fmt.Errorf("read result: %w", err)
		}
		if status.Result == nil {
			continue
		}
		if err := wire.WriteFrame(buffer, &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Result{Result: status.Result}}); err != nil {
			return err
		}
		sent[id] = true
	}
	return nil
}
