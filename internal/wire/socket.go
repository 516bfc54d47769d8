package wire

import (
	"net"
	"runtime"
	"sync/atomic"
	"syscall"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// socketBuffer is what is asked for on both ways, in bytes; the kernel may give less (net.core.rmem_max and wmem_max).
const socketBuffer = 4 << 20

// Socket makes a UDP socket ready for a quic.Transport that has many connections: it is read again only when the connections
// have had their turn with what was read before, unless its buffer fills.
//
// Left alone, quic-go moves all that has arrived into the queues of its connections. Under load packets then grow old there:
// each is acknowledged by a packet of its own once it waited for 25 ms, where the answer would have carried the
// acknowledgement. In the kernel they do not age. One request on each of 1,000 connections at a time took 2.6 packets before,
// 2.2 since.
func Socket(c *net.UDPConn) *UDPSocket { return SocketOf(c, socketBuffer) }

// SocketOf is Socket with a receive buffer of so many bytes. What waits longer than a peer's patience is sent again, and again:
// where many sockets share a processor, large buffers make a moment's delay a lasting one.
func SocketOf(c *net.UDPConn, receive int) *UDPSocket {
	_ = c.SetReadBuffer(receive) // for where there is no ReadBatch
	_ = c.SetWriteBuffer(socketBuffer)
	raw, _ := c.SyscallConn() // fails for a socket that is closed; so does what follows
	return &UDPSocket{UDPConn: c, batch: ipv4.NewPacketConn(c), raw: raw, receive: receive}
}

// UDPSocket is for a quic.Transport; see Socket.
type UDPSocket struct {
	*net.UDPConn
	batch   *ipv4.PacketConn
	raw     syscall.RawConn
	receive int
	behind  atomic.Bool
	// of the one goroutine that reads
	sized bool
	last  int // packets that came together the last time
}

var _ quic.OOBCapablePacketConn = (*UDPSocket)(nil)

// Behind says whether packets come faster than they are dealt with: more than a quarter of the receive buffer was taken when it was last
// read. It is never so where that is not known.
func (s *UDPSocket) Behind() bool { return s.behind.Load() }

// ReadBatch is what quic-go reads by.
func (s *UDPSocket) ReadBatch(messages []ipv4.Message, flags int) (int, error) {
	if !s.sized { // quic-go has made it 7 MB by now, by force where it may
		s.sized = true
		_ = s.SetReadBuffer(s.receive)
	}
	if s.last > 1 { // a packet that comes alone meets no crowd, and to step back wakes another thread
		full, known := s.fills()
		s.behind.Store(full && known)
		if known && !full {
			runtime.Gosched()
		}
	} else {
		s.behind.Store(false)
	}
	n, err := s.batch.ReadBatch(messages, flags)
	s.last = n
	return n, err
}
