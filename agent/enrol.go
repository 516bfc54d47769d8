package agent

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// enrolTimeout bounds one attempt.
const enrolTimeout = 15 * time.Second

// ErrNoToken means that the agent has neither an identity nor a join token.
var ErrNoToken = errors.New("the agent has neither an identity nor a join token")

// deniedError is an answer that asking again does not change.
type deniedError struct{ error }

func (d deniedError) Unwrap() error { return d.error }

func (a *Agent) ensureIdentity(ctx context.Context) error {
	if a.cfg.Identity != nil {
		a.setIdentity(newIdentity(*a.cfg.Identity))
		return nil
	}
	id, err := a.loadIdentity()
	if errors.Is(err, os.ErrNotExist) {
		if err := a.join(ctx); err != nil {
			return err
		}
		id, err = a.loadIdentity()
	}
	if err != nil {
		return fmt.Errorf("load identity: %w", err)
	}
	a.setIdentity(id)
	return nil
}

func (a *Agent) join(ctx context.Context) error {
	if a.cfg.Token == "" {
		return ErrNoToken
	}
	token, err := auth.ParseJoinToken(a.cfg.Token)
	if err != nil {
		return err
	}
	key, err := a.key()
	if err != nil {
		return err
	}
	backoff := newBackoff(a.cfg.Backoff)
	for turn := 0; ; turn++ {
		server := a.nextServer(turn)
		err := a.enrol(ctx, server, token.Secret, key, pinnedConfig(token, a.cfg.Insecure))
		if err == nil {
			a.cfg.Logger.Info("joined", "server", server)
			return nil
		}
		var denied deniedError
		if errors.As(err, &denied) {
			return denied.error
		}
		a.cfg.Logger.Warn("could not join yet", "server", server, "error", err)
		if limit := a.cfg.MaxRetries; limit > 0 && backoff.attempts >= limit {
			return release.Unavailable(err, "gave up after %d attempts to join: %v", limit, err)
		}
		if !sleep(ctx, backoff.after(err)) {
			return release.Unavailable(err, "could not join: %v", err)
		}
	}
}

// pinnedConfig trusts the one certificate authority that the token names.
func pinnedConfig(token auth.JoinToken, insecure bool) *tls.Config {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{wire.ALPNEnrol},
		ServerName:         pki.HubServerName,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection checks: the authority is known by its fingerprint alone
	}
	if !insecure {
		cfg.VerifyConnection = pki.VerifyPinned(token.Fingerprint)
	}
	return cfg
}

// enrol asks for a certificate and stores it. An error that is a deniedError is final.
func (a *Agent) enrol(ctx context.Context, server, secret string, key crypto.Signer, cfg *tls.Config) error {
	ctx, cancel := context.WithTimeoutCause(ctx, enrolTimeout, errors.New("no answer in time"))
	defer cancel()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: a.cfg.ClientID},
	}, key)
	if err != nil {
		return deniedError{fmt.Errorf("make certificate request: %w", err)}
	}
	// What the handshake says of its own refusal is a line of the protocol; what was found wrong is kept here.
	var untrusted error
	if verify := cfg.VerifyConnection; verify != nil {
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			untrusted = verify(state)
			return untrusted
		}
	}
	conn, err := a.dial(ctx, server, cfg)
	if err != nil {
		if untrusted != nil {
			return deniedError{fmt.Errorf("%s: %w", server, untrusted)}
		}
		return err
	}
	defer conn.CloseWithError(wire.CloseNormal, "")
	response, err := exchange(ctx, conn, &quicflowv1.EnrolRequest{
		TokenSecret: secret, ClientId: a.cfg.ClientID, CsrDer: csr, AgentVersion: a.cfg.Version,
	})
	if err != nil {
		return fmt.Errorf("ask for a certificate: %w", err)
	}
	if e := response.Error; e != nil {
		return a.denied(e)
	}
	return a.accept(response, key)
}

