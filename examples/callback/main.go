// Command callback shows messages in both directions over one connection: a client sends an order, and before the server
// answers, it calls the client back and waits for what that says. Then it shows what happens when an answer comes too late.
//
// Server and client are one program here; see examples/echo for two.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/hub"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "UDP address of the server")
	flag.Parse()
	if err := run(*listen); err != nil {
		log.Fatal("callback: ", err)
	}
}

// tooShort is less than the handlers called "slow" take.
const tooShort = 100 * time.Millisecond

func run(listen string) error {
	dir, err := os.MkdirTemp("", "callback-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, token, err := startServer(listen, filepath.Join(dir, "server"))
	if err != nil {
		return err
	}
	err = order(s, token, filepath.Join(dir, "client"))
	stop, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(err, s.hub.Stop(stop))
}

type server struct{ hub *hub.Hub }

func startServer(listen, dir string) (*server, string, error) {
	ca, err := hub.OpenCA(dir)
	if err != nil {
		return nil, "", err
	}
	s, memory := &server{}, hub.NewMemory()
	s.hub, err = hub.New(hub.Config{
		Addr: listen, NodeID: "shop", CA: ca, Registry: memory, Sink: memory, Enroller: memory,
		Handlers: map[string]hub.Handler{"order": s.order, "slow": s.slow},
		Logger:   slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, "", err
	}
	token, err := memory.JoinToken(ca, "client-*")
	if err != nil {
		return nil, "", err
	}
	return s, token, s.hub.Start(context.Background())
}

// order calls the client back before it answers. Handlers do not hold up what else the client sends, so they may wait.
func (s *server) order(ctx context.Context, from hub.Event, message *quicflowv1.Message) (*quicflowv1.Message, error) {
	fmt.Printf("server: %s orders %s; asking back\n", from.ClientID, message.Payload)
	answer, err := s.call(ctx, from.ClientID, &quicflowv1.Message{Type: "confirm", Payload: message.Payload})
	if err != nil {
		return nil, err
	}
	fmt.Printf("server: %s answers %s\n", from.ClientID, answer.Payload)
	return &quicflowv1.Message{Type: "shipped", Payload: message.Payload}, nil
}

func (s *server) slow(ctx context.Context, _ hub.Event, _ *quicflowv1.Message) (*quicflowv1.Message, error) {
	<-ctx.Done() // the server stops, or Config.HandlerTimeout is over
	return nil, context.Cause(ctx)
}

// call sends a message to a client and waits for its answer.
func (s *server) call(ctx context.Context, clientID string, message *quicflowv1.Message) (*quicflowv1.Message, error) {
	response, err := s.hub.Request(ctx, clientID, &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: message}})
	if err != nil {
		return nil, err
	}
	if failure := response.GetFailure(); failure != nil {
		return nil, errors.New(failure.Message)
	}
	return response.GetMessage(), nil
}

// confirm is the client's end of the callback.
func confirm(_ context.Context, message *quicflowv1.Message) (*quicflowv1.Message, error) {
	fmt.Printf("client: confirming %s\n", message.Payload)
	return &quicflowv1.Message{Type: "confirmed", Payload: []byte("yes")}, nil
}

func slow(ctx context.Context, _ *quicflowv1.Message) (*quicflowv1.Message, error) {
	<-ctx.Done() // the session ends
	return nil, context.Cause(ctx)
}

// order connects a client and plays the story.
func order(s *server, token, dir string) error {
	connected := make(chan struct{}, 1)
	client, err := agent.New(agent.Config{
		Servers: []string{s.hub.Addr().String()}, Token: token, ClientID: "client-1", DataDir: dir, MaxRetries: 3,
		Handlers: map[string]agent.Handler{"confirm": confirm, "slow": slow},
		OnConnect: func(*quicflowv1.Welcome) {
			select {
			case connected <- struct{}{}:
			default:
			}
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- client.Run(ctx) }()
	select {
	case <-connected:
	case err := <-stopped:
		return err
	}

	// With an acknowledgement: the answer of the handler, or an error that says why there is none.
	answer, err := client.SendMessage(ctx, &quicflowv1.Message{Type: "order", Payload: []byte("3 apples")}, true, 5*time.Second)
	if err != nil {
		return err
	}
	fmt.Printf("client: %s %s\n", answer.Type, answer.Payload)

	_, err = client.SendMessage(ctx, &quicflowv1.Message{Type: "slow"}, true, tooShort)
	fmt.Printf("client: %v (timeout: %t)\n", err, errors.Is(err, agent.ErrTimeout))
	_, err = client.SendMessage(ctx, &quicflowv1.Message{Type: "return"}, true, 5*time.Second)
	fmt.Printf("client: %v (unsupported: %t)\n", err, errors.Is(err, agent.ErrUnsupported))

	patience, done := context.WithTimeout(ctx, tooShort)
	defer done()
	_, err = s.call(patience, "client-1", &quicflowv1.Message{Type: "slow"})
	fmt.Printf("server: %v (timeout: %t)\n", err, errors.Is(err, hub.ErrPromiseTimeout))

	cancel()
	return <-stopped
}
