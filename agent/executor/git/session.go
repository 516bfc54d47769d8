package git

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/release"
)

// session is where git finds its configuration and its login while a step needs them: a directory of its own that is gone after close.
type session struct {
	remote  remote
	program func(ctx context.Context, p executor.Program, stderr io.Writer) error
	merged  bool      // program gives both streams to Output
	log     io.Writer // nil: nothing is logged
	user    string
	dir     string
	env     map[string]string
	prefix  []string // goes before the arguments of every git
	secrets []string // never to be shown

	servers []net.Listener
	running sync.WaitGroup
	mu      sync.Mutex
	open    map[net.Conn]bool // nil once closed
}

// newScratch names a directory for a session. It is not made yet: its name can be written down first.
func newScratch() string {
	var random [8]byte
	_, _ = rand.Read(random[:])
	return filepath.Join(os.TempDir(), "quicflow-git-"+hex.EncodeToString(random[:]))
}

// lfsFilter are the settings of filter.lfs, as git lfs install makes them.
var lfsFilter = []string{"clean=git-lfs clean -- %f", "smudge=git-lfs smudge -- %f", "process=git-lfs filter-process", "required=true"}

// openSession prepares dir; o may be nil.
func (w *Worker) openSession(s *session, dir string, spec *release.GitSpec, o *wrapper.Account) (err error) {
	if s.remote, err = parseRemote(spec.Repository); err != nil {
		return err
	}
	auth := release.GitAuth{}
	if spec.Auth != nil {
		auth = *spec.Auth
	}
	if err := s.remote.checkAuth(&auth); err != nil {
		return err
	}
	if auth.Password != "" && auth.Username == "" {
		auth.Username = "git"
	}
	s.dir, s.open = dir, map[net.Conn]bool{}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make a directory for git: %w", err)
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if len(auth.Password) >= 4 {
		s.secrets = append(s.secrets, auth.Password)
	}
	s.env = quietEnvironment()
	maps.Copy(s.env, map[string]string{
		"HOME": dir, "XDG_CONFIG_HOME": filepath.Join(dir, "none"),
		"GIT_ALLOW_PROTOCOL": s.remote.protocols(),
		"GIT_SSH_VARIANT":    "ssh",
	})
	// What arrives is one pack, there or not: single objects could be some of a commit's.
	config := "[core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n[safe]\n\tdirectory = *\n[advice]\n\tdetachedHead = false\n" +
		"[gc]\n\tautoDetach = false\n[fetch]\n\trecurseSubmodules = false\n" +
		"[transfer]\n\tunpackLimit = 1\n[submodule]\n\tfetchJobs = 1\n" +
		fmt.Sprintf("[http]\n\tlowSpeedLimit = 1000\n\tlowSpeedTime = %d\n", max(1, int(w.cfg.StallTimeout/time.Second)))
	if spec.LFS {
		config += "[filter \"lfs\"]\n"
		for _, setting := range lfsFilter {
			config += "\t" + setting + "\n"
		}
		config += fmt.Sprintf("[lfs]\n\tactivitytimeout = %d\n\tdialtimeout = %d\n", max(1, int(w.cfg.StallTimeout/time.Second)), max(1, int(w.cfg.ConnectTimeout/time.Second)))
	}
	if auth.CACert != "" {
		if err := s.write("ca.pem", auth.CACert); err != nil {
			return err
		}
		config += fmt.Sprintf("[http %q]\n\tsslCAInfo = %q\n", s.remote.scope(), filepath.Join(dir, "ca.pem"))
	}
	if auth.Password != "" {
		socket := filepath.Join(dir, "login")
		if err := s.serve(socket, o, func(conn net.Conn) { answerCredential(conn, s.remote, auth) }); err != nil {
			return err
		}
		// Only to read: a store would start a daemon if this process were gone.
		config += fmt.Sprintf("[credential %q]\n\thelper = %q\n", s.remote.scope(),
			"!login() { test \"$1\" = get && git credential-cache --socket '"+socket+"' get; }; login")
	}
	if s.remote.scheme == "ssh" {
		if err := s.prepareSSH(w.cfg, auth, o); err != nil {
			return err
		}
	}
	if err := s.write(".gitconfig", config); err != nil {
		return err
	}
	if o != nil {
		if err := os.Lchown(dir, int(o.UID), int(o.GID)); err != nil {
			return fmt.Errorf("hand git's directory over: %w", err)
		}
	}
	return nil
}

func (s *session) write(name, text string) error {
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
		return fmt.Errorf("write git's configuration: %w", err)
	}
	return nil
}

