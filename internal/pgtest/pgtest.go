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
	dir      string
	program  string
	settings []string
	who      *syscall.Credential
	port     int
	process  *exec.Cmd
	exited   chan struct{} // closed when the process is gone
	log      *os.File
	made     atomic.Int64
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

// Durable are the settings of a server that keeps, when it is killed, all that it has confirmed. It would not survive a power
// cut: that is not what tests can do to it.
var Durable = []string{"synchronous_commit=on"}

// Start makes a database cluster in a temporary directory and starts a server on it, with settings such as "work_mem=8MB"
// beside those that make it fast. PostgreSQL does not run as root: if we are, another user is taken for it. Where it is not
// installed, root installs Debian's package.
func Start(ctx context.Context, settings ...string) (server *Server, err error) {
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
		server, err = start(ctx, &Server{program: filepath.Join(programs, "postgres"), dir: dir, settings: settings, who: who})
		if err == nil || attempt == 3 || ctx.Err() != nil {
			return server, err
		}
	}
}

func start(ctx context.Context, s *Server) (*Server, error) {
	var err error
	if s.port, err = freePort(); err != nil {
		return nil, err
	}
	if s.log, err = os.Create(filepath.Join(s.dir, "log")); err != nil {
		return nil, fmt.Errorf("make PostgreSQL's log: %w", err)
	}
	if err := s.run(ctx); err != nil {
		return nil, errors.Join(err, s.end())
	}
	return s, nil
}

// run starts the server's process and waits until it answers.
func (s *Server) run(ctx context.Context) error {
	arguments := []string{"-D", filepath.Join(s.dir, "data"), "-p", strconv.Itoa(s.port), "-k", s.dir}
	for _, setting := range append([]string{"listen_addresses=127.0.0.1", "max_connections=200", "fsync=off", "synchronous_commit=off",
		"full_page_writes=off", "deadlock_timeout=200ms", "log_min_messages=warning"}, s.settings...) { // the last one counts
		arguments = append(arguments, "-c", setting)
	}
	process, exited := exec.Command(s.program, arguments...), make(chan struct{})
	process.Dir, process.Stdout, process.Stderr = s.dir, s.log, s.log
	// It must not outlive a test binary that was killed.
	process.SysProcAttr = &syscall.SysProcAttr{Credential: s.who, Pdeathsig: syscall.SIGINT}
	s.process, s.exited = process, exited
	if err := process.Start(); err != nil {
		close(exited)
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	go func() { // ends with the process, which Stop waits for
		defer close(exited)
		_ = process.Wait()
	}()
	if err := s.wait(ctx); err != nil {
		return fmt.Errorf("start PostgreSQL: %w\n%s", err, s.tail())
	}
	return nil
}

// Crash kills the server, whose other processes end by themselves, and waits until it is gone.
func (s *Server) Crash() error {
	if err := s.process.Process.Kill(); err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	<-s.exited
	return nil
}

// Restart starts the server again after a Crash, at the same address, with what it had confirmed.
func (s *Server) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("PostgreSQL did not start again in time"))
	defer cancel()
	for {
		err := s.run(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		// It does not start before the last process of the one that was killed has ended.
		select {
		case <-s.exited:
		default:
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}
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
	dsn, drop, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := drop(); err != nil {
			t.Fatal(err)
		}
	})
	return dsn
}

// Create makes an empty database, and gives its URL and what drops it.
func (s *Server) Create() (dsn string, drop func() error, err error) {
	name := fmt.Sprintf("test_%d", s.made.Add(1))
	return s.dsn(name), func() error { return s.administer("DROP DATABASE " + name + " WITH (FORCE)") }, s.administer("CREATE DATABASE " + name)
}

func (s *Server) administer(statement string) error {
	db, err := sql.Open("postgres", s.dsn("postgres"))
	if err == nil {
		_, err = db.Exec(statement)
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		return fmt.Errorf("pgtest: %s: %w", statement, err)
	}
	return nil
}

// PID is that of the server's first process, whose children are the others.
func (s *Server) PID() int { return s.process.Process.Pid }

func (s *Server) dsn(database string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", superuser, s.port, database)
}

// Stop stops the server and removes all that it stored.
func (s *Server) Stop() error { return errors.Join(s.end(), os.RemoveAll(s.dir)) }

func (s *Server) end() error {
	if s.process.Process == nil {
		return s.log.Close() // it never ran
	}
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
