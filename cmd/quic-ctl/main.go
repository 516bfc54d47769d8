// Command quic-ctl is the release manager's program: it talks to a QuicFlow server over its HTTP API.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set when the program is built.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, terminal{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.Getenv, os.Args[1:])
	stop()
	os.Exit(code)
}
