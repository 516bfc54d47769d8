// Command quic-server is QuicFlow's server: hub, API and, unless told otherwise, its own Temporal and database.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := untilSignalled(os.Stderr)
	defer stop()
	root := newRoot(os.Stdout, os.Stderr)
	root.SetArgs(os.Args[1:])
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "quic-server:", strings.ReplaceAll(err.Error(), "\n", "\n  "))
		os.Exit(1)
	}
}

// untilSignalled gives a context that the first SIGINT or SIGTERM ends. The second one ends the process.
func untilSignalled(stderr io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() { // for the life of the process
		s := <-signals
		cancel(fmt.Errorf("signal: %s", s))
		fmt.Fprintf(stderr, "quic-server: stopping; once more ends it at once\n")
		<-signals
		os.Exit(1)
	}()
	return ctx, func() { cancel(errors.New("the program ended")) }
}
