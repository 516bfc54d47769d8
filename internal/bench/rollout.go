package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/bench/rig"
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
	s, err := rig.StartServer(ctx, binary, filepath.Join(dir, "server"))
	if err != nil {
		return err
	}
	defer s.Stop()
	stopAgents, err := startAgents(ctx, s, dir, n)
	if err != nil {
		return err
	}
	defer stopAgents()

	if err := s.Post(ctx, "/api/release/projects", `{"name":"bench","type":"script","script":{}}`, nil); err != nil {
		return err
	}
	if err := s.Post(ctx, "/api/release/projects/bench/versions", `{"version":"1","status":"active","script":{"install":"true"}}`, nil); err != nil {
		return err
	}
	before, err := s.Usage()
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
	if err := s.Post(ctx, "/api/release/tasks", `{"project":"bench","version":"1","targets":{"selector":"*"},"strategy":{"max_parallel":5000}}`, &task); err != nil {
		return err
	}
	for task.Status != "succeeded" {
		if err := s.Get(ctx, "/api/release/tasks/"+task.ID, &task); err != nil {
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
	after, err := s.Usage()
	if err != nil {
		return err
	}
	events, err := s.HistoryLength(ctx, task.WorkflowID)
	if err != nil {
		return err
	}
	fmt.Printf("%8d %10v %14.0f %12v %9.0f MB %9d\n", n, wall.Round(time.Millisecond), float64(n)/wall.Seconds(),
		(after.CPU - before.CPU).Round(10*time.Millisecond), float64(after.RSS)/(1<<20), events)
	return nil
}

// startAgents joins n agents that share one UDP socket, and waits until the hub has accepted each.
func startAgents(ctx context.Context, s *rig.Server, dir string, n int) (stop func(), err error) {
	var token struct {
		Token string `json:"token"`
	}
	if err := s.Post(ctx, "/api/agent-tokens", fmt.Sprintf(`{"uses":%d,"ttl":"1h"}`, n), &token); err != nil {
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
			Servers: []string{s.QUIC}, ClientID: fmt.Sprintf("bench-%05d", i), DataDir: filepath.Join(dir, "agents", strconv.Itoa(i)),
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
