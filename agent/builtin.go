package agent

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"runtime"
	"time"

	"github.com/quicflow/quicflow/agent/command"
	"github.com/quicflow/quicflow/agent/journal"
)

// commands are those of every agent, and those that the configuration adds or puts in their place.
func (a *Agent) commands() map[string]command.Command {
	all := map[string]command.Command{
		"ping":       {Run: ping, ReadOnly: true, Light: true},
		"echo":       {Run: echo, ReadOnly: true, Light: true},
		"get_status": {Run: a.getStatus, ReadOnly: true, Light: true},
	}
	maps.Copy(all, a.cfg.Commands)
	return all
}

// Pong is the result of ping.
type Pong struct {
	Time time.Time `json:"time"` // of the host
}

func ping(_ context.Context, call *command.Call) (any, error) {
	if err := call.Decode(new(struct{})); err != nil {
		return nil, err
	}
	return Pong{time.Now().UTC()}, nil
}

// echo gives its payload.
func echo(_ context.Context, call *command.Call) (any, error) {
	var object map[string]json.RawMessage
	if err := call.Decode(&object); err != nil {
		return nil, err
	}
	if len(call.Payload) == 0 {
		return struct{}{}, nil
	}
	return json.RawMessage(call.Payload), nil
}

// Status is the result of get_status.
type Status struct {
	ClientID      string         `json:"client_id"`
	Version       string         `json:"version"`
	PID           int            `json:"pid"`
	StartedAt     time.Time      `json:"started_at"`
	UptimeSeconds int64          `json:"uptime_seconds"`
	StepsRunning  int            `json:"steps_running"` // this one included
	MaxSteps      int            `json:"max_steps"`
	Unconfirmed   int            `json:"results_unconfirmed"`
	Goroutines    int            `json:"goroutines"`
	Journal       JournalStatus  `json:"journal"`
	Session       *SessionStatus `json:"session,omitempty"`
	Commands      []string       `json:"commands"`
}

// JournalStatus is how full an agent's journal is.
type JournalStatus struct {
	ID         string `json:"id"`
	Generation uint64 `json:"generation"`
	journal.Stats
}

// SessionStatus is what an agent knows of its session.
type SessionStatus struct {
	Server string    `json:"server"`
	NodeID string    `json:"node_id"`
	Epoch  int64     `json:"epoch"`
	Since  time.Time `json:"since"`
}

func (a *Agent) getStatus(_ context.Context, call *command.Call) (any, error) {
	if err := call.Decode(new(struct{})); err != nil {
		return nil, err
	}
	stats, err := a.journal.Stats()
	if err != nil {
		return nil, err
	}
	running, unconfirmed := a.steps.counts()
	status := &Status{
		ClientID: a.cfg.ClientID, Version: a.cfg.Version, PID: os.Getpid(), StartedAt: a.started.UTC(),
		UptimeSeconds: int64(time.Since(a.started).Seconds()), StepsRunning: running, MaxSteps: a.cfg.MaxSteps,
		Unconfirmed: unconfirmed, Goroutines: runtime.NumGoroutine(),
		Journal: JournalStatus{a.journal.ID(), a.journal.Generation(), stats}, Commands: a.steps.commandTypes(),
	}
	if s := a.currentSession(); s != nil {
		status.Session = &SessionStatus{s.server, s.welcome.NodeId, s.welcome.SessionEpoch, s.since.UTC()}
	}
	return status, nil
}

// counts gives how many steps run, and of how many the result is not confirmed.
func (s *steps) counts() (running, unconfirmed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.finished && !e.resultAcked {
			unconfirmed++
		}
	}
	return s.active, unconfirmed
}
