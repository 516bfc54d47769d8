package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/bench/rig"
)

// batchResult is one job on all agents, and the broadcasts to them around it. Times count from the request.
type batchResult struct {
	Database string `json:"database"`
	Agents   int    `json:"agents"`
	Round    int    `json:"round"`

	Job       string         `json:"job"`
	Status    string         `json:"status"`
	Counts    map[string]int `json:"counts"`
	Tries     int            `json:"tries"`      // of all hosts together
	Stored    time.Duration  `json:"stored"`     // the job exists
	Answered  time.Duration  `json:"answered"`   // the request has its answer
	First     time.Duration  `json:"first_host"` // the first host has begun, by its clock
	Last      time.Duration  `json:"last_host"`  // the last host has ended, by its clock
	Complete  time.Duration  `json:"complete"`   // as the server says
	Wall      time.Duration  `json:"wall"`       // until the API told so
	PerSecond float64        `json:"hosts_per_second"`
	CPU       costs          `json:"cpu"`
	Events    int            `json:"temporal_events"`

	workflow string

	Broadcasts []broadcastResult `json:"broadcasts"` // two before the job, one after it
	Broadcast  float64           `json:"broadcast"`  // answers a second, their median
	Ratio      float64           `json:"ratio"`      // of hosts a second to Broadcast
}

// broadcastResult is one message to all agents, each of which answers.
type broadcastResult struct {
	Outcomes  map[string]int `json:"outcomes"`
	Took      time.Duration  `json:"took"`
	PerSecond float64        `json:"answers_per_second"`
	CPU       costs          `json:"cpu"`
}

func (b *bench) batch(ctx context.Context, w *world) error {
	var all []batchResult
	for round := range b.rounds {
		r, err := b.batchRound(ctx, w)
		if err != nil {
			return err
		}
		r.Round = round + 1
		all = append(all, r)
		b.report.Batch = append(b.report.Batch, r)
	}
	rig.Heading("Batch job of %q on %d agents, %s; beside it a broadcast of %d bytes, each answered, by the same server", b.command, w.agents, w.database, b.payload)
	fmt.Printf("%-8s %9s %9s %9s %10s %9s %9s %9s %8s %11s %10s %10s %9s %9s %7s %9s %8s %12s %6s\n", "", "stored", "answered", "1st host", "last host", "complete", "wall",
		"hosts/s", "tries", "server CPU", "DB CPU", "fleet CPU", "RSS", "peak RSS", "events", "UDP sent", "dropped", "broadcast/s", "ratio")
	line := func(name string, r batchResult) {
		fmt.Printf("%-8s %9s %9s %9s %10s %9s %9s %9.0f %8d %11s %10s %10s %9s %9s %7d %9d %8d %12.0f %6.2f\n", name, rig.Short(r.Stored), rig.Short(r.Answered), rig.Short(r.First),
			rig.Short(r.Last), rig.Short(r.Complete), rig.Short(r.Wall), r.PerSecond, r.Tries, rig.Short(r.CPU.Server), rig.Short(r.CPU.Database), rig.Short(r.CPU.Fleet),
			rig.Size(r.CPU.RSS), rig.Size(r.CPU.Peak), r.Events, r.CPU.UDP.Sent, r.CPU.UDP.Dropped, r.Broadcast, r.Ratio)
	}
	for _, r := range all {
		line(fmt.Sprintf("round %d", r.Round), r)
	}
	line("median", batchMedian(all))
	if !b.history {
		return nil
	}
	return w.printHistory(ctx, all[len(all)-1].workflow)
}

// printHistory tells when what happened in a workflow, since its start.
func (w *world) printHistory(ctx context.Context, workflowID string) error {
	events, err := w.server.History(ctx, workflowID)
	if err != nil {
		return err
	}
	rig.Heading("Workflow %s", workflowID)
	for _, e := range events {
		fmt.Printf("%9s  %s\n", rig.Short(e.At.Sub(events[0].At)), e.What())
	}
	return nil
}

