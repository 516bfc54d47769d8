package agent

import (
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
	// maxOutbox bounds the bytes that wait for the hub to read. A frame that finds more is not queued.
	maxOutbox = 4 << 20
	// maxAnswers is maxOutbox for answers, which cannot be sent later: the largest for each request in work fits.
	maxAnswers = maxRequests * wire.MaxFrame
)

// refusedError is a session, or a certificate, that the hub did not give.
type refusedError struct {
	message    string
	retryAfter time.Duration // 0: as the backoff says
	busy       bool          // the hub has too much to do at this moment
}

func (e *refusedError) Error() string { return "refused: " + e.message }

var (
	errSilent  = errors.New("the hub does not answer heartbeats")
	errGoodbye = errors.New("the hub said goodbye")

	errUnaskedCredit = errors.New("the hub granted credit for logs without having been asked")
)

// session is one accepted connection to a hub.
type session struct {
	agent     *Agent
	number    uint64 // of the agent's sessions, from 1
	conn      *quic.Conn
	control   *quic.Stream
	frames    *wire.Reader
	interval  time.Duration // between heartbeats
	server    string
	welcome   *quicflowv1.Welcome
	since     time.Time
	factsHash uint64 // as in the hello

	out      *wire.Outbox
	writers  errgroup.Group // of out
	requests chan struct{}  // a token for each request in work
	calls    *calls         // messages of our own
	arrivals arrivals       // of artifacts
	credits  chan uint64    // what the hub granted for logs: at most one grant, as the shipper has at most one offer open

	held  atomic.Bool   // results wait for room in out
	acked atomic.Uint64 // the sequence of the last heartbeat answered
	heard atomic.Int64  // when the last frame came, in ns
}

// connect dials a server, introduces the agent and holds the session until it ends. accepted says whether there was a
// session at all; the error is never nil.
func (a *Agent) connect(ctx context.Context, server string) (accepted bool, err error) {
	id := a.currentIdentity()
	defer func() {
		if !accepted {
			id.tickets.Tried(err)
		}
	}()
	conn, err := a.dial(ctx, server, id.tlsConfig(wire.ALPN, server, a.cfg.Insecure))
	if err != nil {
		return false, fmt.Errorf("dial: %w", err)
	}
	defer conn.CloseWithError(wire.CloseNormal, "")
	s := &session{
		agent: a, number: a.sessions.Add(1), conn: conn,
		requests: make(chan struct{}, maxRequests),
		credits:  make(chan uint64, 1),
		calls:    newCalls(),
	}
	welcome, err := s.introduce(ctx)
	if err != nil {
		return false, err
	}
	a.cfg.Logger.Info("connected", "server", server, "node_id", welcome.NodeId, "session_epoch", welcome.SessionEpoch)
	s.server, s.welcome, s.since = server, welcome, time.Now()
	a.setSession(s)
	if welcome.WantFacts || a.currentFacts().GetHash() != s.factsHash {
		s.sendFacts()
	}
	a.cfg.OnConnect(welcome)
	err = s.run(ctx)
	a.setSession(nil)
	s.calls.lose(ctx, err)
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
	s.factsHash = a.currentFacts().GetHash()
	hello := &quicflowv1.Hello{
		Protocol: wire.Protocol, AgentVersion: a.cfg.Version,
		JournalId: a.journal.ID(), Generation: a.journal.Generation(), BootId: a.cfg.BootID,
		Labels: a.cfg.Labels, Hostname: hostname, Os: runtime.GOOS, Arch: runtime.GOARCH,
		FactsHash: s.factsHash,
	}
	if err := wire.WriteFrame(s.control, &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Hello{Hello: hello}}); err != nil {
		return nil, fmt.Errorf("send hello: %w", err)
	}
	s.out = wire.NewOutbox(s.control, s)
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
	return &refusedError{
		message:    r.Message + " (" + code + ")",
		retryAfter: time.Duration(r.RetryAfterMs) * time.Millisecond,
		busy:       r.Code == quicflowv1.RefusalCode_REFUSAL_CODE_OVERLOADED,
	}
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
	group.Go(func() error { s.takeArtifacts(work); return nil })
	network := watchNetwork(s.agent)
	group.Go(func() error { network.run(work); return nil })
	group.Go(func() error { return s.write(work, network.moved) })
	group.Go(func() error { return newShipper(s).run(work) })
	group.Go(func() error { return s.acceptTails(work, group) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), ErrRestarting) {
				s.sayGoodbye(work)
			}
			return ErrStopping
		case <-work.Done():
			return nil
		}
	})
	// Reading and writing know no contexts; closing the connection ends them.
	stop := context.AfterFunc(work, func() { _ = s.conn.CloseWithError(wire.CloseNormal, "") })
	defer stop()
	err := group.Wait()
	_ = s.writers.Wait() // their stream has ended
	return err
}

