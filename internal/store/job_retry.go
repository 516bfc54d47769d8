package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quicflow/quicflow/internal/job"
)

// JobRetry says which targets are tried again.
type JobRetry struct {
	Max       int       // targets of this epoch or a later one are not
	OnFailure bool      // those that failed or took too long are, too
	After     time.Time // when the next try may begin; zero: at once
	Offline   bool      // those that are offline wait for a session, in the same epoch, whatever Max is; nothing was started there
}

// RetryJob sets decided targets of a job that goes on back to pending: those that were not started (refused, unless another try would
// end the same, and offline), and if asked for those that failed. Their epoch rises, so that a result of an earlier try changes nothing
// any more; what the earlier try brought is forgotten. It gives the number of targets that are pending again, and where all of them are now.
func (s *Store) RetryJob(ctx context.Context, jobID string, r JobRetry) (retried int, counts job.Counts, err error) {
	err = s.write(ctx, "retry targets", func(tx conn) error {
		retried = 0
		head, err := tx.lockJob(ctx, jobID)
		if err != nil {
			return err
		}
		if counts = head.counts(); head.FinishedAt != 0 {
			return nil
		}
		for _, state := range []struct {
			name job.State
			n    int
		}{{job.StateOffline, counts.Offline}, {job.StateRefused, counts.Refused}, {job.StateFailed, counts.Failed}, {job.StateTimeout, counts.Timeout}} {
			if state.n == 0 || !job.RetryState(state.name, job.Options{RetryOnFailure: r.OnFailure}) {
				continue
			}
			var n int64
			if state.name == job.StateOffline && r.Offline {
				n, err = tx.exec(ctx, `UPDATE job_targets SET state = 'pending', decided = 0, waits = TRUE, error = '', started_at = 0, finished_at = 0
					WHERE job = ? AND state = 'offline'`, head.Num)
			} else {
				n, err = tx.exec(ctx, `UPDATE job_targets SET state = 'pending', decided = 0, epoch = epoch + 1, not_before = ?, final = FALSE, started_at = 0,
					finished_at = 0, exit_code = NULL, error = '', stdout = NULL, stderr = NULL, stdout_bytes = 0, stderr_bytes = 0, result = NULL,
					result_in_log = FALSE, log_end = 0 WHERE job = ? AND state = ? AND epoch < ? AND NOT hopeless`,
					micros(r.After), head.Num, string(state.name), r.Max)
			}
			if err != nil {
				return err
			}
			head.move(state.name, job.StatePending, int(n))
			retried += int(n)
		}
		counts = head.counts()
		return tx.writeHeads(ctx, head)
	})
	if err != nil {
		return 0, job.Counts{}, err
	}
	return retried, counts, nil
}

// AwaitingJobTargets counts the targets that wait for a session of their host, and those of them whose host has one now.
func (s *Store) AwaitingJobTargets(ctx context.Context, jobID string) (waiting, connected int, err error) {
	num, err := s.read().jobNumber(ctx, jobID)
	if err != nil {
		return 0, 0, fmt.Errorf("count waiting targets: %w", err)
	}
	var counts struct {
		Waiting   int `db:"waiting"`
		Connected int `db:"here"`
	}
	if err := s.read().get(ctx, &counts, `SELECT COUNT(*) AS waiting, COUNT(c.id) AS here FROM job_targets t
		LEFT JOIN clients c ON c.id = t.client_id AND c.connected WHERE t.job = ? AND t.waits`, num); err != nil {
		return 0, 0, fmt.Errorf("count waiting targets: %w", err)
	}
	return counts.Waiting, counts.Connected, nil
}

// WakeJobTargets lets the targets whose hosts have come be planned, and gives their number.
func (s *Store) WakeJobTargets(ctx context.Context, jobID string) (woken int, err error) {
	err = s.writeShared(ctx, "wake targets", func(ctx context.Context, tx conn) error {
		head, err := tx.lockJob(ctx, jobID)
		if err != nil {
			return err
		}
		n, err := tx.exec(ctx, `UPDATE job_targets SET waits = FALSE WHERE job = ? AND waits
			AND EXISTS (SELECT 1 FROM clients c WHERE c.id = job_targets.client_id AND c.connected)`, head.Num)
		woken = int(n)
		return err
	})
	if err != nil {
		return 0, err
	}
	return woken, nil
}

// GiveUpJobTargets makes those offline that still wait for a session, and gives their number.
func (s *Store) GiveUpJobTargets(ctx context.Context, jobID string, at time.Time) (offline int, err error) {
	err = s.writeShared(ctx, "give up waiting targets", func(ctx context.Context, tx conn) error {
		head, err := tx.lockJob(ctx, jobID)
		if err != nil {
			return err
		}
		if offline, err = tx.decide(ctx, head, `waits`, job.StatePending, job.StateOffline, notConnected, micros(s.orNow(at))); err != nil {
			return err
		}
		return tx.writeHeads(ctx, head)
	})
	if err != nil {
		return 0, err
	}
	return offline, nil
}
