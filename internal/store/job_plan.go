package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
)

// PlanJobChunks cuts the targets of a job that are to be carried out into chunks of at most size hosts of one node: those that are
// pending, but not those that wait for a session or a time to come, and those that are running; of a halted job only these. A host
// that has never had a session counts to defaultNode. The chunks replace all of an earlier plan and have new numbers.
func (s *Store) PlanJobChunks(ctx context.Context, jobID string, size int, defaultNode string) (plans []ChunkPlan, err error) {
	if size < 1 {
		return nil, fmt.Errorf("plan chunks: size %d is less than 1", size)
	}
	// Not in the transaction, as nothing depends on it: what is decided in between is not marked.
	var head struct {
		Num    int64 `db:"num"`
		Halted bool  `db:"halted"`
	}
	err = s.read().get(ctx, &head, `SELECT num, halted FROM jobs WHERE id = ?`, jobID)
	if errors.Is(err, sql.ErrNoRows) {
		err = release.NotFound("job", jobID)
	}
	if err != nil {
		return nil, fmt.Errorf("plan chunks: %w", err)
	}
	var rows []struct {
		ClientID string `db:"client_id"`
		NodeID   string `db:"node_id"`
	}
	if err := s.read().list(ctx, &rows, `SELECT t.client_id, COALESCE(c.node_id, '') AS node_id FROM job_targets t LEFT JOIN clients c ON c.id = t.client_id
		WHERE t.job = ? AND (t.state = 'running' OR t.state = 'pending' AND NOT CAST(? AS BOOLEAN) AND NOT t.waits AND t.not_before <= ?) ORDER BY t.client_id`,
		head.Num, head.Halted, micros(s.now())); err != nil {
		return nil, fmt.Errorf("plan chunks: %w", err)
	}
	byNode := map[string][]string{}
	for _, r := range rows {
		node := cmp.Or(r.NodeID, defaultNode)
		byNode[node] = append(byNode[node], r.ClientID)
	}
	err = s.writeShared(ctx, "plan chunks", func(ctx context.Context, tx conn) error {
		plans = nil
		head, err := tx.lockJob(ctx, jobID)
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `DELETE FROM job_chunks WHERE job = ?`, head.Num); err != nil {
			return err
		}
		for _, node := range slices.Sorted(maps.Keys(byNode)) {
			for some := range slices.Chunk(byNode[node], size) {
				head.Chunk++
				if _, err := tx.exec(ctx, `INSERT INTO job_chunks (job, chunk, clients) VALUES (?, ?, ?)`, head.Num, head.Chunk, jsonList(some)); err != nil {
					return err
				}
				plans = append(plans, ChunkPlan{Chunk: head.Chunk, NodeID: node, Size: len(some)})
			}
		}
		_, err = tx.exec(ctx, `UPDATE jobs SET chunk = ? WHERE num = ?`, head.Chunk, head.Num)
		return err
	})
	if err != nil {
		return nil, err
	}
	return plans, nil
}

// JobStep is where a target stands, without what came of it.
type JobStep struct {
	ClientID string    `db:"client_id"`
	State    job.State `db:"state"`
	Epoch    int       `db:"epoch"`
}

// JobSteps says where the targets of a chunk stand, in the order of their client ids; none if there is a newer plan.
func (s *Store) JobSteps(ctx context.Context, jobID string, chunk int) (steps []JobStep, err error) {
	num, clients, err := s.chunkClients(ctx, jobID, chunk)
	if err != nil || len(clients) == 0 {
		return nil, err
	}
	in, list := s.dialect.in(clients)
	if err := s.read().list(ctx, &steps, `SELECT client_id, state, epoch FROM job_targets WHERE job = ? AND client_id `+in+` ORDER BY client_id`, num, list); err != nil {
		return nil, fmt.Errorf("read chunk: %w", err)
	}
	return steps, nil
}

// chunkClients gives a job's number and the clients of a chunk, none if there is a newer plan.
func (s *Store) chunkClients(ctx context.Context, jobID string, chunk int) (num int64, clients []string, err error) {
	var chunks []struct {
		Num     int64  `db:"job"`
		Clients []byte `db:"clients"`
	}
	if err := s.read().list(ctx, &chunks, `SELECT job, clients FROM job_chunks WHERE job = (SELECT num FROM jobs WHERE id = ?) AND chunk = ?`, jobID, chunk); err != nil {
		return 0, nil, fmt.Errorf("read chunk: %w", err)
	}
	if len(chunks) == 0 {
		return 0, nil, nil
	}
	if err := json.Unmarshal(chunks[0].Clients, &clients); err != nil {
		return 0, nil, fmt.Errorf("read chunk %d of job %s: %w", chunk, jobID, err)
	}
	return chunks[0].Num, clients, nil
}

// MarkJobChunk writes down that commands are about to be sent to hosts of a chunk; nothing may be sent before. It gives the clients whose
// target is running now, whether by this call or before, sorted. One that was decided is not among them, nor one that waits for a
// session or for the time of its next try.
//
// If the job is halted, or has ended, halted is true and nothing is marked: marked has only those that were running before. Once there
// is a newer plan marked is empty, and halted is true: a host may be at a later epoch by then than whoever has the old chunk knows of.
func (s *Store) MarkJobChunk(ctx context.Context, jobID string, chunk int, clientIDs []string) (marked []string, halted bool, err error) {
	ids := slices.Compact(slices.Sorted(slices.Values(clientIDs)))
	err = s.writeShared(ctx, "mark commands as dispatched", func(ctx context.Context, tx conn) error {
		marked, halted = nil, false
		// Its lock makes SetJobHalt wait for this transaction, or this one see it.
		head, err := tx.lockJob(ctx, jobID)
		if err != nil {
			return err
		}
		halted = head.Halted || head.FinishedAt != 0
		if len(ids) == 0 {
			return nil
		}
		var known bool
		if err := tx.get(ctx, &known, `SELECT EXISTS (SELECT 1 FROM job_chunks WHERE job = ? AND chunk = ?)`, head.Num, chunk); err != nil {
			return err
		}
		if !known {
			halted = true
			return nil
		}
		in, list := tx.dialect.in(ids)
		if !halted {
			now := micros(s.now())
			n, err := tx.exec(ctx, `UPDATE job_targets SET state = 'running', started_at = ? WHERE job = ? AND client_id `+in+`
				AND state = 'pending' AND NOT waits AND not_before <= ?`, now, head.Num, list, now)
			if err != nil {
				return err
			}
			head.move(job.StatePending, job.StateRunning, int(n))
			if err := tx.writeHeads(ctx, head); err != nil {
				return err
			}
			if int(n) == len(ids) {
				marked = ids
				return nil
			}
		}
		return tx.list(ctx, &marked, `SELECT client_id FROM job_targets WHERE job = ? AND client_id `+in+` AND state = 'running' ORDER BY client_id`, head.Num, list)
	})
	if err != nil {
		return nil, false, err
	}
	return marked, halted, nil
}
