package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"

	"github.com/quicflow/quicflow/internal/release"
)

// maxLabelSets bounds how many sets of labels are remembered while clients are read. Fleets have few.
const maxLabelSets = 10_000

// pickedClient is a client that a selector picks.
type pickedClient struct {
	id     string
	status release.ClientStatus // empty: not read
}

// pick gives the clients that conditions hold for and a selector picks, in the order of their ids. Those that were revoked
// are not. It reads no more of them than the selector needs: this is done for whole fleets. Their status is given if it is
// asked for.
func (s *Store) pick(ctx context.Context, w *where, selector release.Selector, withStatus bool) ([]pickedClient, error) {
	w.add(`revoked_at = 0`)
	for _, r := range selector.Requires() {
		s.dialect.require(w, r)
	}
	p := picker{labelSets: map[string]map[string]string{}}
	columns, from := p.columns(selector, withStatus)
	var args []any
	if p.withStatus {
		args = append(args, s.graceStart())
	}
	rows, err := s.read().query(ctx, `SELECT `+columns+` FROM `+from+w.String(), append(args, w.args...)...)
	if err != nil {
		return nil, fmt.Errorf("read clients: %w", err)
	}
	defer rows.Close()
	var picked []pickedClient
	for rows.Next() {
		if err := p.scan(rows); err != nil {
			return nil, fmt.Errorf("read clients: %w", err)
		}
		if selector.Matches(&p.client) {
			picked = append(picked, pickedClient{p.client.ID, p.client.Status})
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read clients: %w", err)
	}
	// Here, as the database would rather look each client up by its id than read them as they lie.
	slices.SortFunc(picked, func(a, b pickedClient) int { return strings.Compare(a.id, b.id) })
	return picked, nil
}

// picker reads rows into the same client, one after the other.
type picker struct {
	client     release.Client
	withStatus bool
	status     int
	labels     sql.RawBytes
	labelSets  map[string]map[string]string // by their text; nil: labels are not read
	facts      *string
	dest       []any
}

// statuses are as statusColumn numbers them; its parameter is when the grace began.
var statuses = []release.ClientStatus{release.ClientOffline, release.ClientReconnecting, release.ClientOnline}

const statusColumn = `CASE WHEN connected THEN 2 WHEN NOT goodbye AND disconnected_at > ? THEN 1 ELSE 0 END`

func (p *picker) columns(selector release.Selector, withStatus bool) (columns, from string) {
	from = `clients`
	var names []string
	if p.withStatus = withStatus || selector.Uses("status"); p.withStatus { // first, as it has a parameter
		names, p.dest = append(names, statusColumn), append(p.dest, &p.status)
	}
	names, p.dest = append(names, "id"), append(p.dest, &p.client.ID)
	for name, dest := range map[string]any{
		"hostname": &p.client.Hostname, "os": &p.client.OS, "arch": &p.client.Arch, "agent_version": &p.client.AgentVersion, "labels": &p.labels,
	} {
		if selector.Uses(name) {
			names, p.dest = append(names, name), append(p.dest, dest)
		}
	}
	if selector.Uses("facts") {
		from += ` LEFT JOIN client_facts ON client_id = id`
		names, p.dest = append(names, "facts"), append(p.dest, &p.facts)
	}
	return strings.Join(names, ", "), from
}

func (p *picker) scan(rows *sqlx.Rows) error {
	if err := rows.Scan(p.dest...); err != nil {
		return err
	}
	if p.withStatus {
		p.client.Status = statuses[p.status]
	}
	p.client.Facts = nil
	if p.facts != nil {
		p.client.Facts = json.RawMessage(*p.facts)
	}
	if p.labels == nil {
		return nil
	}
	set, known := p.labelSets[string(p.labels)]
	if !known {
		if err := json.Unmarshal(p.labels, &set); err != nil {
			return fmt.Errorf("labels of client %s: %w", p.client.ID, err)
		}
		if len(p.labelSets) < maxLabelSets {
			p.labelSets[string(p.labels)] = set
		}
	}
	p.client.Labels = set
	return nil
}

// require adds a condition that holds for every client that r holds for, and for few others.
func (d dialect) require(w *where, r release.Required) {
	switch r.Key {
	case "id", "hostname", "os", "arch", "agent_version":
		w.add(r.Key+` IN (?)`, r.Values) // the key is one of these words
		return
	}
	if !r.Label {
		return
	}
	var values []string
	var args []any
	for _, value := range r.Values {
		condition, more := d.hasLabel(r.Key, value)
		values, args = append(values, condition), append(args, more...)
	}
	w.add(`(`+strings.Join(values, " OR ")+`)`, args...)
}

// find gives those of the clients, which are sorted, that are known and not revoked.
func (s *Store) find(ctx context.Context, ids []string, withStatus bool) ([]pickedClient, error) {
	var picked []pickedClient
	for some := range slices.Chunk(ids, s.dialect.batch) {
		w := &where{}
		w.add(`id IN (?)`, some)
		found, err := s.pick(ctx, w, release.Selector{}, withStatus)
		if err != nil {
			return nil, err
		}
		picked = append(picked, found...)
	}
	return picked, nil // as the chunks are in order, too
}

// target gives the clients that a task or job is for, and those that are listed but not known.
func (s *Store) target(ctx context.Context, t release.Targets, withStatus bool) (picked []pickedClient, unknown []string, err error) {
	listed := slices.Compact(slices.Sorted(slices.Values(t.Clients)))
	var known []pickedClient
	if len(listed) > 0 {
		if known, err = s.find(ctx, listed, withStatus); err != nil {
			return nil, nil, err
		}
		there := make(map[string]bool, len(known))
		for _, c := range known {
			there[c.id] = true
		}
		for _, id := range listed {
			if !there[id] {
				unknown = append(unknown, id)
			}
		}
	}
	if t.Selector == "" {
		return known, unknown, nil
	}
	selector, err := release.ParseSelector(t.Selector)
	if err != nil {
		return nil, nil, err
	}
	if picked, err = s.pick(ctx, &where{}, selector, withStatus); err != nil {
		return nil, nil, err
	}
	if len(listed) > 0 {
		picked = slices.DeleteFunc(picked, func(c pickedClient) bool { _, in := slices.BinarySearch(listed, c.id); return !in })
	}
	return picked, unknown, nil
}

// ResolveTargets gives the ids of the clients that a task or job is for, sorted. Clients that are listed must be known;
// those that were revoked are not.
func (s *Store) ResolveTargets(ctx context.Context, t release.Targets) ([]string, error) {
	picked, unknown, err := s.target(ctx, t, false)
	if err != nil {
		return nil, err
	}
	const named = 5
	switch n := len(unknown); {
	case n > named:
		return nil, release.Invalid("targets.clients", "%s and %d more are not known", strings.Join(unknown[:named], ", "), n-named)
	case n == 1:
		return nil, release.Invalid("targets.clients", "%s is not known", unknown[0])
	case n > 0:
		return nil, release.Invalid("targets.clients", "%s are not known", strings.Join(unknown, ", "))
	}
	if len(picked) == 0 {
		return nil, release.Invalid("targets", "pick no host")
	}
	ids := make([]string, len(picked))
	for i, c := range picked {
		ids[i] = c.id
	}
	return ids, nil
}

// TargetPreview is whom targets pick.
type TargetPreview struct {
	Total        int
	Online       int
	Reconnecting int
	Offline      int
	Clients      []release.Client // the first ones
	Unknown      []string         // listed, but not known
}

// PreviewTargets says whom targets pick, with at most sample of them.
func (s *Store) PreviewTargets(ctx context.Context, t release.Targets, sample int) (TargetPreview, error) {
	if len(t.Clients) == 0 && t.Selector == "" {
		return TargetPreview{}, release.Invalid("targets", "is empty; list clients or give a selector (* is every known agent)")
	}
	picked, unknown, err := s.target(ctx, t, true)
	if err != nil {
		return TargetPreview{}, err
	}
	p := TargetPreview{Total: len(picked), Unknown: unknown}
	for _, c := range picked {
		switch c.status {
		case release.ClientOnline:
			p.Online++
		case release.ClientReconnecting:
			p.Reconnecting++
		default:
			p.Offline++
		}
	}
	p.Clients, err = s.clientsOf(ctx, picked[:min(len(picked), sample)])
	return p, err
}

// clientsOf reads clients in full, but for their facts.
func (s *Store) clientsOf(ctx context.Context, picked []pickedClient) ([]release.Client, error) {
	graceStart := s.graceStart()
	clients := make([]release.Client, 0, len(picked))
	for some := range slices.Chunk(picked, s.dialect.batch) {
		ids := make([]string, len(some))
		for i, c := range some {
			ids[i] = c.id
		}
		var rows []clientRow
		if err := s.read().list(ctx, &rows, `SELECT `+clientColumns+` FROM clients WHERE id IN (?) ORDER BY id`, ids); err != nil {
			return nil, fmt.Errorf("read clients: %w", err)
		}
		for i := range rows {
			c, err := rows[i].client(graceStart)
			if err != nil {
				return nil, err
			}
			clients = append(clients, c)
		}
	}
	return clients, nil
}
