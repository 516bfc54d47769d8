// Package scripts tests the scripts that operators run, as they are run.
package scripts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script runs a script of this directory and gives its exit code and all that it printed.
func script(t *testing.T, env []string, name string, arguments ...string) (code int, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, "./"+name, arguments...)
	command.Env = append(os.Environ(), env...)
	text, err := command.CombinedOutput()
	if err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%s", text)
	}
	return command.ProcessState.ExitCode(), string(text)
}

func works(t *testing.T, env []string, name string, arguments ...string) string {
	t.Helper()
	code, output := script(t, env, name, arguments...)
	require.Zero(t, code, output)
	return output
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return string(text)
}

// An agent that joins a hub with a generated certificate trusts it by its token, and then by the authority it was given.
func TestAgentsAcceptAGeneratedCertificate(t *testing.T) {
	dir := t.TempDir()
	works(t, nil, "gen-certs.sh", "--out", dir, "hub.example.com")
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, "hub.crt"), filepath.Join(dir, "hub.key"))
	require.NoError(t, err)
	last := certificate.Certificate[len(certificate.Certificate)-1]

	ca, err := pki.LoadOrCreate(filepath.Join(dir, "own")) // for the agents' certificates
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	s, err := store.Open(t.Context(), store.Config{Driver: store.SQLite, DSN: filepath.Join(dir, "quicflow.db"), Logger: log})
	require.NoError(t, err)
	defer s.Close()
	h, err := hub.New(hub.Config{Addr: "127.0.0.1:0", NodeID: "node", CA: ca, Certificate: certificate, ServerCAs: [][]byte{last},
		Registry: s, Sink: s, Enroller: s, Logger: log})
	require.NoError(t, err)
	require.NoError(t, h.Start(t.Context()))
	defer func() { require.NoError(t, h.Stop(context.Background())) }()

	token := auth.NewJoinToken(sha256.Sum256(last))
	require.NoError(t, s.CreateJoinToken(t.Context(), store.JoinToken{ID: "t", Hash: token.Hash(), Uses: 1, ExpiresAt: time.Now().Add(time.Hour)}))
	accepted := make(chan struct{})
	a, err := agent.New(agent.Config{Servers: []string{h.Addr().String()}, ClientID: "host", DataDir: filepath.Join(dir, "agent"),
		Token: token.String(), Executor: idle{}, Logger: log, OnConnect: func(*quicflowv1.Welcome) { close(accepted) }})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	select {
	case <-accepted:
	case err := <-ended:
		require.FailNow(t, "the agent gave up", "%v", err)
	case <-time.After(patience):
		require.FailNow(t, "the agent was not accepted in time")
	}
	stop()
	<-ended
}

type idle struct{}

func (idle) Run(context.Context, *quicflowv1.StepRequest, *spool.Writer) *quicflowv1.StepResult {
	return &quicflowv1.StepResult{}
}

// chain parses what gen-certs.sh left in a directory.
func chain(t *testing.T, dir string) []*x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "hub.crt"), filepath.Join(dir, "hub.key"))
	require.NoError(t, err)
	var all []*x509.Certificate
	for _, der := range pair.Certificate {
		certificate, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		all = append(all, certificate)
	}
	return all
}

// The server wants the leaf first, valid for hub.quicflow, and last the authority itself, with nothing in between.
func TestTheChainIsWhatTheServerWants(t *testing.T) {
	dir := t.TempDir()
	works(t, nil, "gen-certs.sh", "--out", dir, "hub.example.com", "10.1.2.3", "fd00::7", "*.example.org")
	certificates := chain(t, dir)
	require.Len(t, certificates, 2)
	leaf, authority := certificates[0], certificates[1]
	require.True(t, bytes.Equal(authority.RawIssuer, authority.RawSubject))
	require.True(t, authority.IsCA)
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	for _, name := range []string{pki.HubServerName, "localhost", "127.0.0.1", "::1", "hub.example.com", "10.1.2.3", "fd00::7", "a.example.org"} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name})
		require.NoError(t, err, name)
	}
	require.Error(t, leaf.VerifyHostname("other.example.com"))
	for _, secret := range []string{"ca.key", "hub.key"} {
		info, err := os.Stat(filepath.Join(dir, secret))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), secret)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 4, "nothing else is left behind")
}

func TestCertificatesAreKeptUntilForced(t *testing.T) {
	dir := t.TempDir()
	works(t, nil, "gen-certs.sh", "--out", dir, "one.example")
	first := chain(t, dir)
	works(t, nil, "gen-certs.sh", "--out", dir, "one.example")
	require.Equal(t, first[0].Raw, chain(t, dir)[0].Raw)

	code, output := script(t, nil, "gen-certs.sh", "--out", dir, "two.example")
	require.NotZero(t, code)
	require.Contains(t, output, "not valid for two.example")
	require.Equal(t, first[0].Raw, chain(t, dir)[0].Raw)

	works(t, nil, "gen-certs.sh", "--out", dir, "--force", "two.example")
	second := chain(t, dir)
	require.NoError(t, second[0].VerifyHostname("two.example"))
	require.Equal(t, first[1].Raw, second[1].Raw, "the authority stays: agents trust it")

	require.NoError(t, os.Remove(filepath.Join(dir, "ca.key")))
	code, output = script(t, nil, "gen-certs.sh", "--out", dir, "--force")
	require.NotZero(t, code)
	require.Contains(t, output, "restore it")
	works(t, nil, "gen-certs.sh", "--out", dir, "--force-ca")
	third := chain(t, dir)
	require.NotEqual(t, first[1].Raw, third[1].Raw)
	require.NoError(t, third[0].CheckSignatureFrom(third[1]))
}

