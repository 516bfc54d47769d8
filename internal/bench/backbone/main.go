// Command backbone measures the hub and its connections beside a bare quic-go and NATS, all in one run on one machine, and prints
// what it saw. Nothing is asserted; run it with "make bench-backbone". docs/performance.md says what each measure does.
//
// Servers and clients are processes of their own, in which this program plays other roles, so that the system tells what each costs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/internal/bench/rig"
)

// memProfileRate samples the heap finely enough for shares of a few kilobytes a connection, and seldom enough to be cheap.
const memProfileRate = 64 << 10

func main() {
	if len(os.Args) == 2 {
		if handlers, ok := roles()[os.Args[1]]; ok {
			runtime.MemProfileRate = memProfileRate
			rig.Exit(rig.Play(handlers))
		}
	}
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = run(ctx, o)
	}
	rig.Exit(err)
}

// roles are what the processes of a measurement do.
func roles() map[string]map[string]rig.Handler {
	return map[string]map[string]rig.Handler{
		"role-hub":         new(hubRole).handlers(),
		"role-fleet":       new(rig.Fleet).Handlers(),
		"role-bare-server": new(bareServer).handlers(),
		"role-bare-client": bareClient{}.handlers(),
	}
}

// measures in the order in which they run: those from memory on share one hub with its fleet, which the last one kills.
var measures = []string{"throughput", "memory", "heartbeats", "promises", "broadcast", "storm"}

// options of a run.
type options struct {
	measures    []string
	agents      []int
	preset      string
	nats        string // program; empty: NATS is left out
	natsConns   []int
	bare        bool
	connections int
	inFlight    []int
	payload     int
	rounds      int
	load        time.Duration
	settle      time.Duration
	heartbeats  time.Duration
	interval    time.Duration
	promises    int
	delay       time.Duration
	patience    time.Duration
	atOnce      int
	gogc        string
	out         string
}

func parse(arguments []string) (options, error) {
	var o options
	f := flag.NewFlagSet("backbone", flag.ContinueOnError)
	chosen := f.String("run", strings.Join(measures, ","), "what to measure")
	agents := f.String("agents", "10000", "sizes of the fleets, separated by commas")
	f.StringVar(&o.preset, "preset", "highperf", "configuration of the hub and of the bare server: standard or highperf")
	f.StringVar(&o.nats, "nats", "bin/bench/nats", "program of internal/bench/nats; empty leaves NATS out")
	f.BoolVar(&o.bare, "bare", true, "measure bare quic-go too")
	natsConns := f.String("nats-connections", "1,4", "connections of the NATS requester; each is tried and the best counts")
	f.IntVar(&o.connections, "connections", 1000, "connections of the throughput measure")
	inFlight := f.String("in-flight", "1,50,1000,5000", "requests in flight, one measurement each")
	f.IntVar(&o.payload, "payload", 200, "bytes of a request and of its answer")
	f.IntVar(&o.rounds, "rounds", 3, "repetitions of the throughput measure; medians are reported")
	f.DurationVar(&o.load, "load", 10*time.Second, "time of one load, after a warm-up of a fifth of it")
	f.DurationVar(&o.settle, "settle", 0, "time from the last connection to the reading of memory; 0: one heartbeat interval and 10 s")
	f.DurationVar(&o.heartbeats, "duration", 10*time.Minute, "time of the heartbeat measure")
	f.DurationVar(&o.interval, "heartbeat", 0, "interval of the heartbeats; 0: the preset's")
	f.IntVar(&o.promises, "promises", 50_000, "requests in flight of the promise measure")
	f.DurationVar(&o.delay, "delay", 5*time.Second, "time until an agent answers in the promise measure")
	f.DurationVar(&o.patience, "patience", 15*time.Minute, "longest time for all agents to connect")
	f.IntVar(&o.atOnce, "at-once", 100, "agents that connect at the same time")
	f.StringVar(&o.gogc, "gogc", "100", "GOGC of every process")
	f.StringVar(&o.out, "out", "", "file for the figures as JSON; empty means rig.None")
	if err := f.Parse(arguments); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	for _, m := range strings.Split(*chosen, ",") {
		if !slices.Contains(measures, m) {
			return o, fmt.Errorf("-run: there is no measure %q; there are %s", m, strings.Join(measures, ", "))
		}
		o.measures = append(o.measures, m)
	}
	var errs [3]error
	o.agents, errs[0] = rig.Numbers("agents", *agents)
	o.inFlight, errs[1] = rig.Numbers("in-flight", *inFlight)
	o.natsConns, errs[2] = rig.Numbers("nats-connections", *natsConns)
	if o.connections < 1 || o.payload < 1 || o.rounds < 1 || o.promises < 1 || o.atOnce < 1 {
		return o, errors.New("-connections, -payload, -rounds, -promises and -at-once must be at least 1")
	}
	_, err := presetOf(o.preset)
	return o, errors.Join(errs[0], errs[1], errs[2], err)
}

func (o options) wants(measure string) bool { return slices.Contains(o.measures, measure) }

// bench is one run.
type bench struct {
	options
	program string // this one
	report  report
}

func run(ctx context.Context, o options) (err error) {
	b := &bench{options: o}
	if b.program, err = os.Executable(); err != nil {
		return err
	}
	rig.RaiseFileLimit()
	b.report = newReport(o)
	b.report.print()
	// What was measured is worth keeping even if the rest fails.
	defer func() { err = errors.Join(err, rig.WriteReport(o.out, b.report)) }()
	if o.wants("throughput") {
		if err := b.throughput(ctx); err != nil {
			return fmt.Errorf("throughput: %w", err)
		}
	}
	if slices.ContainsFunc(o.measures, func(m string) bool { return m != "throughput" }) {
		for _, n := range o.agents {
			if err := b.fleet(ctx, n); err != nil {
				return fmt.Errorf("%d agents: %w", n, err)
			}
		}
	}
	return nil
}

// start runs this program in a role.
func (b *bench) start(ctx context.Context, role string) (*rig.Process, error) {
	return rig.Start(ctx, b.program, role, "GOGC="+b.gogc)
}
