package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const patience = 10 * time.Second

// pair gives the two ends of a stream between two sockets.
func pair(t *testing.T, reader *quic.Config) (from, to *quic.Stream, sender, receiver *quic.Conn) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	transport := &quic.Transport{Conn: Socket(socket)}
	listener, err := transport.Listen(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos: []string{"test"}, MinVersion: tls.VersionTLS13}, reader)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sender, err = quic.DialAddr(ctx, socket.LocalAddr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"test"}}, nil)
	require.NoError(t, err)
	from, err = sender.OpenStream()
	require.NoError(t, err)
	require.NoError(t, WriteFrame(from, message("first", nil)))
	receiver, err = listener.Accept(ctx)
	require.NoError(t, err)
	to, err = receiver.AcceptStream(ctx)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = sender.CloseWithError(0, "")
		_ = listener.Close()
		_ = transport.Close()
		_ = socket.Close()
	})
	return from, to, sender, receiver
}

// owner is a test's end of an outbox.
type owner struct {
	sync.WaitGroup
	wrote  atomic.Int64
	failed chan error
}

func newOwner() *owner { return &owner{failed: make(chan error, 1)} }

func (o *owner) Wrote(n int) { o.wrote.Add(int64(n)) }

// WriteFailed keeps the first failure.
func (o *owner) WriteFailed(err error) {
	select {
	case o.failed <- err:
	default:
	}
}

// Many send at the same time, at once or in company; each one's frames arrive whole and in its order.
func TestOutboxKeepsOrder(t *testing.T) {
	from, to, _, _ := pair(t, nil)
	o := newOwner()
	box := NewOutbox(from, o)
	const senders, frames = 8, 500
	for sender := range senders {
		o.Go(func() {
			for i := range frames {
				payload := binary.BigEndian.AppendUint32(make([]byte, i%7*300), uint32(i))
				send := box.Send
				if (sender+i)%2 == 0 {
					send = box.SendSoon
				}
				for err := ErrOutboxFull; errors.Is(err, ErrOutboxFull); {
					err = send(message(string(rune('a'+sender)), payload), 1<<20)
				}
			}
		})
	}
	reader := NewReader(to, MaxFrame)
	first := new(quicflowv1.ToHub)
	require.NoError(t, reader.Read(first))
	next := map[string]uint32{}
	require.NoError(t, to.SetReadDeadline(time.Now().Add(patience)))
	for range senders * frames {
		m := new(quicflowv1.ToHub)
		require.NoError(t, reader.Read(m))
		got := m.GetResponse().GetMessage()
		require.Equal(t, next[got.Type], binary.BigEndian.Uint32(got.Payload[len(got.Payload)-4:]))
		next[got.Type]++
	}
	o.Wait()
	require.Empty(t, o.failed)
}

// A peer that does not read holds nobody up: what it is sent waits, up to the limit, and goes with the connection.
func TestOutboxOfAPeerThatDoesNotRead(t *testing.T) {
	from, _, sender, _ := pair(t, &quic.Config{InitialStreamReceiveWindow: 4096, MaxStreamReceiveWindow: 4096})
	o := newOwner()
	box := NewOutbox(from, o)
	const limit = 100_000
	frame := message("x", make([]byte, 1000))
	queued := 0
	var err error
	for began := time.Now(); err == nil; queued++ {
		require.Less(t, time.Since(began), patience)
		err = box.Send(frame, limit)
	}
	require.ErrorIs(t, err, ErrOutboxFull)
	require.Less(t, queued*1000, limit+inlineBytes+10_000)
	require.ErrorIs(t, box.SendSoon(frame, limit), ErrOutboxFull)

	gone := errors.New("gone")
	require.NoError(t, sender.CloseWithError(0, ""))
	select {
	case err := <-o.failed:
		require.Error(t, err)
	case <-time.After(patience):
		require.FailNow(t, "the owner was not told")
	}
	box.Close(gone)
	o.Wait() // for the writer
	require.ErrorIs(t, box.Send(frame, limit), gone)
}

func TestOutboxReportsABrokenStream(t *testing.T) {
	from, _, _, receiver := pair(t, nil)
	o := newOwner()
	box := NewOutbox(from, o)
	require.NoError(t, receiver.CloseWithError(1, "over"))
	for began := time.Now(); len(o.failed) == 0; {
		require.Less(t, time.Since(began), patience)
		require.NoError(t, box.Send(message("x", nil), 1<<20))
	}
	o.Wait()
}
