package agent

import (
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// builtin answers ping with pong and echo with itself, payload included, unless the configuration has a handler for them.
// It gives nil for any other message. It takes no time, so it needs no goroutine.
func (a *Agent) builtin(m *quicflowv1.Message) *quicflowv1.Response {
	kind := ""
	switch m.GetType() {
	case "ping":
		kind = "pong"
	case "echo":
		kind = "echo"
	default:
		return nil
	}
	if _, own := a.cfg.Handlers[m.Type]; own {
		return nil
	}
	return &quicflowv1.Response{Body: &quicflowv1.Response_Message{Message: &quicflowv1.Message{Type: kind, Payload: m.Payload}}}
}
