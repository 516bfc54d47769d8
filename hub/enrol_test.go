package hub_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// enrol asks for a certificate for key and gives the answer.
func (b *bench) enrol(secret, clientID string, key crypto.Signer, certs ...tls.Certificate) *quicflowv1.EnrolResponse {
	b.t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(b.t, err)
	return b.enrolWith(&quicflowv1.EnrolRequest{TokenSecret: secret, ClientId: clientID, CsrDer: csr}, certs...)
}

func (b *bench) enrolWith(req *quicflowv1.EnrolRequest, certs ...tls.Certificate) *quicflowv1.EnrolResponse {
	b.t.Helper()
	conn, err := b.dial(wire.ALPNEnrol, certs...)
	require.NoError(b.t, err)
	stream, err := conn.OpenStream()
	require.NoError(b.t, err)
	require.NoError(b.t, wire.WriteFrame(stream, req))
	response := new(quicflowv1.EnrolResponse)
	require.NoError(b.t, stream.SetReadDeadline(time.Now().Add(patience)))
	require.NoError(b.t, wire.NewReader(stream, wire.MaxFrame).Read(response))
	require.NoError(b.t, conn.CloseWithError(wire.CloseNormal, ""))
	return response
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// token mints a join token that the enroller answers with err.
func (b *bench) token(err error) string {
	token := auth.NewJoinToken(ca.Fingerprint())
	b.enroller.mu.Lock()
	defer b.enroller.mu.Unlock()
	b.enroller.answers[token.Hash()] = err
	return token.Secret
}

func TestJoinThenConnect(t *testing.T) {
	b := start(t)
	key := newKey(t)
	secret := b.token(nil)
	response := b.enrol(secret, "web-1", key)
	require.Nil(t, response.Error)
	require.Equal(t, [][]byte{ca.Certificate().Raw}, response.CaDer)
	leaf, err := x509.ParseCertificate(response.CertificateDer)
	require.NoError(t, err)
	require.True(t, key.PublicKey.Equal(leaf.PublicKey))
	require.WithinDuration(t, time.Now().Add(pki.ClientTTL), leaf.NotAfter, time.Minute)
	b.enroller.mu.Lock()
	redeemed := b.enroller.redeemed[0]
	b.enroller.mu.Unlock()
	require.Equal(t, auth.HashSecret(secret), redeemed.TokenHash)
	require.Equal(t, "web-1", redeemed.ClientID)
	hash, err := pki.PublicKeyHash(key.Public())
	require.NoError(t, err)
	require.Equal(t, hash, redeemed.PublicKeyHash)

	cert := tls.Certificate{Certificate: [][]byte{response.CertificateDer}, PrivateKey: key, Leaf: leaf}
	b.connect(identity{id: "web-1", cert: cert}).alive()

	renewed := b.enrol("", "web-1", key, cert)
	require.Nil(t, renewed.Error)
	require.NotEqual(t, response.CertificateDer, renewed.CertificateDer)
	b.connect(identity{id: "web-1", cert: tls.Certificate{Certificate: [][]byte{renewed.CertificateDer}, PrivateKey: key}}).alive()
}

func TestPinnedJoin(t *testing.T) {
	b := start(t)
	for _, c := range []struct {
		fingerprint [32]byte
		err         string
	}{{ca.Fingerprint(), ""}, {[32]byte{1}, "does not belong to the CA"}} {
		conn, err := tlsDial(t, b, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.ALPNEnrol}, VerifyConnection: pki.VerifyPinned(c.fingerprint)})
		if c.err != "" {
			require.ErrorContains(t, err, c.err)
			continue
		}
		require.NoError(t, err)
		require.NoError(t, conn.CloseWithError(0, ""))
	}
}

