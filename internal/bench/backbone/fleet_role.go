package main

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/quicflow/quicflow/internal/fleet"
	"github.com/quicflow/quicflow/internal/pki"
)

// fleetStatus is what a fleet says of itself.
type fleetStatus = fleet.Snapshot

// fleetRole is many simulated agents.
type fleetRole struct{ fleet *fleet.Fleet }

func (r *fleetRole) handlers() map[string]handler {
	return map[string]handler{
		"start":  on(r.start),
		"status": on(func(none) (fleetStatus, error) { return r.fleet.Snapshot(), nil }),
	}
}

// start connects all agents. They come back by themselves when they are dropped.
func (r *fleetRole) start(p fleetPlan) (none, error) {
	all, err := identities(p.Dir, p.Agents)
	if err != nil {
		return none{}, err
	}
	key, ok := all[0].PrivateKey.(crypto.Signer)
	if !ok {
		return none{}, errors.New("the agents' key cannot sign")
	}
	ca, err := pki.LoadOrCreate(filepath.Join(p.Dir, caDir))
	if err != nil {
		return none{}, err
	}
	certificates := make(map[string][]byte, len(all))
	for i := range all {
		certificates[clientID(i)] = all[i].Certificate[0]
	}
	r.fleet, err = fleet.New(fleet.Config{
		Servers: []string{p.Addr}, IDs: clientIDs(p.Agents), Identities: fleet.NewIdentities(key, ca.Pool(), certificates),
		Concurrency: p.AtOnce, ConnectTimeout: p.Patience, AgentsPerSocket: p.PerSocket, ClassicKeyExchange: p.Classic, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return none{}, err
	}
	return none{}, r.fleet.Connect(context.Background())
}
