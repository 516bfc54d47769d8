package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/quicflow/quicflow/internal/bench/rig"
	"github.com/quicflow/quicflow/internal/pgtest"
)

const (
	// perSocket is how many simulated agents share a UDP socket.
	perSocket = 500
	// look is how often the state of agents is asked for.
	look = 250 * time.Millisecond
)

// realistic are the settings of a PostgreSQL that would survive a power cut, on a machine that it shares.
var realistic = []string{"fsync=on", "synchronous_commit=on", "full_page_writes=on", "shared_buffers=1GB", "max_wal_size=4GB", "deadlock_timeout=1s"}

// world is a server that knows its agents, with its database.
type world struct {
	database string
	agents   int
	dir      string
	pg       *pgtest.Server // nil with SQLite
	server   *rig.Server
	fleet    *rig.Process // nil until it is sent
}

// open prepares a world of n agents and starts its server.
func (b *bench) open(ctx context.Context, database string, n int) (w *world, err error) {
	w = &world{database: database, agents: n}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.dir, err = os.MkdirTemp("", "quicflow-bench-"); err != nil {
		return w, err
	}
	env := []string{"QUIC_SERVER_MAX_CLIENTS=" + strconv.Itoa(max(10_000, n+n/2)), "QUIC_MESSAGE_MAX_PROMISES=" + strconv.Itoa(max(150_000, n+n/2))}
	if b.preset == "highperf" {
		env = append(env, "QUIC_SERVER_HIGH_PERF=true")
	}
	if b.concurrency > 0 {
		env = append(env, "QUIC_BATCH_MAX_CONCURRENCY="+strconv.Itoa(b.concurrency))
	}
	dsn := ""
	if database == postgres {
		if w.pg, err = pgtest.Start(ctx, realistic...); err != nil {
			return w, err
		}
		if dsn, _, err = w.pg.Create(); err != nil { // it goes with the server
			return w, err
		}
		env = append(env, "QUIC_DATABASE_DRIVER=postgres", "QUIC_DATABASE_DSN="+dsn)
	}
	if err := rig.Prepare(ctx, w.dir, dsn, n); err != nil {
		return w, fmt.Errorf("prepare: %w", err)
	}
	w.server, err = rig.StartServer(ctx, b.server, rig.DataDir(w.dir), env...)
	return w, err
}

// close ends all that runs and removes what it stored.
func (w *world) close() error {
	w.fleet.Stop()
	if w.server != nil {
		w.server.Stop()
	}
	var err error
	if w.pg != nil {
		err = w.pg.Stop()
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// send has all agents connect anew, whose steps print lines.
func (b *bench) send(ctx context.Context, w *world, lines int) (err error) {
	w.fleet.Stop()
	if w.fleet, err = rig.Start(ctx, b.program, fleetRole, "GOGC="+b.gogc); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.patience, errors.New("not all connected within -patience"))
	defer cancel()
	began := time.Now()
	plan := rig.FleetPlan{
		Dir: w.dir, Addr: w.server.QUIC, Agents: w.agents, PerSocket: perSocket, AtOnce: b.atOnce, Patience: b.patience,
		Classic: b.preset == "highperf", LogLines: lines,
	}
	shown := make(chan struct{})
	showing, stop := context.WithCancel(ctx)
	go func() {
		defer close(shown)
		w.progress(showing)
	}()
	err = w.fleet.Order(ctx, "start", plan, nil)
	stop()
	<-shown
	if err != nil {
		return err
	}
	if err := w.await(ctx, w.agents); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s: %d agents connected in %s\n", w.database, w.agents, rig.Short(time.Since(began)))
	return pause(ctx, b.settle)
}

// progress says now and then how many agents are online, until ctx ends.
func (w *world) progress(ctx context.Context) {
	const interval = 15 * time.Second
	for pause(ctx, interval) == nil {
		online, err := w.online(ctx)
		use, usageErr := w.server.Usage()
		if err == nil && usageErr == nil {
			fmt.Fprintf(os.Stderr, "%d of %d online, server %s\n", online, w.agents, rig.Size(use.RSS))
		}
	}
}

// online is how many agents are, as the API says.
func (w *world) online(ctx context.Context) (int, error) {
	var clients struct {
		Total int `json:"total"`
	}
	err := w.server.Get(ctx, "/api/clients?status=online&limit=1", &clients)
	return clients.Total, err
}

// await waits until the server says that n agents are online.
func (w *world) await(ctx context.Context, n int) error {
	for {
		online, err := w.online(ctx)
		if err == nil && online == n {
			return nil
		}
		if err == nil {
			err = pause(ctx, look)
		}
		if err != nil {
			return fmt.Errorf("%d of %d online: %w", online, n, err)
		}
	}
}

// fleet takes the measures that need simulated agents.
func (b *bench) fleet(ctx context.Context, database string, n int) (err error) {
	w, err := b.open(ctx, database, n)
	if err != nil {
		return err
	}
	defer func() {
		if complaints := w.server.Complaints(); err != nil && complaints != "" {
			err = fmt.Errorf("%w\nthe server's log says:\n%s", err, complaints)
		}
		err = errors.Join(err, w.close())
	}()
	if b.wants("batch") {
		if err := b.send(ctx, w, 0); err != nil {
			return err
		}
		if err := b.batch(ctx, w); err != nil {
			return fmt.Errorf("batch: %w", err)
		}
	}
	if b.wants("joblogs") {
		if err := b.send(ctx, w, b.lines); err != nil {
			return err
		}
		if err := b.jobLogs(ctx, w); err != nil {
			return fmt.Errorf("joblogs: %w", err)
		}
	}
	return nil
}

// costs is what the processes of a world have used.
type costs struct {
	Server   time.Duration `json:"server"`
	Database time.Duration `json:"database"` // of PostgreSQL's processes
	Fleet    time.Duration `json:"fleet"`
	RSS      int64         `json:"server_rss"`
	Peak     int64         `json:"server_peak_rss"`
	UDP      rig.Datagrams `json:"udp"`
}

func (w *world) costs() (c costs, err error) {
	server, err := w.server.Usage()
	if err != nil {
		return c, err
	}
	fleet, err := w.fleet.Usage()
	if err != nil {
		return c, err
	}
	if w.pg != nil {
		if c.Database, err = rig.FamilyCPU(w.pg.PID()); err != nil {
			return c, err
		}
	}
	c.Server, c.Fleet, c.RSS, c.Peak, c.UDP = server.CPU, fleet.CPU, server.RSS, server.Peak, rig.UDP()
	return c, nil
}

// since gives what was used since before; memory is what it is now.
func (c costs) since(before costs) costs {
	c.Server -= before.Server
	c.Database -= before.Database
	c.Fleet -= before.Fleet
	c.UDP = c.UDP.Since(before.UDP)
	return c
}
