// Command demo shows QuicFlow at work on one machine: a server, ten agents, and a small HTTP service that is installed
// in version 1.0 and released in version 2.0 with a canary. `make demo` builds what it needs and runs it.
//
// It ends with everything running, until Ctrl-C. With DEMO_EXIT=1 it stops everything by itself, and its exit code says
// whether both versions were seen on every agent.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

var errInterrupted = errors.New("interrupted")

func main() {
	once := os.Getenv("DEMO_EXIT") != "" && os.Getenv("DEMO_EXIT") != "0"
	if !once {
		takeTerminal()
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the process
		<-signals
		signal.Stop(signals) // a second Ctrl-C ends the demo at once
		cancel(errInterrupted)
	}()

	err := run(ctx, cancel, once)
	if cause := context.Cause(ctx); cause != nil {
		err = cause // why the rest failed
	}
	if err != nil && !errors.Is(err, errInterrupted) {
		fmt.Fprintln(os.Stderr, "\ndemo failed:", err)
		os.Exit(1)
	}
}

// run tells the story. Whatever it started has been stopped when it returns.
func run(ctx context.Context, cancel context.CancelCauseFunc, once bool) (err error) {
	d, err := newDemo(cancel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()

	for _, chapter := range []func(context.Context) error{
		d.startServer,
		d.joinAgents,
		d.describe,
		d.install,
		d.release,
		d.sum,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	if once {
		return nil
	}
	d.invite()
	<-ctx.Done()
	return nil
}
