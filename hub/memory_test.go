package hub_test

import (
	"path"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
)

func TestMemoryLetsIn(t *testing.T) {
	m, ctx := hub.NewMemory(), t.Context()
	_, err := m.JoinToken(ca, "a[")
	require.ErrorIs(t, err, path.ErrBadPattern)
	text, err := m.JoinToken(ca, "web-*")
	require.NoError(t, err)
	token, err := auth.ParseJoinToken(text)
	require.NoError(t, err)
	require.Equal(t, ca.Fingerprint(), token.Fingerprint)

	redeem := func(secret, id, key string) error {
		return m.RedeemJoinToken(ctx, auth.Redemption{TokenHash: auth.HashSecret(secret), ClientID: id, PublicKeyHash: key})
	}
	require.ErrorIs(t, redeem("guess", "web-1", "key"), auth.ErrTokenUnknown)
	require.ErrorIs(t, redeem(token.Secret, "db-1", "key"), auth.ErrIDNotAllowed)
	require.ErrorIs(t, m.RecordCertificate(ctx, "web-1", "1", time.Time{}, "key"), release.ErrNotFound)
	require.NoError(t, redeem(token.Secret, "web-1", "key"))
	require.NoError(t, redeem(token.Secret, "web-1", "key"), "its answer may have been lost")
	require.ErrorIs(t, redeem(token.Secret, "web-1", "other"), auth.ErrIDTaken)
	require.NoError(t, redeem(token.Secret, "web-2", "other"))

	require.NoError(t, m.RecordCertificate(ctx, "web-1", "1", time.Time{}, "key"))
	for id, valid := range map[string]bool{"web-1": true, "web-2": false, "web-3": false} {
		got, err := m.CertificateValid(ctx, id, "1")
		require.NoError(t, err)
		require.Equal(t, valid, got, id)
	}
	for epoch := range int64(3) {
		entries, err := m.ConnectClients(ctx, []release.ClientSession{{ClientID: "web-1", Serial: "1"}, {ClientID: "web-2", Serial: "1"}, {ClientID: "web-3"}})
		require.NoError(t, err)
		require.Equal(t, map[string]release.ClientEntry{"web-1": {Epoch: epoch + 1}, "web-2": {Revoked: true}}, entries)
	}
}

func TestMemoryAcknowledgesLogs(t *testing.T) {
	acks, err := hub.NewMemory().AppendLogs(t.Context(), []release.LogRecord{
		{StepID: "a", Position: 0, Next: 5}, {StepID: "a", Position: 5, Next: 9}})
	require.NoError(t, err)
	require.Empty(t, cmp.Diff([]release.LogAck{{StepID: "a", Position: 9}}, acks))
}

// A session with a hub on Memory, frame by frame: a result is acknowledged although it is not kept.
func TestHubOnMemory(t *testing.T) {
	m := hub.NewMemory()
	b := start(t, func(c *hub.Config) { c.Registry, c.Sink, c.Enroller = m, m, m })
	text, err := m.JoinToken(ca, "*")
	require.NoError(t, err)
	token, err := auth.ParseJoinToken(text)
	require.NoError(t, err)
	who := issue(t, ca, "a", 0)
	_, refused := b.greet(who, "journal", "boot")
	require.NotNil(t, refused.GetRefusal(), "it has not joined")
	require.NoError(t, m.RedeemJoinToken(t.Context(), auth.Redemption{TokenHash: token.Hash(), ClientID: "a"}))
	require.NoError(t, m.RecordCertificate(t.Context(), "a", pki.Serial(who.cert.Leaf), time.Time{}, ""))
	a := b.connect(who)
	id := step("a")
	a.send(resultOf(id))
	require.Equal(t, id, a.receive().GetResultAck().GetStepId())
}
