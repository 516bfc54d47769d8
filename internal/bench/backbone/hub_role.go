package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/bench/rig"
	"github.com/quicflow/quicflow/internal/config"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// hubPlan says how a hub, or the bare server in its place, is set up.
type hubPlan struct {
	Dir     string `json:"dir"`
	Addr    string `json:"addr"`
	Preset  string `json:"preset"` // standard or highperf
	Payload int    `json:"payload"`

	Heartbeat time.Duration `json:"heartbeat"` // 0: the preset's
}

type address struct {
	Addr      string        `json:"addr"`
	Heartbeat time.Duration `json:"heartbeat"` // interval
	Classic   bool          `json:"classic"`   // its key exchange is X25519 alone
}

func presetOf(name string) (config.Config, error) {
	switch name {
	case "standard":
		return config.Standard(), nil
	case "highperf":
		return config.HighPerformance(), nil
	}
	return config.Config{}, fmt.Errorf("%q is neither standard nor highperf", name)
}

// hubRole is a hub with its SQLite store, without the API and Temporal.
type hubRole struct {
	hub     *hub.Hub
	payload []byte
}

func (r *hubRole) handlers() map[string]rig.Handler {
	return map[string]rig.Handler{
		"start":     rig.On(r.start),
		"connected": rig.On(func(rig.None) (int, error) { return r.hub.Connected(), nil }),
		"known":     rig.On(r.known),
		"load":      rig.On(r.load),
		"memory":    rig.On(memory),
		"heap":      rig.On(heap),
		"promises":  rig.On(r.promises),
		"broadcast": rig.On(r.broadcast),
	}
}

func (r *hubRole) start(p hubPlan) (address, error) {
	preset, err := presetOf(p.Preset)
	if err != nil {
		return address{}, err
	}
	ca, err := rig.Authority(p.Dir)
	if err != nil {
		return address{}, err
	}
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	s, err := store.Open(ctx, store.Config{Driver: store.SQLite, DSN: rig.DatabaseFile(p.Dir), Logger: log})
	if err != nil {
		return address{}, err
	}
	cfg := hub.Settings(preset)
	if p.Heartbeat > 0 {
		cfg.HeartbeatTimeout = time.Duration(float64(cfg.HeartbeatTimeout) / float64(cfg.HeartbeatInterval) * float64(p.Heartbeat))
		cfg.HeartbeatInterval = p.Heartbeat
	}
	cfg.Addr, cfg.NodeID, cfg.CA, cfg.Logger = p.Addr, "bench", ca, log
	cfg.Registry, cfg.Sink, cfg.Enroller = s, s, s
	if r.hub, err = hub.New(cfg); err != nil {
		return address{}, err
	}
	if err := r.hub.Start(ctx); err != nil {
		return address{}, err
	}
	r.payload = make([]byte, p.Payload)
	return address{Addr: r.hub.Addr().String(), Heartbeat: cfg.HeartbeatInterval, Classic: cfg.ClassicKeyExchange}, nil
}

type fleetSize struct {
	Agents int `json:"agents"`
}

// known says which of the first agents have a session here.
func (r *hubRole) known(p fleetSize) ([]int, error) {
	known := []int{}
	for i := range p.Agents {
		if r.hub.Presence(rig.ClientID(i)).Status == "online" {
			known = append(known, i)
		}
	}
	return known, nil
}

func message(kind string, payload []byte) *quicflowv1.Request {
	return &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: kind, Payload: payload}}}
}

// ask sends a message to an agent; anything but an answer to it is an error.
func (r *hubRole) ask(ctx context.Context, id string, request *quicflowv1.Request) (*quicflowv1.Message, error) {
	response, err := r.hub.Request(ctx, id, request)
	if err != nil {
		return nil, err
	}
	return answered(response)
}

func answered(response *quicflowv1.Response) (*quicflowv1.Message, error) {
	if failure := response.GetFailure(); failure != nil {
		return nil, fmt.Errorf("%s: %s", failure.Code, failure.Message)
	}
	answer := response.GetMessage()
	if answer == nil {
		return nil, errors.New("the answer is no message")
	}
	return answer, nil
}

type loadOver struct {
	loadPlan
	Connections int `json:"connections"`
}

