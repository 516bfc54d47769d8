package pki

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// ClientID is the identity that a client certificate states. Whether to believe it is for the verification to say.
func ClientID(cert *x509.Certificate) (string, error) {
	id := cert.Subject.CommonName
	if err := release.ValidateClientID(id); err != nil {
		return "", fmt.Errorf("read client id of certificate: %w", err)
	}
	return id, nil
}

// VerifyRenewal checks that a client certificate may be exchanged for a new one: issued to a client by this CA, and not
// expired for longer than RenewGrace. Errors: ErrForeignCertificate, ErrTooOldToRenew. Revocation is for the caller.
func (ca *CA) VerifyRenewal(cert *x509.Certificate, now time.Time) error {
	at := now
	if now.After(cert.NotAfter) {
		at = cert.NotAfter
	}
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:       ca.pool,
		CurrentTime: at,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForeignCertificate, err)
	}
	if now.Sub(cert.NotAfter) > RenewGrace {
		return ErrTooOldToRenew
	}
	return nil
}

// VerifyPinned is the tls.Config.VerifyConnection of an agent that has nothing but a join token: the hub's chain must hold
// the CA certificate of this fingerprint, and that CA must have issued the hub's certificate for HubServerName. It goes with
// InsecureSkipVerify, since crypto/tls cannot know the CA yet.
func VerifyPinned(fingerprint [sha256.Size]byte) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("verify hub: it showed no certificate")
		}
		for _, cert := range state.PeerCertificates {
			if sha256.Sum256(cert.Raw) != fingerprint {
				continue
			}
			roots := x509.NewCertPool()
			roots.AddCert(cert)
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: HubServerName})
			if err != nil {
				return fmt.Errorf("verify hub: %w", err)
			}
			return nil
		}
		return errors.New("verify hub: it does not belong to the CA that the join token names")
	}
}
