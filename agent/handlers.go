package agent

import (
	"context"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// builtinHandlers answer ping with pong and echo with itself, payload included.
func builtinHandlers() map[string]Handler {
	answer := func(kind string) Handler {
		return func(_ context.Context, m *quicflowv1.Message) (*quicflowv1.Message, error) {
			return &quicflowv1.Message{Type: kind, Payload: m.Payload}, nil
		}
	}
	return map[string]Handler{"ping": answer("pong"), "echo": answer("echo")}
}
