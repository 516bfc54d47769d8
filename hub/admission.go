package hub

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// After a hub's restart all of its agents come at the same moment. Three gates keep that from hurting those that are in:
// connection attempts (before any cryptography), admissions (Hello to Welcome), enrolments. Who finds a gate closed is told
// so at once and comes back a little later; nothing waits in the hub.

const (
	// So many answers wait to be sent at a time, and that takes so long.
	refusalsAtATime = 3
	retriesAtATime  = 6
	answersTake     = 200 * time.Microsecond

	// overrunPart of the handshakes is for when the hub does not keep up.
	overrunPart = 16

	// leastReturn and mostReturn bound what agents that were turned away are told to wait, before jitter.
	leastReturn = time.Second
	mostReturn  = 15 * time.Second
)

// errHandshakesBusy reaches no one: the peer is told CONNECTION_REFUSED.
var errHandshakesBusy = errors.New("too many handshakes at this moment")

// slots bounds how many do something at a time.
type slots chan struct{}

// take reports whether there was one free. Whoever gets one gives it back.
func (s slots) take() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s slots) give() { <-s }

// slotKey finds in a connection's context the function that ends the watch over its handshake slot.
type slotKey struct{}

// admitHandshake is asked for each connection attempt, before any cryptography is done for it. The slot it takes is given
// back by handshakeDone, or, as ctx ends with the connection, when the handshake fails or is not over in time.
//
// A ClientHello mostly comes in two packets, each of which is an attempt to quic-go. Were the first one refused and the second
// one not, that one would hold a slot for an agent that has gone. So who was refused stays so for a moment.
func (h *Hub) admitHandshake(ctx context.Context, client *quic.ClientInfo) (context.Context, error) {
	now := time.Now()
	if h.refused.has(client.RemoteAddr, now) {
		return nil, errHandshakesBusy
	}
	if overrun(len(h.handshakes), cap(h.handshakes), h.socket.Behind()) || !h.handshakes.take() {
		h.refused.add(client.RemoteAddr, now)
		h.metrics.refuse(reasonHandshakes)
		h.refusing.next(h.ctx)
		return nil, errHandshakesBusy
	}
	unwatch := context.AfterFunc(ctx, h.handshakes.give)
	return context.WithValue(ctx, slotKey{}, unwatch), nil
}

// overrun says whether a further handshake has to wait because packets come faster than the hub deals with them (behind). Those who are in
// come first then: what they sent and is not acknowledged for 30 ms they send again, and again, and each handshake costs as much as a
// dozen packets. A few newcomers are let in even so, as it may last.
func overrun(handshakes, room int, behind bool) bool {
	return behind && handshakes >= max(1, room/overrunPart)
}

// handshakeDone gives the slot of an accepted connection back, unless its end did so already.
func (h *Hub) handshakeDone(conn *quic.Conn) {
	if unwatch, ok := conn.Context().Value(slotKey{}).(func() bool); ok && unwatch() {
		h.handshakes.give()
	}
}

// doubtAddress asks for a Retry, in which a source proves its address, from the moment that half of the slots are taken: who
// forges addresses gets no further than that. Where none is left there is nothing to be had by a proof either.
//
// Here too both packets of a ClientHello must meet the same answer.
func (h *Hub) doubtAddress(source net.Addr) bool {
	now := time.Now()
	if h.doubted.has(source, now) {
		return true
	}
	taken := len(h.handshakes)
	if taken <= cap(h.handshakes)/2 || taken >= cap(h.handshakes) {
		return false
	}
	h.doubted.add(source, now)
	h.retrying.next(h.ctx)
	return true
}

// pacer holds the listener up for a moment now and then. quic-go drops an answer to an attempt when a few others wait to be
// sent, and its agent then waits for nothing, as long as seconds; what comes meanwhile has a queue of a thousand. Connections
// that are there are not held up.
type pacer struct {
	every int64 // somewhat less than quic-go's queue holds
	n     atomic.Int64
}

func (p *pacer) next(ctx context.Context) {
	if p.n.Add(1)%p.every == 0 {
		pause(ctx, answersTake)
	}
}

const (
	// A source is remembered for one to two of these: longer than packets of one attempt may be apart in a full queue, shorter
	// than an agent waits before its next attempt.
	rememberFor = 150 * time.Millisecond
	// maxRemembered bounds the sources that are remembered in that time.
	maxRemembered = 4096
)

// recentSources remembers for a moment who was answered.
type recentSources struct {
	mu          sync.Mutex
	since       time.Time
	now, before map[netip.AddrPort]struct{}
}

func (r *recentSources) has(source net.Addr, at time.Time) bool {
	key := keyOf(source)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.age(at)
	_, now := r.now[key]
	_, before := r.before[key]
	return now || before
}

func (r *recentSources) add(source net.Addr, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.age(at)
	if len(r.now) < maxRemembered {
		if r.now == nil {
			r.now = make(map[netip.AddrPort]struct{})
		}
		r.now[keyOf(source)] = struct{}{}
	}
}

func (r *recentSources) age(at time.Time) {
	switch passed := at.Sub(r.since); {
	case passed >= 2*rememberFor:
		r.since, r.now, r.before = at, nil, nil
	case passed >= rememberFor:
		r.since, r.now, r.before = at, nil, r.now
	}
}

func keyOf(source net.Addr) netip.AddrPort {
	if udp, ok := source.(*net.UDPAddr); ok {
		return udp.AddrPort()
	}
	return netip.AddrPort{}
}

// turnAway tells an agent for whom there is no room in admission to come back later. As telling takes a moment, that is
// bounded too: above it a close code has to do.
func (h *Hub) turnAway(conn *quic.Conn) {
	wait := h.crowd.comeBack(time.Now(), h.cfg.MaxAdmissions)
	r := refuse(quicflowv1.RefusalCode_REFUSAL_CODE_OVERLOADED, wait, nil, "too many agents come at this moment")
	if !h.turned.take() {
		h.metrics.refuse(reasonOf(r))
		closeConn(conn, end(wire.CloseOverloaded, r))
		return
	}
	defer h.turned.give()
	ctx, cancel := context.WithTimeout(h.accepting, linger)
	defer cancel()
	clientID, _ := pki.ClientID(conn.ConnectionState().TLS.PeerCertificates[0])
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		stream = nil
	}
	_ = h.reject(conn, stream, clientID, r) // it gives r back
}

// crowd remembers how many were turned away in this second and the one before it.
type crowd struct {
	mu     sync.Mutex
	second int64
	now    int
	before int
}

// comeBack says how long one more that is turned away shall wait. The time grows with the number of those that were told
// the same lately, as they all come back, and is spread over once its own length.
func (c *crowd) comeBack(at time.Time, room int) time.Duration {
	c.mu.Lock()
	switch second := at.Unix(); second - c.second {
	case 0:
	case 1:
		c.second, c.before, c.now = second, c.now, 0
	default:
		c.second, c.before, c.now = second, 0, 0
	}
	c.now++
	n := c.now + c.before
	c.mu.Unlock()
	wait := min(leastReturn+leastReturn*time.Duration(n)/time.Duration(room), mostReturn)
	return wait + rand.N(wait)
}
