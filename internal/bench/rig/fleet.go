package rig

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"time"

	"github.com/quicflow/quicflow/internal/fleet"
)

// FleetPlan says whom a fleet connects to, and what its agents do.
type FleetPlan struct {
	Dir       string        `json:"dir"`
	Addr      string        `json:"addr"`
	Agents    int           `json:"agents"`
	PerSocket int           `json:"per_socket"` // agents that share a UDP socket
	AtOnce    int           `json:"at_once"`    // agents that connect at the same time
	KeepAlive time.Duration `json:"keepalive"`  // of bare clients, in place of heartbeats
	Patience  time.Duration `json:"patience"`   // how long an agent tries
	Classic   bool          `json:"classic"`    // offer no key exchange but X25519
	LogLines  int           `json:"log_lines"`  // that each step prints
}

// FleetStatus is what a fleet says of itself.
type FleetStatus = fleet.Snapshot

// Fleet is the role of many simulated agents.
type Fleet struct{ fleet *fleet.Fleet }

// Handlers are what it can be told to do.
func (r *Fleet) Handlers() map[string]Handler {
	return map[string]Handler{
		"start":  On(r.start),
		"status": On(func(None) (FleetStatus, error) { return r.fleet.Snapshot(), nil }),
	}
}

// start connects all agents. They come back by themselves when they are dropped.
func (r *Fleet) start(p FleetPlan) (None, error) {
	all, err := Identities(p.Dir, p.Agents)
	if err != nil {
		return None{}, err
	}
	key, ok := all[0].PrivateKey.(crypto.Signer)
	if !ok {
		return None{}, errors.New("the agents' key cannot sign")
	}
	ca, err := Authority(p.Dir)
	if err != nil {
		return None{}, err
	}
	certificates := make(map[string][]byte, len(all))
	for i := range all {
		certificates[ClientID(i)] = all[i].Certificate[0]
	}
	r.fleet, err = fleet.New(fleet.Config{
		Servers: []string{p.Addr}, IDs: ClientIDs(p.Agents), Identities: fleet.NewIdentities(key, ca.Pool(), certificates),
		Concurrency: p.AtOnce, ConnectTimeout: p.Patience, AgentsPerSocket: p.PerSocket, ClassicKeyExchange: p.Classic,
		LogLines: p.LogLines, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return None{}, err
	}
	return None{}, r.fleet.Connect(context.Background())
}
