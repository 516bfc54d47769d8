package store

import (
	"context"
	"maps"
	"slices"

	"github.com/quicflow/quicflow/internal/release"
)

// StoreFacts keeps what agents say of their hosts, in place of what they said before. Clients that do not exist are
// passed over; of several facts of one client the last ones count.
func (s *Store) StoreFacts(ctx context.Context, facts []release.ClientFacts) error {
	latest := make(map[string]release.ClientFacts, len(facts))
	for _, f := range facts {
		latest[f.ClientID] = f
	}
	return s.write(ctx, "store facts", func(tx conn) error {
		for ids := range slices.Chunk(slices.Sorted(maps.Keys(latest)), tx.dialect.batch) {
			if err := tx.lockClients(ctx, ids); err != nil {
				return err
			}
			hashes, objects := make([][]any, len(ids)), make([][]any, len(ids))
			for i, id := range ids {
				hashes[i] = []any{id, int64(latest[id].Hash)}
				objects[i] = []any{id, string(latest[id].JSON)}
			}
			with, args := tx.dialect.input("client TEXT, number BIGINT", hashes)
			if _, err := tx.exec(ctx, with+`UPDATE clients SET facts_hash = number FROM input WHERE id = client`, args...); err != nil {
				return err
			}
			with, args = tx.dialect.input("client TEXT, object TEXT", objects)
			if _, err := tx.exec(ctx, with+`INSERT INTO client_facts (client_id, facts)
				SELECT client, object FROM input WHERE client IN (SELECT id FROM clients)
				ON CONFLICT (client_id) DO UPDATE SET facts = excluded.facts`, args...); err != nil {
				return err
			}
		}
		return nil
	})
}
