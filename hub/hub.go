package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
)

// Hub accepts agents and talks to them. All methods are safe for concurrent use; Start and Stop are each called once.
type Hub struct {
	cfg     Config
	log     *slog.Logger
	metrics *Metrics

	tls       *tlsConfigs
	transport *quic.Transport
	socket    *wire.UDPSocket // of the transport
	listener  *quic.Listener
	startedAt time.Time

	// ctx lives from Start until the last result is stored in Stop, or until Stop's own context ends.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// accepting ends earlier: once the agents had their time to leave.
	accepting     context.Context
	stopAccepting context.CancelFunc
	conns         sync.WaitGroup // goroutines of connections and the one that accepts them
	loops         sync.WaitGroup // the hub's own goroutines; those that store end after the connections'

	mu       sync.RWMutex
	draining bool
	sessions map[string]*session // by client id; accepted or about to be
	ends     map[string]sessionEnd

	watchers  watchers
	registrar *registrar
	results   *intake[release.StepResult]
	logs      *intake[release.LogRecord]
	facts     *factsIntake
	credits   *credits // for logs
	messages  *dispatcher
	couriers  *couriers // of artifacts

	resultRoom *room

	handshakes slots // TLS handshakes in progress
	refused    recentSources
	doubted    recentSources
	refusing   pacer
	retrying   pacer
	admissions slots // connections between their handshake and Welcome
	turned     slots // connections that are told there is no room
	enrolConns slots // connections for enrolment
	enrolling  slots // enrolments in progress
	crowd      crowd // of those that were turned away
	turns      *turns

	requests atomic.Uint64 // the last request id given
	promises tally         // requests awaiting an answer
	crowded  atomic.Bool   // the warning about promises was given
}

// New checks a configuration and makes a hub from it. Nothing runs before Start.
func New(cfg Config) (*Hub, error) {
	cfg, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	h := &Hub{
		cfg:        cfg,
		log:        cfg.Logger,
		metrics:    cfg.Metrics,
		sessions:   make(map[string]*session),
		ends:       make(map[string]sessionEnd),
		watchers:   watchers{byClient: make(map[string]map[chan struct{}]struct{})},
		handshakes: make(slots, cfg.MaxHandshakes),
		refusing:   pacer{every: refusalsAtATime},
		retrying:   pacer{every: retriesAtATime},
		admissions: make(slots, cfg.MaxAdmissions),
		turned:     make(slots, cfg.MaxAdmissions),
		enrolConns: make(slots, enrolConnsEach*cfg.MaxEnrolments),
		enrolling:  make(slots, cfg.MaxEnrolments),
		turns:      newTurns(),
		promises:   tally{none: make(chan struct{}, 1)},
	}
	if h.tls, err = newTLSConfigs(cfg); err != nil {
		return nil, fmt.Errorf("hub: %w", err)
	}
	h.registrar = newRegistrar(h)
	h.resultRoom = newRoom(resultBuffer)
	h.results = newIntake(h, h.storeResults, h.resultRoom.free)
	h.credits = &credits{hub: h, limit: cfg.LogBuffer, grant: cfg.LogCredit}
	h.logs = newIntake(h, h.storeLogs, h.credits.stored)
	h.facts = newFactsIntake(h)
	h.messages = newDispatcher(h)
	h.couriers = newCouriers(h)
	return h, nil
}

// Start frees what an earlier run of this node left in the Registry, opens the port and accepts agents until Stop. ctx
// bounds the start alone.
func (h *Hub) Start(ctx context.Context) error {
	h.startedAt = h.cfg.Now()
	if err := h.cfg.Registry.ReleaseNode(ctx, h.cfg.NodeID, h.startedAt); err != nil {
		return fmt.Errorf("start hub: release sessions of an earlier run: %w", err)
	}
	h.ctx, h.cancel = context.WithCancelCause(context.Background())
	if err := h.listen(); err != nil {
		h.cancel(err)
		return fmt.Errorf("start hub: %w", err)
	}
	h.accepting, h.stopAccepting = context.WithCancel(h.ctx)
	h.metrics.hub.Store(h)
	h.loops.Go(h.registrar.run)
	h.loops.Go(h.results.run)
	h.loops.Go(h.logs.run)
	h.loops.Go(h.facts.run)
	h.loops.Go(h.checkHeartbeats)
	h.loops.Go(h.touch)
	h.loops.Go(h.expirePromises)
	h.loops.Go(h.measure)
	h.loops.Go(func() { h.turns.run(h.accepting) })
	h.conns.Go(h.accept)
	h.log.Info("hub listens", "addr", h.Addr().String(), "node_id", h.cfg.NodeID,
		"max_clients", h.cfg.MaxClients, "idle_timeout", h.cfg.QUIC.MaxIdleTimeout)
	return nil
}

