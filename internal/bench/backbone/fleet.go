package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/bench/rig"
)

const (
	// poll is how often a parent looks whether something has come about.
	poll = 250 * time.Millisecond
	// perSocket is how many simulated agents share a UDP socket.
	perSocket = 2000
	// perBusySocket is the same where all agents are asked at the same time: no more than a socket's buffer has room for.
	perBusySocket = 100
	// loopback is where servers listen: on a port that is free.
	loopback = "127.0.0.1:0"
)

// open has a server listen.
func (b *bench) open(ctx context.Context, dir, addr string, server *rig.Process) (at address, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return at, server.Order(ctx, "start", hubPlan{Dir: dir, Addr: addr, Preset: b.preset, Payload: b.payload, Heartbeat: b.interval}, &at)
}

// send has n clients, perSocket of which share a socket, connect to a server, and waits until it has them all.
func (b *bench) send(ctx context.Context, dir string, at address, server, clients *rig.Process, n, perSocket int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, b.patience, errors.New("not all connected within -patience"))
	defer cancel()
	plan := rig.FleetPlan{Dir: dir, Addr: at.Addr, Agents: n, PerSocket: perSocket, AtOnce: b.atOnce, KeepAlive: at.Heartbeat, Patience: b.patience, Classic: at.Classic}
	shown := make(chan struct{})
	showing, stop := context.WithCancel(ctx)
	go func() {
		defer close(shown)
		progress(showing, server, n)
	}()
	err := clients.Order(ctx, "start", plan, nil)
	stop()
	<-shown
	if err != nil {
		return err
	}
	return b.await(ctx, server, n)
}

// progress says now and then how many clients a server has, until ctx ends.
func progress(ctx context.Context, server *rig.Process, n int) {
	const interval = 15 * time.Second
	before := 0
	for {
		if wait(ctx, interval); ctx.Err() != nil {
			return
		}
		connected := before
		if server.Order(ctx, "connected", rig.None{}, &connected) != nil {
			return
		}
		use, err := server.Usage()
		if err != nil {
			return
		}
		fmt.Fprintf(os.Stderr, "%d of %d connected, %.0f/s, server %s\n", connected, n, float64(connected-before)/interval.Seconds(), rig.Size(use.RSS))
		before = connected
	}
}

// await waits until a server has n clients.
func (b *bench) await(ctx context.Context, server *rig.Process, n int) error {
	for connected := 0; ; wait(ctx, poll) {
		err := server.Order(ctx, "connected", rig.None{}, &connected)
		if err != nil {
			return fmt.Errorf("%d of %d connected: %w", connected, n, err)
		}
		if connected == n {
			return nil
		}
	}
}

// world is a hub with its fleet, connected.
type world struct {
	dir        string
	addr       address
	agents     int
	hub, fleet *rig.Process
}

