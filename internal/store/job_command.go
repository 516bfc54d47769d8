package store

import (
	"context"
	"fmt"

	"github.com/quicflow/quicflow/internal/job"
)

// CommandFilter picks commands: what single hosts do for jobs. Its zero value picks all.
type CommandFilter struct {
	ClientID    string
	CommandType string
	Status      string // as job.State.CommandStatus says it
	Limit       int    // 0: no limit
	Offset      int
}

// Command is what one host does for a job.
type Command struct {
	Job    job.Job // without Counts and Targets
	Target job.Target
}

// Commands gives a page of commands, those of the newest job first and within it by client, and the number of all of them.
func (s *Store) Commands(ctx context.Context, f CommandFilter) (commands []Command, total int, err error) {
	var states []job.State
	if f.Status != "" {
		if states = job.CommandStates(f.Status); len(states) == 0 {
			return nil, 0, nil
		}
	}
	if f.Limit <= 0 {
		f.Limit = noLimit
	}
	f.Offset = max(0, f.Offset)
	if f.ClientID != "" {
		commands, total, err = s.commandsOfClient(ctx, f, states)
	} else {
		commands, total, err = s.commandsOfAll(ctx, f, states)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list commands: %w", err)
	}
	return commands, total, nil
}

func (w *where) states(states []job.State) {
	if len(states) == 0 {
		return
	}
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = string(s)
	}
	w.add(`t.state IN (?)`, names)
}

// commandsOfClient looks the host up in each job that has several, and finds those that have just this one by an index.
func (s *Store) commandsOfClient(ctx context.Context, f CommandFilter, states []job.State) (commands []Command, total int, err error) {
	w := &where{}
	w.add(`t.client_id = ?`, f.ClientID)
	w.add(`j.only_client IN ('', ?)`, f.ClientID)
	if f.CommandType != "" {
		w.add(`j.command_type = ?`, f.CommandType)
	}
	w.states(states)
	from := ` FROM jobs j ` + s.dialect.inOrder() + ` job_targets t ON t.job = j.num` + w.String()
	if err := s.read().get(ctx, &total, `SELECT COUNT(*)`+from, w.args...); err != nil {
		return nil, 0, err
	}
	var keys []targetKeyRow
	if err := s.read().list(ctx, &keys, `SELECT j.num, t.client_id`+from+` ORDER BY j.num DESC LIMIT ? OFFSET ?`, w.page(f.Limit, f.Offset)...); err != nil {
		return nil, 0, err
	}
	commands, err = s.commandsAt(ctx, keys)
	return commands, total, err
}

// inOrder joins a table to be looked up for each row of what comes before it.
func (d dialect) inOrder() string {
	if d.lock == "" {
		return `CROSS JOIN`
	}
	return `JOIN`
}

type targetKeyRow struct {
	Num      int64  `db:"num"`
	ClientID string `db:"client_id"`
}

// commandsOfAll goes over the jobs, whose counts say what may be passed over.
func (s *Store) commandsOfAll(ctx context.Context, f CommandFilter, states []job.State) (commands []Command, total int, err error) {
	some := sumOfCounts(states)
	w := &where{}
	w.add(some + ` > 0`)
	if f.CommandType != "" {
		w.add(`j.command_type = ?`, f.CommandType)
	}
	if err := s.read().get(ctx, &total, `SELECT CAST(COALESCE(SUM(`+some+`), 0) AS BIGINT) FROM jobs j`+w.String(), w.args...); err != nil {
		return nil, 0, err
	}
	parts, err := s.partsOfPage(ctx, `SELECT j.num, `+some+` FROM jobs j`+w.String()+` ORDER BY j.num DESC`, w.args, f.Offset, f.Limit)
	if err != nil {
		return nil, 0, err
	}
	var keys []targetKeyRow
	for _, p := range parts {
		in := &where{}
		in.add(`t.job = ?`, p.num)
		in.states(states)
		var more []targetKeyRow
		if err := s.read().list(ctx, &more, `SELECT t.job AS num, t.client_id FROM job_targets t`+in.String()+` ORDER BY t.client_id LIMIT ? OFFSET ?`,
			in.page(p.limit, p.offset)...); err != nil {
			return nil, 0, err
		}
		keys = append(keys, more...)
	}
	commands, err = s.commandsAt(ctx, keys)
	return commands, total, err
}

// jobPart is the part of a page that lies in one job.
type jobPart struct {
	num           int64
	offset, limit int
}

// partsOfPage gives what a page takes from which jobs. The query gives the jobs in their order, with the number of rows of each.
func (s *Store) partsOfPage(ctx context.Context, query string, args []any, offset, limit int) (parts []jobPart, err error) {
	rows, err := s.reader.QueryContext(ctx, s.reader.Rebind(query), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for limit > 0 && rows.Next() {
		var num int64
		var n int
		if err := rows.Scan(&num, &n); err != nil {
			return nil, err
		}
		if offset >= n {
			offset -= n
			continue
		}
		take := min(limit, n-offset)
		parts = append(parts, jobPart{num, offset, take})
		offset, limit = 0, limit-take
	}
	return parts, rows.Err()
}

// commandsAt reads commands, in the order of the keys, of which those of a job stand together.
func (s *Store) commandsAt(ctx context.Context, keys []targetKeyRow) ([]Command, error) {
	var commands []Command
	for len(keys) > 0 {
		n := 1
		for n < len(keys) && keys[n].Num == keys[0].Num {
			n++
		}
		found, err := s.listJobs(ctx, ` WHERE j.num = ?`, keys[0].Num)
		if err != nil {
			return nil, err
		}
		ids := make([]string, n)
		for i := range ids {
			ids[i] = keys[i].ClientID
		}
		for _, j := range found { // none if it was deleted in between
			j.Counts, j.Targets.Selector = job.Counts{}, ""
			in, list := s.dialect.in(ids)
			targets, _, err := s.listJobTargets(ctx, j.ID, ` WHERE t.job = ? AND t.client_id `+in+` ORDER BY t.client_id`, keys[0].Num, list)
			if err != nil {
				return nil, err
			}
			for _, t := range targets {
				commands = append(commands, Command{Job: j, Target: t})
			}
		}
		keys = keys[n:]
	}
	return commands, nil
}