func (h *Hub) listen() error {
	addr, err := net.ResolveUDPAddr("udp", h.cfg.Addr)
	if err != nil {
		return fmt.Errorf("resolve %q: %w", h.cfg.Addr, err)
	}
	socket, err := net.ListenUDP("udp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	// The keys survive a restart, so that agents are told at once that their old connection is gone.
	reset, err := h.cfg.CA.DeriveKey("stateless reset " + h.cfg.NodeID)
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	token, err := h.cfg.CA.DeriveKey("address token " + h.cfg.NodeID)
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	h.socket = wire.Socket(socket)
	h.transport = &quic.Transport{
		Conn:                h.socket,
		StatelessResetKey:   (*quic.StatelessResetKey)(&reset),
		TokenGeneratorKey:   (*quic.TokenGeneratorKey)(&token),
		ConnContext:         h.admitHandshake,
		VerifySourceAddress: h.doubtAddress,
	}
	if h.listener, err = h.transport.Listen(h.tls.base, h.cfg.QUIC); err != nil {
		return errors.Join(fmt.Errorf("listen: %w", err), h.transport.Close(), socket.Close())
	}
	return nil
}

// Addr is where the hub listens. It is nil before Start.
func (h *Hub) Addr() net.Addr {
	if h.transport == nil {
		return nil
	}
	return h.transport.Conn.LocalAddr()
}

// Connected is the number of accepted sessions.
func (h *Hub) Connected() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	n := 0
	for _, s := range h.sessions {
		if s.accepted {
			n++
		}
	}
	return n
}

// accept hands each new connection to a goroutine of its own. It must be quick: quic-go refuses connections once a few dozen
// wait for it.
func (h *Hub) accept() {
	for {
		conn, err := h.listener.Accept(h.accepting)
		if err != nil {
			return // the hub stops
		}
		h.handshakeDone(conn)
		h.conns.Go(func() {
			if conn.ConnectionState().TLS.NegotiatedProtocol == wire.ALPNEnrol {
				h.enrol(conn)
			} else {
				h.serve(conn)
			}
		})
	}
}

// serve leads a connection of the main ALPN to its session. That goes on in a goroutine of its own, as the stack that a
// handshake needs would stay with this one.
func (h *Hub) serve(conn *quic.Conn) {
	if !h.admissions.take() {
		h.turnAway(conn)
		return
	}
	s, err := h.handshake(conn)
	h.admissions.give()
	if err != nil {
		return
	}
	h.conns.Go(func() {
		s.close(s.read())
		h.credits.leave(s)
		h.finish(s)
	})
}

// Stop ends the hub: new requests fail with ErrDraining at once, those in flight have half of DrainTimeout to be answered and
// then fail with it too; messages that no handler has seen fail, and handlers that run are cancelled and given as long; agents
// are told to leave, to DrainAddress if there is one, and after DrainTimeout made to; what they sent is stored; every
// goroutine ends. When ctx ends first, what is not stored by then is left to the agents to send again, a handler that has not
// returned is left alone, and the error of ctx is returned.
func (h *Hub) Stop(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { h.cancel(context.Cause(ctx)) })
	defer stop()
	closeAll(h.drain(), end(wire.CloseDraining, ErrDraining))
	h.stopAccepting()
	err := h.listener.Close()
	h.conns.Wait()
	h.results.close()
	h.logs.close()
	h.facts.close()
	h.registrar.close()
	h.loops.Wait()
	err = errors.Join(err, h.messages.wait(h.ctx), context.Cause(h.ctx), h.transport.Close(), h.transport.Conn.Close())
	h.cancel(context.Canceled)
	h.metrics.hub.CompareAndSwap(h, nil)
	if err != nil {
		return fmt.Errorf("stop hub: %w", err)
	}
	return nil
}

// closeAll closes many sessions at a time, as each takes a moment.
func closeAll(sessions []*session, cause *endError) {
	var group errgroup.Group
	group.SetLimit(64)
	for _, s := range sessions {
		group.Go(func() error {
			s.close(cause)
			return nil
		})
	}
	_ = group.Wait() // close reports no errors
}
