package fleet

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"

	"github.com/quicflow/quicflow/agent"
)

// Identities are certificates of many clients that share one key. Those of a fleet must not change any more.
type Identities struct {
	key          crypto.Signer
	roots        *x509.CertPool
	certificates map[string][]byte // DER, by client id
}

// NewIdentities takes certificates, DER by client id, of one key, and what the clients trust.
func NewIdentities(key crypto.Signer, roots *x509.CertPool, certificates map[string][]byte) *Identities {
	return &Identities{key: key, roots: roots, certificates: certificates}
}

// of gives what one client shows and trusts. Its certificate is not parsed: that would take more memory than all the rest.
func (i *Identities) of(id string) agent.Identity {
	return agent.Identity{
		Certificate: tls.Certificate{Certificate: [][]byte{i.certificates[id]}, PrivateKey: i.key},
		Roots:       i.roots,
	}
}
