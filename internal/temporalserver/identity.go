package temporalserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/rpc/encryption"
)

// Names in the certificates.
const (
	nodeName   = "temporal" // Temporal's own services
	clientName = "quicflow" // our SDK clients and the UI
)

// identity is who may talk to this server: an authority, two certificates and a credential, made at every start and
// never written down.
type identity struct {
	pool       *x509.CertPool
	node       tls.Certificate
	client     tls.Certificate
	credential string
}

var _ authorization.ClaimMapper = (*identity)(nil)

func newIdentity() (*identity, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "QuicFlow embedded Temporal"},
		NotBefore:             now.Add(-24 * time.Hour), // clocks are set back
		NotAfter:              now.AddDate(10, 0, 0),    // longer than a process lives
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("make the authority: %w", err)
	}
	if ca, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("read the authority: %w", err)
	}

	issue := func(serial int64, name string, usages ...x509.ExtKeyUsage) (tls.Certificate, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("make a key: %w", err)
		}
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(serial),
			Subject:      pkix.Name{CommonName: name},
			NotBefore:    ca.NotBefore,
			NotAfter:     ca.NotAfter,
			KeyUsage:     x509.KeyUsageDigitalSignature,
			ExtKeyUsage:  usages,
			IPAddresses:  []net.IP{net.ParseIP(loopback)},
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("issue a certificate: %w", err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
	}

	id := &identity{pool: x509.NewCertPool(), credential: rand.Text()}
	id.pool.AddCert(ca)
	if id.node, err = issue(2, nodeName, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth); err != nil {
		return nil, err
	}
	if id.client, err = issue(3, clientName, x509.ExtKeyUsageClientAuth); err != nil {
		return nil, err
	}
	return id, nil
}

func (id *identity) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{id.node},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    id.pool,
	}
}

func (id *identity) dialTLS(certificate tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{certificate},
		RootCAs:      id.pool,
		ServerName:   loopback,
	}
}

func (id *identity) clientTLS() *tls.Config { return id.dialTLS(id.client) }

// provider gives Temporal's services the same mutual TLS on every port and towards each other.
func (id *identity) provider() encryption.TLSConfigProvider {
	node := id.dialTLS(id.node)
	return &encryption.FixedTLSConfigProvider{
		InternodeServerConfig:      id.serverTLS(),
		InternodeClientConfig:      node,
		FrontendServerConfig:       id.serverTLS(),
		FrontendClientConfig:       node,
		RemoteClusterClientConfigs: map[string]*tls.Config{loopback: node},
	}
}

var errNoCredential = errors.New("neither a certificate of the server's own nor the credential")

// GetClaims implements authorization.ClaimMapper: Temporal's own services are known by their certificate; everyone else
// needs a certificate and the credential.
func (id *identity) GetClaims(info *authorization.AuthInfo) (*authorization.Claims, error) {
	if info == nil || info.TLSSubject == nil {
		return nil, errNoCredential
	}
	switch info.TLSSubject.CommonName {
	case nodeName:
		return &authorization.Claims{
			System:   authorization.RoleAdmin,
			AuthType: authorization.InternalPrincipalType,
			Subject:  authorization.InternalPrincipalName,
		}, nil
	case clientName:
		if subtle.ConstantTimeCompare([]byte(info.AuthToken), []byte("Bearer "+id.credential)) == 1 {
			return &authorization.Claims{System: authorization.RoleAdmin, AuthType: clientName, Subject: clientName}, nil
		}
	}
	return nil, errNoCredential
}

// AuthInfoRequired has Temporal ask GetClaims even about a call that brings nothing.
func (id *identity) AuthInfoRequired() bool { return false }
