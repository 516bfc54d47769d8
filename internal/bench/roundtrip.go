package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// payload is what a round trip carries, both ways.
var payload = make([]byte, 200)

// measureRoundTrips compares one request to an agent on an idle hub with a bare quic-go echo of the same size.
func measureRoundTrips(ctx context.Context, rounds int) error {
	bare, err := bareRoundTrips(ctx, rounds)
	if err != nil {
		return fmt.Errorf("bare echo: %w", err)
	}
	ours, err := hubRoundTrips(ctx, rounds)
	if err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	fmt.Printf("one request at a time, %d of %d bytes\n", rounds, len(payload))
	fmt.Printf("%-14s p50 %8v   p99 %8v\n", "hub and agent", percentile(ours, 50), percentile(ours, 99))
	fmt.Printf("%-14s p50 %8v   p99 %8v\n", "bare quic-go", percentile(bare, 50), percentile(bare, 99))
	fmt.Printf("%-14s p50 %8.2f   p99 %8.2f\n", "ratio", ratio(ours, bare, 50), ratio(ours, bare, 99))
	return nil
}

func percentile(d []time.Duration, p int) time.Duration {
	return d[min(len(d)-1, len(d)*p/100)].Round(time.Microsecond)
}

func ratio(a, b []time.Duration, p int) float64 {
	return float64(percentile(a, p)) / float64(percentile(b, p))
}

// timeEach gives the sorted times of calls, after a warm-up.
func timeEach(rounds int, call func() error) ([]time.Duration, error) {
	for range rounds / 10 {
		if err := call(); err != nil {
			return nil, err
		}
	}
	times := make([]time.Duration, rounds)
	for i := range times {
		start := time.Now()
		if err := call(); err != nil {
			return nil, err
		}
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	return times, nil
}

func bareRoundTrips(ctx context.Context, rounds int) ([]time.Duration, error) {
	dir, err := os.MkdirTemp("", "quicflow-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ca, err := pki.LoadOrCreate(dir)
	if err != nil {
		return nil, err
	}
	certificate, err := ca.IssueServer(nil, time.Hour)
	if err != nil {
		return nil, err
	}
	listener, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"echo"}, MinVersion: tls.VersionTLS13}, nil)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	echoed := make(chan error, 1)
	go func() {
		conn, err := listener.Accept(ctx)
		if err != nil {
			echoed <- err
			return
		}
		stream, err := conn.AcceptStream(ctx)
		if err == nil {
			_, err = io.Copy(stream, stream)
		}
		echoed <- err
	}()
	conn, err := quic.DialAddr(ctx, listener.Addr().String(), &tls.Config{RootCAs: ca.Pool(), ServerName: pki.HubServerName, NextProtos: []string{"echo"}, MinVersion: tls.VersionTLS13}, nil)
	if err != nil {
		return nil, err
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	answer := make([]byte, len(payload))
	times, err := timeEach(rounds, func() error {
		if _, err := stream.Write(payload); err != nil {
			return err
		}
		_, err := io.ReadFull(stream, answer)
		return err
	})
	_ = conn.CloseWithError(0, "")
	<-echoed
	return times, err
}

func hubRoundTrips(ctx context.Context, rounds int) ([]time.Duration, error) {
	dir, err := os.MkdirTemp("", "quicflow-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ca, err := pki.LoadOrCreate(filepath.Join(dir, "pki"))
	if err != nil {
		return nil, err
	}
	s, err := store.Open(ctx, store.Config{Driver: store.SQLite, DSN: filepath.Join(dir, "quicflow.db"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	h, err := hub.New(hub.Config{Addr: "127.0.0.1:0", NodeID: "bench", CA: ca, Registry: s, Sink: s, Enroller: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if err := h.Start(ctx); err != nil {
		return nil, err
	}
	defer h.Stop(context.WithoutCancel(ctx))

	token := auth.NewJoinToken(ca.Fingerprint())
	if err := s.CreateJoinToken(ctx, store.JoinToken{ID: "bench", Hash: token.Hash(), Uses: 1, ExpiresAt: time.Now().Add(time.Hour)}); err != nil {
		return nil, err
	}
	accepted := make(chan struct{})
	a, err := agent.New(agent.Config{Servers: []string{h.Addr().String()}, ClientID: "bench", DataDir: filepath.Join(dir, "agent"),
		Token: token.String(), Executor: noop{}, Logger: slog.New(slog.DiscardHandler),
		OnConnect: func(*quicflowv1.Welcome) { close(accepted) }})
	if err != nil {
		return nil, err
	}
	agentCtx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.Run(agentCtx) }()
	defer func() { stop(); <-ended }()
	select {
	case <-accepted:
	case err := <-ended:
		ended <- err
		return nil, err
	}
	return timeEach(rounds, func() error {
		requestCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		response, err := h.Request(requestCtx, "bench", &quicflowv1.Request{Body: &quicflowv1.Request_Message{
			Message: &quicflowv1.Message{Type: "echo", Payload: payload}}})
		if err == nil && len(response.GetMessage().GetPayload()) != len(payload) {
			err = fmt.Errorf("the agent answered %v", response)
		}
		return err
	})
}