func TestTokenErrors(t *testing.T) {
	b := start(t)
	for _, c := range []struct {
		err     error
		code    quicflowv1.EnrolErrorCode
		message string
	}{
		{auth.ErrTokenUnknown, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_TOKEN_UNKNOWN, "quic-ctl agent token"},
		{auth.ErrTokenExpired, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_TOKEN_EXPIRED, "expired"},
		{auth.ErrTokenUsedUp, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_TOKEN_USED_UP, "used up"},
		{auth.ErrIDNotAllowed, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_ID_NOT_ALLOWED, "not for this client id"},
		{auth.ErrIDTaken, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_ID_TAKEN, "--replace"},
		{errors.New("secret detail of the database"), quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INTERNAL, "try again"},
	} {
		response := b.enrol(b.token(c.err), "web-1", newKey(t))
		require.Equal(t, c.code, response.GetError().GetCode())
		require.Contains(t, response.Error.Message, c.message)
		require.NotContains(t, response.Error.Message, "secret detail")
		require.Empty(t, response.CertificateDer)
		require.Equal(t, c.code == quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INTERNAL, response.Error.RetryAfterMs > 0)
	}
	require.Equal(t, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_TOKEN_UNKNOWN, b.enrol("made up", "web-1", newKey(t)).GetError().GetCode())
}

func TestInvalidEnrolments(t *testing.T) {
	b := start(t)
	secret := b.token(nil)
	invalid := quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INVALID
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	for name, response := range map[string]*quicflowv1.EnrolResponse{
		"must be 1 to 128 letters": b.enrol(secret, "../../etc/passwd", newKey(t)),
		"request is damaged":       b.enrolWith(&quicflowv1.EnrolRequest{TokenSecret: secret, ClientId: "web-1", CsrDer: []byte("csr")}),
		"key must be":              b.enrol(secret, "web-1", weak),
		"the key must be ECDSA":    b.enrol(secret, "web-1", small),
		"neither a join token":     b.enrol("", "web-1", newKey(t)),
	} {
		require.Equal(t, invalid, response.GetError().GetCode(), name)
		require.Contains(t, response.Error.Message, name)
	}
	b.registry.setScript(func(string) error { return errors.New("database is down") })
	defer b.registry.setScript(nil)
	require.Equal(t, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INTERNAL, b.enrol(secret, "web-1", newKey(t)).GetError().GetCode())
	b.registry.setScript(func(string) error { return release.Conflict("client web-1 has joined with another key") })
	require.Equal(t, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_REVOKED, b.enrol(secret, "web-1", newKey(t)).GetError().GetCode())
}

func TestRenewal(t *testing.T) {
	other, err := pki.LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		by    *pki.CA
		known bool
		age   time.Duration // of the certificate, which lives 30 days, at the time of the renewal
		ask   string
		code  quicflowv1.EnrolErrorCode
	}{
		"valid":                    {ca, true, 0, "web-1", 0},
		"expired two months ago":   {ca, true, 90 * day, "web-1", 0},
		"expired for 91 days":      {ca, true, 121 * day, "web-1", quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_EXPIRED},
		"revoked":                  {ca, false, 0, "web-1", quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_REVOKED},
		"expired and then revoked": {ca, false, 90 * day, "web-1", quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_REVOKED},
		"another id":               {ca, true, 0, "web-2", quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_ID_NOT_ALLOWED},
		"another CA":               {other, true, 0, "web-1", quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INVALID},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, func(cfg *hub.Config) { cfg.Now = func() time.Time { return time.Now().Add(c.age) } })
			who := issue(t, c.by, "web-1", 0)
			if c.known {
				b.know(who)
			}
			// A well-behaved client would not even offer a certificate of another CA; this one does.
			conn, err := tlsDial(t, b, &tls.Config{RootCAs: ca.Pool(), ServerName: pki.HubServerName, NextProtos: []string{wire.ALPNEnrol},
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &who.cert, nil }})
			require.NoError(t, err)
			stream, err := conn.OpenStream()
			require.NoError(t, err)
			csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, who.cert.PrivateKey.(crypto.Signer))
			require.NoError(t, err)
			require.NoError(t, wire.WriteFrame(stream, &quicflowv1.EnrolRequest{ClientId: c.ask, CsrDer: csr}))
			response := new(quicflowv1.EnrolResponse)
			require.NoError(t, wire.NewReader(stream, wire.MaxFrame).Read(response))
			require.Equal(t, c.code, response.GetError().GetCode(), response.GetError().GetMessage())
			require.Equal(t, c.code == 0, len(response.CertificateDer) > 0)
			require.NoError(t, conn.CloseWithError(0, ""))

			if c.age > pki.ClientTTL { // expired: good for a renewal at most
				conn, err := b.dial(wire.ALPN, who.cert)
				if err == nil {
					_, err = conn.AcceptStream(t.Context())
				}
				require.ErrorContains(t, err, "expired certificate")
			}
		})
	}
	b := start(t)
	response := b.enrol("", "web-1", newKey(t), b.join("web-1").cert)
	require.Contains(t, response.GetError().GetMessage(), "keeps its key")
}

