package hub_test

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
)

// What is posted has no id, so no answer, and no promise is made for it.
func TestPostWantsNoAnswer(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := start(t, counted(reg))
	require.ErrorIs(t, b.Post("web-1", ping()), hub.ErrNotConnected)
	a := b.connect(b.join("web-1"))
	req := ping()
	req.Id = 7 // of another request; it is not sent
	require.NoError(t, b.Post("web-1", req))
	got := a.receive().GetRequest()
	require.Zero(t, got.GetId())
	require.Equal(t, "ping", got.GetMessage().GetType())
	a.alive()
	settled(t, reg, 0, 0, 0)

	a.goodbye()
	// While the session ends, that is the error.
	eventually(t, "the agent is known to be gone", func() bool { return errors.Is(b.Post("web-1", ping()), hub.ErrNotConnected) })
}
