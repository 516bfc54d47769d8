package app

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/quicflow/quicflow/internal/config"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
)

// hubIdentity is what agents see and trust: the certificate of section tls and its authority, or our own authority's.
type hubIdentity struct {
	certificate tls.Certificate // zero: the hub has one issued by our own authority
	authorities [][]byte        // DER; nil: our own
	fingerprint [sha256.Size]byte
}

// Fingerprint is what join tokens pin.
func (h hubIdentity) Fingerprint() [sha256.Size]byte { return h.fingerprint }

func newHubIdentity(c config.TLS, ca *pki.CA) (hubIdentity, error) {
	if c.CertFile == "" {
		return hubIdentity{fingerprint: ca.Fingerprint()}, nil
	}
	certificate, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return hubIdentity{}, release.Invalid("tls.cert_file", "%v", err)
	}
	der := certificate.Certificate[len(certificate.Certificate)-1]
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		return hubIdentity{}, release.Invalid("tls.cert_file", "%v", err)
	}
	if !bytes.Equal(authority.RawIssuer, authority.RawSubject) {
		return hubIdentity{}, release.Invalid("tls.cert_file", "its last certificate must be the authority's own, which agents are told to trust")
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	// As agents do: they trust the last certificate and nothing in between.
	if _, err := certificate.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: pki.HubServerName}); err != nil {
		return hubIdentity{}, release.Invalid("tls.cert_file",
			"agents would not accept it (the first certificate must be valid for %s and issued by the last one): %v", pki.HubServerName, err)
	}
	return hubIdentity{certificate: certificate, authorities: [][]byte{der}, fingerprint: sha256.Sum256(der)}, nil
}

// temporalTLS is section temporal.tls for the SDK, or nil for none.
func temporalTLS(c config.TemporalTLS) (*tls.Config, error) {
	if c == (config.TemporalTLS{}) {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		pool, err := readPool(c.CAFile)
		if err != nil {
			return nil, release.Invalid("temporal.tls.ca_file", "%v", err)
		}
		t.RootCAs = pool
	}
	if c.CertFile != "" {
		certificate, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, release.Invalid("temporal.tls.cert_file", "%v", err)
		}
		t.Certificates = []tls.Certificate{certificate}
	}
	return t, nil
}

func readPool(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return pool, nil
}
