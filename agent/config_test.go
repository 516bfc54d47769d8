package agent_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	valid := agent.Config{
		Servers: []string{"hub.example.com", "[::1]:9", "10.0.0.1:8474", "::1"}, ClientID: "a", DataDir: t.TempDir(),
		Executor: executorFunc(func(context.Context, *quicflowv1.StepRequest, *spool.Writer) *quicflowv1.StepResult { return nil }),
	}
	_, err := agent.New(valid)
	require.NoError(t, err)
	for name, change := range map[string]func(*agent.Config){
		"no server":   func(c *agent.Config) { c.Servers = nil },
		"bad server":  func(c *agent.Config) { c.Servers = []string{":8474"} },
		"bad id":      func(c *agent.Config) { c.ClientID = "a/b" },
		"no data dir": func(c *agent.Config) { c.DataDir = "" },
		"bad label":   func(c *agent.Config) { c.Labels = map[string]string{"a b": "x"} },
		"own label":   func(c *agent.Config) { c.Labels = map[string]string{"os": "x"} },
		"long label":  func(c *agent.Config) { c.Labels = map[string]string{"a": strings.Repeat("x", 300)} },
		"negative":    func(c *agent.Config) { c.MaxSteps = -1 },
		"no log":      func(c *agent.Config) { c.MaxLog = -1 },
	} {
		broken := valid
		change(&broken)
		_, err := agent.New(broken)
		require.Error(t, err, name)
	}
	broken := valid
	broken.ClientID = ""
	_, err = agent.New(broken)
	require.ErrorIs(t, err, release.ErrInvalid)
}
