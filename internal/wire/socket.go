package wire

import (
	"net"
	"runtime"
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
func Socket(c *net.UDPConn) net.PacketConn { return SocketOf(c, socketBuffer) }

// SocketOf is Socket with a receive buffer of so many bytes. What waits longer than a peer's patience is sent again, and again:
// where many sockets share a processor, large buffers make a moment's delay a lasting one.
func SocketOf(c *net.UDPConn, receive int) net.PacketConn {
	_ = c.SetReadBuffer(receive) // for where there is no ReadBatch
	_ = c.SetWriteBuffer(socketBuffer)
	raw, err := c.SyscallConn()
	if err != nil {
		return c
	}
	return &socket{UDPConn: c, batch: ipv4.NewPacketConn(c), raw: raw, receive: receive}
}

type socket struct {
	*net.UDPConn
	batch   *ipv4.PacketConn
	raw     syscall.RawConn
	receive int
	sized   bool // by the one goroutine that reads
}

var _ quic.OOBCapablePacketConn = (*socket)(nil)

// ReadBatch is what quic-go reads by.
func (s *socket) ReadBatch(messages []ipv4.Message, flags int) (int, error) {
	if !s.sized { // quic-go has made it 7 MB by now, by force where it may
		s.sized = true
		_ = s.SetReadBuffer(s.receive)
	}
	if !s.fills() {
		runtime.Gosched()
	}
	return s.batch.ReadBatch(messages, flags)
}
