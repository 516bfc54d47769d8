package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/quicflow/quicflow/internal/bench/rig"
)

// The systems that the throughput measure compares.
const (
	ours = "hub"
	bare = "bare quic-go"
	nats = "NATS"
)

// throughputLine is the median of the rounds of one system at one number of requests in flight.
type throughputLine struct {
	System      string        `json:"system"`
	InFlight    int           `json:"in_flight"`
	Connections int           `json:"connections"`          // of the answering side; one at one request in flight
	Requesters  int           `json:"requesters,omitempty"` // connections of the NATS requester
	PerSecond   float64       `json:"per_second"`
	P50         time.Duration `json:"p50"`
	P99         time.Duration `json:"p99"`
	Failed      int64         `json:"failed"`
	CPU         time.Duration `json:"cpu"`         // of all its processes, for one request
	HubCPU      time.Duration `json:"hub_cpu"`     // of the asking side, for one request; with NATS the server's too
	Dropped     int64         `json:"udp_dropped"` // datagrams for which a socket's buffer had no room, in all rounds
	Rounds      []figures     `json:"rounds"`
}

// contender is one system with its processes running.
type contender struct {
	system     string
	requesters int
	asking     *rig.Process   // takes the order "load"
	near, all  []*rig.Process // the asking side, and all
}

func (b *bench) throughput(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "quicflow-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := rig.Prepare(ctx, dir, "", b.connections); err != nil {
		return err
	}
	type measurement struct {
		figures     []figures
		cpu, hubCPU []time.Duration
		dropped     int64
	}
	type key struct {
		system               string
		inFlight, requesters int
	}
	measured := map[key]*measurement{}
	systems := []string{ours}
	if b.bare {
		systems = append(systems, bare)
	}
	if b.nats != "" {
		if err := prepareNATS(dir); err != nil {
			return err
		}
		systems = append(systems, nats)
	}
	for round := range b.rounds {
		for i := range systems {
			system := systems[(i+round)%len(systems)] // none is always the first or the last
			contenders, stop, err := b.compete(ctx, dir, system)
			if err != nil {
				stop()
				return fmt.Errorf("%s: %w", system, err)
			}
			for _, c := range contenders {
				for _, inFlight := range b.inFlight {
					before := rig.UDP()
					f, cpu, hubCPU, err := b.loadOn(ctx, c, inFlight)
					if err != nil {
						stop()
						return fmt.Errorf("%s: %w", system, err)
					}
					k := key{c.system, inFlight, c.requesters}
					if measured[k] == nil {
						measured[k] = &measurement{}
					}
					m := measured[k]
					m.figures, m.cpu, m.hubCPU = append(m.figures, f), append(m.cpu, cpu), append(m.hubCPU, hubCPU)
					m.dropped += rig.UDP().Dropped - before.Dropped
				}
			}
			stop()
		}
	}
	for _, inFlight := range b.inFlight {
		for _, system := range systems {
			var best throughputLine
			for k, m := range measured {
				if k.system != system || k.inFlight != inFlight {
					continue
				}
				line := throughputLine{System: system, InFlight: inFlight, Requesters: k.requesters, Connections: min(b.connections, inFlight),
					Rounds: m.figures, CPU: rig.Median(m.cpu), HubCPU: rig.Median(m.hubCPU), Dropped: m.dropped}
				var perSecond []float64
				var p50, p99 []time.Duration
				for _, f := range m.figures {
					perSecond, p50, p99 = append(perSecond, f.PerSecond), append(p50, f.P50), append(p99, f.P99)
					line.Failed += f.Failed
				}
				line.PerSecond, line.P50, line.P99 = rig.Median(perSecond), rig.Median(p50), rig.Median(p99)
				if line.PerSecond >= best.PerSecond {
					best = line
				}
			}
			b.report.Throughput = append(b.report.Throughput, best)
		}
	}
	b.printThroughput()
	return nil
}

// loadOn gives, beside the figures, the CPU time of one request: of all processes and of the asking side's.
func (b *bench) loadOn(ctx context.Context, c contender, inFlight int) (f figures, cpu, hubCPU time.Duration, err error) {
	plan := loadOver{loadPlan{InFlight: inFlight, WarmUp: b.load / 5, Measure: b.load}, b.connections}
	ctx, cancel := context.WithTimeout(ctx, 2*b.load+2*time.Minute)
	defer cancel()
	used := func(processes []*rig.Process) (sum time.Duration, err error) {
		for _, p := range processes {
			u, err := p.Usage()
			if err != nil {
				return 0, err
			}
			sum += u.CPU
		}
		return sum, nil
	}
	var before, after [2]time.Duration
	for i, processes := range [][]*rig.Process{c.all, c.near} {
		if before[i], err = used(processes); err != nil {
			return f, 0, 0, err
		}
	}
	if err := c.asking.Order(ctx, "load", plan, &f); err != nil {
		return f, 0, 0, err
	}
	for i, processes := range [][]*rig.Process{c.all, c.near} {
		if after[i], err = used(processes); err != nil {
			return f, 0, 0, err
		}
	}
	n := time.Duration(max(f.All, 1))
	return f, (after[0] - before[0]) / n, (after[1] - before[1]) / n, nil
}

