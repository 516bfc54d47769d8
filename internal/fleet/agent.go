package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// welcomeTimeout bounds the wait for the hub's answer to Hello.
const welcomeTimeout = 15 * time.Second

// A hub that is too busy for a handshake refuses the connection; the agent comes back after a random time between these.
const (
	minRefused = time.Second
	maxRefused = 5 * time.Second
)

var (
	errSilent  = errors.New("the hub does not answer heartbeats")
	errStuck   = errors.New("the hub does not read")
	errGoodbye = errors.New("the hub said goodbye")
	errNeither = errors.New("the hub answered with neither welcome nor refusal")
)

// refusedError is a session that the hub did not give.
type refusedError struct {
	code       quicflowv1.RefusalCode
	message    string
	retryAfter time.Duration // 0: as the backoff says
}

func (e *refusedError) Error() string { return "refused: " + e.message }

// final says that asking again will not help.
func (e *refusedError) final() bool {
	return e.code == quicflowv1.RefusalCode_REFUSAL_CODE_REVOKED || e.code == quicflowv1.RefusalCode_REFUSAL_CODE_PROTOCOL
}

// simulated is one agent.
type simulated struct {
	fleet   *Fleet
	number  int
	id      string
	tickets agent.Tickets

	mu        sync.Mutex
	session   *session // nil between two of them
	alternate string   // where a draining hub sent it
	steps     map[string]*step
	running   int // steps
}

// run keeps a session until the fleet closes, or gives up if there never was one.
func (a *simulated) run() {
	f := a.fleet
	var began time.Time
	known, failures := false, 0
	for turn := 0; ; turn++ {
		select {
		case f.dials <- struct{}{}:
		case <-f.ctx.Done():
			return
		}
		now := time.Now()
		if turn == 0 {
			began = now
			f.stats.dialled(now)
		}
		s, err := a.connect(turn)
		<-f.dials
		if err == nil {
			f.stats.latency.add(time.Since(now))
			if known {
				f.stats.reconnected.Add(1)
			} else {
				known = true
				f.stats.welcomed(time.Now())
				f.stats.ever.Add(1)
				f.settle()
			}
			failures = 0
			err = s.read()
			a.finish(s, err)
		} else if f.ctx.Err() == nil {
			f.stats.count(f.stats.attempts, causeOf(err))
			f.cfg.Logger.Debug("could not connect", "client_id", a.id, "error", err)
		}
		if f.ctx.Err() != nil {
			return
		}
		wait := f.backoff(failures, err)
		failures++
		var refused *refusedError
		if !known && (time.Since(began)+wait > f.cfg.ConnectTimeout || errors.As(err, &refused) && refused.final()) {
			f.stats.count(f.stats.failed, causeOf(err))
			f.cfg.Logger.Warn("agent was not accepted", "client_id", a.id, "error", err)
			f.settle()
			return
		}
		if !f.sleep(wait) {
			return
		}
	}
}

func (f *Fleet) backoff(failures int, err error) time.Duration {
	wait := f.cfg.Backoff.Wait(failures)
	var refused *refusedError
	var transport *quic.TransportError
	switch {
	case errors.As(err, &refused):
		wait = max(wait, refused.retryAfter)
	case errors.As(err, &transport) && transport.ErrorCode == quic.ConnectionRefused:
		wait = minRefused + rand.N(maxRefused-minRefused)
	}
	return wait
}

// sleep reports false if the fleet closes meanwhile.
func (f *Fleet) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-f.ctx.Done():
		return false
	}
}

// server is the one that a draining hub named, once, or else the next in the list.
func (a *simulated) server(turn int) (name string, address *net.UDPAddr, err error) {
	a.mu.Lock()
	alternate := a.alternate
	a.alternate = ""
	a.mu.Unlock()
	if alternate != "" {
		address, err = net.ResolveUDPAddr("udp", alternate)
		return alternate, address, err
	}
	turn %= len(a.fleet.servers)
	return a.fleet.cfg.Servers[turn], a.fleet.servers[turn], nil
}

// connect dials and introduces the agent. The session that it gives is accepted.
func (a *simulated) connect(turn int) (_ *session, err error) {
	f := a.fleet
	defer func() { a.tickets.Tried(err) }()
	name, address, err := a.server(turn)
	if err != nil {
		return nil, fmt.Errorf("resolve: %w", err)
	}
	cfg := f.cfg.Identities.of(a.id).TLS(name, &a.tickets, f.cfg.Insecure)
	if f.cfg.ClassicKeyExchange {
		cfg.CurvePreferences = []tls.CurveID{tls.X25519}
	}
	conn, err := f.sockets[a.number/f.cfg.AgentsPerSocket].Dial(f.ctx, address, cfg, f.quic)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	s, err := a.introduce(conn)
	if err != nil {
		_ = conn.CloseWithError(wire.CloseNormal, "")
		return nil, err
	}
	return s, nil
}