// sayGoodbye waits until the hub has closed the connection, or a little.
func (s *session) sayGoodbye(ctx context.Context) {
	if s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Goodbye{Goodbye: &quicflowv1.Goodbye{Reason: "agent is stopping"}}}) != nil {
		return
	}
	timer := time.NewTimer(goodbyeTimeout)
	defer timer.Stop()
	select {
	case <-s.conn.Context().Done():
	case <-timer.C:
	}
}

// send queues a frame. The error is wire.ErrOutboxFull where the hub does not read.
func (s *session) send(frame *quicflowv1.ToHub) error { return s.out.Send(frame, maxOutbox) }

var _ wire.OutboxOwner = (*session)(nil)

// Go runs a writer.
func (s *session) Go(f func()) { s.writers.Go(func() error { f(); return nil }) }

// Wrote does not count.
func (s *session) Wrote(int) {}

// WriteFailed ends the session: its reading ends too.
func (s *session) WriteFailed(error) { _ = s.conn.CloseWithError(wire.CloseNormal, "") }

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
		case *quicflowv1.ToAgent_Response:
			s.calls.complete(body.Response)
		case *quicflowv1.ToAgent_ResultAck:
			s.agent.steps.resultAcked(body.ResultAck.StepId)
			if s.held.CompareAndSwap(true, false) {
				wake(s.agent.steps.resultsReady)
			}
		case *quicflowv1.ToAgent_LogAck:
			s.agent.steps.logAcked(body.LogAck.StepId, body.LogAck.Position)
		case *quicflowv1.ToAgent_LogCredit:
			select {
			case s.credits <- body.LogCredit.GetBytes():
			default:
				return errUnaskedCredit
			}
		case *quicflowv1.ToAgent_Goodbye:
			s.follow(body.Goodbye)
			return fmt.Errorf("%w: %s", errGoodbye, body.Goodbye.Reason)
		case *quicflowv1.ToAgent_Refusal:
			return refused(body.Refusal)
		}
	}
}

// write sends results that are ready, and heartbeats: at their time, and when the host has moved.
func (s *session) write(ctx context.Context, moved <-chan struct{}) error {
	steps := s.agent.steps
	beat := heartbeat{s: s, pulse: NewPulse(0)}
	ticker := time.NewTicker(max(s.interval/TicksPerInterval, time.Millisecond))
	defer ticker.Stop()
	for {
		if err := s.writeResults(); err != nil {
			return err
		}
		for ready := false; !ready; {
			select {
			case <-steps.resultsReady:
				ready = true
			case <-ticker.C:
				if err := beat.due(); err != nil {
					return err
				}
			case <-moved:
				if err := beat.ask(); err != nil {
					return err
				}
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// writeResults sends each result once a session, until the hub confirms it. Where there are more than the hub reads, the
// rest follows when it has confirmed some.
func (s *session) writeResults() error {
	for _, id := range s.agent.steps.unsentResults(s.number) {
		status, err := s.agent.journal.Lookup(id)
		if err != nil {
			return fmt.Errorf("read result: %w", err)
		}
		if status.Result == nil {
			continue
		}
		s.held.Store(true) // before it is found to be full: the confirmation may come in between
		err = s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Result{Result: status.Result}})
		if errors.Is(err, wire.ErrOutboxFull) {
			return nil
		}
		s.held.Store(false)
		if err != nil {
			return err
		}
		s.agent.steps.resultSent(id, s.number)
	}
	return nil
}