// prepareSSH lets git use ssh: with the key that is given and no other, and with the hosts that are given and no others; with neither,
// as the user itself would, but for questions.
func (s *session) prepareSSH(cfg Config, auth release.GitAuth, o *wrapper.Account) error {
	seconds := func(d time.Duration) int { return max(1, int(d/time.Second)) }
	command := "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o UpdateHostKeys=no -o ForwardAgent=no -o ControlPath=none -o ClearAllForwardings=yes" +
		fmt.Sprintf(" -o ConnectTimeout=%d -o ServerAliveInterval=%d -o ServerAliveCountMax=3", seconds(cfg.ConnectTimeout), seconds(cfg.StallTimeout/3))
	if auth.KnownHosts != "" {
		if err := s.write("known_hosts", auth.KnownHosts+"\n"); err != nil {
			return err
		}
		command += " -o GlobalKnownHostsFile=/dev/null -o 'UserKnownHostsFile=\"" + filepath.Join(s.dir, "known_hosts") + "\"'"
	}
	if auth.SSHKey != "" {
		key, err := ssh.ParseRawPrivateKey([]byte(strings.TrimSpace(strings.ReplaceAll(auth.SSHKey, "\r\n", "\n")) + "\n"))
		var encrypted *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &encrypted):
			return release.Invalid("git.auth.ssh_key", "the key has a passphrase; a deployment needs one without")
		case err != nil:
			return release.Invalid("git.auth.ssh_key", "it is not a private key that can be read") // the cause could quote it
		}
		keys := agent.NewKeyring()
		if err := keys.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			return release.Invalid("git.auth.ssh_key", "it is a key of a kind that cannot be used")
		}
		socket := filepath.Join(s.dir, "keys")
		if err := s.serve(socket, o, func(conn net.Conn) { _ = agent.ServeAgent(signOnly{keys}, conn) }); err != nil {
			return err
		}
		s.env["SSH_AUTH_SOCK"] = socket
		command += " -F none -o IdentityFile=none -o PreferredAuthentications=publickey"
	}
	s.env["GIT_SSH_COMMAND"] = command
	return nil
}

// signOnly is an ssh-agent that signs and nothing else.
type signOnly struct{ agent.Agent }

var errSignOnly = errors.New("this agent only signs")

func (signOnly) Add(agent.AddedKey) error   { return errSignOnly }
func (signOnly) Remove(ssh.PublicKey) error { return errSignOnly }
func (signOnly) RemoveAll() error           { return errSignOnly }
func (signOnly) Lock([]byte) error          { return errSignOnly }
func (signOnly) Unlock([]byte) error        { return errSignOnly }

// answerCredential speaks the protocol of git credential-cache: a request of lines until the other side has written all, then the login.
func answerCredential(conn net.Conn, r remote, auth release.GitAuth) {
	asked := map[string]string{}
	lines := bufio.NewScanner(io.LimitReader(conn, 64<<10))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "=")
		asked[name] = value
	}
	if asked["action"] == "get" && asked["protocol"] == r.scheme && asked["host"] == r.host {
		_, _ = fmt.Fprintf(conn, "username=%s\npassword=%s\n", auth.Username, auth.Password)
	}
}

// serve answers on a unix socket until close.
func (s *session) serve(socket string, o *wrapper.Account, answer func(net.Conn)) error {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen for git's questions: %w", err)
	}
	s.servers = append(s.servers, listener)
	if o != nil {
		if err := os.Lchown(socket, int(o.UID), int(o.GID)); err != nil {
			return fmt.Errorf("hand a socket over: %w", err)
		}
	}
	s.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if !s.track(conn) {
				return
			}
			s.running.Go(func() {
				defer s.untrack(conn)
				answer(conn)
			})
		}
	})
	return nil
}

func (s *session) track(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		_ = conn.Close()
		return false
	}
	s.open[conn] = true
	return true
}

func (s *session) untrack(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, conn)
	_ = conn.Close()
}

// close ends the servers and removes the directory. It may be repeated.
func (s *session) close() {
	for _, l := range s.servers {
		_ = l.Close()
	}
	s.mu.Lock()
	for conn := range s.open {
		_ = conn.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.running.Wait()
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// gitCommand is one run of git.
type gitCommand struct {
	doing  string // for messages: "list the refs of example.com"
	args   []string
	stdout io.Writer // of interest by itself; nil: goes to the log
	local  bool      // it reads from a repository of this host
	quiet  bool      // nothing of it is for the log
}

// git runs git. An error says in one line what the matter was; all that git wrote is in the log.
func (s *session) git(ctx context.Context, c gitCommand) error {
	said := &output{to: s.log, secrets: s.secrets}
	if c.quiet {
		said.to = nil
	}
	env := s.env
	if c.local {
		env = maps.Clone(env)
		env["GIT_ALLOW_PROTOCOL"] = "file"
	}
	dir := s.dir // not one whose own configuration git could find
	if dir == "" {
		dir = "/"
	}
	p := executor.Program{Path: "git", Args: append(slices.Clone(s.prefix), c.args...), User: s.user, Dir: dir, Env: env, Output: said}
	switch {
	case c.stdout != nil && s.merged:
		said.to, p.Output = nil, io.MultiWriter(c.stdout, said)
	case c.stdout != nil:
		p.Output = c.stdout
	}
	err := s.program(ctx, p, said)
	said.flush()
	if err != nil && said.to == nil && s.log != nil && !c.quiet {
		_, _ = io.WriteString(s.log, strings.Join(said.tail, "\n")+"\n")
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", c.doing, context.Cause(ctx))
	}
	return &gitError{doing: c.doing, said: said.tail, err: err, remote: s.remote}
}
