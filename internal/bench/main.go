// Command bench measures QuicFlow and prints what it saw: how long rollouts to simulated agents take, and how long one
// command takes beside a bare QUIC echo. Nothing is asserted; run it with "make bench".
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
)

func main() {
	server := flag.String("server", "bin/quic-server", "the quic-server to measure")
	fleets := flag.String("agents", "200,1000", "sizes of the fleets, separated by commas")
	rounds := flag.Int("rounds", 5000, "requests of the round-trip measurement")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *server, *fleets, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, fleets string, rounds int) error {
	fmt.Printf("%s, %s/%s, %d CPUs\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if err := measureRoundTrips(ctx, rounds); err != nil {
		return fmt.Errorf("round trips: %w", err)
	}
	fmt.Printf("\nrollout of a no-op script to simulated agents (real protocol, in-process executor), one wave\n")
	fmt.Printf("%8s %10s %14s %12s %12s %9s\n", "agents", "wall", "dispatches/s", "server CPU", "server RSS", "events")
	for _, text := range strings.Split(fleets, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a number of agents", text)
		}
		if err := measureRollout(ctx, server, n); err != nil {
			return fmt.Errorf("rollout to %d agents: %w", n, err)
		}
	}
	return nil
}
