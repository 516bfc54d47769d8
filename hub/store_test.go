package hub_test

import (
	"crypto/tls"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

var (
	_ hub.Registry = (*store.Store)(nil)
	_ hub.Sink     = (*store.Store)(nil)
	_ hub.Enroller = (*store.Store)(nil)
)

// The whole way of an agent with the real store behind the hub: join, connect, be given a step, report it, be revoked.
func TestHubOnTheStore(t *testing.T) {
	ctx := t.Context()
	s, err := store.Open(ctx, store.Config{Driver: store.SQLite, DSN: filepath.Join(t.TempDir(), "quicflow.db"), OfflineGrace: time.Minute,
		Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	b := start(t, func(c *hub.Config) { c.Registry, c.Sink, c.Enroller = s, s, s })

	// Join. A lost answer can be asked for again; a second host cannot have the token.
	token := auth.NewJoinToken(ca.Fingerprint())
	require.NoError(t, s.CreateJoinToken(ctx, store.JoinToken{ID: "t", Hash: token.Hash(), Pattern: "web-*", Uses: 1, ExpiresAt: time.Now().Add(time.Hour)}))
	key := newKey(t)
	require.Equal(t, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_ID_NOT_ALLOWED, b.enrol(token.Secret, "db-1", newKey(t)).GetError().GetCode())
	require.Nil(t, b.enrol(token.Secret, "web-1", key).GetError())
	joined := b.enrol(token.Secret, "web-1", key)
	require.Nil(t, joined.GetError())
	require.Equal(t, quicflowv1.EnrolErrorCode_ENROL_ERROR_CODE_TOKEN_USED_UP, b.enrol(token.Secret, "web-2", newKey(t)).GetError().GetCode())
	who := identity{id: "web-1", cert: tls.Certificate{Certificate: [][]byte{joined.CertificateDer}, PrivateKey: key}}
	require.Nil(t, b.enrol("", "web-1", key, who.cert).GetError(), "renewal")

	// Connect.
	a := b.connect(who)
	client, err := s.ClientByID(ctx, "web-1")
	require.NoError(t, err)
	require.Equal(t, release.ClientOnline, client.Status)
	require.Equal(t, "node-1", client.NodeID)
	require.Equal(t, map[string]string{"env": "test"}, client.Labels)

	// Be given a step and report it.
	require.NoError(t, s.CreateProject(ctx, &release.Project{Name: "shop", Type: release.TypeScript}))
	version := release.Version{Project: "shop", Name: "1.0", Status: release.VersionActive, Spec: release.Spec{Script: &release.ScriptSpec{Install: "true"}}}
	require.NoError(t, s.CreateVersion(ctx, &version))
	task := release.Task{ProjectID: version.ProjectID, VersionID: version.ID, Action: release.ActionDeploy, Targets: release.Targets{Clients: []string{"web-1"}}}
	require.NoError(t, s.CreateTask(ctx, &task, []string{"web-1"}))
	chunks, err := s.PlanChunks(ctx, task.ID, release.StepDeploy, 1, 100, "default")
	require.NoError(t, err)
	require.Equal(t, "node-1", chunks[0].NodeID)
	steps, err := s.ChunkSteps(ctx, task.ID, release.StepDeploy, chunks[0].Chunk)
	require.NoError(t, err)
	_, _, err = s.MarkDispatched(ctx, task.ID, release.StepDeploy, []string{"web-1"})
	require.NoError(t, err)
	id := steps[0].ID
	logs := a.logs()
	for p := range uint64(10) {
		require.NoError(t, wire.WriteFrame(logs, chunkAt(id, p)))
	}
	require.NoError(t, logs.Close())
	for a.receive().GetLogAck().GetPosition() < 10 {
	}
	finished := resultOf(id)
	finished.GetResult().LogEnd = 10
	a.send(finished)
	require.Equal(t, id, a.receive().GetResultAck().GetStepId())
	targets, _, err := s.Targets(ctx, task.ID, store.TargetFilter{})
	require.NoError(t, err)
	require.Equal(t, release.TargetSucceeded, targets[0].State)
	complete, _, err := s.LogsComplete(ctx, task.ID)
	require.NoError(t, err)
	require.True(t, complete)

	// Be taken over, be revoked.
	again := b.connect(who)
	require.Equal(t, a.welcome.SessionEpoch+1, again.welcome.SessionEpoch)
	require.NoError(t, s.RevokeClient(ctx, "web-1"))
	require.True(t, b.Disconnect("web-1"))
	again.closedWith(wire.CloseRevoked, "revoked")
	_, answer := b.greet(who, "journal", "boot")
	require.Equal(t, quicflowv1.RefusalCode_REFUSAL_CODE_REVOKED, answer.GetRefusal().GetCode())
	eventually(t, "the end is written down", func() bool {
		client, err = s.ClientByID(ctx, "web-1")
		return err == nil && client.Status != release.ClientOnline
	})
}