func TestBadEnrolmentFrames(t *testing.T) {
	b := start(t, func(c *hub.Config) { c.HelloTimeout = 100 * time.Millisecond })
	conn, err := b.dial(wire.ALPNEnrol)
	require.NoError(t, err)
	closedWith(t, conn, wire.CloseProtocol, "no enrolment request")

	conn, err = b.dial(wire.ALPNEnrol)
	require.NoError(t, err)
	stream, err := conn.OpenStream()
	require.NoError(t, err)
	_, err = stream.Write(length(wire.MaxHelloFrame + 1))
	require.NoError(t, err)
	closedWith(t, conn, wire.CloseFrameTooLarge, "frame too large")
}

func TestHubWithoutEnrolment(t *testing.T) {
	b := start(t, func(c *hub.Config) { c.Enroller = nil })
	_, err := b.dial(wire.ALPNEnrol)
	require.Error(t, err)
}

// enrolOn sends one request on a stream of its own and gives the answer.
func enrolOn(conn *quic.Conn, secret, clientID string, key crypto.Signer) (*quicflowv1.EnrolResponse, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	stream, err := conn.OpenStreamSync(conn.Context())
	if err != nil {
		return nil, err
	}
	if err := wire.WriteFrame(stream, &quicflowv1.EnrolRequest{TokenSecret: secret, ClientId: clientID, CsrDer: csr}); err != nil {
		return nil, err
	}
	if err := stream.Close(); err != nil {
		return nil, err
	}
	response := new(quicflowv1.EnrolResponse)
	if err := stream.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return response, wire.NewReader(stream, wire.MaxFrame).Read(response)
}

// gated lets enrolments pass one signal at a time, and counts those in progress.
type gated struct {
	hub.Enroller
	gate      chan struct{}
	now, peak atomic.Int64
}

