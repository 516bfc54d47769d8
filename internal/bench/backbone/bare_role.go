package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/bench/rig"
	"github.com/quicflow/quicflow/internal/pki"
)

const bareALPN = "bench"

// bareServer is quic-go alone in the place of a hub: the same mutual TLS, the same transport configuration.
type bareServer struct {
	payload int
	mu      sync.Mutex
	conns   []*quic.Conn
	streams atomic.Int64 // that the clients opened and a goroutine reads
}

func (b *bareServer) handlers() map[string]rig.Handler {
	return map[string]rig.Handler{
		"start":     rig.On(b.start),
		"connected": rig.On(func(rig.None) (int, error) { return int(b.streams.Load()), nil }),
		"load":      rig.On(b.load),
		"memory":    rig.On(memory),
		"heap":      rig.On(heap),
	}
}

func (b *bareServer) start(p hubPlan) (address, error) {
	preset, err := presetOf(p.Preset)
	if err != nil {
		return address{}, err
	}
	ca, err := rig.Authority(p.Dir)
	if err != nil {
		return address{}, err
	}
	certificate, err := ca.IssueServer(nil, 0)
	if err != nil {
		return address{}, err
	}
	b.payload = p.Payload
	addr, err := net.ResolveUDPAddr("udp", p.Addr)
	if err != nil {
		return address{}, err
	}
	socket, err := net.ListenUDP("udp", addr)
	if err != nil {
		return address{}, err
	}
	t := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{bareALPN}, Certificates: []tls.Certificate{certificate},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	}
	if !preset.TLS.PostQuantum {
		t.CurvePreferences = []tls.CurveID{tls.X25519}
	}
	listener, err := (&quic.Transport{Conn: socket}).Listen(t, hub.Settings(preset).QUIC)
	if err != nil {
		return address{}, err
	}
	go func() {
		for {
			conn, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			go b.hold(conn)
		}
	}()
	return address{Addr: socket.LocalAddr().String(), Heartbeat: preset.Session.HeartbeatInterval.Std(), Classic: !preset.TLS.PostQuantum}, nil
}

// hold answers the first byte on the one stream that a client opens, and reads on.
func (b *bareServer) hold(conn *quic.Conn) {
	stream, err := conn.AcceptStream(context.Background())
	if err != nil {
		return
	}
	var one [1]byte
	if _, err := io.ReadFull(stream, one[:]); err != nil {
		return
	}
	if _, err := stream.Write(one[:]); err != nil {
		return
	}
	b.mu.Lock()
	b.conns = append(b.conns, conn)
	b.mu.Unlock()
	b.streams.Add(1)
	defer b.streams.Add(-1)
	for {
		if _, err := stream.Read(one[:]); err != nil {
			return
		}
	}
}

// load has each worker use a stream of its own, on connection worker mod Connections.
func (b *bareServer) load(p loadOver) (figures, error) {
	b.mu.Lock()
	conns := b.conns
	b.mu.Unlock()
	if len(conns) < p.Connections {
		return figures{}, fmt.Errorf("there are %d connections", len(conns))
	}
	type pingPong struct {
		stream      *quic.Stream
		out, answer []byte
	}
	workers := make([]pingPong, p.InFlight)
	for i := range workers {
		stream, err := conns[i%p.Connections].OpenStreamSync(context.Background())
		if err != nil {
			return figures{}, err
		}
		out := append(binary.BigEndian.AppendUint32(nil, uint32(b.payload)), make([]byte, b.payload)...)
		workers[i] = pingPong{stream: stream, out: out, answer: make([]byte, len(out))}
	}
	f := runLoad(context.Background(), p.loadPlan, func(_ context.Context, worker int) error {
		w := &workers[worker]
		if _, err := w.stream.Write(w.out); err != nil {
			return err
		}
		_, err := io.ReadFull(w.stream, w.answer)
		return err
	})
	for _, w := range workers {
		_ = w.stream.Close()
	}
	return f, nil
}

