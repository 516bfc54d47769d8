package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// HubServerName is the name that agents verify in a certificate of our own CA, whatever address they dialled.
const HubServerName = "hub.quicflow"

// The lives of certificates.
const (
	ServerTTL  = 90 * 24 * time.Hour // default of IssueServer
	ClientTTL  = 30 * 24 * time.Hour // default of IssueClient; agents renew at half of it
	RenewGrace = 90 * 24 * time.Hour // for so long after its end a client certificate may still be renewed, and nothing else
)

var (
	// ErrForeignCertificate reports a certificate that this CA did not issue to a client.
	ErrForeignCertificate = errors.New("certificate was not issued to a client by this CA")
	// ErrTooOldToRenew reports a client certificate that ended more than RenewGrace ago.
	ErrTooOldToRenew = errors.New("certificate expired too long ago to be renewed")
)

// IssueServer makes a hub's certificate for HubServerName, localhost, the loopback addresses and the given names and
// addresses. A ttl of 0 defaults to ServerTTL. The chain holds the CA's certificate too: joining agents pin that one.
func (ca *CA) IssueServer(hosts []string, ttl time.Duration) (tls.Certificate, error) {
	if ttl == 0 {
		ttl = ServerTTL
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue server certificate: %w", err)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: HubServerName},
		DNSNames:    []string{HubServerName, "localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if h != "" {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	leaf, err := ca.sign(template, key.Public(), ttl)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue server certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// IssueClient makes an agent's certificate: its common name is the client id. A ttl of 0 defaults to ClientTTL. The serial is
// in lower-case hexadecimal, as Serial gives it.
func (ca *CA) IssueClient(clientID string, pub crypto.PublicKey, ttl time.Duration) (der []byte, serial string, notAfter time.Time, err error) {
	if ttl == 0 {
		ttl = ClientTTL
	}
	if err := release.ValidateClientID(clientID); err != nil {
		return nil, "", time.Time{}, err
	}
	if err := checkKey(pub); err != nil {
		return nil, "", time.Time{}, err
	}
	leaf, err := ca.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: clientID},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, pub, ttl)
	if err != nil {
		return nil, "", time.Time{}, fmt.Errorf("issue client certificate: %w", err)
	}
	return leaf.Raw, Serial(leaf), leaf.NotAfter, nil
}

func (ca *CA) sign(template *x509.Certificate, pub crypto.PublicKey, ttl time.Duration) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template.SerialNumber = serial
	template.NotBefore = now.Add(-backdate)
	template.NotAfter = now.Add(ttl)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// checkKey refuses keys too weak to be an identity.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize >= 256 {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if k.N.BitLen() >= 2048 {
			return nil
		}
	}
	return release.Invalid("csr_der", "the key must be ECDSA of 256 bits or more, Ed25519, or RSA of 2048 bits or more")
}

// Serial is how a certificate is named in the store: its serial number in lower-case hexadecimal.
func Serial(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

// PublicKeyHash is the SHA-256, in hexadecimal, of a public key in its PKIX form.
func PublicKeyHash(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("hash public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}
