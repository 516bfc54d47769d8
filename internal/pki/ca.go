// Package pki is QuicFlow's own certificate authority: one key, made at the first start, that signs the hub's and the
// agents' certificates.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/quicflow/quicflow/internal/durable"
)

// The files of a CA in its directory.
const (
	certFile = "ca.crt"
	keyFile  = "ca.key"
)

const (
	caTTL = 20 * 365 * 24 * time.Hour
	// backdate lets a host whose clock is behind use a certificate that was made just now.
	backdate = time.Hour
)

// CA is a certificate authority. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

// LoadOrCreate loads the CA of a directory (ca.crt, and ca.key with mode 0600), or makes one there if there is none.
// A crash in between leaves either a usable CA or the key alone, from which the next call goes on.
func LoadOrCreate(dir string) (*CA, error) {
	certPath, keyPath := filepath.Join(dir, certFile), filepath.Join(dir, keyFile)
	key, err := loadKey(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		if _, certErr := os.Stat(certPath); certErr == nil {
			return nil, fmt.Errorf("load CA: %s is there but its key %s is missing: restore it, or remove both and join all agents again", certPath, keyPath)
		}
		if key, err = createKey(dir, keyPath); err != nil {
			return nil, fmt.Errorf("create CA: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	cert, err := loadCertificate(certPath)
	if errors.Is(err, fs.ErrNotExist) {
		if cert, err = createCertificate(certPath, key); err != nil {
			return nil, fmt.Errorf("create CA: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("load CA: %s does not belong to %s", certPath, keyPath)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &CA{cert: cert, key: key, pool: pool}, nil
}

// Certificate is the CA's own certificate.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// Fingerprint is the SHA-256 of the certificate's DER; join tokens carry it.
func (ca *CA) Fingerprint() [sha256.Size]byte { return sha256.Sum256(ca.cert.Raw) }

// Pool holds the CA's certificate alone.
func (ca *CA) Pool() *x509.CertPool { return ca.pool.Clone() }

// DeriveKey gives a secret of its own for each purpose, the same after every start.
func (ca *CA) DeriveKey(purpose string) ([32]byte, error) {
	secret, err := ca.key.Bytes()
	if err != nil {
		return [32]byte{}, fmt.Errorf("derive key: %w", err)
	}
	b, err := hkdf.Key(sha256.New, secret, nil, "quicflow "+purpose, 32)
	if err != nil {
		return [32]byte{}, fmt.Errorf("derive key: %w", err)
	}
	return [32]byte(b), nil
}

func loadKey(path string) (*ecdsa.PrivateKey, error) {
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("parse %s: not an ECDSA key", path)
	}
	return ec, nil
}

func createKey(dir, path string) (*ecdsa.PrivateKey, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func loadCertificate(path string) (*x509.Certificate, error) {
	der, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	return cert, nil
}

func createCertificate(path string, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "QuicFlow CA " + serial.Text(16)[:8]},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caTTL),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func readPEM(path, kind string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("parse %s: no PEM block %q", path, kind)
	}
	return block.Bytes, nil
}

// newSerial is 128 random bits, the top one set so that all serials have the same length.
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	return n.SetBit(n, 126, 1), nil
}
