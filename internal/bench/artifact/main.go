// Command artifact measures how fast an artifact comes from a hub to many agents of this machine, beside a plain HTTPS download of the same
// file, and the same bytes over QUIC with nothing around them, in the same run, and prints what it saw. Nothing is asserted; run it with
// "make bench-artifact".
//
// Hub, the other servers and every agent are processes of their own, in which this program plays other roles.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/internal/bench/rig"
)

func main() {
	if len(os.Args) == 2 {
		if handlers, ok := roles()[os.Args[1]]; ok {
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

func roles() map[string]map[string]rig.Handler {
	return map[string]map[string]rig.Handler{
		"role-hub":   new(hubRole).handlers(),
		"role-https": new(httpsRole).handlers(),
		"role-bare":  new(bareRole).handlers(),
		"role-agent": new(agentRole).handlers(),
	}
}

// ways in which the file gets to the agents' disks.
const (
	wayHub         = "hub"           // an agent's cache: SHA-256, fsync, rename
	wayPlain       = "HTTPS"         // what curl -o does
	wayChecked     = "HTTPS checked" // the same, with SHA-256 and fsync
	wayBare        = "QUIC"          // bare quic-go; to nowhere
	wayBareChecked = "QUIC checked"  // to a file, with SHA-256 and fsync
)

type options struct {
	agents int
	size   int64
	rounds int
	dir    string
	ways   []string
	gogc   string
	procs  string
	out    string
}

func parse(arguments []string) (options, error) {
	var o options
	f := flag.NewFlagSet("artifact", flag.ContinueOnError)
	f.IntVar(&o.agents, "agents", 20, "agents, a process each")
	megabytes := f.Int64("size", 200, "megabytes of the artifact")
	f.IntVar(&o.rounds, "rounds", 3, "repetitions; each way once in each, the order changed")
	f.StringVar(&o.dir, "dir", "", "where the processes keep their files; empty means the system's directory for such")
	ways := f.String("ways", strings.Join([]string{wayHub, wayPlain, wayChecked, wayBare, wayBareChecked}, ";"), "ways to measure, separated by semicolons")
	f.StringVar(&o.gogc, "gogc", "100", "GOGC of every process")
	f.StringVar(&o.procs, "agent-procs", "", "GOMAXPROCS of every agent; empty means Go's choice")
	f.StringVar(&o.out, "out", "", "file for the figures as JSON; empty means none")
	if err := f.Parse(arguments); err != nil {
		return o, err
	}
	o.size, o.ways = *megabytes*1_000_000, strings.Split(*ways, ";")
	if f.NArg() > 0 || o.agents < 1 || o.size < 1 || o.rounds < 1 {
		return o, errors.New("-agents, -size and -rounds must be at least 1, and nothing else be given")
	}
	return o, nil
}

// outcome is what one way took in one round.
type outcome struct {
	Way        string        `json:"way"`
	Round      int           `json:"round"`
	Took       time.Duration `json:"took"`        // until the last agent had it
	Rate       float64       `json:"rate"`        // bytes a second, of all together
	ServerCPU  time.Duration `json:"server_cpu"`  //
	AgentsCPU  time.Duration `json:"agents_cpu"`  // together
	ServerPeak int64         `json:"server_peak"` // RSS so far, in bytes
	AgentPeak  int64         `json:"agent_peak"`  // RSS so far, of the one that has most
	Requests   *requests     `json:"requests,omitempty"`
}

type report struct {
	At       time.Time   `json:"at"`
	Machine  rig.Machine `json:"machine"`
	Load     string      `json:"load"` // of the machine, before
	Agents   int         `json:"agents"`
	Size     int64       `json:"size"`
	Procs    string      `json:"agent_procs,omitempty"` // GOMAXPROCS of an agent, if it was set
	HubIdle  int64       `json:"hub_idle"`              // RSS before the first transfer
	AgentRSS int64       `json:"agent_idle"`
	Outcomes []outcome   `json:"outcomes"`
	// Ratios are the throughput of the hub to that of each other way, medians of both.
	Ratios map[string]float64 `json:"ratios"`
}

type bench struct {
	options
	hub, https, bare *rig.Process
	agents           []*rig.Process
	sum, url         string
	bareAddr         string
	report           report
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp(o.dir, "quicflow-bench-")
	if err != nil {
		return err
	}
	b := &bench{options: o}
	defer func() {
		for _, p := range append(b.agents, b.hub, b.https, b.bare) {
			p.Stop()
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	load, _ := os.ReadFile("/proc/loadavg")
	b.report = report{At: time.Now(), Machine: rig.ThisMachine(), Load: strings.TrimSpace(string(load)), Agents: o.agents, Size: o.size, Procs: o.procs}
	fmt.Printf("%s\nload before: %s\n%d agents, an artifact of %d MB, files below %s\n", b.report.Machine, b.report.Load, o.agents, o.size/1_000_000, dir)
	if err := b.start(ctx, dir); err != nil {
		return err
	}
	for round := range o.rounds {
		for i := range o.ways {
			if err := b.measure(ctx, o.ways[(round+i)%len(o.ways)], round+1); err != nil {
				return err
			}
		}
	}
	b.print()
	return rig.WriteReport(o.out, b.report)
}

func (b *bench) start(ctx context.Context, dir string) error {
	if err := rig.Prepare(ctx, dir, "", b.options.agents); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if b.hub, err = rig.Start(ctx, program, "role-hub", "GOGC="+b.gogc); err != nil {
		return err
	}
	var h hubAnswer
	if err := b.hub.Order(ctx, "start", hubPlan{Dir: dir, Size: b.size}, &h); err != nil {
		return err
	}
	b.sum = h.SHA256
	if b.https, err = rig.Start(ctx, program, "role-https", "GOGC="+b.gogc); err != nil {
		return err
	}
	if err := b.https.Order(ctx, "start", h.File, &b.url); err != nil {
		return err
	}
	if b.bare, err = rig.Start(ctx, program, "role-bare", "GOGC="+b.gogc); err != nil {
		return err
	}
	if err := b.bare.Order(ctx, "start", barePlan{Dir: dir, File: h.File}, &b.bareAddr); err != nil {
		return err
	}
	for i := range b.options.agents {
		p, err := rig.Start(ctx, program, "role-agent", "GOGC="+b.gogc, "GOMAXPROCS="+b.procs)
		if err != nil {
			return err
		}
		b.agents = append(b.agents, p)
		if err := p.Order(ctx, "start", agentPlan{Dir: dir, Number: i, Of: b.options.agents, Server: h.Addr}, nil); err != nil {
			return err
		}
	}
	usage, err := b.hub.Usage()
	if err != nil {
		return err
	}
	b.report.HubIdle = usage.RSS
	if usage, err = b.agents[0].Usage(); err != nil {
		return err
	}
	b.report.AgentRSS = usage.RSS
	return nil
}

func (b *bench) measure(ctx context.Context, way string, round int) error {
	server := b.https
	switch way {
	case wayBare, wayBareChecked:
		server = b.bare
	case wayHub:
		server = b.hub
		if err := b.hub.Order(ctx, "watch", b.options.agents, nil); err != nil {
			return err
		}
	}
	serverBefore, agentsBefore, err := b.usage(server)
	if err != nil {
		return err
	}
	began := time.Now()
	errs := make([]error, len(b.agents))
	var group sync.WaitGroup
	for i, p := range b.agents {
		group.Go(func() {
			errs[i] = p.Order(ctx, "get", getPlan{Way: way, SHA256: b.sum, URL: b.url, Bare: b.bareAddr}, nil)
		})
	}
	group.Wait()
	o := outcome{Way: way, Round: round, Took: time.Since(began)}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	o.Rate = float64(b.size) * float64(len(b.agents)) / o.Took.Seconds()
	serverAfter, agentsAfter, err := b.usage(server)
	if err != nil {
		return err
	}
	o.ServerCPU, o.ServerPeak = serverAfter.CPU-serverBefore.CPU, serverAfter.Peak
	o.AgentsCPU, o.AgentPeak = agentsAfter.CPU-agentsBefore.CPU, agentsAfter.Peak
	if way == wayHub {
		if err := b.hub.Order(ctx, "watched", nil, &o.Requests); err != nil {
			return err
		}
	}
	b.report.Outcomes = append(b.report.Outcomes, o)
	fmt.Printf("round %d, %-14s %s\n", round, way, rig.Short(o.Took))
	for _, p := range b.agents {
		if err := p.Order(ctx, "forget", nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// usage is that of a server, and of all agents: the CPU time together, the peak of the one that has most.
func (b *bench) usage(server *rig.Process) (s, agents rig.Usage, err error) {
	if s, err = server.Usage(); err != nil {
		return s, agents, err
	}
	for _, p := range b.agents {
		u, err := p.Usage()
		if err != nil {
			return s, agents, err
		}
		agents.CPU += u.CPU
		agents.Peak = max(agents.Peak, u.Peak)
	}
	return s, agents, nil
}

func (b *bench) print() {
	rates := make(map[string]float64)
	rig.Heading("%-15s %9s %10s %12s %12s %12s %12s", "", "took", "MB/s", "server CPU", "agents CPU", "server peak", "agent peak")
	for _, way := range b.ways {
		var took, server, agents []time.Duration
		var rate []float64
		var serverPeak, agentPeak int64
		for _, o := range b.report.Outcomes {
			if o.Way == way {
				took, server, agents, rate = append(took, o.Took), append(server, o.ServerCPU), append(agents, o.AgentsCPU), append(rate, o.Rate)
				serverPeak, agentPeak = max(serverPeak, o.ServerPeak), max(agentPeak, o.AgentPeak)
			}
		}
		rates[way] = rig.Median(rate)
		fmt.Printf("%-15s %9s %10.0f %12s %12s %12s %12s\n", way, rig.Short(rig.Median(took)), rates[way]/1e6, rig.Short(rig.Median(server)),
			rig.Short(rig.Median(agents)), rig.Size(serverPeak), rig.Size(agentPeak))
	}
	fmt.Printf("\nmedians of %d rounds; throughput of the hub to that of", b.rounds)
	b.report.Ratios = make(map[string]float64)
	for _, way := range b.ways {
		if way != wayHub && rates[way] > 0 && rates[wayHub] > 0 {
			b.report.Ratios[way] = rates[wayHub] / rates[way]
			fmt.Printf(" %s: %s;", way, rig.Ratio(rates[wayHub], rates[way]))
		}
	}
	fmt.Println()
	fmt.Printf("memory before the first transfer: hub %s, agent %s\n", rig.Size(b.report.HubIdle), rig.Size(b.report.AgentRSS))
	worst := slices.MaxFunc(b.report.Outcomes, func(x, y outcome) int { return cmp.Compare(x.p99(), y.p99()) })
	if r := worst.Requests; r != nil {
		fmt.Printf("requests to the agents meanwhile, in the worst round: %d answered, p50 %s, p99 %s, longest %s, %d not answered; sessions lost: %d\n",
			r.Answered, rig.Short(r.P50), rig.Short(r.P99), rig.Short(r.Longest), r.Failed, r.Lost)
	}
}

func (o outcome) p99() time.Duration {
	if o.Requests == nil {
		return 0
	}
	return o.Requests.P99
}

// artifactsDir is where a hub's artifacts are.
func artifactsDir(dir string) string { return filepath.Join(rig.DataDir(dir), "artifacts") }