// compete starts the processes of a system. stop ends them; it is never nil.
func (b *bench) compete(ctx context.Context, dir, system string) (contenders []contender, stop func(), err error) {
	var started []*rig.Process
	stop = func() {
		for i := range started {
			started[len(started)-1-i].Stop()
		}
	}
	begin := func(program, role string) (*rig.Process, error) {
		p, err := rig.Start(ctx, program, role, "GOGC="+b.gogc)
		if err == nil {
			started = append(started, p)
		}
		return p, err
	}
	if system == nats {
		contenders, err = b.competeNATS(ctx, dir, begin)
		return contenders, stop, err
	}
	serverRole, clientRole := "role-hub", "role-fleet"
	if system == bare {
		serverRole, clientRole = "role-bare-server", "role-bare-client"
	}
	server, err := begin(b.program, serverRole)
	if err != nil {
		return nil, stop, err
	}
	clients, err := begin(b.program, clientRole)
	if err != nil {
		return nil, stop, err
	}
	at, err := b.open(ctx, dir, loopback, server)
	if err != nil {
		return nil, stop, err
	}
	if err := b.send(ctx, dir, at, server, clients, b.connections, perBusySocket); err != nil {
		return nil, stop, err
	}
	return []contender{{system: system, asking: server, near: []*rig.Process{server}, all: []*rig.Process{server, clients}}}, stop, nil
}

func (b *bench) competeNATS(ctx context.Context, dir string, begin func(program, role string) (*rig.Process, error)) ([]contender, error) {
	connecting, cancel := context.WithTimeout(ctx, b.patience) // begin must not have it, as its end would kill
	defer cancel()
	type plan struct {
		Dir         string `json:"dir"`
		Addr        string `json:"addr"`
		Connections int    `json:"connections"`
		Subjects    int    `json:"subjects"`
		Payload     int    `json:"payload"`
	}
	p := plan{Dir: dir, Connections: b.connections, Subjects: b.connections, Payload: b.payload}
	server, err := begin(b.nats, "server")
	if err != nil {
		return nil, err
	}
	var listening struct {
		Addr    string `json:"addr"`
		Version string `json:"version"`
	}
	if err := server.Order(connecting, "start", p, &listening); err != nil {
		return nil, err
	}
	p.Addr, b.report.NATSVersion = listening.Addr, listening.Version
	responders, err := begin(b.nats, "responder")
	if err != nil {
		return nil, err
	}
	if err := responders.Order(connecting, "start", p, nil); err != nil {
		return nil, err
	}
	var contenders []contender
	for _, n := range b.natsConns {
		requester, err := begin(b.nats, "requester")
		if err != nil {
			return nil, err
		}
		p.Connections = n
		if err := requester.Order(connecting, "start", p, nil); err != nil {
			return nil, err
		}
		contenders = append(contenders, contender{system: nats, requesters: n, asking: requester,
			near: []*rig.Process{requester, server}, all: []*rig.Process{requester, server, responders}})
	}
	return contenders, nil
}

func (b *bench) printThroughput() {
	rig.Heading("Request and answer of %d bytes over mutual TLS 1.3, %d connections, medians of %d rounds of %s", b.payload, b.connections, b.rounds, b.load)
	fmt.Printf("%-14s %9s %11s %10s %10s %8s %12s %12s %12s %12s\n", "", "in flight", "requests/s", "p50", "p99", "failed", "CPU/request", "of it hub", "UDP dropped", "hub to this")
	hub := map[int]throughputLine{}
	for _, l := range b.report.Throughput {
		name, compared := l.System, "-"
		if l.System == ours {
			hub[l.InFlight] = l
		} else {
			compared = rig.Ratio(hub[l.InFlight].PerSecond, l.PerSecond)
		}
		if l.System == nats {
			name = fmt.Sprintf("%s (%d)", nats, l.Requesters)
		}
		fmt.Printf("%-14s %9d %11.0f %10s %10s %8d %12s %12s %12d %12s\n",
			name, l.InFlight, l.PerSecond, rig.Short(l.P50), rig.Short(l.P99), l.Failed, rig.Short(l.CPU), rig.Short(l.HubCPU), l.Dropped, compared)
	}
	if b.nats != "" {
		fmt.Printf("NATS %s: in brackets the requester's connections that were fastest; the asking side counts the server's CPU too\n", b.report.NATSVersion)
	}
}
