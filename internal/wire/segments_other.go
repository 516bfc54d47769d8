//go:build !linux

package wire

import "net"

// BulkSocket makes a UDP socket ready for a quic.Transport that receives much.
func BulkSocket(c *net.UDPConn) net.PacketConn { return c }
