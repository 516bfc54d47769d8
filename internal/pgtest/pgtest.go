// Package pgtest runs a private PostgreSQL server for tests.
//
// A test binary starts one server in TestMain, and each test takes a database of its own from it:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &server)) }
//
//	func TestStore(t *testing.T) { dsn := server.Database(t) }
package pgtest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/lib/pq" // the driver that waits for the server and makes databases
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
	superuser    = "quicflow"
)

// Server is a running PostgreSQL on a port of the loopback interface. Nothing that it stores survives it.
type Server struct {
	dir     string
	port    int
	process *exec.Cmd
	exited  chan struct{} // closed when the process is gone
	log     *os.File
	made    atomic.Int64
}

// Main starts a server, runs the tests and stops it. It gives the exit code for os.Exit, for use in TestMain. Further
// checks run after the server has stopped; the first that fails makes the code 1.
func Main(m *testing.M, server **Server, checks ...func() error) (code int) {
	s, err := Start(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return 1
	}
	*server = s
	code = m.Run()
	if err := s.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	for _, check := range checks {
		if code != 0 {
			break
		}
		if err := check(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// Start makes a database cluster in a temporary directory and starts a server on it. PostgreSQL does not run as root:
// if we are, another user is taken for it. Where it is not installed, root installs Debian's package.
func Start(ctx context.Context) (server *Server, err error) {
	programs, err := programs(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("PostgreSQL did not start in time"))
	defer cancel()
	who, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pgtest-")
	if err != nil {
		return nil, fmt.Errorf("make directory for PostgreSQL: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if who != nil {
		if err := os.Chown(dir, int(who.Uid), int(who.Gid)); err != nil {
			return nil, fmt.Errorf("give directory to PostgreSQL: %w", err)
		}
	}
	initdb := exec.CommandContext(ctx, filepath.Join(programs, "initdb"), "--pgdata", filepath.Join(dir, "data"), "--username", superuser,
		"--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = dir, &syscall.SysProcAttr{Credential: who}
	if output, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, output)
	}
	// The port was free a moment ago, and may have gone to someone else.
	for attempt := 1; ; attempt++ {
		server, err = start(ctx, filepath.Join(programs, "postgres"), dir, who)
		if err == nil || attempt == 3 || ctx.Err() != nil {
			return server, err
		}
	}
}

func start(ctx context.Context, program, dir string, who *syscall.Credential) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, fmt.Errorf("make PostgreSQL's log: %w", err)
	}
	s := &Server{dir: dir, port: port, log: log, exited: make(chan struct{})}
	s.process = exec.Command(program, "-D", filepath.Join(dir, "data"), "-p", strconv.Itoa(port), "-k", dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c", "fsync=off", "-c", "synchronous_commit=off",
		"-c", "full_page_writes=off", "-c", "deadlock_timeout=200ms", "-c", "log_min_messages=warning")
	s.process.Dir, s.process.Stdout, s.process.Stderr = dir, log, log
	// It must not outlive a test binary that was killed.
	s.process.SysProcAttr = &syscall.SysProcAttr{Credential: who, Pdeathsig: syscall.SIGINT}
	if err := s.process.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), log.Close())
	}
	go func() { // ends with the process, which Stop waits for
		defer close(s.exited)
		_ = s.process.Wait()
	}()
	if err := s.wait(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w\n%s", err, s.tail()), s.end())
	}
	return s, nil
}

// wait returns when the server answers.
func (s *Server) wait(ctx context.Context) error {
	db, err := sql.Open("postgres", s.dsn("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := db.PingContext(ctx); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return errors.New("it exited")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Database makes an empty database for a test, and gives its URL. It is dropped when the test ends.
func (s *Server) Database(t testing.TB) (dsn string) {
	t.Helper()
	name := fmt.Sprintf("test_%d", s.made.Add(1))
	s.administer(t, "CREATE DATABASE "+name)
	t.Cleanup(func() { s.administer(t, "DROP DATABASE "+name+" WITH (FORCE)") })
	return s.dsn(name)
}

func (s *Server) administer(t testing.TB, statement string) {
	t.Helper()
	db, err := sql.Open("postgres", s.dsn("postgres"))
	if err == nil {
		_, err = db.Exec(statement)
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatalf("pgtest: %s: %v", statement, err)
	}
}

func (s *Server) dsn(database string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", superuser, s.port, database)
}

// Stop stops the server and removes all that it stored.
func (s *Server) Stop() error { return errors.Join(s.end(), os.RemoveAll(s.dir)) }

func (s *Server) end() error {
	var err error
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		_ = s.process.Process.Signal(signal) // fails only if it is gone
		select {
		case <-s.exited:
			return errors.Join(err, s.log.Close())
		case <-time.After(stopTimeout):
			err = fmt.Errorf("PostgreSQL did not stop on %s\n%s", signal, s.tail())
		}
	}
	return errors.Join(err, s.log.Close())
}

// tail gives the end of the server's log.
func (s *Server) tail() []byte {
	const most = 4 << 10
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(text[max(0, len(text)-most):])
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