// batchMedian is the median of each figure for itself.
func batchMedian(all []batchResult) (m batchResult) {
	m.Stored, m.Answered, m.First = of(all, func(r batchResult) time.Duration { return r.Stored }), of(all, func(r batchResult) time.Duration { return r.Answered }), of(all, func(r batchResult) time.Duration { return r.First })
	m.Last, m.Complete, m.Wall = of(all, func(r batchResult) time.Duration { return r.Last }), of(all, func(r batchResult) time.Duration { return r.Complete }), of(all, func(r batchResult) time.Duration { return r.Wall })
	m.PerSecond, m.Ratio = of(all, func(r batchResult) float64 { return r.PerSecond }), of(all, func(r batchResult) float64 { return r.Ratio })
	m.Tries, m.Events = int(of(all, func(r batchResult) int64 { return int64(r.Tries) })), int(of(all, func(r batchResult) int64 { return int64(r.Events) }))
	m.CPU.Server, m.CPU.Database = of(all, func(r batchResult) time.Duration { return r.CPU.Server }), of(all, func(r batchResult) time.Duration { return r.CPU.Database })
	m.CPU.Fleet = of(all, func(r batchResult) time.Duration { return r.CPU.Fleet })
	m.CPU.RSS, m.CPU.Peak = of(all, func(r batchResult) int64 { return r.CPU.RSS }), of(all, func(r batchResult) int64 { return r.CPU.Peak })
	m.CPU.UDP.Sent, m.CPU.UDP.Dropped = of(all, func(r batchResult) int64 { return r.CPU.UDP.Sent }), of(all, func(r batchResult) int64 { return r.CPU.UDP.Dropped })
	m.Broadcast = of(all, func(r batchResult) float64 { return r.Broadcast })
	return m
}

func of[R any, T int64 | float64 | time.Duration](all []R, figure func(R) T) T {
	values := make([]T, len(all))
	for i, r := range all {
		values[i] = figure(r)
	}
	return rig.Median(values)
}

// batchRound is a job between broadcasts. One broadcast takes half a second with 10,000 agents, so what a garbage collection or the
// machine's neighbours do to it is more than what is measured: hence their median.
func (b *bench) batchRound(ctx context.Context, w *world) (r batchResult, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.patience, errors.New("the job did not end within -patience"))
	defer cancel()
	r.Database, r.Agents = w.database, w.agents
	for range 2 {
		if err := b.broadcast(ctx, w, &r); err != nil {
			return r, err
		}
	}
	before, err := w.costs()
	if err != nil {
		return r, err
	}
	began := time.Now()
	j, err := b.request(ctx, w)
	if err != nil {
		return r, err
	}
	r.Answered = time.Since(began)
	if err := w.finish(ctx, &j); err != nil {
		return r, err
	}
	r.Wall = time.Since(began)
	after, err := w.costs()
	if err != nil {
		return r, err
	}
	r.CPU, r.Job, r.Status, r.Counts = after.since(before), j.ID, j.Status, j.Counts
	r.Stored, r.Complete = j.CreatedAt.Sub(began), j.FinishedAt.Sub(began)
	r.PerSecond = float64(w.agents) / r.Complete.Seconds()
	targets, err := w.targets(ctx, j.ID)
	if err != nil {
		return r, err
	}
	for _, t := range targets {
		r.Tries += t.Attempt
		if t.StartedAt != nil && (r.First == 0 || t.StartedAt.Sub(began) < r.First) {
			r.First = t.StartedAt.Sub(began)
		}
		if t.FinishedAt != nil {
			r.Last = max(r.Last, t.FinishedAt.Sub(began))
		}
	}
	r.workflow = j.WorkflowID
	if r.Events, err = w.server.HistoryLength(ctx, j.WorkflowID); err != nil {
		return r, err
	}
	if err := b.broadcast(ctx, w, &r); err != nil {
		return r, err
	}
	r.Broadcast = of(r.Broadcasts, func(b broadcastResult) float64 { return b.PerSecond })
	if r.Broadcast > 0 {
		r.Ratio = r.PerSecond / r.Broadcast
	}
	return r, nil
}

// broadcast asks every agent to echo.
func (b *bench) broadcast(ctx context.Context, w *world, round *batchResult) error {
	var r broadcastResult
	body, err := json.Marshal(map[string]any{"all": true, "type": "echo", "payload": strings.Repeat("x", b.payload), "timeout": 300})
	if err != nil {
		return err
	}
	before, err := w.costs()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := w.server.Post(ctx, "/api/broadcast", string(body), &r); err != nil {
		return err
	}
	r.Took = time.Since(began)
	after, err := w.costs()
	if err != nil {
		return err
	}
	r.CPU = after.since(before)
	r.PerSecond = float64(r.Outcomes["answered"]) / r.Took.Seconds()
	if r.Outcomes["answered"] != w.agents {
		fmt.Fprintf(os.Stderr, "broadcast to %d agents: %v\n", w.agents, r.Outcomes)
	}
	round.Broadcasts = append(round.Broadcasts, r)
	return nil
}
