package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

func newCA(t *testing.T) *CA {
	t.Helper()
	ca, err := LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	return ca
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func issueClient(t *testing.T, ca *CA, id string) *x509.Certificate {
	t.Helper()
	der, serial, notAfter, err := ca.IssueClient(id, newKey(t).Public(), 0)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	require.Equal(t, Serial(cert), serial)
	require.Equal(t, cert.NotAfter, notAfter)
	return cert
}

func TestCAIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	first, err := LoadOrCreate(dir)
	require.NoError(t, err)
	again, err := LoadOrCreate(dir)
	require.NoError(t, err)
	require.Equal(t, first.Fingerprint(), again.Fingerprint())
	one, err := first.DeriveKey("a")
	require.NoError(t, err)
	same, err := again.DeriveKey("a")
	require.NoError(t, err)
	other, err := again.DeriveKey("b")
	require.NoError(t, err)
	require.Equal(t, one, same)
	require.NotEqual(t, one, other)

	for name, mode := range map[string]os.FileMode{keyFile: 0o600, certFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), name)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2, "no temporary file is left")
}

func TestCAThatIsNotWhole(t *testing.T) {
	dir := t.TempDir()
	ca, err := LoadOrCreate(dir)
	require.NoError(t, err)
	cert, key := filepath.Join(dir, certFile), filepath.Join(dir, keyFile)

	// A crash between the two files: the key alone is there.
	require.NoError(t, os.Remove(cert))
	healed, err := LoadOrCreate(dir)
	require.NoError(t, err)
	require.True(t, ca.key.Equal(healed.key))

	saved, err := os.ReadFile(key)
	require.NoError(t, err)
	require.NoError(t, os.Remove(key))
	_, err = LoadOrCreate(dir)
	require.ErrorContains(t, err, "its key "+key+" is missing", "a new key would lock out every agent")

	require.NoError(t, os.WriteFile(key, []byte("nonsense"), 0o600))
	_, err = LoadOrCreate(dir)
	require.ErrorContains(t, err, "no PEM block")

	_, err = LoadOrCreate(filepath.Join(dir, "other"))
	require.NoError(t, err)
	foreign, err := os.ReadFile(filepath.Join(dir, "other", certFile))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(key, saved, 0o600))
	require.NoError(t, os.WriteFile(cert, foreign, 0o600))
	_, err = LoadOrCreate(dir)
	require.ErrorContains(t, err, "does not belong to")
}

func TestServerCertificate(t *testing.T) {
	ca := newCA(t)
	cert, err := ca.IssueServer([]string{"hub.example.com", "10.1.2.3", ""}, 0)
	require.NoError(t, err)
	for _, name := range []string{HubServerName, "localhost", "127.0.0.1", "::1", "hub.example.com", "10.1.2.3"} {
		_, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), DNSName: name})
		require.NoError(t, err, name)
	}
	require.WithinDuration(t, time.Now().Add(ServerTTL), cert.Leaf.NotAfter, time.Minute)
	_, err = cert.Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	require.Error(t, err, "a hub is not an agent")
	require.Error(t, ca.VerifyRenewal(cert.Leaf, time.Now()))
}

func TestClientCertificate(t *testing.T) {
	ca := newCA(t)
	cert := issueClient(t, ca, "web-1")
	id, err := ClientID(cert)
	require.NoError(t, err)
	require.Equal(t, "web-1", id)
	require.WithinDuration(t, time.Now().Add(ClientTTL), cert.NotAfter, time.Minute)
	require.WithinDuration(t, time.Now().Add(-time.Hour), cert.NotBefore, time.Minute)
	_, err = cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	require.NoError(t, err)
	_, err = cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	require.Error(t, err, "an agent is not a hub")
	_, err = cert.Verify(x509.VerifyOptions{Roots: newCA(t).Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	require.Error(t, err)
	require.NotEqual(t, Serial(cert), Serial(issueClient(t, ca, "web-1")))

	_, _, _, err = ca.IssueClient("../web", newKey(t).Public(), 0)
	require.ErrorIs(t, err, release.ErrInvalid)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	for _, pub := range []any{weak.Public(), nil, "key"} {
		_, _, _, err = ca.IssueClient("web-1", pub, 0)
		require.ErrorIs(t, err, release.ErrInvalid)
	}
	_, err = ClientID(ca.Certificate())
	require.Error(t, err, "the CA is no client")
}

func TestRenewal(t *testing.T) {
	ca := newCA(t)
	cert := issueClient(t, ca, "web-1")
	require.NoError(t, ca.VerifyRenewal(cert, time.Now()))
	require.NoError(t, ca.VerifyRenewal(cert, cert.NotAfter.Add(time.Second)))
	require.NoError(t, ca.VerifyRenewal(cert, cert.NotAfter.Add(RenewGrace)))
	require.ErrorIs(t, ca.VerifyRenewal(cert, cert.NotAfter.Add(RenewGrace+time.Second)), ErrTooOldToRenew)
	require.ErrorIs(t, newCA(t).VerifyRenewal(cert, time.Now()), ErrForeignCertificate)
	require.ErrorIs(t, ca.VerifyRenewal(cert, cert.NotBefore.Add(-time.Hour)), ErrForeignCertificate)
}

func TestPinning(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	chain := func(ders ...[]byte) tls.ConnectionState {
		var state tls.ConnectionState
		for _, der := range ders {
			cert, err := x509.ParseCertificate(der)
			require.NoError(t, err)
			state.PeerCertificates = append(state.PeerCertificates, cert)
		}
		return state
	}
	own, err := ca.IssueServer(nil, 0)
	require.NoError(t, err)
	foreign, err := other.IssueServer(nil, 0)
	require.NoError(t, err)
	verify := VerifyPinned(ca.Fingerprint())
	require.NoError(t, verify(chain(own.Certificate...)))
	require.ErrorContains(t, verify(chain(foreign.Certificate...)), "does not belong to the CA")
	require.ErrorContains(t, verify(chain(own.Certificate[0])), "does not belong to the CA", "the CA must be shown")
	require.ErrorContains(t, verify(chain(foreign.Certificate[0], ca.Certificate().Raw)), "verify hub", "showing our CA does not help a stranger")
	require.ErrorContains(t, verify(chain(issueClient(t, ca, "web-1").Raw, ca.Certificate().Raw)), "verify hub", "an agent is not a hub")
	require.ErrorContains(t, verify(chain()), "no certificate")
}
