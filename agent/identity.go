package agent

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/quicflow/quicflow/internal/durable"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
)

// The files of an identity.
const (
	identityDir     = "identity"
	keyFile         = "agent.key"
	certificateFile = "agent.crt"
	rootsFile       = "ca.crt"
)

// identity is an Identity with what belongs to its connections.
type identity struct {
	Identity
	tickets *Tickets // a resumed session shows the certificate it was made with, so a new one gets none of the old
}

func newIdentity(i Identity) *identity {
	return &identity{Identity: i, tickets: new(Tickets)}
}

// renewAt is half of the certificate's life.
func (i *identity) renewAt() time.Time {
	leaf := i.Certificate.Leaf
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
}

func (a *Agent) currentIdentity() *identity {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.identity
}

func (a *Agent) setIdentity(i *identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.identity = i
}

func (a *Agent) identityPath(name string) string {
	return filepath.Join(a.cfg.DataDir, identityDir, name)
}

// loadIdentity gives os.ErrNotExist if the agent has not joined.
func (a *Agent) loadIdentity() (*identity, error) {
	certificate, err := os.ReadFile(a.identityPath(certificateFile))
	if err != nil {
		return nil, err
	}
	// The certificate is written last: what is missing beside it has got lost.
	key, err := os.ReadFile(a.identityPath(keyFile))
	if err != nil {
		return nil, lost(err)
	}
	ca, err := os.ReadFile(a.identityPath(rootsFile))
	if err != nil {
		return nil, lost(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, lost(fmt.Errorf("read %s: %w", a.identityPath(certificateFile), err))
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, lost(fmt.Errorf("read %s: no certificate in it", a.identityPath(rootsFile)))
	}
	id, err := pki.ClientID(pair.Leaf)
	if err != nil {
		return nil, err
	}
	if id != a.cfg.ClientID {
		return nil, release.Conflict("the data directory %s belongs to the client %q, not to %q", a.cfg.DataDir, id, a.cfg.ClientID)
	}
	return newIdentity(Identity{Certificate: pair, Roots: roots}), nil
}

// lost says what to do about an identity that cannot be used any more. Its error is never os.ErrNotExist, which would mean
// that there has been none.
func lost(err error) error {
	return fmt.Errorf("%v; restore the directory, or remove it and join again with a token made by: quic-ctl agent token --replace", err) //nolint:errorlint // on purpose
}

// saveIdentity writes what the agent trusts before what it is: a certificate in its file is a complete identity.
func (a *Agent) saveIdentity(certificate []byte, roots [][]byte) error {
	var bundle []byte
	for _, der := range roots {
		bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := durable.WriteFile(a.identityPath(rootsFile), bundle, 0o600); err != nil {
		return fmt.Errorf("store identity: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	if err := durable.WriteFile(a.identityPath(certificateFile), text, 0o600); err != nil {
		return fmt.Errorf("store identity: %w", err)
	}
	return nil
}

// key gives the agent's key, made and stored before the first use: when an answer gets lost, the same key asks again.
func (a *Agent) key() (crypto.Signer, error) {
	path := a.identityPath(keyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return a.createKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read key: %s is no PEM file", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read key: %s cannot sign", path)
	}
	return signer, nil
}

func (a *Agent) createKey(path string) (crypto.Signer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create key: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("create key: %w", err)
	}
	return key, durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// tlsConfig is for a connection with the identity; server is the address dialled.
func (i *identity) tlsConfig(alpn, server string, insecure bool) *tls.Config {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{alpn},
		ServerName:         pki.HubServerName,
		Certificates:       []tls.Certificate{i.Certificate},
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection checks: a hub's name does not depend on the address dialled
	}
	if alpn == wire.ALPN && i.tickets != nil {
		cfg.ClientSessionCache = i.tickets
	}
	if !insecure {
		cfg.VerifyConnection = func(state tls.ConnectionState) error { return verifyHub(state, i.Roots, server) }
	}
	return cfg
}

// verifyHub accepts a certificate of the trusted authorities for the constant name of hubs, or, where operators brought
// their own, for the address dialled.
func verifyHub(state tls.ConnectionState, roots *x509.CertPool, server string) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("verify hub: it showed no certificate")
	}
	leaf, intermediates := state.PeerCertificates[0], x509.NewCertPool()
	for _, certificate := range state.PeerCertificates[1:] {
		intermediates.AddCert(certificate)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates}); err != nil {
		return fmt.Errorf("verify hub: %w", err)
	}
	if leaf.VerifyHostname(pki.HubServerName) == nil {
		return nil
	}
	host, _, err := net.SplitHostPort(server)
	if err == nil {
		err = leaf.VerifyHostname(host)
	}
	if err != nil {
		return fmt.Errorf("verify hub: %w", err)
	}
	return nil
}
