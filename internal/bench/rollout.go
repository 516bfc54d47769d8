package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/spool"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// noop is an executor whose steps succeed at once.
type noop struct{}

func (noop) Run(context.Context, *quicflowv1.StepRequest, *spool.Writer) *quicflowv1.StepResult {
	return &quicflowv1.StepResult{Outcome: quicflowv1.Outcome_OUTCOME_SUCCEEDED}
}

// measureRollout starts a server of its own with n simulated agents, and rolls a version out to them.
func measureRollout(ctx context.Context, binary string, n int) error {
	dir, err := os.MkdirTemp("", "quicflow-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := startServer(ctx, binary, dir)
	if err != nil {
		return err
	}
	defer s.stop()
	stopAgents, err := startAgents(ctx, s, dir, n)
	if err != nil {
		return err
	}
	defer stopAgents()

	if err := s.post(ctx, "/api/release/projects", `{"name":"bench","type":"script","script":{}}`, nil); err != nil {
		return err
	}
	if err := s.post(ctx, "/api/release/projects/bench/versions", `{"version":"1","status":"active","script":{"install":"true"}}`, nil); err != nil {
		return err
	}
	before, _, err := s.usage()
	if err != nil {
		return err
	}
	start := time.Now()
	var task struct {
		ID         string `json:"id"`
		Status     string `json:"status"`
		Reason     string `json:"reason"`
		WorkflowID string `json:"workflow_id"`
	}
	if err := s.post(ctx, "/api/release/tasks", `{"project":"bench","version":"1","targets":{"selector":"*"},"strategy":{"max_parallel":5000}}`, &task); err != nil {
		return err
	}
	for task.Status != "succeeded" {
		if err := s.get(ctx, "/api/release/tasks/"+task.ID, &task); err != nil {
			return err
		}
		switch task.Status {
		case "failed", "partial", "aborted":
			return fmt.Errorf("the rollout ended as %s: %s", task.Status, task.Reason)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	wall := time.Since(start)
	after, rss, err := s.usage()
	if err != nil {
		return err
	}
	events, err := s.historyLength(ctx, task.WorkflowID)
	if err != nil {
		return err
	}
	fmt.Printf("%8d %10v %14.0f %12v %9.0f MB %9s\n", n, wall.Round(time.Millisecond), float64(n)/wall.Seconds(),
		(after - before).Round(10*time.Millisecond), float64(rss)/(1<<20), events)
	return nil
}

// startAgents joins n agents that share one UDP socket, and waits until the hub has accepted each.
func startAgents(ctx context.Context, s *server, dir string, n int) (stop func(), err error) {
	var token struct {
		Token string `json:"token"`
	}
	if err := s.post(ctx, "/api/agent-tokens", fmt.Sprintf(`{"uses":%d,"ttl":"1h"}`, n), &token); err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	transport := &quic.Transport{Conn: socket}
	agentCtx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	stop = func() {
		cancel()
		running.Wait()
		_ = transport.Close()
		_ = socket.Close()
	}
	var accepted atomic.Int64
	all := make(chan struct{})
	failed := make(chan error, n)
	for i := range n {
		a, err := agent.New(agent.Config{
			Servers: []string{s.quic}, ClientID: fmt.Sprintf("bench-%05d", i), DataDir: filepath.Join(dir, "agents", strconv.Itoa(i)),
			Token: token.Token, Executor: noop{}, Transport: transport, NoSync: true, Logger: slog.New(slog.DiscardHandler),
			OnConnect: func(*quicflowv1.Welcome) {
				if accepted.Add(1) == int64(n) {
					close(all)
				}
			},
		})
		if err != nil {
			stop()
			return nil, err
		}
		running.Add(1)
		go func() {
			defer running.Done()
			if err := a.Run(agentCtx); err != nil && agentCtx.Err() == nil {
				failed <- err
			}
		}()
	}
	select {
	case <-all:
		return stop, nil
	case err = <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(3 * time.Minute):
		err = fmt.Errorf("only %d agents were accepted in time", accepted.Load())
	}
	stop()
	return nil, err
}

// server is a quic-server process.
type server struct {
	command    *exec.Cmd
	api, quic  string
	adminToken string
}

func startServer(ctx context.Context, binary, dir string) (*server, error) {
	udp, err := freePort("udp")
	if err != nil {
		return nil, err
	}
	tcp, err := freePort("tcp")
	if err != nil {
		return nil, err
	}
	s := &server{api: "http://" + tcp, quic: udp}
	s.command = exec.Command(binary, "--data-dir", filepath.Join(dir, "server"))
	s.command.Env = append(os.Environ(), "QUIC_SERVER_ADDR="+udp, "QUIC_SERVER_API_ADDR="+tcp, "QUIC_METRICS_ADDR=127.0.0.1:0")
	var output bytes.Buffer
	s.command.Stdout, s.command.Stderr = &output, &output
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(time.Minute)
	for {
		text, err := os.ReadFile(filepath.Join(dir, "server", "admin.token"))
		if err == nil {
			s.adminToken = strings.TrimSpace(string(text))
			if err = s.get(ctx, "/ready", nil); err == nil {
				return s, nil
			}
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			s.stop()
			return nil, fmt.Errorf("the server did not become ready: %w\n%s", err, output.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// freePort gives a loopback address that no one listens on.
func freePort(network string) (string, error) {
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		defer c.Close()
		return c.LocalAddr().String(), nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (s *server) stop() {
	_ = s.command.Process.Signal(syscall.SIGTERM)
	_ = s.command.Wait()
}

// usage gives the CPU time that the server has used, and its resident memory in bytes.
func (s *server) usage() (cpu time.Duration, rss int64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.command.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	fields := strings.Fields(string(rest)) // from field 3 of proc_pid_stat(5) on
	if len(fields) < 22 {
		return 0, 0, errors.New("/proc/PID/stat is too short")
	}
	ticks := int64(0)
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		ticks += n
	}
	pages, err := strconv.ParseInt(fields[21], 10, 64)
	return time.Duration(ticks) * (time.Second / 100), pages * int64(os.Getpagesize()), err
}

// historyLength asks Temporal, through the server, how many events a workflow has.
func (s *server) historyLength(ctx context.Context, workflowID string) (string, error) {
	var described struct {
		Info struct {
			HistoryLength string `json:"historyLength"`
		} `json:"workflowExecutionInfo"`
	}
	err := s.get(ctx, "/temporal/api/v1/namespaces/default/workflows/"+url.PathEscape(workflowID), &described)
	return described.Info.HistoryLength, err
}

func (s *server) get(ctx context.Context, path string, answer any) error {
	return s.do(ctx, http.MethodGet, path, "", answer)
}

func (s *server) post(ctx context.Context, path, body string, answer any) error {
	return s.do(ctx, http.MethodPost, path, body, answer)
}

func (s *server) do(ctx context.Context, method, path, body string, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, s.api+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+s.adminToken)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}
