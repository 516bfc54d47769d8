package wire

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
	"unsafe"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// segmentSize is the control message that has the kernel cut what is sent into datagrams.
func segmentSize(n uint16) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], n)
	return b
}

func listen(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// What arrives together is handed over datagram by datagram, in its order, whatever room a reader gives.
func TestBulkSocketSplits(t *testing.T) {
	from, to := listen(t), listen(t)
	bulk, ok := BulkSocket(to).(*segmented)
	require.True(t, ok, "the kernel of this machine knows UDP GRO")
	const size, last = 1000, 123
	data := make([]byte, 20*size+last)
	for i := range data {
		data[i] = byte(i / size)
	}
	for range 3 {
		_, _, err := from.WriteMsgUDP(data, segmentSize(size), to.LocalAddr().(*net.UDPAddr))
		require.NoError(t, err)
		_, err = from.WriteToUDP([]byte("alone"), to.LocalAddr().(*net.UDPAddr))
		require.NoError(t, err)
	}
	require.NoError(t, to.SetReadDeadline(time.Now().Add(patience)))
	messages := make([]ipv4.Message, 8)
	for i := range messages {
		messages[i].Buffers, messages[i].OOB = [][]byte{make([]byte, 1452)}, make([]byte, 128)
	}
	var lengths []int
	reads := 0
	for len(lengths) < 3*22 {
		n, err := bulk.ReadBatch(messages, 0)
		require.NoError(t, err)
		require.NotZero(t, n)
		reads++
		for _, m := range messages[:n] {
			require.Equal(t, from.LocalAddr().String(), m.Addr.String())
			index := len(lengths) % 22
			want := []byte("alone")
			if index < 21 {
				want = data[index*size : min((index+1)*size, len(data))]
			}
			require.True(t, bytes.Equal(want, m.Buffers[0][:m.N]), "datagram %d has %d bytes", len(lengths), m.N)
			lengths = append(lengths, m.N)
		}
	}
	require.LessOrEqual(t, reads, 12, "several at a time")
}

// QUIC goes on over it in both directions.
func TestBulkSocketCarriesQUIC(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	server := &quic.Transport{Conn: Socket(listen(t))}
	client := &quic.Transport{Conn: BulkSocket(listen(t))}
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	listener, err := server.Listen(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos: []string{"test"}, MinVersion: tls.VersionTLS13}, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := client.Dial(ctx, server.Conn.LocalAddr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"test"}}, nil)
	require.NoError(t, err)
	stream, err := conn.OpenStream()
	require.NoError(t, err)
	content := make([]byte, 10<<20)
	_, _ = rand.Read(content)
	sent := make(chan error, 1)
	go func() {
		_, err := stream.Write(content)
		if err == nil {
			err = stream.Close()
		}
		sent <- err
	}()
	accepted, err := listener.Accept(ctx)
	require.NoError(t, err)
	other, err := accepted.AcceptStream(ctx)
	require.NoError(t, err)
	require.NoError(t, other.SetDeadline(time.Now().Add(patience)))
	echoed := make(chan error, 1)
	go func() {
		_, err := io.Copy(other, other)
		if err == nil {
			err = other.Close()
		}
		echoed <- err
	}()
	require.NoError(t, stream.SetReadDeadline(time.Now().Add(patience)))
	got, err := io.ReadAll(stream)
	require.NoError(t, err)
	require.NoError(t, <-sent)
	require.NoError(t, <-echoed)
	require.True(t, bytes.Equal(content, got))
}
