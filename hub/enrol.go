package hub

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// What strangers can make the hub do at a time is bounded by Config.MaxEnrolments, and by these.
const (
	enrolConnsEach    = 16   // connections for each enrolment that may be in progress
	maxEnrolStreams   = 16   // requests of one connection in work at a time; more wait
	maxEnrolsEachConn = 1000 // requests of one connection; then it is closed
)

// enrolError is why an agent gets no certificate.
type enrolError struct {
	code       quicflowv1.EnrolErrorCode
	message    string
	retryAfter time.Duration
	err        error // for operators
}

func (e *enrolError) Error() string { return e.message }
func (e *enrolError) Unwrap() error { return e.err }

func noEnrol(code quicflowv1.EnrolErrorCode, err error, format string, args ...any) *enrolError {
	return &enrolError{code: code, message: fmt.Sprintf(format, args...), err: err}
}

var tokenErrors = []struct {
	err     error
	code    quicflowv1.EnrolErrorCode
	message string
}{
	{auth.ErrTokenUnknown, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_TOKEN_UNKNOWN, "the join token is not known here; make a new one with: quic-ctl agent token"},
	{auth.ErrTokenExpired, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_TOKEN_EXPIRED, "the join token has expired; make a new one with: quic-ctl agent token"},
	{auth.ErrTokenUsedUp, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_TOKEN_USED_UP, "the join token is used up; make a new one with: quic-ctl agent token"},
	{auth.ErrIDNotAllowed, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_ID_NOT_ALLOWED, "the join token is not for this client id"},
	{auth.ErrIDTaken, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_ID_TAKEN, "this client id has joined before; to let it join again make a token with: quic-ctl agent token --replace"},
}

// enrol carries one connection of the enrolment ALPN: on each stream one request and its answer. The agent closes it; the hub
// does when nothing was asked for HelloTimeout.
func (h *Hub) enrol(conn *quic.Conn) {
	if !h.enrolConns.take() {
		h.metrics.refuse(reasonEnrolConns)
		closeConn(conn, end(wire.CloseOverloaded, errors.New("too many agents join at this moment")))
		return
	}
	defer h.enrolConns.give()
	stop := context.AfterFunc(h.accepting, func() { closeConn(conn, end(wire.CloseDraining, ErrDraining)) })
	defer stop()
	inWork := make(slots, maxEnrolStreams)
	var requests sync.WaitGroup
	defer requests.Wait()
	for n := range maxEnrolsEachConn {
		inWork <- struct{}{} // each is over within HelloTimeout, if only by an error
		stream, err := h.nextEnrolment(conn, inWork)
		if err != nil {
			idle := end(wire.CloseNormal, errors.New("enrolment is over"))
			if n == 0 {
				idle = violation("no enrolment request came in time")
			}
			closeConn(conn, idle)
			return
		}
		requests.Go(func() {
			defer inWork.give()
			h.enrolOne(conn, stream)
		})
	}
	requests.Wait()
	h.awaitClose(conn)
	closeConn(conn, end(wire.CloseNormal, errors.New("as many enrolments as one connection may have")))
}

// nextEnrolment waits for a stream, and gives up when the connection was idle for HelloTimeout.
func (h *Hub) nextEnrolment(conn *quic.Conn, inWork slots) (*quic.Stream, error) {
	for {
		ctx, cancel := context.WithTimeout(conn.Context(), h.cfg.HelloTimeout)
		stream, err := conn.AcceptStream(ctx)
		cancel()
		if err == nil || conn.Context().Err() != nil || len(inWork) <= 1 { // one is the stream that is waited for
			return stream, err
		}
	}
}

// enrolOne answers one request. A request that cannot be read costs the whole connection.
func (h *Hub) enrolOne(conn *quic.Conn, stream *quic.Stream) {
	ctx, cancel := context.WithTimeout(conn.Context(), h.cfg.HelloTimeout)
	defer cancel()
	_ = stream.SetDeadline(time.Now().Add(h.cfg.HelloTimeout))
	req := new(quicflowv1.EnrolRequest)
	frames := wire.NewReader(h.metrics.reader(stream), wire.MaxHelloFrame)
	if err := frames.Read(req); err != nil {
		code := wire.CloseProtocol
		if errors.Is(err, wire.ErrFrameTooLarge) {
			code = wire.CloseFrameTooLarge
		}
		h.metrics.decodingErrors.Inc()
		closeConn(conn, end(code, fmt.Errorf("%w: enrolment: %w", ErrProtocol, err)))
		return
	}
	if err := wire.WriteFrame(h.metrics.writer(stream), h.answerEnrol(ctx, conn, req)); err != nil {
		stream.CancelWrite(0)
		return
	}
	_ = stream.Close()
	// Left unread, what strangers send behind their requests would fill the windows of their connections.
	if n, _ := frames.Rest().Read(make([]byte, 1)); n > 0 {
		h.metrics.decodingErrors.Inc()
		closeConn(conn, violation("enrolment: more than a request on a stream"))
	}
	stream.CancelRead(0) // of who has not ended it in time
}