func TestWrongArgumentsAreRefused(t *testing.T) {
	for _, line := range [][]string{
		{"gen-certs.sh", "--out"}, {"gen-certs.sh", "--days", "soon"}, {"gen-certs.sh", "a,IP:1.2.3.4"}, {"gen-certs.sh", "--frce"},
		{"tune-system.sh", "persist", "undo"}, {"tune-system.sh", "--dryrun"},
	} {
		dir := t.TempDir()
		code, output := script(t, []string{"ROOT=" + dir}, line[0], line[1:]...)
		require.NotZero(t, code, "%v: %s", line, output)
	}
	for _, name := range []string{"gen-certs.sh", "tune-system.sh"} {
		require.Contains(t, works(t, nil, name, "--help"), "usage: "+name)
	}
	require.NoDirExists(t, "certs")
}

// kernel is a directory with settings as Linux shows them, and what ROOT names it.
type kernel struct {
	dir string
	env []string
}

func newKernel(t *testing.T, settings map[string]string) kernel {
	t.Helper()
	k := kernel{dir: t.TempDir()}
	k.env = []string{"ROOT=" + k.dir}
	for key, value := range settings {
		path := k.path(key)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(value+"\n"), 0o644))
	}
	return k
}

func (k kernel) path(key string) string {
	return filepath.Join(k.dir, "proc/sys", strings.ReplaceAll(key, ".", "/"))
}

func (k kernel) value(t *testing.T, key string) string {
	return strings.TrimSpace(read(t, k.path(key)))
}

// snapshot is every file with its content.
func (k kernel) snapshot(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(k.dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files[strings.TrimPrefix(path, k.dir)] = strings.Join(strings.Fields(read(t, path)), " ")
		}
		return err
	}))
	return files
}

// stock is a kernel as distributions set it up, with one value that an operator has raised already.
var stock = map[string]string{
	"fs.nr_open": "1048576", "fs.file-max": "9223372036854775807",
	"net.core.rmem_max": "212992", "net.core.wmem_max": "33554432", "net.core.netdev_max_backlog": "1000",
	"net.ipv4.ip_local_port_range": "32768\t60999", "vm.max_map_count": "65530", "vm.swappiness": "60",
}

func TestTuningIsDoneOnceAndUndone(t *testing.T) {
	k := newKernel(t, stock)
	before := k.snapshot(t)

	output := works(t, k.env, "tune-system.sh", "persist", "--dry-run")
	require.Contains(t, output, "would change net.core.rmem_max: 212992 → 16777216")
	require.Contains(t, output, "would write")
	require.Equal(t, before, k.snapshot(t), "a dry run changes nothing")

	output = works(t, k.env, "tune-system.sh")
	require.Contains(t, output, "net.core.rmem_max: 212992 → 16777216")
	require.Contains(t, output, "net.ipv4.ip_local_port_range: 32768 60999 → 10000 65535")
	require.Contains(t, output, "net.core.wmem_max: 33554432, kept")
	require.Contains(t, output, "net.ipv4.udp_rmem_min: this kernel, or this container, does not have it")
	require.Equal(t, "16777216", k.value(t, "net.core.rmem_max"))
	require.Equal(t, "10", k.value(t, "vm.swappiness"))
	require.NoFileExists(t, filepath.Join(k.dir, "etc/sysctl.d/90-quicflow.conf"))

	works(t, k.env, "tune-system.sh", "persist")
	sysctl := read(t, k.dir, "etc/sysctl.d/90-quicflow.conf")
	require.Contains(t, sysctl, "net.ipv4.ip_local_port_range = 10000 65535\n")
	require.Contains(t, sysctl, "net.core.wmem_max = 33554432\n", "what is larger already is not lowered at the next boot")
	require.Contains(t, read(t, k.dir, "etc/security/limits.d/90-quicflow.conf"), "* hard nofile 1000000\n")
	tuned := k.snapshot(t)

	output = works(t, k.env, "tune-system.sh", "persist")
	require.NotContains(t, output, "→")
	require.NotContains(t, output, "written")
	require.Equal(t, tuned, k.snapshot(t), "a second run changes nothing")

	output = works(t, k.env, "tune-system.sh", "undo", "--dry-run")
	require.Contains(t, output, "would remove")
	require.Equal(t, tuned, k.snapshot(t))
	works(t, k.env, "tune-system.sh", "undo")
	require.Equal(t, before, k.snapshot(t), "everything is as it was")
	require.Contains(t, works(t, k.env, "tune-system.sh", "undo"), "nothing was changed")
}

func TestTuningLeavesForeignFilesAlone(t *testing.T) {
	k := newKernel(t, stock)
	path := filepath.Join(k.dir, "etc/sysctl.d/90-quicflow.conf")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte("vm.swappiness = 1\n"), 0o644))
	code, output := script(t, k.env, "tune-system.sh", "persist")
	require.NotZero(t, code)
	require.Contains(t, output, "not of this script")
	works(t, k.env, "tune-system.sh", "undo")
	require.Equal(t, "vm.swappiness = 1\n", read(t, path))
}

// A value that the kernel does not take (ngroups_max never changes) is told, and the others are set all the same.
func TestTuningTellsWhatItCouldNotChange(t *testing.T) {
	k := newKernel(t, stock)
	require.NoError(t, os.Remove(k.path("vm.swappiness")))
	require.NoError(t, os.Symlink("/proc/sys/kernel/ngroups_max", k.path("vm.swappiness")))
	code, output := script(t, k.env, "tune-system.sh")
	require.NotZero(t, code)
	require.Contains(t, output, "vm.swappiness could not be changed")
	require.Equal(t, "16777216", k.value(t, "net.core.rmem_max"))
}
