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

const (
	// maxHubStreams is how many streams a hub may have open to an agent at a time: one for each reader of what runs there.
	maxHubStreams = 4
	// maxUniStreams is how many streams of artifacts a hub may have open. There is one at a time; others may be about to end.
	maxUniStreams = 4
)

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
		MaxIncomingStreams:             maxHubStreams,
		MaxIncomingUniStreams:          maxUniStreams,
	}
}

func (a *Agent) dial(ctx context.Context, server string, cfg *tls.Config) (*quic.Conn, error) {
	address, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", server, err)
	}
	if a.cfg.Transport != nil {
		return a.cfg.Transport.Dial(ctx, address, cfg, quicConfig())
	}
	// As quic.DialAddr does, but with a socket that is read many packets at a time.
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4zero})
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	transport := &quic.Transport{Conn: wire.BulkSocket(socket)}
	done := func() {
		_ = transport.Close()
		_ = socket.Close()
	}
	conn, err := transport.Dial(ctx, address, cfg, quicConfig())
	if err != nil {
		done()
		return nil, err
	}
	context.AfterFunc(conn.Context(), done)
	return conn, nil
}
