package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/hub"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// An agent that answers a hub's message, and tells apart what can become of its own.
func ExampleAgent_SendMessage() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	h, token, dir := exampleHub(ctx)
	defer os.RemoveAll(dir)

	connected := make(chan struct{})
	a, err := agent.New(agent.Config{
		Servers: []string{h.Addr().String()}, ClientID: "host-1", Token: token, DataDir: dir + "/agent",
		Handlers: map[string]agent.Handler{
			"name": func(context.Context, *quicflowv1.Message) (*quicflowv1.Message, error) {
				return &quicflowv1.Message{Type: "name", Payload: []byte("I am host-1")}, nil
			},
		},
		OnConnect: func(*quicflowv1.Welcome) { close(connected) },
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	life, leave := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- a.Run(life) }()
	<-connected

	// From the hub to the agent.
	response, err := h.Request(ctx, "host-1", &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: "name"}}})
	fmt.Printf("%s, %v\n", response.GetMessage().GetPayload(), err)

	// From the agent to the hub: with an answer, without one, and to no one.
	answer, err := a.SendMessage(ctx, &quicflowv1.Message{Type: "ping"}, true, 10*time.Second)
	fmt.Println(answer.GetType(), err)
	_, err = a.SendMessage(ctx, &quicflowv1.Message{Type: "ping"}, false, 0)
	fmt.Println(err)
	_, err = a.SendMessage(ctx, &quicflowv1.Message{Type: "dance"}, true, 10*time.Second)
	fmt.Println(errors.Is(err, agent.ErrUnsupported))

	leave()
	fmt.Println(<-stopped, h.Stop(ctx))
	_, err = a.SendMessage(context.Background(), &quicflowv1.Message{Type: "ping"}, true, 0)
	fmt.Println(errors.Is(err, agent.ErrNotConnected))
	// Output:
	// I am host-1, <nil>
	// pong <nil>
	// <nil>
	// true
	// <nil> <nil>
	// true
}

// exampleHub starts a hub in memory; see package hub.
func exampleHub(ctx context.Context) (h *hub.Hub, token, dir string) {
	dir, err := os.MkdirTemp("", "agent-example-")
	if err != nil {
		panic(err)
	}
	ca, err := hub.OpenCA(dir)
	if err != nil {
		panic(err)
	}
	memory := hub.NewMemory()
	if token, err = memory.JoinToken(ca, "*"); err != nil {
		panic(err)
	}
	h, err = hub.New(hub.Config{
		Addr: "127.0.0.1:0", NodeID: "example", CA: ca, Registry: memory, Sink: memory, Enroller: memory,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		err = h.Start(ctx)
	}
	if err != nil {
		panic(err)
	}
	return h, token, dir
}
