package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/bench/rig"
	"github.com/quicflow/quicflow/internal/config"
	"github.com/quicflow/quicflow/internal/wire"
)

// The bare way shows what quic-go carries on this machine: sockets, windows and sizes of packets are those of hub and agent, and there
// is nothing else. A client opens a stream and writes an octet; the server answers with the file.

const bareALPN = "bare"

type barePlan struct {
	Dir  string `json:"dir"`
	File string `json:"file"`
}

// bareRole is the server.
type bareRole struct{}

func (r *bareRole) handlers() map[string]rig.Handler {
	return map[string]rig.Handler{"start": rig.On(r.start)}
}

func (r *bareRole) start(p barePlan) (string, error) {
	identities, err := rig.Identities(p.Dir, 1) // any key will do
	if err != nil {
		return "", err
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return "", err
	}
	quicConfig := hub.Settings(config.Standard()).QUIC
	quicConfig.InitialPacketSize = 1200
	listener, err := (&quic.Transport{Conn: wire.Socket(socket)}).Listen(&tls.Config{Certificates: identities, NextProtos: []string{bareALPN}}, quicConfig)
	if err != nil {
		return "", err
	}
	go func() {
		for {
			conn, err := listener.Accept(context.Background())
			if err != nil {
				return
			}
			go serveBare(conn, p.File)
		}
	}()
	return socket.LocalAddr().String(), nil
}

func serveBare(conn *quic.Conn, path string) {
	for {
		stream, err := conn.AcceptStream(context.Background())
		if err != nil {
			return
		}
		if err := sendBare(stream, path); err != nil {
			_ = conn.CloseWithError(1, err.Error()) // the client says so
			return
		}
	}
}

func sendBare(stream *quic.Stream, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := binary.Write(stream, binary.BigEndian, info.Size()); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{stream}, struct{ io.Reader }{file}, make([]byte, 128<<10)); err != nil {
		return err
	}
	return stream.Close()
}

// bareClient is the other end, with one connection.
type bareClient struct {
	conn *quic.Conn
}

// get gives the file, and its size.
func (c *bareClient) get(addr string) (io.Reader, int64, error) {
	if c.conn == nil {
		if err := c.dial(addr); err != nil {
			return nil, 0, err
		}
	}
	stream, err := c.conn.OpenStream()
	if err != nil {
		return nil, 0, err
	}
	if _, err := stream.Write([]byte{0}); err != nil {
		return nil, 0, err
	}
	if err := stream.Close(); err != nil {
		return nil, 0, err
	}
	var size int64
	if err := binary.Read(stream, binary.BigEndian, &size); err != nil {
		return nil, 0, err
	}
	return stream, size, nil
}

func (c *bareClient) dial(addr string) error {
	server, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4zero})
	if err != nil {
		return err
	}
	transport := &quic.Transport{Conn: wire.BulkSocket(socket)}
	c.conn, err = transport.Dial(context.Background(), server, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{bareALPN}}, &quic.Config{
		InitialPacketSize:          1200,
		KeepAlivePeriod:            10 * time.Second, // in place of heartbeats
		InitialStreamReceiveWindow: 64 << 10, MaxStreamReceiveWindow: wire.ArtifactWindow,
		InitialConnectionReceiveWindow: 192 << 10, MaxConnectionReceiveWindow: 3 * wire.ArtifactWindow,
	})
	return err
}

// discard reads all and looks at nothing.
func discard(content io.Reader, size int64) error {
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{content}, make([]byte, chunk))
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes of %d came", n, size)
	}
	return err
}