func (g *gated) RedeemJoinToken(ctx context.Context, r auth.Redemption) error {
	n := g.now.Add(1)
	defer g.now.Add(-1)
	for peak := g.peak.Load(); n > peak && !g.peak.CompareAndSwap(peak, n); peak = g.peak.Load() {
	}
	select {
	case <-g.gate:
		return g.Enroller.RedeemJoinToken(ctx, r)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// One connection carries many requests, a few at a time.
func TestManyEnrolmentsOnAConnection(t *testing.T) {
	g := &gated{gate: make(chan struct{})}
	b := start(t, func(c *hub.Config) { g.Enroller, c.Enroller = c.Enroller, g })
	secret, key := b.token(nil), newKey(t)
	conn, err := b.dial(wire.ALPNEnrol)
	require.NoError(t, err)
	const n = 90
	var requests sync.WaitGroup
	for i := range n {
		requests.Go(func() {
			response, err := enrolOn(conn, secret, fmt.Sprint("web-", i), key)
			if err != nil || response.Error != nil || len(response.CertificateDer) == 0 {
				t.Errorf("web-%d: %v, %v", i, response.GetError(), err)
			}
		})
	}
	eventually(t, "as many as may are in work", func() bool { return g.now.Load() == 16 })
	close(g.gate)
	requests.Wait()
	require.EqualValues(t, 16, g.peak.Load())
	require.NoError(t, conn.CloseWithError(wire.CloseNormal, ""))
}

func TestEnrolmentConnectionEnds(t *testing.T) {
	t.Run("when it is idle", func(t *testing.T) {
		b := start(t, func(c *hub.Config) { c.HelloTimeout = 200 * time.Millisecond })
		conn, err := b.dial(wire.ALPNEnrol)
		require.NoError(t, err)
		for i := range 4 { // longer in all than it may be idle
			response, err := enrolOn(conn, b.token(nil), fmt.Sprint("web-", i), newKey(t))
			require.NoError(t, err)
			require.Nil(t, response.Error)
			<-time.After(80 * time.Millisecond)
		}
		closedWith(t, conn, wire.CloseNormal, "enrolment is over")
	})
	t.Run("when it had its share", func(t *testing.T) {
		b := start(t)
		conn, err := b.dial(wire.ALPNEnrol)
		require.NoError(t, err)
		key := newKey(t)
		for i := range 1000 {
			response, err := enrolOn(conn, "made up", "web-1", key)
			require.NoError(t, err, "request %d", i)
			require.Equal(t, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_TOKEN_UNKNOWN, response.Error.Code)
		}
		closedWith(t, conn, wire.CloseNormal, "as many enrolments")
	})
	t.Run("when the hub stops", func(t *testing.T) {
		g := &gated{gate: make(chan struct{})}
		b := start(t, func(c *hub.Config) { g.Enroller, c.Enroller = c.Enroller, g })
		conn, err := b.dial(wire.ALPNEnrol)
		require.NoError(t, err)
		over := make(chan error, 1)
		secret, key := b.token(nil), newKey(t)
		go func() {
			_, err := enrolOn(conn, secret, "web-1", key)
			over <- err
		}()
		eventually(t, "it is in work", func() bool { return g.now.Load() == 1 })
		b.stop()
		closedWith(t, conn, wire.CloseDraining, "draining")
		require.Error(t, <-over)
	})
}

func TestEnrolmentsAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	g := &gated{gate: make(chan struct{})}
	b := start(t, counted(reg), func(c *hub.Config) { g.Enroller, c.Enroller, c.MaxEnrolments = c.Enroller, g, 1 })
	secret, key := b.token(nil), newKey(t)
	conn, err := b.dial(wire.ALPNEnrol)
	require.NoError(t, err)
	first := make(chan error, 1)
	go func() {
		_, err := enrolOn(conn, secret, "web-1", key)
		first <- err
	}()
	eventually(t, "it is in work", func() bool { return g.now.Load() == 1 })
	response, err := enrolOn(conn, secret, "web-2", key)
	require.NoError(t, err)
	require.Equal(t, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_BUSY, response.GetError().GetCode())
	require.Positive(t, response.Error.RetryAfterMs)
	require.EqualValues(t, 1, refusedAs(t, reg, "enrol_busy"))
	close(g.gate)
	require.NoError(t, <-first)
	response, err = enrolOn(conn, secret, "web-2", key)
	require.NoError(t, err)
	require.Nil(t, response.Error)

	// Connections of strangers are bounded as well.
	conns := []*quic.Conn{conn}
	for len(conns) < 16 {
		conn, err := b.dial(wire.ALPNEnrol)
		require.NoError(t, err)
		response, err := enrolOn(conn, "made up", "web-3", key)
		require.NoError(t, err)
		require.NotNil(t, response.Error)
		conns = append(conns, conn)
	}
	conn, err = b.dial(wire.ALPNEnrol)
	require.NoError(t, err)
	closedWith(t, conn, wire.CloseOverloaded, "too many agents join")
	require.EqualValues(t, 1, refusedAs(t, reg, "enrol_connections"))
	for _, conn := range conns {
		require.NoError(t, conn.CloseWithError(wire.CloseNormal, ""))
	}
}