// bareClient is quic-go alone in the place of a fleet.
type bareClient struct{}

func (bareClient) handlers() map[string]rig.Handler {
	return map[string]rig.Handler{"start": rig.On(startBareClients)}
}

// dialler gives agents their sockets.
type dialler struct {
	transports []*quic.Transport
	server     *net.UDPAddr
}

func newDialler(p rig.FleetPlan) (*dialler, error) {
	server, err := net.ResolveUDPAddr("udp", p.Addr)
	if err != nil {
		return nil, err
	}
	d := &dialler{server: server}
	for range (p.Agents + p.PerSocket - 1) / p.PerSocket {
		socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, err
		}
		d.transports = append(d.transports, &quic.Transport{Conn: socket})
	}
	return d, nil
}

func (d *dialler) dial(ctx context.Context, i int, secure *tls.Config, config *quic.Config) (*quic.Conn, error) {
	return d.transports[i%len(d.transports)].Dial(ctx, d.server, secure, config)
}

func startBareClients(p rig.FleetPlan) (rig.None, error) {
	all, err := rig.Identities(p.Dir, p.Agents)
	if err != nil {
		return rig.None{}, err
	}
	ca, err := rig.Authority(p.Dir)
	if err != nil {
		return rig.None{}, err
	}
	d, err := newDialler(p)
	if err != nil {
		return rig.None{}, err
	}
	roots, classic := ca.Pool(), []tls.CurveID(nil)
	if p.Classic {
		classic = []tls.CurveID{tls.X25519}
	}
	var group errgroup.Group
	group.SetLimit(p.AtOnce)
	for i := range all {
		group.Go(func() error {
			secure := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{bareALPN}, ServerName: pki.HubServerName,
				RootCAs: roots, Certificates: all[i : i+1], CurvePreferences: classic}
			return bareConnect(d, i, secure, p)
		})
	}
	return rig.None{}, group.Wait()
}

// bareConnect tries until the server has answered on the connection: one that has too many in its queue refuses some, also
// after the handshake is over, and one that has no time lets some time out. A connection that is lost is made again, as an agent would.
func bareConnect(d *dialler, i int, secure *tls.Config, p rig.FleetPlan) error {
	ctx, cancel := context.WithTimeout(context.Background(), p.Patience)
	defer cancel()
	for {
		conn, err := bareDial(ctx, d, i, secure, p.KeepAlive)
		if err == nil {
			go func() {
				echoAll(conn)
				_ = bareConnect(d, i, secure, p) // whoever waits for all of them says how many there are
			}()
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		wait(ctx, 50*time.Millisecond)
	}
}

func bareDial(ctx context.Context, d *dialler, i int, secure *tls.Config, keepAlive time.Duration) (*quic.Conn, error) {
	config := agent.TransportConfig()
	config.MaxIncomingStreams, config.KeepAlivePeriod, config.DisablePathMTUDiscovery = 1000, keepAlive, true // the last as package fleet
	conn, err := d.dial(ctx, i, secure, config)
	if err != nil {
		return nil, err
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	one := []byte{1}
	if _, err := stream.Write(one); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(stream, one)
	return conn, err
}

// echoAll echoes on each stream that the server opens.
func echoAll(conn *quic.Conn) {
	for {
		stream, err := conn.AcceptStream(context.Background())
		if err != nil {
			return
		}
		go echo(stream)
	}
}

// echo sends back each message: 4 bytes of length, and so many more.
func echo(stream *quic.Stream) {
	buffer := make([]byte, 4, 4<<10)
	for {
		if _, err := io.ReadFull(stream, buffer[:4]); err != nil {
			_ = stream.Close()
			return
		}
		n := 4 + int(binary.BigEndian.Uint32(buffer[:4]))
		if n > cap(buffer) {
			stream.CancelWrite(0)
			return
		}
		if _, err := io.ReadFull(stream, buffer[4:n]); err != nil {
			return
		}
		if _, err := stream.Write(buffer[:n]); err != nil {
			return
		}
	}
}
