package hub_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// fuzzToken is the join token in the seeds of FuzzEnrol.
const fuzzToken = "fuzz"

// target is a hub that strangers and garblers talk to, over real connections.
type target struct {
	*hub.Hub
	cert tls.Certificate // of the client "web-1"
}

func newTarget(f *testing.F) *target {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(f, err)
	der, serial, _, err := ca.IssueClient("web-1", key.Public(), 0)
	require.NoError(f, err)
	r := newRegistry()
	r.epochs["web-1"], r.valid[serial] = 0, true
	e := &enroller{registry: r, answers: map[string]error{auth.HashSecret(fuzzToken): nil}}
	h, err := hub.New(hub.Config{
		Addr: "127.0.0.1:0", NodeID: "node-1", CA: ca, Registry: r, Sink: newSink(), Enroller: e,
		HelloTimeout: 5 * time.Second, DrainTimeout: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(f, err)
	require.NoError(f, h.Start(f.Context()))
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(f, h.Stop(ctx))
	})
	return &target{h, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

// tell sends data on one stream and then ends that. It gives the answers, and how they ended; the hub must end them.
func tell[M any, P interface {
	*M
	wire.Message
}](t *testing.T, g *target, alpn string, data []byte) (answers []P, ended error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, g.Addr().String(), &tls.Config{RootCAs: ca.Pool(), ServerName: pki.HubServerName,
		NextProtos: []string{alpn}, Certificates: []tls.Certificate{g.cert}}, nil)
	require.NoError(t, err)
	defer conn.CloseWithError(wire.CloseNormal, "")
	stream, err := conn.OpenStream()
	require.NoError(t, err)
	require.NoError(t, stream.SetDeadline(time.Now().Add(patience)))
	_, _ = stream.Write(data) // the hub may have had enough before the end
	_ = stream.Close()
	for frames := wire.NewReader(stream, wire.MaxFrame); ; {
		answer := P(new(M))
		if err := frames.Read(answer); err != nil {
			return answers, err
		}
		answers = append(answers, answer)
	}
}

// wellEnded checks that the hub ended a stream or a connection on purpose, and for a reason that fits.
func wellEnded(t *testing.T, ended error) {
	var closed *quic.ApplicationError
	if errors.As(ended, &closed) {
		require.True(t, closed.Remote)
		require.Contains(t, []quic.ApplicationErrorCode{wire.CloseNormal, wire.CloseProtocol, wire.CloseFrameTooLarge, wire.CloseRefused, wire.CloseTakenOver},
			closed.ErrorCode, "%v", closed)
		return
	}
	require.ErrorIs(t, ended, io.EOF)
}

// FuzzHello is what an agent with a certificate may say first.
func FuzzHello(f *testing.F) {
	g := newTarget(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		answers, ended := tell[quicflowv1.ToAgent](t, g, wire.ALPN, data)
		wellEnded(t, ended)
		if len(answers) == 0 {
			return
		}
		first := new(quicflowv1.ToHub)
		err := wire.NewReader(bytes.NewReader(data), wire.MaxHelloFrame).Read(first)
		switch {
		case answers[0].GetWelcome() != nil:
			require.NoError(t, err)
			require.NotEmpty(t, first.GetHello().GetJournalId(), "welcome without a hello")
			require.EqualValues(t, wire.Protocol, first.GetHello().GetProtocol())
		default:
			require.NotNil(t, answers[0].GetRefusal(), "the first answer is neither welcome nor refusal: %v", answers[0])
			require.Len(t, answers, 1)
		}
	})
}

// FuzzEnrol is what anyone may ask for a certificate with.
func FuzzEnrol(f *testing.F) {
	g := newTarget(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		answers, ended := tell[quicflowv1.EnrolResponse](t, g, wire.ALPNEnrol, data)
		wellEnded(t, ended)
		if len(answers) == 0 {
			return
		}
		require.Len(t, answers, 1)
		if answers[0].Error != nil {
			require.Empty(t, answers[0].CertificateDer)
			return
		}
		asked := new(quicflowv1.EnrolRequest)
		require.NoError(t, wire.NewReader(bytes.NewReader(data), wire.MaxHelloFrame).Read(asked))
		require.Contains(t, []string{fuzzToken, ""}, asked.TokenSecret, "a certificate for an unknown token")
		leaf, err := x509.ParseCertificate(answers[0].CertificateDer)
		require.NoError(t, err)
		id, err := pki.ClientID(leaf)
		require.NoError(t, err)
		require.Equal(t, asked.ClientId, id)
	})
}