func exchange(ctx context.Context, conn *quic.Conn, request *quicflowv1.EnrolRequest) (*quicflowv1.EnrolResponse, error) {
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = stream.SetDeadline(deadline)
	}
	if err := wire.WriteFrame(stream, request); err != nil {
		return nil, err
	}
	if err := stream.Close(); err != nil {
		return nil, err
	}
	response := new(quicflowv1.EnrolResponse)
	return response, wire.NewReader(stream, wire.MaxHelloFrame).Read(response)
}

// accept checks a certificate before it replaces anything.
func (a *Agent) accept(response *quicflowv1.EnrolResponse, key crypto.Signer) error {
	if err := checkCertificate(response, a.cfg.ClientID, key); err != nil {
		return err
	}
	return a.saveIdentity(response.CertificateDer, response.CaDer)
}

func checkCertificate(response *quicflowv1.EnrolResponse, clientID string, key crypto.Signer) error {
	leaf, err := x509.ParseCertificate(response.CertificateDer)
	if err != nil {
		return fmt.Errorf("read the certificate that the hub sent: %w", err)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(leaf.PublicKey) {
		return errors.New("the certificate that the hub sent is not for this agent's key")
	}
	if id, err := pki.ClientID(leaf); err != nil || id != clientID {
		return errors.New("the certificate that the hub sent is not for this agent")
	}
	if len(response.CaDer) == 0 {
		return errors.New("the hub sent no certificate authority to trust")
	}
	return nil
}

// denied turns the hub's error into one for the user; its message says what to do.
func (a *Agent) denied(e *quicflowv1.EnrolError) error {
	switch e.Code {
	case quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_TOKEN_UNKNOWN,
		quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_TOKEN_EXPIRED,
		quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_TOKEN_USED_UP,
		quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_ID_NOT_ALLOWED:
		return deniedError{release.Invalid("token", "%s", e.Message)}
	case quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_ID_TAKEN:
		return deniedError{release.Conflict("%s: %s", a.cfg.ClientID, e.Message)}
	case quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INVALID,
		quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_REVOKED,
		quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_EXPIRED:
		return deniedError{&release.Error{Code: release.CodeForbidden, Message: e.Message}}
	}
	return &refusedError{e.Message, time.Duration(e.RetryAfterMs) * time.Millisecond}
}

// keepRenewing gets a new certificate each time half the life of the present one is over.
func (a *Agent) keepRenewing(ctx context.Context) {
	backoff := newBackoff(Backoff{Min: 10 * time.Second, Max: time.Hour})
	for turn := 0; ; turn++ {
		for wait := time.Until(a.currentIdentity().renewAt()); wait > 0; wait = time.Until(a.currentIdentity().renewAt()) {
			if !sleep(ctx, min(wait, time.Hour)) { // in short naps: a suspended host's timers stand still
				return
			}
		}
		err := a.renew(ctx, a.cfg.Servers[turn%len(a.cfg.Servers)])
		if err == nil {
			backoff.reset()
			a.cfg.Logger.Info("certificate renewed", "not_after", a.currentIdentity().Certificate.Leaf.NotAfter)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		a.cfg.Logger.Warn("certificate could not be renewed", "error", err,
			"not_after", a.currentIdentity().Certificate.Leaf.NotAfter)
		if !sleep(ctx, backoff.after(err)) {
			return
		}
	}
}

// renew exchanges the certificate for a new one of the same key.
func (a *Agent) renew(ctx context.Context, server string) error {
	key, err := a.key()
	if err != nil {
		return err
	}
	cfg := a.currentIdentity().tlsConfig(wire.ALPNEnrol, server, a.cfg.Insecure)
	if err := a.enrol(ctx, server, "", key, cfg); err != nil {
		return err
	}
	id, err := a.loadIdentity()
	if err != nil {
		return err
	}
	a.setIdentity(id)
	return nil
}
