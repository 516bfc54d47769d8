package fleet

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	// enrolTimeout bounds one request for a certificate.
	enrolTimeout = 15 * time.Second
	// enrolPatience is how long one certificate is asked for in vain.
	enrolPatience = 2 * time.Minute
	// maxEnrolConns is how many connections ask at the same time, one certificate after the other.
	maxEnrolConns = 16
)

// Enrolment is how clients join that are not in a cache yet.
type Enrolment struct {
	Server   string // host:port or host. Required.
	Token    string // join token, good for all of them. Required.
	IDs      []string
	Cache    *Cache           // takes the certificates. Required.
	Insecure bool             // do not check the hub's certificate
	Version  string           // of the program
	OnJoined func(joined int) // so many have joined by now; called by several goroutines. Defaults to nothing.
}

// deniedError is an answer that asking again does not change.
type deniedError struct{ error }

func (d deniedError) Unwrap() error { return d.error }

// Enrol gets a certificate for each id that has none, and keeps each at once. The first denial ends it.
func Enrol(ctx context.Context, e Enrolment) error {
	token, err := auth.ParseJoinToken(e.Token)
	if err != nil {
		return err
	}
	server, err := agent.Address(e.Server)
	if err != nil {
		return err
	}
	address, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", server, err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, e.Cache.signer())
	if err != nil {
		return fmt.Errorf("make certificate request: %w", err)
	}
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer socket.Close()
	transport := &quic.Transport{Conn: socket}
	defer transport.Close()

	missing := e.Cache.Missing(e.IDs)
	queue := make(chan string, len(missing))
	for _, id := range missing {
		queue <- id
	}
	close(queue)
	var joined atomic.Int64
	joined.Store(int64(len(e.IDs) - len(missing)))
	group, ctx := errgroup.WithContext(ctx)
	for range min(maxEnrolConns, len(missing)) {
		w := &enroller{
			Enrolment: e, secret: token.Secret, csr: csr,
			dial: func(ctx context.Context) (*quic.Conn, error) {
				return dialEnrol(ctx, transport, address, agent.TokenTLS(token, e.Insecure))
			},
		}
		group.Go(func() error {
			defer w.hangUp()
			for id := range queue {
				if err := w.enrol(ctx, id); err != nil {
					return fmt.Errorf("join as %s: %w", id, err)
				}
				if n := joined.Add(1); e.OnJoined != nil {
					e.OnJoined(int(n))
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// dialEnrol says what was found wrong with the hub's certificate, which the handshake's own error leaves out.
func dialEnrol(ctx context.Context, t *quic.Transport, address *net.UDPAddr, cfg *tls.Config) (*quic.Conn, error) {
	var untrusted error
	if verify := cfg.VerifyConnection; verify != nil {
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			untrusted = verify(state)
			return untrusted
		}
	}
	conn, err := t.Dial(ctx, address, cfg, agent.TransportConfig())
	if err != nil && untrusted != nil {
		return nil, deniedError{fmt.Errorf("%s: %w", address, untrusted)}
	}
	return conn, err
}

// enroller asks over one connection at a time, as often as the hub lets it.
type enroller struct {
	Enrolment
	secret string
	csr    []byte
	dial   func(context.Context) (*quic.Conn, error)

	conn *quic.Conn
	used bool // conn has answered
	once bool // the hub takes one request a connection
}

func (w *enroller) hangUp() {
	if w.conn != nil {
		_ = w.conn.CloseWithError(wire.CloseNormal, "")
		w.conn = nil
	}
}

// enrol asks until there is a certificate, a denial, or no patience.
func (w *enroller) enrol(ctx context.Context, id string) error {
	backoff := agent.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	end := time.Now().Add(enrolPatience)
	for failures := 0; ; failures++ {
		again := w.used && w.conn != nil
		err := w.ask(ctx, id)
		var denied deniedError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &denied):
			return denied.error
		}
		wait := backoff.Wait(failures)
		var busy *refusedError
		if !errors.As(err, &busy) {
			w.hangUp()
			if again { // the hub has closed a connection that it had answered on: it wants one for each
				w.once, wait = true, 0
			}
		} else {
			wait = max(wait, busy.retryAfter)
		}
		if time.Now().Add(wait).After(end) {
			return release.Unavailable(err, "no certificate within %s: %v", enrolPatience, err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

func (w *enroller) ask(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, enrolTimeout, errors.New("no answer in time"))
	defer cancel()
	if w.conn == nil {
		conn, err := w.dial(ctx)
		if err != nil {
			return err
		}
		w.conn, w.used = conn, false
	}
	stop := context.AfterFunc(ctx, w.hangUpOf(w.conn)) // the exchange knows no contexts
	defer stop()
	response, err := agent.Enrol(ctx, w.conn, &quicflowv1.EnrolRequest{
		TokenSecret: w.secret, ClientId: id, CsrDer: w.csr, AgentVersion: w.Version,
	})
	if err != nil {
		return fmt.Errorf("ask for a certificate: %w", err)
	}
	w.used = true
	if w.once {
		w.hangUp()
	}
	if e := response.Error; e != nil {
		switch e.Code {
		case quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_BUSY, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INTERNAL:
			return &refusedError{message: e.Message, retryAfter: time.Duration(e.RetryAfterMs) * time.Millisecond}
		}
		return deniedError{&release.Error{Code: release.CodeForbidden, Message: e.Message}}
	}
	if err := agent.CheckCertificate(response, id, w.Cache.signer()); err != nil {
		return err
	}
	if err := w.Cache.add(id, response.CertificateDer, response.CaDer); err != nil {
		return deniedError{err}
	}
	return nil
}

func (w *enroller) hangUpOf(conn *quic.Conn) func() {
	return func() { _ = conn.CloseWithError(wire.CloseNormal, "") }
}
