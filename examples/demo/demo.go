package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	agents  = 10
	dataDir = ".demo"
	project = "hello"
)

// demo is a QuicFlow installation on this machine, below .demo.
type demo struct {
	root     string // of the repository
	dir      string
	children *children
	lock     *os.File

	addr, api string
	ports     map[string]int // of the released service, by agent
	seen      map[string]int // agents on which a version was seen
	began     time.Time
}

func newDemo(fail context.CancelCauseFunc) (*demo, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(root, "bin", "quic-server")); err != nil {
		return nil, errors.New("bin/quic-server is not there; run this by make demo")
	}
	d := &demo{root: root, dir: filepath.Join(root, dataDir), ports: map[string]int{}, seen: map[string]int{}, began: time.Now()}
	if err := d.wipe(); err != nil {
		return nil, err
	}
	d.children = newChildren(d.path("log"), fail)
	return d, nil
}

func (d *demo) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir}, parts...)...)
}

func (d *demo) bin(name string) string { return filepath.Join(d.root, "bin", name) }

// wipe removes what an earlier run left, unless that run has not ended.
func (d *demo) wipe() error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(d.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("another demo is running on %s: %w", d.dir, err)
	}
	d.lock = lock // held until the process ends
	if err := endLeftovers(d.dir); err != nil {
		return err
	}
	left, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, entry := range left {
		if entry.Name() != "lock" {
			if err := os.RemoveAll(d.path(entry.Name())); err != nil {
				return err
			}
		}
	}
	return os.Mkdir(d.path("log"), 0o700)
}

// chapter prints a heading.
func chapter(format string, args ...any) {
	heading := fmt.Sprintf(format, args...)
	if info, err := os.Stdout.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		heading = "\033[1m" + heading + "\033[0m"
	}
	fmt.Println("\n" + heading)
}

// ctl shows a quic-ctl command and runs it.
func (d *demo) ctl(ctx context.Context, args ...string) error {
	fmt.Println("$ quic-ctl", shown(args))
	cmd := d.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("quic-ctl %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// shown is a command line as one would type it.
func shown(args []string) string {
	return strings.ReplaceAll(strings.Join(args, " "), " * ", " '*' ")
}

// ask runs a quic-ctl command and gives what it prints.
func (d *demo) ask(ctx context.Context, args ...string) (string, error) {
	cmd := d.command(ctx, args...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", fmt.Errorf("quic-ctl %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}

func (d *demo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.bin("quic-ctl"), args...)
	cmd.Env = append(os.Environ(), "QUICFLOW_SERVER=http://"+d.api, "QUICFLOW_TOKEN="+d.token())
	return cmd
}

func (d *demo) token() string {
	token, _ := os.ReadFile(d.path("server", "admin.token")) // if it is not there, the server says so
	return strings.TrimSpace(string(token))
}

func (d *demo) startServer(ctx context.Context) (err error) {
	chapter("A server, with everything it needs in one process")
	if d.addr, err = udpPort(8474); err != nil {
		return err
	}
	if d.api, err = tcpPort(8475); err != nil {
		return err
	}
	metrics, err := tcpPort(9090)
	if err != nil {
		return err
	}
	env := []string{"QUIC_SERVER_ADDR=" + d.addr, "QUIC_SERVER_API_ADDR=" + d.api, "QUIC_METRICS_ADDR=" + metrics}
	if err := d.children.start("quic-server", env, d.bin("quic-server"), "--data-dir", d.path("server")); err != nil {
		return err
	}
	if err := await(ctx, 2*time.Minute, "the server is ready", func() bool {
		_, code, err := get(ctx, "http://"+d.api+"/ready")
		return err == nil && code == http.StatusOK
	}); err != nil {
		return err
	}
	fmt.Printf("agents at %s, API at http://%s, data in %s\n", d.addr, d.api, dataDir)
	return nil
}

func (d *demo) joinAgents(ctx context.Context) error {
	chapter("Ten agents join with one token")
	fmt.Printf("$ quic-ctl agent token --uses %d\n", agents)
	out, err := d.ask(ctx, "agent", "token", "--uses", strconv.Itoa(agents))
	if err != nil {
		return err
	}
	printed := strings.Fields(out)
	token := printed[len(printed)-1]
	for i := range agents {
		id := fmt.Sprintf("demo-%02d", i+1)
		port, err := tcpPort(18081 + i)
		if err != nil {
			return err
		}
		_, number, _ := strings.Cut(port, ":")
		if d.ports[id], err = strconv.Atoi(number); err != nil {
			return err
		}
		if err := d.children.start(id, []string{"QUIC_JOIN_TOKEN=" + token}, d.bin("quic-client"), "-s", d.addr, "-i", id,
			"--label", "port="+number, "--data-dir", d.path("agents", id)); err != nil {
			return err
		}
	}
	if err := await(ctx, time.Minute, "all agents are online", func() bool {
		out, err := d.ask(ctx, "clients", "--status", "online")
		return err == nil && strings.Count(out, "demo-") == agents
	}); err != nil {
		return err
	}
	return d.ctl(ctx, "clients")
}

// await waits for a condition.
func await(ctx context.Context, limit time.Duration, what string, condition func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s: %s", limit, what))
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// get fetches a page.
func get(ctx context.Context, url string) (body string, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return string(text), resp.StatusCode, err
}
