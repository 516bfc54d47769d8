// Command echo shows the backbone as a library: a server with a handler for messages, and a client that sends one.
//
//	echo -listen 127.0.0.1:8474                           the server; it prints a join token
//	echo -server 127.0.0.1:8474 -token qfj1.… hello you   the client; it prints what comes back
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/hub"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func main() {
	listen := flag.String("listen", "", "be a server at this UDP address")
	server := flag.String("server", "", "be a client of the server at this address")
	token := flag.String("token", "", "the join token that the server printed")
	id := flag.String("id", "client-1", "the client's identity; one joins once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *listen != "":
		err = serve(ctx, *listen)
	case *server != "":
		err = send(ctx, *server, *token, *id, strings.Join(flag.Args(), " "))
	default:
		err = errors.New("say -listen or -server")
	}
	if err != nil {
		log.Fatal("echo: ", err)
	}
}

// echo is the server's handler: it answers a message with itself.
func echo(_ context.Context, from hub.Event, message *quicflowv1.Message) (*quicflowv1.Message, error) {
	fmt.Printf("%s says %s\n", from.ClientID, message.Payload)
	return message, nil
}

// serve answers messages until ctx ends.
func serve(ctx context.Context, addr string) error {
	dir, err := os.MkdirTemp("", "echo-server-") // a server that is to be known after a restart keeps its CA
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ca, err := hub.OpenCA(dir)
	if err != nil {
		return err
	}
	memory := hub.NewMemory()
	h, err := hub.New(hub.Config{
		Addr: addr, NodeID: "echo", CA: ca, Registry: memory, Sink: memory, Enroller: memory,
		Handlers: map[string]hub.Handler{"echo": echo},
	})
	if err != nil {
		return err
	}
	token, err := memory.JoinToken(ca, "client-*")
	if err != nil {
		return err
	}
	if err := h.Start(ctx); err != nil {
		return err
	}
	fmt.Printf("clients may come: echo -server %s -token %s hello\n", h.Addr(), token)
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return h.Stop(stop)
}

// send sends one message and prints the answer.
func send(ctx context.Context, server, token, id, text string) error {
	dir, err := os.MkdirTemp("", "echo-client-") // a client that is to come again keeps its identity
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	connected := make(chan struct{}, 1)
	a, err := agent.New(agent.Config{
		Servers: []string{server}, Token: token, ClientID: id, DataDir: dir, MaxRetries: 3,
		OnConnect: func(*quicflowv1.Welcome) {
			select {
			case connected <- struct{}{}:
			default: // it came back after its connection was lost
			}
		},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- a.Run(ctx) }()
	select {
	case <-connected:
	case err := <-stopped:
		return err
	}
	answer, err := a.SendMessage(ctx, &quicflowv1.Message{Type: "echo", Payload: []byte(text)}, true, 5*time.Second)
	if err == nil {
		fmt.Printf("%s\n", answer.Payload)
	}
	cancel()
	return errors.Join(err, <-stopped)
}
