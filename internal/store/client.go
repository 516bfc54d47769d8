package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/quicflow/quicflow/internal/release"
)

const clientColumns = `id, labels, hostname, os, arch, agent_version, node_id, address, joined_at,
	connected, goodbye, connected_at, disconnected_at, ` + lastSeen + ` AS last_seen_at`

// lastSeen is when a client was last heard of: of one with a session, when its hub last vouched for it.
const lastSeen = `CASE WHEN connected AND last_seen_at < COALESCE((SELECT seen_at FROM nodes WHERE nodes.id = node_id), 0)
	THEN (SELECT seen_at FROM nodes WHERE nodes.id = node_id) ELSE last_seen_at END`

type clientRow struct {
	ID             string `db:"id"`
	Labels         []byte `db:"labels"`
	Hostname       string `db:"hostname"`
	OS             string `db:"os"`
	Arch           string `db:"arch"`
	AgentVersion   string `db:"agent_version"`
	NodeID         string `db:"node_id"`
	Address        string `db:"address"`
	JoinedAt       int64  `db:"joined_at"`
	Connected      bool   `db:"connected"`
	Goodbye        bool   `db:"goodbye"`
	ConnectedAt    int64  `db:"connected_at"`
	DisconnectedAt int64  `db:"disconnected_at"`
	LastSeenAt     int64  `db:"last_seen_at"`
}

// client gives the domain's form. Whoever has no session since before graceStart (in microseconds) is offline.
func (r *clientRow) client(graceStart int64) (release.Client, error) {
	c := release.Client{
		ID: r.ID, Hostname: r.Hostname, OS: r.OS, Arch: r.Arch, AgentVersion: r.AgentVersion,
		NodeID: r.NodeID, Address: r.Address, JoinedAt: fromMicros(r.JoinedAt),
		ConnectedAt: pointerFromMicros(r.ConnectedAt), DisconnectedAt: pointerFromMicros(r.DisconnectedAt),
		LastSeenAt: pointerFromMicros(r.LastSeenAt), Online: r.Connected,
	}
	c.Status = r.status(graceStart)
	if err := json.Unmarshal(r.Labels, &c.Labels); err != nil {
		return c, fmt.Errorf("read labels of client %s: %w", r.ID, err)
	}
	return c, nil
}

func (r *clientRow) status(graceStart int64) release.ClientStatus {
	switch {
	case r.Connected:
		return release.ClientOnline
	case !r.Goodbye && r.DisconnectedAt > graceStart:
		return release.ClientReconnecting
	}
	return release.ClientOffline
}

func (s *Store) graceStart() int64 { return micros(s.now().Add(-s.config.OfflineGrace)) }

// ClientByID gives a client, with its facts.
func (s *Store) ClientByID(ctx context.Context, id string) (release.Client, error) {
	var row clientRow
	err := s.read().get(ctx, &row, `SELECT `+clientColumns+` FROM clients WHERE id = ?`, id)
	if errors.Is(err, sql.ErrNoRows) {
		return release.Client{}, release.NotFound("client", id)
	}
	if err != nil {
		return release.Client{}, fmt.Errorf("read client: %w", err)
	}
	client, err := row.client(s.graceStart())
	if err != nil {
		return client, err
	}
	if err := s.read().get(ctx, (*[]byte)(&client.Facts), `SELECT facts FROM client_facts WHERE client_id = ?`, id); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return client, fmt.Errorf("read facts of client: %w", err)
	}
	return client, nil
}

// ClientFilter picks clients. Its zero value picks all.
type ClientFilter struct {
	Status   release.ClientStatus
	Label    string // "key=value", or "key" for those that have it
	Search   string // part of the id, host name or address, in either case
	Selector string // of those that were not revoked; see release.Selector
	Limit    int    // 0: no limit
	Offset   int
}

func (f ClientFilter) where(d dialect, graceStart int64) *where {
	w := &where{}
	switch f.Status {
	case release.ClientOnline:
		w.add(`connected`)
	case release.ClientReconnecting:
		w.add(`NOT connected AND NOT goodbye AND disconnected_at > ?`, graceStart)
	case release.ClientOffline:
		w.add(`NOT connected AND (goodbye OR disconnected_at <= ?)`, graceStart)
	}
	if key, value, hasValue := strings.Cut(f.Label, "="); hasValue {
		w.add(d.label+` = ?`, key, value)
	} else if key != "" {
		w.add(d.label+` IS NOT NULL`, key)
	}
	if f.Search != "" {
		like := containing(f.Search)
		w.add(`(LOWER(id) LIKE ? ESCAPE '\' OR LOWER(hostname) LIKE ? ESCAPE '\' OR LOWER(address) LIKE ? ESCAPE '\')`, like, like, like)
	}
	return w
}

// beginning is a LIKE pattern, with \ as its escape, for what begins with a text; containing for what holds it. Both are in small letters.
func beginning(text string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.ToLower(text)) + "%"
}

func containing(text string) string { return "%" + beginning(text) }

// Clients gives a page of the clients that the filter picks, in the order of their ids, and the number of all of them.
func (s *Store) Clients(ctx context.Context, f ClientFilter) (clients []release.Client, total int, err error) {
	graceStart := s.graceStart()
	w := f.where(s.dialect, graceStart)
	if f.Selector != "" {
		selector, err := release.ParseSelector(f.Selector)
		if err != nil {
			return nil, 0, release.ErrorAt("selector", err)
		}
		picked, err := s.pick(ctx, w, selector, false)
		if err != nil {
			return nil, 0, err
		}
		page := picked[min(max(0, f.Offset), len(picked)):]
		if f.Limit > 0 {
			page = page[:min(len(page), f.Limit)]
		}
		clients, err = s.clientsOf(ctx, page)
		return clients, len(picked), err
	}
	if err := s.read().get(ctx, &total, `SELECT COUNT(*) FROM clients`+w.String(), w.args...); err != nil {
		return nil, 0, fmt.Errorf("count clients: %w", err)
	}
	var rows []clientRow
	if err := s.read().list(ctx, &rows, `SELECT `+clientColumns+` FROM clients`+w.String()+` ORDER BY id LIMIT ? OFFSET ?`,
		w.page(f.Limit, f.Offset)...); err != nil {
		return nil, 0, fmt.Errorf("list clients: %w", err)
	}
	clients = make([]release.Client, len(rows))
	for i := range rows {
		if clients[i], err = rows[i].client(graceStart); err != nil {
			return nil, 0, err
		}
	}
	return clients, total, nil
}
