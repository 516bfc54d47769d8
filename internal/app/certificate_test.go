package app

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/config"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
)

func TestHubIdentity(t *testing.T) {
	own, err := pki.LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	id, err := newHubIdentity(config.TLS{}, own)
	require.NoError(t, err)
	require.Equal(t, own.Fingerprint(), id.Fingerprint())
	require.Nil(t, id.certificate.Certificate)

	authority, err := pki.LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	leaf, err := authority.IssueServer(nil, time.Hour)
	require.NoError(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, kind string, blocks ...[]byte) string {
		var text []byte
		for _, der := range blocks {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
		}
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, text, 0o600))
		return file
	}
	keyFile := write("key.pem", "PRIVATE KEY", key)

	chain := write("chain.pem", "CERTIFICATE", leaf.Certificate[0], authority.Certificate().Raw)
	id, err = newHubIdentity(config.TLS{CertFile: chain, KeyFile: keyFile}, own)
	require.NoError(t, err)
	require.Equal(t, sha256.Sum256(authority.Certificate().Raw), id.Fingerprint())
	require.Equal(t, [][]byte{authority.Certificate().Raw}, id.authorities)

	for name, file := range map[string]string{
		"without the authority": write("leaf.pem", "CERTIFICATE", leaf.Certificate[0]),
		"of another authority":  write("other.pem", "CERTIFICATE", leaf.Certificate[0], own.Certificate().Raw),
		"missing":               filepath.Join(dir, "none.pem"),
	} {
		_, err = newHubIdentity(config.TLS{CertFile: file, KeyFile: keyFile}, own)
		require.ErrorIs(t, err, release.ErrInvalid, name)
		require.ErrorContains(t, err, "tls.cert_file", name)
	}
}

func TestTemporalTLS(t *testing.T) {
	none, err := temporalTLS(config.TemporalTLS{})
	require.NoError(t, err)
	require.Nil(t, none)
	some, err := temporalTLS(config.TemporalTLS{Enabled: true, ServerName: "frontend"})
	require.NoError(t, err)
	require.Equal(t, "frontend", some.ServerName)
	_, err = temporalTLS(config.TemporalTLS{CAFile: filepath.Join(t.TempDir(), "none.pem")})
	require.ErrorContains(t, err, "temporal.tls.ca_file")
}