func (h *Hub) answerEnrol(ctx context.Context, conn *quic.Conn, req *quicflowv1.EnrolRequest) *quicflowv1.EnrolResponse {
	cert, err := h.certify(ctx, conn, req)
	if err == nil {
		h.metrics.enrolments.Inc()
		h.log.Info("agent enrolled", "client_id", req.ClientId, "addr", conn.RemoteAddr().String(), "renewal", req.TokenSecret == "")
		return &quicflowv1.EnrolResponse{CertificateDer: cert, CaDer: h.cfg.ServerCAs}
	}
	var e *enrolError
	if !errors.As(err, &e) {
		e = noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INTERNAL, err, "the hub could not make the certificate; try again")
		e.retryAfter = retrySoon
	}
	h.metrics.refuse(reasonOfEnrol(e.code))
	h.log.Warn("agent not enrolled", "client_id", req.ClientId, "addr", conn.RemoteAddr().String(), "reason", e.message, "cause", e.err)
	return &quicflowv1.EnrolResponse{Error: &quicflowv1.EnrolError{
		Code: e.code, Message: e.message, RetryAfterMs: e.retryAfter.Milliseconds()}}
}

// certify decides whether an agent gets a certificate, and makes it. Errors that are no *enrolError are the hub's own fault.
func (h *Hub) certify(ctx context.Context, conn *quic.Conn, req *quicflowv1.EnrolRequest) ([]byte, error) {
	if !h.enrolling.take() {
		e := noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_BUSY, nil, "too many agents join at this moment")
		e.retryAfter = retrySoon
		return nil, e
	}
	defer h.enrolling.give()
	if err := release.ValidateClientID(req.ClientId); err != nil {
		return nil, noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INVALID, err, "%s", err)
	}
	pub, err := requestedKey(req.CsrDer)
	if err != nil {
		return nil, err
	}
	keyHash, err := pki.PublicKeyHash(pub)
	if err != nil {
		return nil, noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INVALID, err, "the certificate request holds a key of an unknown kind")
	}
	if req.TokenSecret != "" {
		err = h.redeem(ctx, req, keyHash)
	} else {
		err = h.mayRenew(ctx, conn.ConnectionState().TLS.PeerCertificates, req.ClientId, keyHash)
	}
	if err != nil {
		return nil, err
	}
	der, serial, notAfter, err := h.cfg.CA.IssueClient(req.ClientId, pub, pki.ClientTTL)
	if errors.Is(err, release.ErrInvalid) {
		return nil, noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INVALID, err, "%s", err)
	}
	if err != nil {
		return nil, err
	}
	err = h.cfg.Enroller.RecordCertificate(ctx, req.ClientId, serial, notAfter, keyHash)
	if errors.Is(err, release.ErrConflict) || errors.Is(err, release.ErrNotFound) {
		return nil, noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_REVOKED, err, "%s", err)
	}
	if err != nil {
		return nil, fmt.Errorf("record certificate: %w", err)
	}
	return der, nil
}

// requestedKey is the public key of a certificate request whose sender holds the private key.
func requestedKey(csrDER []byte) (crypto.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INVALID, err, "the certificate request is damaged")
	}
	return csr.PublicKey, nil
}

func (h *Hub) redeem(ctx context.Context, req *quicflowv1.EnrolRequest, keyHash string) error {
	err := h.cfg.Enroller.RedeemJoinToken(ctx, auth.Redemption{
		TokenHash:     auth.HashSecret(req.TokenSecret),
		ClientID:      req.ClientId,
		PublicKeyHash: keyHash,
		At:            h.cfg.Now(),
	})
	if err == nil {
		return nil
	}
	for _, t := range tokenErrors {
		if errors.Is(err, t.err) {
			return noEnrol(t.code, err, "%s", t.message)
		}
	}
	return fmt.Errorf("redeem join token: %w", err)
}

// mayRenew checks the certificate that a renewing agent showed in the TLS handshake.
func (h *Hub) mayRenew(ctx context.Context, shown []*x509.Certificate, clientID, keyHash string) error {
	if len(shown) == 0 {
		return noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INVALID, nil, "neither a join token nor a certificate was shown")
	}
	err := h.cfg.CA.VerifyRenewal(shown[0], h.cfg.Now())
	if errors.Is(err, pki.ErrTooOldToRenew) {
		return noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_EXPIRED, err, "the certificate expired too long ago; join again with a token made by: quic-ctl agent token --replace")
	}
	if err != nil {
		return noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INVALID, err, "the certificate was not issued here; join again with a token")
	}
	if own, err := pki.ClientID(shown[0]); err != nil || own != clientID {
		return noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_ID_NOT_ALLOWED, err, "the certificate is not one of client %q", clientID)
	}
	if own, err := pki.PublicKeyHash(shown[0].PublicKey); err != nil || own != keyHash {
		return noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_INVALID, err, "a renewal keeps its key; join again with a token to change it")
	}
	valid, err := h.cfg.Registry.CertificateValid(ctx, clientID, pki.Serial(shown[0]))
	if err != nil {
		return fmt.Errorf("check certificate: %w", err)
	}
	if !valid {
		return noEnrol(quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_REVOKED, ErrRevoked, "the certificate is revoked or not known here; join again with a token")
	}
	return nil
}
