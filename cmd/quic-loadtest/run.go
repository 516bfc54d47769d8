package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quicflow/quicflow/internal/fleet"
)

func (o *options) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	ids, err := clientIDs(o.prefix, o.count)
	if err != nil {
		return err
	}
	identities, err := o.join(ctx, ids)
	if err != nil {
		return err
	}
	f, err := fleet.New(fleet.Config{
		Servers: []string{o.server}, IDs: ids, Identities: identities, Insecure: o.insecure,
		Concurrency: o.concurrency, ConnectTimeout: time.Duration(o.connect),
		ExecMin: o.exec.min, ExecMax: o.exec.max, FailureRate: o.failureRate, LogBytes: o.logBytes, LogLines: o.logLines,
		Version: version, Logger: o.logger,
	})
	if err != nil {
		return err
	}
	started := time.Now()
	progress := o.progress(liveLine(f, started))
	err = f.Connect(ctx)
	if stopped := ctx.Err() != nil; o.keepAlive && !stopped && (err == nil || errors.Is(err, fleet.ErrNotAccepted)) {
		o.stay(ctx)
	}
	f.Confirm(confirmPatience)
	result := summary{Snapshot: f.Snapshot(), Took: time.Since(started)}
	f.Close()
	progress.stop()
	result.RSS, result.PeakRSS = memory()
	if err != nil && !errors.Is(err, fleet.ErrNotAccepted) && ctx.Err() == nil {
		return err
	}
	if err := o.print(result); err != nil {
		return err
	}
	return result.verdict()
}

func (o *options) stay(ctx context.Context) {
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(o.duration))
		defer cancel()
	}
	<-ctx.Done()
}

// confirmPatience is how long hubs may take to say that they hold the sessions that a run ends with.
const confirmPatience = 5 * time.Second

// summary is what a run ends with.
type summary struct {
	fleet.Snapshot
	Took    time.Duration `json:"took_ns"`
	RSS     int64         `json:"rss_bytes"` // 0 where the system does not say
	PeakRSS int64         `json:"peak_rss_bytes"`
}

// verdict is an error if an agent was not accepted, or lost its session.
func (s summary) verdict() error {
	var parts []string
	if n := s.Agents - s.EverAccepted; n > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d agents were not accepted", n, s.Agents))
	}
	if n := s.DroppedTotal(); n > 0 {
		parts = append(parts, fmt.Sprintf("%d sessions were dropped", n))
	}
	if len(parts) == 0 {
		return nil
	}
	return errors.New(list(parts))
}

func (o *options) print(s summary) error {
	if o.json {
		e := json.NewEncoder(o.out)
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	line := func(name, format string, args ...any) {
		fmt.Fprintf(o.out, "%-22s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("accepted", "%d of %d agents (%d sessions at the end)", s.EverAccepted, s.Agents, s.Accepted)
	line("failed", "%s", causes(s.Failed, max(0, s.Agents-s.EverAccepted)))
	line("dropped", "%s, %d reconnected, %d by their tickets", causes(s.Dropped, s.DroppedTotal()), s.Reconnected, s.Resumed)
	line("failed attempts", "%s", causes(s.Attempts, total(s.Attempts)))
	line("handshakes", "%d in %s: %.0f/s", s.EverAccepted, s.Connecting.Round(time.Millisecond), s.HandshakesPerSecond)
	line("dial to acceptance", "%s", percentiles(s.Latency))
	line("heartbeat round trip", "%s (%d sent)", percentiles(s.RoundTrip), s.Heartbeats)
	line("asked at the end", "%s, all agents within moments", percentiles(s.Confirm))
	line("requests answered", "%d", s.Requests)
	line("steps run", "%d, %d bytes of logs", s.Steps, s.LogBytes)
	if s.RSS > 0 {
		line("memory (RSS)", "%d MiB, at most %d MiB, %d KiB an agent", s.RSS>>20, s.PeakRSS>>20, s.PeakRSS>>10/int64(s.Agents))
	}
	line("took", "%s", s.Took.Round(time.Millisecond))
	return nil
}

// causes says how many, and of what.
func causes(byCause map[string]int, n int) string {
	text := fmt.Sprint(n)
	var parts []string
	for _, cause := range slices.Sorted(maps.Keys(byCause)) {
		parts = append(parts, fmt.Sprintf("%s %d", cause, byCause[cause]))
	}
	if len(parts) > 0 {
		text += " (" + list(parts) + ")"
	}
	return text
}

func total(byCause map[string]int) int {
	n := 0
	for _, k := range byCause {
		n += k
	}
	return n
}

func percentiles(p fleet.Percentiles) string {
	if p.Count == 0 {
		return "-"
	}
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, max %s", short(p.P50), short(p.P90), short(p.P99), short(p.Max))
}

func short(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
