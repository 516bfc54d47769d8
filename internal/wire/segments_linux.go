package wire

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// BulkSocket makes a UDP socket ready for a quic.Transport that receives much: what arrives together is read together (UDP GRO) and
// not packet by packet, where the system knows how to. An artifact on the loopback interface took about a sixth less CPU time so, on
// both ends. It holds a buffer of 64 KiB.
func BulkSocket(c *net.UDPConn) net.PacketConn {
	raw, err := c.SyscallConn()
	if err != nil {
		return c
	}
	if controlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	}); controlErr != nil || err != nil {
		return c
	}
	return &segmented{UDPConn: c}
}

// segmented is a socket whose datagrams come several at a time, all of one length but for the last. One goroutine reads.
type segmented struct {
	*net.UDPConn
	data     [64 << 10]byte
	from, to int // of data that was not handed over
	size     int // of a datagram
	oob      [128]byte
	oobSize  int
	source   netip.AddrPort
	addr     *net.UDPAddr // source
}

var _ quic.OOBCapablePacketConn = (*segmented)(nil)

// ReadBatch is what quic-go reads by.
func (s *segmented) ReadBatch(messages []ipv4.Message, _ int) (n int, err error) {
	if s.from >= s.to {
		if err := s.receive(); err != nil {
			return 0, err
		}
	}
	for n < len(messages) && (n == 0 || s.from < s.to) {
		m := &messages[n]
		end := min(s.from+s.size, s.to)
		m.N = copy(m.Buffers[0], s.data[s.from:end])
		m.NN = copy(m.OOB, s.oob[:s.oobSize])
		m.Flags, m.Addr = 0, s.addr
		s.from = end
		n++
	}
	return n, nil
}

// receive takes in what has arrived, or waits for it.
func (s *segmented) receive() error {
	n, oobSize, _, source, err := s.ReadMsgUDPAddrPort(s.data[:], s.oob[:])
	if err != nil {
		return err
	}
	if source != s.source || s.addr == nil {
		s.source, s.addr = source, net.UDPAddrFromAddrPort(source)
	}
	s.from, s.to, s.size, s.oobSize = 0, n, n, oobSize
	for rest := s.oob[:oobSize]; len(rest) > 0; {
		header, body, more, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return nil // quic-go says so too, if it minds
		}
		if header.Level == unix.IPPROTO_UDP && header.Type == unix.UDP_GRO && len(body) >= 4 {
			if size := int(binary.NativeEndian.Uint32(body)); size > 0 {
				s.size = size
			}
		}
		rest = more
	}
	return nil
}
