package hub

import (
	"crypto/tls"
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

func newTLSConfigs(cfg Config) (*tlsConfigs, error) {
	certificate := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cfg.Certificate, nil }
	if cfg.Certificate.Certificate == nil {
		own := &ownCertificate{ca: cfg.CA, hosts: cfg.Hosts, now: cfg.Now}
		if _, err := own.get(nil); err != nil {
			return nil, err
		}
		certificate = own.get
	}
	// Tickets of an earlier run stay good, so that all agents can resume after a restart. They open nothing by themselves: a
	// resumed session has its certificate checked again.
	tickets, err := cfg.CA.DeriveKey("session tickets " + cfg.NodeID)
	if err != nil {
		return nil, err
	}
	face := func(alpn string, auth tls.ClientAuthType) *tls.Config {
		c := &tls.Config{
			MinVersion:     tls.VersionTLS13,
			NextProtos:     []string{alpn},
			GetCertificate: certificate,
			ClientAuth:     auth,
			ClientCAs:      cfg.CA.Pool(),
			Time:           cfg.Now,
		}
		c.SetSessionTicketKeys([][32]byte{tickets})
		return c
	}
	t := &tlsConfigs{
		main:  face(wire.ALPN, tls.RequireAndVerifyClientCert),
		enrol: face(wire.ALPNEnrol, tls.RequestClientCert),
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

// ownCertificate is the hub's certificate by its own CA, replaced at half its life by the connection that finds it so old.
type ownCertificate struct {
	ca    *pki.CA
	hosts []string
	now   func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
}

func (o *ownCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.current != nil && o.now().Add(pki.ServerTTL/2).Before(o.current.Leaf.NotAfter) {
		return o.current, nil
	}
	cert, err := o.ca.IssueServer(o.hosts, pki.ServerTTL)
	if err != nil {
		if o.current != nil {
			return o.current, nil
		}
		return nil, fmt.Errorf("issue the hub's certificate: %w", err)
	}
	o.current = &cert
	return o.current, nil
}
