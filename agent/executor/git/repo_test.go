package git_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// repo is a repository that hosts deploy from, with a work tree to write it.
type repo struct {
	t    *testing.T
	root string // directory that servers serve; the repository is site.git in it
	work string
}

func newRepo(t *testing.T) *repo {
	t.Helper()
	dir := shortDir(t)
	r := &repo{t: t, root: filepath.Join(dir, "served"), work: filepath.Join(dir, "work")}
	r.git("/", "init", "-q", "--bare", "-b", "main", r.bare())
	r.git("/", "init", "-q", "-b", "main", r.work)
	r.git(r.work, "remote", "add", "origin", r.bare())
	return r
}

func (r *repo) bare() string { return filepath.Join(r.root, "site.git") }
func (r *repo) url() string  { return "file://" + r.bare() }

func (r *repo) git(dir string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "HOME=/nonexistent", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@x", "GIT_ALLOW_PROTOCOL=file")
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, "git %v: %s", args, out)
	return strings.TrimSpace(string(out))
}

// commit writes files to the work tree and commits all; the branch is pushed. It gives the commit.
func (r *repo) commit(files map[string]string) string {
	r.t.Helper()
	for name, text := range files {
		path := filepath.Join(r.work, name)
		require.NoError(r.t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(r.t, os.WriteFile(path, []byte(text), 0o644))
	}
	r.git(r.work, "add", "-A")
	r.git(r.work, "commit", "-q", "--allow-empty", "-m", "change")
	r.git(r.work, "push", "-q", "origin", "HEAD")
	return r.git(r.work, "rev-parse", "HEAD")
}

// tag commits a version and tags it.
func (r *repo) tag(name string) string {
	r.t.Helper()
	commit := r.commit(map[string]string{"version": name})
	r.git(r.work, "tag", "-a", "-m", name, name)
	r.git(r.work, "push", "-q", "origin", "refs/tags/"+name)
	return commit
}

// webServer serves repositories over https by git http-backend.
type webServer struct {
	*httptest.Server
	ca string // PEM
}

// serveWeb serves r with a certificate of a CA of its own; login may be empty.
func serveWeb(t *testing.T, r *repo, username, password string, secure bool) *webServer {
	t.Helper()
	backend := &cgi.Handler{
		Path: filepath.Join(execPath(t), "git-http-backend"), Dir: r.root, Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + r.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=/nonexistent",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	s := &webServer{}
	handler := http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		if u, p, _ := in.BasicAuth(); password != "" && (u != username || p != password) {
			out.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(out, "who are you? not "+p, http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(out, in)
	})
	s.Server = httptest.NewUnstartedServer(handler)
	if secure {
		ca, leaf := certificates(t)
		s.ca = ca
		s.TLS = &tls.Config{Certificates: []tls.Certificate{leaf}}
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func (s *webServer) repository() string { return s.URL + "/site.git" }

func execPath(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// certificates makes a CA, and a certificate of it for 127.0.0.1.
func certificates(t *testing.T) (ca string, leaf tls.Certificate) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, caKey.Public(), caKey)
	require.NoError(t, err)
	ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	own := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "git"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err = x509.CreateCertificate(rand.Reader, own, template, key.Public(), caKey)
	require.NoError(t, err)
	return ca, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