// load has worker i ask agent i mod Connections to echo.
func (r *hubRole) load(p loadOver) (figures, error) {
	ids, request := rig.ClientIDs(p.Connections), message("echo", r.payload)
	return runLoad(context.Background(), p.loadPlan, func(ctx context.Context, worker int) error {
		answer, err := r.ask(ctx, ids[worker%len(ids)], request)
		if err == nil && len(answer.Payload) != len(r.payload) {
			err = fmt.Errorf("%d bytes came back", len(answer.Payload))
		}
		return err
	}), nil
}

type promisesPlan struct {
	Agents   int           `json:"agents"`
	InFlight int           `json:"in_flight"`
	Delay    time.Duration `json:"delay"` // until an agent answers
}

type promisesAnswer struct {
	Completed int           `json:"completed"`
	Failed    int           `json:"failed"`
	Failure   string        `json:"failure,omitempty"`
	InFlight  int           `json:"in_flight_at_once"` // the most
	LateP50   time.Duration `json:"late_p50"`          // later than the delay
	LateP99   time.Duration `json:"late_p99"`
	LateMax   time.Duration `json:"late_max"`
	Took      time.Duration `json:"took"`
}

// promises asks agents that take their time. The requests are spread over nine tenths of that time, so that all are in
// flight at once before the first answer comes: what is measured is lateness, not how long it takes to send so many.
func (r *hubRole) promises(p promisesPlan) (promisesAnswer, error) {
	ids, request := rig.ClientIDs(p.Agents), message("sleep", []byte(p.Delay.String()))
	var (
		out    promisesAnswer
		mu     sync.Mutex
		late   histogram
		latest time.Duration
		flying int
		all    sync.WaitGroup
	)
	start := time.Now()
	for i := range p.InFlight {
		if due := start.Add(p.Delay * 9 / 10 * time.Duration(i) / time.Duration(p.InFlight)); time.Until(due) > time.Millisecond {
			time.Sleep(time.Until(due))
		}
		all.Go(func() {
			mu.Lock()
			flying++
			out.InFlight = max(out.InFlight, flying)
			mu.Unlock()
			asked := time.Now()
			_, err := r.ask(context.Background(), ids[i%len(ids)], request)
			took := time.Since(asked) - p.Delay
			late.add(took)
			mu.Lock()
			defer mu.Unlock()
			flying--
			latest = max(latest, took)
			if err != nil {
				out.Failed++
				out.Failure = err.Error()
				return
			}
			out.Completed++
		})
	}
	all.Wait()
	out.Took, out.LateP50, out.LateP99, out.LateMax = time.Since(start), late.percentile(50), late.percentile(99), latest
	return out, nil
}

type broadcastAnswer struct {
	Answered  int           `json:"answered"`
	Failed    int           `json:"failed"`
	Failure   string        `json:"failure,omitempty"`
	Took      time.Duration `json:"took"` // until the last one answered
	PerSecond float64       `json:"per_second"`
}

// broadcast asks every agent to echo.
func (r *hubRole) broadcast(p fleetSize) (broadcastAnswer, error) {
	ids, request := rig.ClientIDs(p.Agents), message("echo", r.payload)
	var out broadcastAnswer
	start := time.Now()
	for answer := range r.hub.Broadcast(context.Background(), ids, request) {
		err := answer.Err
		if err == nil {
			_, err = answered(answer.Response)
		}
		if err != nil {
			out.Failed++
			out.Failure = err.Error()
			continue
		}
		out.Answered++
	}
	out.Took = time.Since(start)
	out.PerSecond = float64(out.Answered) / out.Took.Seconds()
	return out, nil
}

type memoryPlan struct {
	Free bool `json:"free"` // give back to the system what can be given back
}

// memoryAnswer is Go's own account, in bytes.
type memoryAnswer struct {
	Heap       uint64 `json:"heap"`
	Stacks     uint64 `json:"stacks"`
	Goroutines int    `json:"goroutines"`
}

func memory(p memoryPlan) (memoryAnswer, error) {
	if p.Free {
		runtime.GC() // twice, as pools keep what they hold over one collection
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memoryAnswer{Heap: m.HeapAlloc, Stacks: m.StackInuse, Goroutines: runtime.NumGoroutine()}, nil
}