func (a *simulated) introduce(conn *quic.Conn) (*session, error) {
	f := a.fleet
	stream, err := conn.OpenStream()
	if err != nil {
		return nil, fmt.Errorf("open control stream: %w", err)
	}
	stop := context.AfterFunc(f.ctx, func() { _ = stream.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = stream.SetDeadline(time.Now().Add(welcomeTimeout))
	hello := &quicflowv1.Hello{
		Protocol: wire.Protocol, AgentVersion: f.cfg.Version, JournalId: f.bootID + "/" + a.id, Generation: 1, BootId: f.bootID,
		Labels: f.cfg.Labels, Hostname: a.id, Os: "simulated", Arch: "simulated",
	}
	if err := wire.WriteFrame(stream, &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Hello{Hello: hello}}); err != nil {
		return nil, fmt.Errorf("send hello: %w", err)
	}
	s := &session{agent: a, conn: conn, control: stream, frames: wire.NewReader(stream, wire.MaxFrame)}
	s.out = wire.NewOutbox(stream, s)
	frame := new(quicflowv1.ToAgent)
	if err := s.frames.Read(frame); err != nil {
		return nil, fmt.Errorf("wait for welcome: %w", err)
	}
	switch body := frame.Body.(type) {
	case *quicflowv1.ToAgent_Welcome:
		if body.Welcome.HeartbeatIntervalMs > 0 {
			f.interval.Store(int64(time.Duration(body.Welcome.HeartbeatIntervalMs) * time.Millisecond))
		}
		_ = stream.SetDeadline(time.Time{})
		a.enter(s)
		return s, nil
	case *quicflowv1.ToAgent_Refusal:
		return nil, refusal(body.Refusal)
	case *quicflowv1.ToAgent_Goodbye:
		a.follow(body.Goodbye)
		return nil, errGoodbye
	}
	return nil, errNeither
}

func refusal(r *quicflowv1.Refusal) error {
	return &refusedError{r.Code, r.Message, time.Duration(r.RetryAfterMs) * time.Millisecond}
}

// follow goes where a hub sends the agent.
func (a *simulated) follow(g *quicflowv1.Goodbye) {
	if g.Alternate == "" {
		return
	}
	if address, err := agent.Address(g.Alternate); err == nil {
		a.mu.Lock()
		a.alternate = address
		a.mu.Unlock()
	}
}

// enter begins an accepted session.
func (a *simulated) enter(s *session) {
	stats := a.fleet.stats
	stats.sessions.Add(1)
	stats.accepted.Add(1)
	if s.conn.ConnectionState().TLS.DidResume {
		stats.resumed.Add(1)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.heard = time.Now()
	s.pulse = agent.NewPulse(a.number / max(1, a.fleet.slots()) % agent.TicksPerInterval) // spread over the interval
	a.session = s
	if a.fleet.closing.Load() { // leave may have looked already
		s.end(errClosing)
		return
	}
	a.resend()
}

// finish takes an ended session off the books.
func (a *simulated) finish(s *session, err error) {
	f := a.fleet
	a.mu.Lock()
	if s.cause != nil {
		err = s.cause
	}
	s.ended = true
	s.out = nil
	if !f.closing.Load() {
		f.stats.count(f.stats.dropped, causeOf(err))
		f.cfg.Logger.Info("session ended", "client_id", a.id, "reason", err)
	}
	f.stats.accepted.Add(-1) // after the cause and before the session is gone: who sees that sees this
	a.session = nil
	a.mu.Unlock()
	_ = s.conn.CloseWithError(wire.CloseNormal, "")
}

// leave ends the session, if there is one, with a Goodbye.
func (a *simulated) leave() {
	a.mu.Lock()
	s := a.session
	if s != nil {
		s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Goodbye{Goodbye: &quicflowv1.Goodbye{Reason: "agent is stopping"}}})
	}
	a.mu.Unlock()
	if s == nil {
		return
	}
	timer := time.NewTimer(goodbyeTimeout)
	defer timer.Stop()
	select {
	case <-s.conn.Context().Done():
	case <-timer.C:
		_ = s.conn.CloseWithError(wire.CloseNormal, "")
	}
}

var closeCodes = map[quic.ApplicationErrorCode]string{
	wire.CloseNormal: "closed", wire.CloseProtocol: "protocol", wire.CloseFrameTooLarge: "frame_too_large",
	wire.CloseTakenOver: "taken_over", wire.CloseHeartbeat: "heartbeat", wire.CloseDraining: "draining",
	wire.CloseRefused: "refused", wire.CloseInternal: "internal", wire.CloseRevoked: "revoked",
	wire.CloseOverloaded: "overloaded",
}

// causeOf names what an attempt or a session failed of.
func causeOf(err error) string {
	var (
		refused     *refusedError
		transport   *quic.TransportError
		application *quic.ApplicationError
		timeout     net.Error
	)
	switch {
	case errors.As(err, &refused):
		return strings.ToLower(strings.TrimPrefix(refused.code.String(), "REFUSAL_CODE_"))
	case errors.As(err, &application):
		if name := closeCodes[application.ErrorCode]; name != "" {
			return name
		}
		return "closed"
	case errors.As(err, &transport) && transport.ErrorCode == quic.ConnectionRefused:
		return "connection_refused"
	case errors.As(err, &transport) && transport.ErrorCode.IsCryptoError():
		return "tls"
	case errors.As(err, &transport):
		return "transport"
	case errors.As(err, new(*quic.StatelessResetError)):
		return "reset"
	case errors.As(err, new(*quic.HandshakeTimeoutError)):
		return "handshake_timeout"
	case errors.As(err, new(*quic.IdleTimeoutError)):
		return "idle_timeout"
	case errors.Is(err, errSilent):
		return "silent"
	case errors.Is(err, errStuck):
		return "stuck"
	case errors.Is(err, errGoodbye):
		return "goodbye"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "welcome_timeout"
	}
	return "other"
}
