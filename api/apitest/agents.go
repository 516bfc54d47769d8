package apitest

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// newHub makes the hub through which messages go. It listens once there are agents.
func (s *Server) newHub() *hub.Hub {
	s.t.Helper()
	ca, err := pki.LoadOrCreate(s.t.TempDir())
	require.NoError(s.t, err)
	h, err := hub.New(hub.Config{
		Addr: "127.0.0.1:0", NodeID: "node", CA: ca, Registry: s.Store, Sink: s.Store, Enroller: s.Store,
		DrainTimeout: 200 * time.Millisecond, OnStored: func(id string) { s.Bus.Notify(bus.Task(id)) }, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(s.t, err)
	s.ca = ca
	return h
}

// StartAgents runs agents of these ids until the end of the test, and gives when they are connected. It may be called once.
func (s *Server) StartAgents(handlers map[string]agent.Handler, ids ...string) {
	s.t.Helper()
	s.StartAgentsWith(handlers, nil, ids...)
}

// StartAgentsWith is StartAgents for agents that carry out steps, or look at what was deployed; executor may be nil.
func (s *Server) StartAgentsWith(handlers map[string]agent.Handler, executor func(id string) agent.Executor, ids ...string) {
	s.t.Helper()
	require.NoError(s.t, s.Hub.Start(s.t.Context()))
	token := auth.NewJoinToken(s.ca.Fingerprint())
	require.NoError(s.t, s.Store.CreateJoinToken(s.t.Context(), store.JoinToken{
		ID: token.Hash(), Hash: token.Hash(), Pattern: "*", Uses: len(ids), CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	}))
	ctx, cancel := context.WithCancel(context.Background())
	stopped, connected := make(chan error, len(ids)), make(chan struct{}, len(ids))
	for _, id := range ids {
		config := agent.Config{
			Servers: []string{s.Hub.Addr().String()}, ClientID: id, Token: token.String(), DataDir: filepath.Join(s.t.TempDir(), id), NoSync: true,
			Handlers: handlers, OnConnect: func(*quicflowv1.Welcome) { connected <- struct{}{} }, Logger: slog.New(slog.DiscardHandler),
		}
		if executor != nil {
			config.Executor = executor(id)
		}
		a, err := agent.New(config)
		require.NoError(s.t, err)
		go func() { stopped <- a.Run(ctx) }()
	}
	s.t.Cleanup(func() {
		cancel()
		for range ids {
			require.NoError(s.t, <-stopped)
		}
		stop, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(s.t, s.Hub.Stop(stop))
	})
	for range ids {
		<-connected
	}
}
