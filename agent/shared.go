package agent

import (
	"context"
	"crypto"
	"crypto/tls"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// What simulated agents have in common with this one.

// Address adds DefaultPort to a server's address that has none. Its errors name the field server.
func Address(server string) (string, error) { return withPort(server) }

// TransportConfig is how an agent tunes its connections. The caller may change it.
func TransportConfig() *quic.Config { return quicConfig() }

// TLS is for a session with the hub at an address, as this identity. tickets may be nil: then no session is resumed.
func (i Identity) TLS(server string, tickets *Tickets, insecure bool) *tls.Config {
	return (&identity{Identity: i, tickets: tickets}).tlsConfig(wire.ALPN, server, insecure)
}

// TokenTLS is for enrolment with a join token: it trusts the one certificate authority that the token names.
func TokenTLS(token auth.JoinToken, insecure bool) *tls.Config { return pinnedConfig(token, insecure) }

// Enrol asks on a stream of its own for a certificate. ctx needs a deadline, as it does not end a wait for the answer.
func Enrol(ctx context.Context, conn *quic.Conn, request *quicflowv1.EnrolRequest) (*quicflowv1.EnrolResponse, error) {
	return exchange(ctx, conn, request)
}

// CheckCertificate makes sure that a hub gave a client what it asked for.
func CheckCertificate(response *quicflowv1.EnrolResponse, clientID string, key crypto.Signer) error {
	return checkCertificate(response, clientID, key)
}
