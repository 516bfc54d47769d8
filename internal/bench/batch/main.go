// Command batch measures batch jobs on a quic-server process: durable jobs beside bare requests of the same server, how soon the
// lines that hosts print are stored, and commands on real agents beside Ansible. Nothing is asserted; run it with
// "make bench-batch". docs/performance.md says what each measure does.
//
// Simulated agents are a process of their own, in which this program plays another role.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/internal/bench/rig"
)

const fleetRole = "role-fleet"

func main() {
	if len(os.Args) == 2 && os.Args[1] == fleetRole {
		rig.Exit(rig.Play(new(rig.Fleet).Handlers()))
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

// The measures, and the databases to take them on.
var (
	measures  = []string{"batch", "joblogs", "ansible"}
	databases = []string{sqlite, postgres}
)

const (
	sqlite   = "sqlite"
	postgres = "postgres"
)

// options of a run.
type options struct {
	measures, databases []string
	agents              []int
	rounds              int
	command             string
	concurrency         int
	payload             int
	lines               int
	hosts               int
	preset              string
	server, client, ctl string // programs
	atOnce              int
	patience            time.Duration
	settle              time.Duration
	history             bool
	gogc                string
	out                 string
}

func parse(arguments []string) (options, error) {
	var o options
	f := flag.NewFlagSet("batch", flag.ContinueOnError)
	chosen := f.String("run", strings.Join(measures, ","), "what to measure")
	stores := f.String("database", strings.Join(databases, ","), "where the server keeps its state, one after the other")
	agents := f.String("agents", "10000", "sizes of the fleets, separated by commas")
	f.IntVar(&o.rounds, "rounds", 3, "jobs of each measure")
	f.StringVar(&o.command, "command", "ping", "type of the command; simulated agents take any, and do nothing")
	f.IntVar(&o.concurrency, "concurrency", 0, "hosts at work at once; 0: as the server is configured")
	f.IntVar(&o.payload, "payload", 200, "bytes of a broadcast and of each answer")
	f.IntVar(&o.lines, "lines", 100, "lines of 64 bytes that each host prints in the measure of logs")
	f.IntVar(&o.hosts, "hosts", 50, "hosts of the comparison with Ansible, each with an sshd and an agent on this machine")
	f.StringVar(&o.preset, "preset", "highperf", "configuration of the server: standard or highperf")
	f.StringVar(&o.server, "server", "bin/quic-server", "the server to measure")
	f.StringVar(&o.client, "client", "bin/quic-client", "the agent of the comparison with Ansible")
	f.StringVar(&o.ctl, "ctl", "bin/quic-ctl", "the command line of the comparison with Ansible")
	f.IntVar(&o.atOnce, "at-once", 100, "agents that connect at the same time")
	f.DurationVar(&o.patience, "patience", 15*time.Minute, "longest time for all agents to connect, and for a job")
	f.DurationVar(&o.settle, "settle", 10*time.Second, "time between the last connection and the first measurement")
	f.BoolVar(&o.history, "history", false, "print when what happened in the workflow of each size's last job")
	f.StringVar(&o.gogc, "gogc", "100", "GOGC of the fleet; the server's is that of its preset")
	f.StringVar(&o.out, "out", "", "file for the figures as JSON; empty means none")
	if err := f.Parse(arguments); err != nil {
		return o, err
	}
	var errs [3]error
	o.measures, errs[0] = among("run", *chosen, measures)
	o.databases, errs[1] = among("database", *stores, databases)
	o.agents, errs[2] = rig.Numbers("agents", *agents)
	if o.rounds < 1 || o.payload < 1 || o.lines < 1 || o.hosts < 1 || o.atOnce < 1 || o.concurrency < 0 {
		return o, errors.New("-rounds, -payload, -lines, -hosts and -at-once must be at least 1, -concurrency not negative")
	}
	if o.preset != "standard" && o.preset != "highperf" {
		return o, fmt.Errorf("-preset: %q is neither standard nor highperf", o.preset)
	}
	return o, errors.Join(errs[:]...)
}

// among reads a list of words, each of which must be known.
func among(name, text string, known []string) ([]string, error) {
	words := strings.Split(text, ",")
	for _, word := range words {
		if !slices.Contains(known, word) {
			return nil, fmt.Errorf("-%s: there is no %q; there are %s", name, word, strings.Join(known, ", "))
		}
	}
	return words, nil
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
	b.report = report{Date: time.Now().UTC().Truncate(time.Second), Machine: rig.ThisMachine(), Preset: o.preset, Command: o.command}
	fmt.Printf("%s\n%s, preset %s\n", b.report.Date.Format(time.DateTime+" MST"), b.report.Machine, o.preset)
	// What was measured is worth keeping even if the rest fails.
	defer func() { err = errors.Join(err, rig.WriteReport(o.out, b.report)) }()
	if o.wants("batch") || o.wants("joblogs") {
		for _, n := range o.agents {
			for _, database := range o.databases {
				if err := b.fleet(ctx, database, n); err != nil {
					return fmt.Errorf("%d agents, %s: %w", n, database, err)
				}
			}
		}
	}
	if o.wants("ansible") {
		if err := b.ansible(ctx); err != nil {
			return fmt.Errorf("ansible: %w", err)
		}
	}
	return nil
}

// report is all that a run measured, in the form of its JSON file. Times are in nanoseconds, sizes in bytes.
type report struct {
	Date    time.Time       `json:"date"`
	Machine rig.Machine     `json:"machine"`
	Preset  string          `json:"preset"`
	Command string          `json:"command"`
	Batch   []batchResult   `json:"batch,omitempty"`
	Logs    []logsResult    `json:"joblogs,omitempty"`
	Ansible []ansibleResult `json:"ansible,omitempty"`

	AnsibleVersion string `json:"ansible_version,omitempty"`
}

// pause gives other goroutines and processes d.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
