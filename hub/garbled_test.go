package hub_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Generated decoding does not look into strings; what no database takes must not get further than here.
func TestTextThatIsNoUTF8(t *testing.T) {
	b := start(t)
	who := b.join("garbler")
	hello := helloOf("journal\xff", "boot\x00")
	hello.GetHello().Hostname = "h\xffost"
	hello.GetHello().Labels = map[string]string{"\xff": "v\xff\x00"}
	a := b.open(who)
	a.send(hello)
	require.NotNil(t, a.receive().GetWelcome())
	b.registry.mu.Lock()
	session := b.registry.sessions[len(b.registry.sessions)-1]
	b.registry.mu.Unlock()
	require.Equal(t, "h\uFFFDost", session.Hostname)
	require.Equal(t, map[string]string{"\uFFFD": "v\uFFFD"}, session.Labels)
	require.Equal(t, "boot", session.BootID)

	answered := make(chan string)
	go func() {
		response, err := b.Request(t.Context(), "garbler", ping())
		if err != nil {
			answered <- err.Error()
			return
		}
		answered <- response.GetFailure().GetMessage()
	}()
	a.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Response{Response: &quicflowv1.Response{Id: a.receive().GetRequest().GetId(),
		Body: &quicflowv1.Response_Failure{Failure: &quicflowv1.Failure{Message: "no\xff\x00"}}}}})
	require.Equal(t, "no\uFFFD", <-answered)

	a.send(resultOf("task\xff/deploy/garbler/1"))
	a.closedWith(wire.CloseProtocol, "holds what no text holds")
}
