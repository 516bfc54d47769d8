package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/wire"
)

const (
	handshakeTimeout = 10 * time.Second
	// idleTimeout only has to come after heartbeats have been missed, on either side.
	idleTimeout = 10 * time.Minute
	// initialPacketSize is the least that QUIC allows, in bytes of UDP payload: it passes where IP packets of 1280 bytes do,
	// which quic-go's own default does not. Larger packets follow once the path is known to take them.
	initialPacketSize = 1200
)

// maxUniStreams is how many streams of artifacts a hub may have open. There is one at a time; others may be about to end.
const maxUniStreams = 4

// quicConfig keeps a connection small: what a hub sends an agent is few and short, but for artifacts. The window of the connection is
// larger than that of a stream by so much that the control stream has room beside an artifact that a slow disk holds up.
func quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 idleTimeout,
		InitialPacketSize:              initialPacketSize,
		InitialStreamReceiveWindow:     64 << 10,
		MaxStreamReceiveWindow:         wire.ArtifactWindow,
		InitialConnectionReceiveWindow: 192 << 10,
		MaxConnectionReceiveWindow:     3 * wire.ArtifactWindow,
		MaxIncomingStreams:             -1,
		MaxIncomingUniStreams:          maxUniStreams,
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
