package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/internal/wire"
)

const (
	// receiveBuffer of a socket, in bytes: of all sockets together as much as is read in a few tenths of a second.
	receiveBuffer = 256 << 10
	// leaving is how many agents say goodbye at the same time.
	leaving = 256
	// goodbyeTimeout bounds the wait for the hub to have read a Goodbye.
	goodbyeTimeout = time.Second
)

// ErrNotAccepted means that not every agent was accepted.
var ErrNotAccepted = errors.New("not every agent was accepted")

// Fleet is many simulated agents. Connect is called once, Close afterwards, also if Connect failed, and as often as one likes; Snapshot
// may be called at any time.
type Fleet struct {
	cfg      Config
	stats    *stats
	agents   []*simulated
	servers  []*net.UDPAddr // of cfg.Servers
	quic     *quic.Config
	sockets  []*quic.Transport
	schedule *schedule
	bootID   string

	interval atomic.Int64 // between heartbeats, as the last Welcome said, ns
	dials    chan struct{}
	decided  chan struct{} // closed when each agent was accepted or has given up
	open     atomic.Int64  // agents of which neither is true

	ctx     context.Context
	stop    context.CancelCauseFunc
	closing atomic.Bool
	work    sync.WaitGroup // of agents
	loops   sync.WaitGroup // of the fleet itself
}

var errClosing = errors.New("the fleet is closing")

// New checks the configuration. Nothing is opened or started before Connect.
func New(cfg Config) (*Fleet, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	f := &Fleet{
		cfg: cfg, stats: newStats(), quic: agent.TransportConfig(), schedule: &schedule{wake: make(chan struct{}, 1)},
		bootID: uuid.NewString(),
		dials:  make(chan struct{}, cfg.Concurrency), decided: make(chan struct{}),
	}
	f.ctx, f.stop = context.WithCancelCause(context.Background())
	f.quic.DisablePathMTUDiscovery = true
	f.interval.Store(int64(defaultInterval))
	f.open.Store(int64(len(cfg.IDs)))
	all := make([]simulated, len(cfg.IDs))
	f.agents = make([]*simulated, len(cfg.IDs))
	for i, id := range cfg.IDs {
		all[i] = simulated{fleet: f, number: i, id: id}
		f.agents[i] = &all[i]
	}
	return f, nil
}

// Connect starts all agents and waits until each was accepted or has given up; ErrNotAccepted says that some have. They stay
// connected, and come back when they are dropped, until Close.
func (f *Fleet) Connect(ctx context.Context) error {
	if err := f.listen(); err != nil {
		return err
	}
	f.loops.Go(func() { f.schedule.run(f.ctx) })
	f.loops.Go(f.sweep)
	for _, a := range f.agents {
		f.work.Go(a.run)
	}
	select {
	case <-f.decided:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if n := len(f.agents) - int(f.stats.ever.Load()); n > 0 {
		return fmt.Errorf("%w: %d of %d were not", ErrNotAccepted, n, len(f.agents))
	}
	return nil
}

// listen opens the sockets, for IPv4 alone if no server has another address.
func (f *Fleet) listen() error {
	for _, server := range f.cfg.Servers {
		address, err := net.ResolveUDPAddr("udp", server)
		if err != nil {
			return fmt.Errorf("resolve %s: %w", server, err)
		}
		f.servers = append(f.servers, address)
	}
	network := "udp4"
	if slices.ContainsFunc(f.servers, func(a *net.UDPAddr) bool { return a.IP.To4() == nil }) {
		network = "udp"
	}
	for range (len(f.agents) + f.cfg.AgentsPerSocket - 1) / f.cfg.AgentsPerSocket {
		socket, err := net.ListenUDP(network, nil)
		if err != nil {
			return fmt.Errorf("open socket: %w", err)
		}
		f.sockets = append(f.sockets, &quic.Transport{Conn: wire.SocketOf(socket, receiveBuffer)})
	}
	return nil
}

// Close lets all agents say goodbye and waits until nothing of them is left.
func (f *Fleet) Close() {
	f.closing.Store(true)
	f.stop(errClosing)
	var group errgroup.Group
	group.SetLimit(leaving)
	for _, a := range f.agents {
		group.Go(func() error {
			a.leave()
			return nil
		})
	}
	_ = group.Wait() // leave reports no errors
	f.work.Wait()
	f.loops.Wait()
	for _, t := range f.sockets {
		_ = t.Close()
		_ = t.Conn.Close()
	}
}

// settle notes that it is decided for one more agent whether it is accepted.
func (f *Fleet) settle() {
	if f.open.Add(-1) == 0 {
		close(f.decided)
	}
}
