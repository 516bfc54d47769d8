package hub

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/wire"
)

// tlsConfigs are the two faces of the port.
type tlsConfigs struct {
	base  *tls.Config // chooses between the others by ALPN
	main  *tls.Config // a certificate of the CA is mandatory
	enrol *tls.Config // a certificate is asked for; whether it may renew is checked by VerifyRenewal, as it may have expired
}

type certificateSource = func(*tls.ClientHelloInfo) (*tls.Certificate, error)

func newTLSConfigs(cfg Config) (*tlsConfigs, error) {
	var whole, short certificateSource
	if cfg.Certificate.Certificate == nil {
		own := &ownCertificate{ca: cfg.CA, hosts: cfg.Hosts, now: cfg.Now}
		if _, _, err := own.get(); err != nil {
			return nil, err
		}
		whole = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { c, _, err := own.get(); return c, err }
		short = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { _, c, err := own.get(); return c, err }
	} else {
		static, stripped := cfg.Certificate, withoutRoot(&cfg.Certificate)
		whole = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &static, nil }
		short = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return stripped, nil }
	}
	// Tickets of an earlier run stay good, so that all agents can resume after a restart. They open nothing by themselves: a
	// resumed session has its certificate checked again.
	tickets, err := cfg.CA.DeriveKey("session tickets " + cfg.NodeID)
	if err != nil {
		return nil, err
	}
	face := func(alpn string, auth tls.ClientAuthType, certificate certificateSource) *tls.Config {
		c := &tls.Config{
			MinVersion:     tls.VersionTLS13,
			NextProtos:     []string{alpn},
			GetCertificate: certificate,
			ClientAuth:     auth,
			ClientCAs:      cfg.CA.Pool(),
			Time:           cfg.Now,
		}
		if cfg.ClassicKeyExchange {
			c.CurvePreferences = []tls.CurveID{tls.X25519}
		}
		c.SetSessionTicketKeys([][32]byte{tickets})
		return c
	}
	t := &tlsConfigs{
		main:  face(wire.ALPN, tls.RequireAndVerifyClientCert, short),
		enrol: face(wire.ALPNEnrol, tls.RequestClientCert, whole), // who joins pins the authority
	}
	t.base = t.main.Clone()
	t.base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if cfg.Enroller != nil && slices.Contains(hello.SupportedProtos, wire.ALPNEnrol) {
			return t.enrol, nil
		}
		return t.main, nil
	}
	return t, nil
}

// withoutRoot leaves an authority's own certificate out of a chain: agents that have joined hold it, and every connection
// keeps what was sent.
func withoutRoot(chain *tls.Certificate) *tls.Certificate {
	n := len(chain.Certificate)
	last, err := x509.ParseCertificate(chain.Certificate[n-1])
	if n < 2 || err != nil || !bytes.Equal(last.RawIssuer, last.RawSubject) {
		return chain
	}
	short := *chain
	short.Certificate = chain.Certificate[: n-1 : n-1]
	return &short
}

// ownCertificate is the hub's certificate by its own CA, replaced at half its life by the connection that finds it so old.
type ownCertificate struct {
	ca    *pki.CA
	hosts []string
	now   func() time.Time

	mu             sync.Mutex
	current, short *tls.Certificate
}

// get gives the certificate with the authority's own behind it, and without.
func (o *ownCertificate) get() (whole, short *tls.Certificate, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.current != nil && o.now().Add(pki.ServerTTL/2).Before(o.current.Leaf.NotAfter) {
		return o.current, o.short, nil
	}
	cert, err := o.ca.IssueServer(o.hosts, pki.ServerTTL)
	if err != nil {
		if o.current != nil {
			return o.current, o.short, nil
		}
		return nil, nil, fmt.Errorf("issue the hub's certificate: %w", err)
	}
	o.current, o.short = &cert, withoutRoot(&cert)
	return o.current, o.short, nil
}
