package hub_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	client "github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/hub"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// A hub with a handler, and an agent that sends it a message.
func Example() {
	dir, err := os.MkdirTemp("", "hub-example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ca, err := hub.OpenCA(dir)
	if err != nil {
		panic(err)
	}
	memory, quiet := hub.NewMemory(), slog.New(slog.DiscardHandler)
	h, err := hub.New(hub.Config{
		Addr: "127.0.0.1:0", NodeID: "example", CA: ca, Registry: memory, Sink: memory, Enroller: memory, Logger: quiet,
		Handlers: map[string]hub.Handler{
			"shout": func(_ context.Context, from hub.Event, m *quicflowv1.Message) (*quicflowv1.Message, error) {
				loud := strings.ToUpper(string(m.Payload))
				return &quicflowv1.Message{Type: "shouted", Payload: []byte(from.ClientID + ": " + loud)}, nil
			},
		},
	})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := h.Start(ctx); err != nil {
		panic(err)
	}
	token, err := memory.JoinToken(ca, "host-*")
	if err != nil {
		panic(err)
	}

	connected := make(chan struct{})
	a, err := client.New(client.Config{
		Servers: []string{h.Addr().String()}, ClientID: "host-1", Token: token, DataDir: dir + "/agent", Logger: quiet,
		OnConnect: func(*quicflowv1.Welcome) { close(connected) },
	})
	if err != nil {
		panic(err)
	}
	life, leave := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- a.Run(life) }()
	<-connected

	answer, err := a.SendMessage(ctx, &quicflowv1.Message{Type: "shout", Payload: []byte("hello")}, true, 10*time.Second)
	fmt.Println(answer.GetType(), string(answer.GetPayload()), err)

	leave()
	fmt.Println(<-stopped, h.Stop(ctx))
	// Output:
	// shouted host-1: HELLO <nil>
	// <nil> <nil>
}
