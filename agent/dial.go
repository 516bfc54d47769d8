package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	handshakeTimeout = 10 * time.Second
	// idleTimeout only has to come after heartbeats have been missed, on either side.
	idleTimeout = 10 * time.Minute
	// initialPacketSize is the least that QUIC allows, in bytes of UDP payload: it passes where IP packets of 1280 bytes do,
	// which quic-go's own default does not. Larger packets follow once the path is known to take them.
	initialPacketSize = 1200
)

// maxHubStreams is how many streams a hub may have open to an agent at a time: one for each reader of what runs there.
const maxHubStreams = 4

// quicConfig keeps a connection small: what a hub sends an agent is few and short.
func quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 idleTimeout,
		InitialPacketSize:              initialPacketSize,
		InitialStreamReceiveWindow:     64 << 10,
		MaxStreamReceiveWindow:         2 << 20,
		InitialConnectionReceiveWindow: 64 << 10,
		MaxConnectionReceiveWindow:     4 << 20,
		MaxIncomingStreams:             maxHubStreams,
		MaxIncomingUniStreams:          -1,
	}
}

func (a *Agent) dial(ctx context.Context, server string, cfg *tls.Config) (*quic.Conn, error) {
	if a.cfg.Transport == nil {
		return quic.DialAddr(ctx, server, cfg, quicConfig())
	}
	address, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", server, err)
	}
	return a.cfg.Transport.Dial(ctx, address, cfg, quicConfig())
}
