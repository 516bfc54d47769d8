package app

import (
	"context"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/release"
)

// noticedRegistry tells on the bus that agents came, went, or say something else of themselves.
type noticedRegistry struct {
	hub.Registry
	bus *bus.Bus
}

// ConnectClients implements hub.Registry.
func (r noticedRegistry) ConnectClients(ctx context.Context, sessions []release.ClientSession) (map[string]release.ClientEntry, error) {
	entries, err := r.Registry.ConnectClients(ctx, sessions)
	r.bus.Notify(bus.Clients)
	return entries, err
}

// StoreFacts implements hub.Registry.
func (r noticedRegistry) StoreFacts(ctx context.Context, facts []release.ClientFacts) error {
	err := r.Registry.StoreFacts(ctx, facts)
	r.bus.Notify(bus.Clients)
	return err
}

// DisconnectClients implements hub.Registry.
func (r noticedRegistry) DisconnectClients(ctx context.Context, ends []release.ClientEnd) error {
	err := r.Registry.DisconnectClients(ctx, ends)
	r.bus.Notify(bus.Clients)
	return err
}
