// Package sshd runs an ssh server for tests, on a port of 127.0.0.1, for the user that the test runs as.
package sshd

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	program      = "/usr/sbin/sshd"
	startTimeout = 10 * time.Second
	poll         = 20 * time.Millisecond
)

// Server is an sshd that takes one key, and no password.
type Server struct {
	Address    string // host:port
	User       string
	Key        string // private key to log in with
	KnownHosts string // line for its own key
	PID        int

	dir string
	cmd *exec.Cmd
	log bytes.Buffer // read after the end
}

// Start starts one, whose files are in dir, and waits until it listens. The caller closes it.
func Start(dir string) (*Server, error) {
	s := &Server{dir: dir}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("prepare sshd: %w", err)
	}
	s.cmd = exec.Command(program, "-D", "-e", "-f", filepath.Join(s.dir, "config"))
	s.cmd.Stderr = &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sshd, which scripts/install-deps.sh openssh-server installs: %w", err)
	}
	s.PID = s.cmd.Process.Pid
	deadline := time.Now().Add(startTimeout)
	for tick := time.NewTicker(poll); ; <-tick.C {
		conn, err := net.Dial("tcp", s.Address)
		if err == nil {
			tick.Stop()
			return s, conn.Close()
		}
		if time.Now().After(deadline) {
			tick.Stop()
			s.Close()
			return nil, fmt.Errorf("sshd does not listen: %w\n%s", err, s.log.String())
		}
	}
}

func (s *Server) prepare() error {
	account, err := user.Current()
	if err != nil {
		return err
	}
	s.User = account.Username
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.Address = listener.Addr().String()
	_, port, err := net.SplitHostPort(s.Address)
	if err = errors.Join(err, listener.Close()); err != nil {
		return err
	}
	hostKey, hostPublic, err := NewKey("")
	if err != nil {
		return err
	}
	var public string
	if s.Key, public, err = NewKey(""); err != nil {
		return err
	}
	s.KnownHosts = fmt.Sprintf("[127.0.0.1]:%s %s", port, hostPublic)
	config := fmt.Sprintf("Port %s\nListenAddress 127.0.0.1\nHostKey %s/host\nAuthorizedKeysFile %s/keys\nStrictModes no\nUsePAM no\n"+
		"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n", port, s.dir, s.dir)
	for name, text := range map[string]string{"host": hostKey, "keys": public + "\n", "config": config} {
		err = errors.Join(err, os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600))
	}
	if os.Geteuid() == 0 { // where it drops its privileges
		err = errors.Join(err, os.MkdirAll("/run/sshd", 0o755))
	}
	return err
}

// Close ends the server with its connections.
func (s *Server) Close() {
	_ = syscall.Kill(-s.PID, syscall.SIGKILL)
	_ = s.cmd.Wait() // killed
}

// NewKey gives a private key in OpenSSH's form, and the line of its public key.
func NewKey(passphrase string) (private, public string, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", err
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		return "", "", err
	}
	line, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", "", err
	}
	return string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line))), nil
}