// fleet runs all measures that need a fleet of n agents.
func (b *bench) fleet(ctx context.Context, n int) (err error) {
	dir, err := os.MkdirTemp("", "quicflow-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := rig.Prepare(ctx, dir, "", n); err != nil {
		return err
	}
	if b.bare && b.wants("memory") {
		if err := b.bareMemory(ctx, dir, n); err != nil {
			return fmt.Errorf("memory of bare quic-go: %w", err)
		}
	}
	w := &world{dir: dir, agents: n}
	if w.hub, err = b.start(ctx, "role-hub"); err != nil {
		return err
	}
	defer func() { w.hub.Stop() }() // whichever it is by then
	if w.fleet, err = b.start(ctx, "role-fleet"); err != nil {
		return err
	}
	defer w.fleet.Stop()
	for _, m := range []struct {
		name string
		run  func(context.Context, *world) error
	}{
		{"memory", b.memory}, {"heartbeats", b.heartbeats}, {"promises", b.promiseLateness}, {"broadcast", b.broadcast}, {"storm", b.storm},
	} {
		if m.name != "memory" && !b.wants(m.name) { // the first one connects the fleet
			continue
		}
		if err := m.run(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// memoryResult is what a connection costs a server. Figures of a connection are differences divided by the agents.
type memoryResult struct {
	System     string        `json:"system"`
	Agents     int           `json:"agents"`
	Connecting time.Duration `json:"connecting"`
	Before     int64         `json:"rss_before"`
	AsIs       int64         `json:"rss_as_is"` // settled
	Peak       int64         `json:"rss_peak"`  // while they connected
	Freed      int64         `json:"rss_freed"` // after debug.FreeOSMemory
	Heap       int64         `json:"heap"`      // live
	Stacks     int64         `json:"stacks"`
	Goroutines int           `json:"goroutines"`
	Shares     []share       `json:"heap_shares"`
}

// fill connects n clients to a server and reads its memory before and after.
func (b *bench) fill(ctx context.Context, dir string, server, clients *rig.Process, n int) (m memoryResult, at address, err error) {
	m.Agents = n
	// The server runs before it is looked at; what it takes without clients is not theirs.
	if at, err = b.open(ctx, dir, loopback, server); err != nil {
		return m, at, err
	}
	if err = server.Order(ctx, "memory", memoryPlan{Free: true}, nil); err != nil {
		return m, at, err
	}
	before, err := server.Usage()
	if err != nil {
		return m, at, err
	}
	began := time.Now()
	if err = b.send(ctx, dir, at, server, clients, n, perSocket); err != nil {
		return m, at, err
	}
	m.Connecting = time.Since(began)
	if !b.wants("memory") {
		return m, at, nil
	}
	settle := b.settle
	if settle == 0 {
		settle = at.Heartbeat + 10*time.Second
	}
	wait(ctx, settle)
	settled, err := server.Usage()
	if err != nil {
		return m, at, err
	}
	var account memoryAnswer
	if err = server.Order(ctx, "memory", memoryPlan{Free: true}, &account); err != nil {
		return m, at, err
	}
	freed, err := server.Usage()
	if err != nil {
		return m, at, err
	}
	if err = server.Order(ctx, "heap", rig.None{}, &m.Shares); err != nil {
		return m, at, err
	}
	m.Before, m.AsIs, m.Peak, m.Freed = before.RSS, settled.RSS, settled.Peak, freed.RSS
	m.Heap, m.Stacks, m.Goroutines = int64(account.Heap), int64(account.Stacks), account.Goroutines
	return m, at, nil
}

func (b *bench) bareMemory(ctx context.Context, dir string, n int) error {
	server, err := b.start(ctx, "role-bare-server")
	if err != nil {
		return err
	}
	defer server.Stop()
	clients, err := b.start(ctx, "role-bare-client")
	if err != nil {
		return err
	}
	defer clients.Stop()
	m, _, err := b.fill(ctx, dir, server, clients, n)
	if err != nil {
		return err
	}
	m.System = bare
	b.report.Memory = append(b.report.Memory, m)
	return nil
}

// memory connects the fleet, which the measures after it use too.
func (b *bench) memory(ctx context.Context, w *world) error {
	m, at, err := b.fill(ctx, w.dir, w.hub, w.fleet, w.agents)
	if err != nil {
		return err
	}
	w.addr = at
	var fleet rig.FleetStatus
	if err := w.fleet.Order(ctx, "status", rig.None{}, &fleet); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d connected in %s; attempts that failed: %v\n", w.agents, rig.Short(m.Connecting), fleet.Attempts)
	if !b.wants("memory") {
		return nil
	}
	m.System = ours
	b.report.Memory = append(b.report.Memory, m)

	rig.Heading("Memory of the server's process, %d idle connections, a heartbeat every %s", w.agents, at.Heartbeat)
	fmt.Printf("%-14s %12s %12s %14s %14s %12s %12s %12s %10s\n", "", "RSS before", "RSS", "a connection", "after freeing", "live heap", "stacks", "goroutines", "connecting")
	var lines []memoryResult
	for _, m := range b.report.Memory {
		if m.Agents == w.agents {
			lines = append(lines, m)
		}
	}
	each := func(v int64) string { return rig.Size(v / int64(w.agents)) }
	for _, m := range lines {
		fmt.Printf("%-14s %12s %12s %14s %14s %12s %12s %12.2f %10s\n", m.System, rig.Size(m.Before), rig.Size(m.AsIs), each(m.AsIs-m.Before), each(m.Freed-m.Before),
			each(m.Heap), each(m.Stacks), float64(m.Goroutines)/float64(w.agents), rig.Short(m.Connecting))
	}
	if len(lines) == 2 {
		fmt.Printf("%-14s %12s %12s %14s %14s\n", "ratio", "", "", rig.Ratio(float64(lines[1].AsIs-lines[1].Before), float64(lines[0].AsIs-lines[0].Before)),
			rig.Ratio(float64(lines[1].Freed-lines[1].Before), float64(lines[0].Freed-lines[0].Before)))
	}
	for _, m := range lines {
		var parts []string
		for _, s := range m.Shares {
			if s.Bytes/int64(w.agents) >= 50 {
				parts = append(parts, s.Package+" "+each(s.Bytes))
			}
		}
		fmt.Printf("live heap of %s, a connection, by who allocated it: %s\n", m.System, strings.Join(parts, ", "))
	}
	return nil
}

// heartbeatResult is what heartbeats cost.
type heartbeatResult struct {
	Agents   int            `json:"agents"`
	Interval time.Duration  `json:"interval"`
	Took     time.Duration  `json:"took"`
	CPU      time.Duration  `json:"cpu"`         // of the hub
	Percent  float64        `json:"cpu_percent"` // of one core
	Beats    uint64         `json:"heartbeats"`
	Dropped  map[string]int `json:"dropped"` // sessions, by cause
}

func (b *bench) heartbeats(ctx context.Context, w *world) error {
	before, err := b.observe(ctx, w)
	if err != nil {
		return err
	}
	began := time.Now()
	wait(ctx, b.options.heartbeats)
	after, err := b.observe(ctx, w)
	if err != nil {
		return err
	}
	r := heartbeatResult{Agents: w.agents, Interval: w.addr.Heartbeat, Took: time.Since(began), CPU: after.usage.CPU - before.usage.CPU,
		Beats: after.fleet.Heartbeats - before.fleet.Heartbeats, Dropped: map[string]int{}}
	r.Percent = 100 * r.CPU.Seconds() / r.Took.Seconds()
	dropped := 0
	for cause, n := range after.fleet.Dropped {
		if n -= before.fleet.Dropped[cause]; n > 0 {
			r.Dropped[cause], dropped = n, dropped+n
		}
	}
	b.report.Heartbeats = append(b.report.Heartbeats, r)
	rig.Heading("Heartbeats of %d agents every %s, for %s", r.Agents, r.Interval, rig.Short(r.Took))
	fmt.Printf("%d heartbeats, %.1f %% of one core in the hub's process, %d sessions dropped %v\n", r.Beats, r.Percent, dropped, r.Dropped)
	return nil
}

// observation is how a world is at a moment.
type observation struct {
	usage     rig.Usage // of the hub
	connected int       // as the hub says
	fleet     rig.FleetStatus
}

func (b *bench) observe(ctx context.Context, w *world) (o observation, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if o.usage, err = w.hub.Usage(); err != nil {
		return o, err
	}
	if err = w.hub.Order(ctx, "connected", rig.None{}, &o.connected); err != nil {
		return o, err
	}
	return o, w.fleet.Order(ctx, "status", rig.None{}, &o.fleet)
}

// promisesResult is how requests fare that agents answer late.
type promisesResult struct {
	Agents int           `json:"agents"`
	Delay  time.Duration `json:"delay"`
	promisesAnswer
}

func (b *bench) promiseLateness(ctx context.Context, w *world) error {
	ctx, cancel := context.WithTimeout(ctx, b.delay+5*time.Minute)
	defer cancel()
	r := promisesResult{Agents: w.agents, Delay: b.delay}
	plan := promisesPlan{Agents: w.agents, InFlight: b.options.promises, Delay: b.delay}
	if err := w.hub.Order(ctx, "promises", plan, &r.promisesAnswer); err != nil {
		return err
	}
	b.report.Promises = append(b.report.Promises, r)
	rig.Heading("%d requests to %d agents that answer after %s", b.options.promises, w.agents, b.delay)
	fmt.Printf("%d completed, %d failed, %d in flight at once, later than the delay: p50 %s, p99 %s, at most %s\n",
		r.Completed, r.Failed, r.InFlight, rig.Short(r.LateP50), rig.Short(r.LateP99), rig.Short(r.LateMax))
	printFailure(r.Failure)
	return nil
}

func printFailure(text string) {
	if text != "" {
		fmt.Printf("one of the failures: %s\n", text)
	}
}

// broadcastResult is how long it takes to ask everyone.
type broadcastResult struct {
	Agents int `json:"agents"`
	broadcastAnswer
}

func (b *bench) broadcast(ctx context.Context, w *world) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	r := broadcastResult{Agents: w.agents}
	if err := w.hub.Order(ctx, "broadcast", fleetSize{w.agents}, &r.broadcastAnswer); err != nil {
		return err
	}
	b.report.Broadcast = append(b.report.Broadcast, r)
	rig.Heading("Broadcast of %d bytes to %d agents, each of which answers", b.payload, w.agents)
	fmt.Printf("%d answered, %d failed, the last one after %s, %.0f answers/s\n", r.Answered, r.Failed, rig.Short(r.Took), r.PerSecond)
	printFailure(r.Failure)
	return nil
}

// stormResult is what follows the death of a hub.
type stormResult struct {
	Agents     int           `json:"agents"`
	Down       time.Duration `json:"down"` // from the kill until the hub listens again
	Back       time.Duration `json:"back"` // from then until all agents are back
	FalseCount int           `json:"false_successes"`
	Missing    int           `json:"missing"` // agents that neither side counts
	RSSBefore  int64         `json:"rss_before"`
	RSSPeak    int64         `json:"rss_peak"`
	RSSSettled int64         `json:"rss_settled"`
	Resumed    int           `json:"resumed"` // of the new sessions, those whose TLS session was resumed
	Sessions   int           `json:"sessions"`
	Attempts   int           `json:"failed_attempts"`
	Outcome    string        `json:"outcome"`
}

func (b *bench) storm(ctx context.Context, w *world) error {
	before, err := b.observe(ctx, w)
	if err != nil {
		return err
	}
	r := stormResult{Agents: w.agents, RSSBefore: before.usage.RSS, Outcome: "all are back"}
	killed := time.Now()
	w.hub.Kill()
	if w.hub, err = b.start(ctx, "role-hub"); err != nil {
		return err
	}
	if _, err := b.open(ctx, w.dir, w.addr.Addr, w.hub); err != nil {
		return err
	}
	up := time.Now()
	r.Down = up.Sub(killed)
	after, err := b.comeBack(ctx, w)
	if err != nil {
		return err
	}
	r.Back = time.Since(up)
	if after.connected < w.agents {
		r.Outcome = fmt.Sprintf("%d of %d are back", after.connected, w.agents)
	}
	// Once nobody comes or goes, whom the fleet counts and the hub does not know was counted wrongly.
	wait(ctx, w.addr.Heartbeat)
	if after, err = b.observe(ctx, w); err != nil {
		return err
	}
	var known []int
	if err := w.hub.Order(ctx, "known", fleetSize{w.agents}, &known); err != nil {
		return err
	}
	r.FalseCount = max(after.fleet.Accepted-len(known), 0)
	r.Missing = w.agents - max(after.fleet.Accepted, len(known))
	r.RSSPeak, r.RSSSettled = after.usage.Peak, after.usage.RSS
	r.Resumed, r.Sessions = after.fleet.Resumed-before.fleet.Resumed, after.fleet.Sessions-before.fleet.Sessions
	r.Attempts = total(after.fleet.Attempts) - total(before.fleet.Attempts)
	b.report.Storm = append(b.report.Storm, r)
	rig.Heading("%d agents after SIGKILL of their hub", r.Agents)
	fmt.Printf("down for %s, then %s after %s; %d sessions counted that the hub does not know, %d agents missing\n",
		rig.Short(r.Down), r.Outcome, rig.Short(r.Back), r.FalseCount, r.Missing)
	fmt.Printf("%d sessions (%d resumed) after %d attempts that failed; RSS %s before, %s at the peak, %s settled\n",
		r.Sessions, r.Resumed, r.Attempts, rig.Size(r.RSSBefore), rig.Size(r.RSSPeak), rig.Size(r.RSSSettled))
	return nil
}

func total(counts map[string]int) (sum int) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// comeBack waits until both sides count all agents, or until patience ends.
func (b *bench) comeBack(ctx context.Context, w *world) (observation, error) {
	deadline := time.Now().Add(b.patience)
	for {
		o, err := b.observe(ctx, w)
		if err != nil || o.connected == w.agents && o.fleet.Accepted == w.agents || time.Now().After(deadline) {
			return o, err
		}
		wait(ctx, poll)
		if ctx.Err() != nil {
			return o, context.Cause(ctx)
		}
	}
}
