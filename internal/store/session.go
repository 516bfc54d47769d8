package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// journalReset is why steps become unknown when an agent comes back with a journal that cannot have them all.
const journalReset = "the agent's journal was replaced or restored; it cannot be known whether the step ran"

// ConnectClients records that hubs accepted these agents, and gives the epoch of each new session, which is higher than
// that of any session of the client before. A client that is not known is absent from the answer; one that showed a
// certificate that is not known, or was revoked, gets no session. Of several sessions of one client the last one counts.
//
// Facts are wanted from an agent that has some, if those that are stored have another hash.
//
// An agent that shows another journal than before, an earlier generation of it, or the same one after another boot, may have
// forgotten what it was told:
// its steps in state dispatched become unknown.
func (s *Store) ConnectClients(ctx context.Context, sessions []release.ClientSession) (map[string]release.ClientEntry, error) {
	if len(sessions) == 0 {
		return map[string]release.ClientEntry{}, nil
	}
	latest := make(map[string]release.ClientSession, len(sessions))
	for _, session := range sessions {
		latest[session.ClientID] = session
	}
	var entries map[string]release.ClientEntry
	err := s.write(ctx, "record sessions", func(tx conn) error {
		entries = make(map[string]release.ClientEntry, len(latest))
		var reset []string
		for ids := range slices.Chunk(slices.Sorted(maps.Keys(latest)), tx.dialect.batch) {
			var known []struct {
				ID         string `db:"id"`
				JournalID  string `db:"journal_id"`
				Generation uint64 `db:"generation"`
				BootID     string `db:"boot_id"`
				FactsHash  int64  `db:"facts_hash"`
			}
			if err := tx.list(ctx, &known, `SELECT id, journal_id, generation, boot_id, facts_hash FROM clients WHERE id IN (?) ORDER BY id`+tx.dialect.lock, ids); err != nil {
				return err
			}
			// After the lock, which whoever revokes takes first.
			valid, err := tx.validCertificates(ctx, latest, ids)
			if err != nil {
				return err
			}
			rows := make([][]any, 0, len(known))
			for _, k := range known {
				session := latest[k.ID]
				if session.Serial != "" && !valid[k.ID] {
					entries[k.ID] = release.ClientEntry{Revoked: true}
					continue
				}
				entries[k.ID] = release.ClientEntry{WantFacts: session.FactsHash != 0 && int64(session.FactsHash) != k.FactsHash}
				// A journal is opened, and so of another generation, after each boot: the same one means a disk that was put back.
				again := k.Generation == session.Generation && k.BootID != session.BootID
				if k.JournalID != "" && (k.JournalID != session.JournalID || k.Generation > session.Generation || again) {
					reset = append(reset, k.ID)
				}
				row, err := s.sessionRow(session)
				if err != nil {
					return err
				}
				rows = append(rows, row)
			}
			if len(rows) == 0 {
				continue
			}
			with, args := tx.dialect.input("client TEXT, node TEXT, addr TEXT, agent TEXT, host TEXT, sys TEXT, cpu TEXT, labelled "+
				tx.dialect.json+", journal TEXT, gen BIGINT, boot TEXT, since BIGINT", rows)
			var started []struct {
				ID    string `db:"id"`
				Epoch int64  `db:"session_epoch"`
			}
			if err := tx.list(ctx, &started, with+`UPDATE clients SET node_id = node, address = addr, agent_version = agent,
				hostname = host, os = sys, arch = cpu, labels = labelled, journal_id = journal, generation = gen, boot_id = boot,
				session_epoch = session_epoch + 1, connected = TRUE, goodbye = FALSE,
				connected_at = since, disconnected_at = 0, last_seen_at = since
				FROM input WHERE id = client RETURNING id, session_epoch`, args...); err != nil {
				return err
			}
			for _, c := range started {
				entries[c.ID] = release.ClientEntry{Epoch: c.Epoch, WantFacts: entries[c.ID].WantFacts}
			}
		}
		return s.forgetSteps(ctx, tx, reset)
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// validCertificates says which of the clients, at most a batch, showed a certificate that CertificateValid holds for.
func (c conn) validCertificates(ctx context.Context, sessions map[string]release.ClientSession, ids []string) (map[string]bool, error) {
	rows := make([][]any, 0, len(ids))
	for _, id := range ids {
		if serial := sessions[id].Serial; serial != "" {
			rows = append(rows, []any{id, serial})
		}
	}
	valid := make(map[string]bool, len(rows))
	if len(rows) == 0 {
		return valid, nil
	}
	with, args := c.dialect.input("client TEXT, shown TEXT", rows)
	var found []string
	if err := c.list(ctx, &found, with+`SELECT client_id FROM input JOIN certificates ON client_id = client AND serial = shown WHERE revoked_at = 0`, args...); err != nil {
		return nil, err
	}
	for _, id := range found {
		valid[id] = true
	}
	return valid, nil
}

func (s *Store) sessionRow(c release.ClientSession) ([]any, error) {
	labels := make(map[string]string, len(c.Labels))
	for key, value := range c.Labels {
		labels[clean(key)] = clean(value)
	}
	text, err := json.Marshal(labels)
	if err != nil {
		return nil, fmt.Errorf("write labels of client %s: %w", c.ClientID, err)
	}
	return []any{c.ClientID, c.NodeID, c.Address, c.AgentVersion, c.Hostname, c.OS, c.Arch, string(text),
		c.JournalID, int64(c.Generation), c.BootID, micros(s.orNow(c.At))}, nil
}

// forgetSteps makes the undecided steps of the clients unknown, those of jobs, too.
func (s *Store) forgetSteps(ctx context.Context, tx conn, clientIDs []string) error {
	if len(clientIDs) == 0 {
		return nil
	}
	var steps []string
	for ids := range slices.Chunk(clientIDs, tx.dialect.batch) {
		var some []string
		if err := tx.list(ctx, &some, `SELECT id FROM steps WHERE client_id IN (?) AND state = 'dispatched'`, ids); err != nil {
			return err
		}
		steps = append(steps, some...)
	}
	at := s.now()
	_, err := settle(ctx, tx, steps, func(step *stepRow) (outcome, bool) {
		return outcome{state: release.StepUnknown, err: journalReset, exit: noExit, finished: at}, step.State == release.StepDispatched
	})
	if err != nil {
		return err
	}
	return s.forgetCommands(ctx, tx, clientIDs)
}

// DisconnectClients records the ends of sessions. One that another session has followed is left out.
func (s *Store) DisconnectClients(ctx context.Context, ends []release.ClientEnd) error {
	if len(ends) == 0 {
		return nil
	}
	latest := make(map[string]release.ClientEnd, len(ends))
	for _, end := range ends {
		if latest[end.ClientID].Epoch <= end.Epoch {
			latest[end.ClientID] = end
		}
	}
	return s.write(ctx, "record ends of sessions", func(tx conn) error {
		for ids := range slices.Chunk(slices.Sorted(maps.Keys(latest)), tx.dialect.batch) {
			if err := tx.lockClients(ctx, ids); err != nil {
				return err
			}
			rows := make([][]any, len(ids))
			for i, id := range ids {
				end := latest[id]
				at := s.orNow(end.At)
				seen := end.Seen
				if seen.IsZero() {
					seen = at
				}
				rows[i] = []any{id, end.Epoch, end.Goodbye, micros(at), micros(seen)}
			}
			with, args := tx.dialect.input("client TEXT, epoch BIGINT, left_it BOOLEAN, since BIGINT, heard BIGINT", rows)
			if _, err := tx.exec(ctx, with+`UPDATE clients SET connected = FALSE, goodbye = left_it, disconnected_at = since, last_seen_at = heard
				FROM input WHERE id = client AND session_epoch = epoch AND connected`, args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// lockClients wants sorted ids, at most a batch.
func (c conn) lockClients(ctx context.Context, ids []string) error {
	if c.dialect.lock == "" {
		return nil
	}
	var locked []string
	return c.list(ctx, &locked, `SELECT id FROM clients WHERE id IN (?) ORDER BY id`+c.dialect.lock, ids)
}

// TouchNode records that a hub holds its sessions: their clients count as seen at that time.
func (s *Store) TouchNode(ctx context.Context, nodeID string, at time.Time) error {
	return s.write(ctx, "record heartbeats", func(tx conn) error {
		_, err := tx.exec(ctx, `INSERT INTO nodes (id, seen_at) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at`,
			nodeID, micros(at))
		return err
	})
}

// ReleaseNode ends the sessions that a hub's last process left open. Their grace counts from at.
func (s *Store) ReleaseNode(ctx context.Context, nodeID string, at time.Time) error {
	return s.write(ctx, "release sessions of node", func(tx conn) error {
		// The epoch rises so that nothing of that process can come late.
		_, err := tx.exec(ctx, `UPDATE clients SET connected = FALSE, goodbye = FALSE, disconnected_at = ?, session_epoch = session_epoch + 1,
			last_seen_at = `+lastSeen+`
			WHERE id IN (SELECT id FROM clients WHERE node_id = ? AND connected ORDER BY id`+tx.dialect.lock+`)`, micros(at), nodeID)
		return err
	})
}
